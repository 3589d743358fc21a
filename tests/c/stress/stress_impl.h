/* What the stress programs share: parties that are threads over one mapping or processes of their own, messages whose
 * content follows from their number, and a wait that notices lost wake-ups.
 *
 * Threads over ONE mapping let ThreadSanitizer judge the pairs; processes show that nothing depends on a shared address
 * space. Each scenario runs both ways. */
#ifndef STRESS_IMPL_H
#define STRESS_IMPL_H

#include <pthread.h>

#include "support/proc.h"
#include "support/segfix.h"
#include "sync/shc_event.h"
#include "t.h"

typedef enum stress_kind {
    THREADS,
    PROCESSES
} stress_kind_t;

typedef struct stress_party {
    void (*role)(struct stress_party *party);
    void *arg;
    unsigned number;
    uint64_t rng;
    pthread_t thread;
    pid_t pid;
} stress_party_t;

static void *
stress_in_thread(void *arg)
{
    stress_party_t *party = arg;
    party->role(party);
    return NULL;
}

static void
stress_in_process(void *arg)
{
    stress_party_t *party = arg;
    CHECK_OK(shc_self_refresh(&fix.self));
    party->role(party);
}

static inline void
stress_start(stress_party_t *party, stress_kind_t kind)
{
    if (kind == THREADS)
        CHECK_EQ(pthread_create(&party->thread, NULL, stress_in_thread, party), 0);
    else
        party->pid = proc_start(stress_in_process, party);
}

static inline void
stress_join(const stress_party_t *party, stress_kind_t kind)
{
    if (kind == THREADS)
        CHECK_EQ(pthread_join(party->thread, NULL), 0);
    else
        proc_join(party->pid);
}

/* Runs all parties to their end; each gets its own random numbers. */
static inline void
stress_run(stress_party_t *parties, unsigned n, stress_kind_t kind, uint64_t *seed)
{
    for (unsigned i = 0; i < n; i++) {
        parties[i].number = i;
        parties[i].rng = t_random(seed);
        stress_start(&parties[i], kind);
    }
    for (unsigned i = 0; i < n; i++)
        stress_join(&parties[i], kind);
}

/* Lets the others go on at unforeseen places. */
static inline void
stress_dawdle(uint64_t *rng)
{
    uint64_t dice = t_random(rng) % 64;
    if (dice == 0)
        shc_os_yield();
    else if (dice == 1)
        proc_sleep_us((long)(t_random(rng) % 50));
}

/* Nobody is killed here, so no wait ever ends by its slice while there is something to do: that would be a lost
 * wake-up. The slice is far longer than any delay of a loaded machine. */
#define STRESS_SLICE_NS UINT64_C(15000000000)

static inline int
stress_wait(shc_event_shm_t *ev, uint32_t prepared)
{
    return shc_event_wait(ev, prepared, shc_os_now_ns() + STRESS_SLICE_NS);
}

/* ---- numbered messages ---- */

static inline uint64_t
stress_hash(uint64_t seed, uint64_t number)
{
    uint64_t state = seed ^ number * UINT64_C(0xd1342543de82ef95);
    return t_random(&state);
}

/* Mostly short ones, sometimes up to max. */
static inline uint32_t
stress_length(uint64_t seed, uint64_t number, uint64_t max)
{
    uint64_t h = stress_hash(seed, number);
    uint64_t limit = h % 8 == 0 ? max : h % 8 == 1 ? 0 : max < 100 ? max : 100;
    return (uint32_t)((h >> 8) % (limit + 1));
}

static inline uint8_t
stress_tag(uint64_t seed, uint64_t number)
{
    return (uint8_t)(stress_hash(seed, number) >> 56);
}

/* Eight bytes at a time: byte i of a message belongs to word i / 8. */
static inline void
stress_fill(uint8_t *dst, uint32_t length, uint64_t seed, uint64_t number)
{
    uint64_t state = stress_hash(seed, number);
    for (uint32_t at = 0; at < length; at += 8) {
        uint64_t word = t_random(&state);
        memcpy(dst + at, &word, length - at < 8 ? length - at : 8);
    }
}

static inline bool
stress_matches(const uint8_t *src, uint32_t length, uint64_t seed, uint64_t number)
{
    uint64_t state = stress_hash(seed, number);
    for (uint32_t at = 0; at < length; at += 8) {
        uint64_t word = t_random(&state);
        if (memcmp(src + at, &word, length - at < 8 ? length - at : 8) != 0)
            return false;
    }
    return true;
}

#endif
