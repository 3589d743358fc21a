/* How often an end looks at its partner's line.
 *
 * In a stream, each look takes the cache line away from the partner, who is about to write it again, and both wait for
 * it: 50 ns where the cores share a cache, 500 ns where they are far apart, for a message that costs 25. So in a stream
 * whoever may wait stands off until 2 us after the last look began, and finds many messages at once.
 *
 * Whether this is a stream only a trial can tell: two messages may be all that a partner sends before it waits for the
 * answer. After a number of plain looks, one look stands off. If it finds at least 8 messages (or room for so many) and
 * twice as many as the last plain look, standing off pays, and up to 64 looks do it as long as it does; then a plain
 * one measures again. If the trial finds less, the next one comes after twice as many plain looks, at most 4,096:
 * whoever answers message by message loses 2 us in thousands of trips.
 *
 * Private to the process, whose threads change it as they like: it only says when to look. */
#ifndef SHC_PACE_H
#define SHC_PACE_H

#include "atomic/shc_atomic.h"

typedef struct shc_pace {
    shc_a32_t standing;   /* looks that stood off one after the other, the coming one included; 0: it is plain */
    shc_a32_t plain;      /* plain looks since the last trial */
    shc_a32_t plain_gain; /* what the last of them found */
    shc_a32_t patience;   /* plain looks before a trial; 0: the least */
    shc_a64_t looked_ns;  /* when the last look that stood off began */
} shc_pace_t;

static SHC_ALWAYS_INLINE bool
shc_pace_stands_off(const shc_pace_t *pace)
{
    return shc_a32_load_relaxed(&pace->standing) != 0;
}

/* Before a look that may wait. */
void shc_pace_before_look(shc_pace_t *pace, uint64_t deadline_ns);

/* After a look in vain at now_ns, when the next one need not come at once. */
void shc_pace_stand_off(shc_pace_t *pace, uint64_t now_ns, uint64_t deadline_ns);

/* After a look that found `gained` messages, or room for so many. */
void shc_pace_after_look(shc_pace_t *pace, uint64_t gained);

#endif
