/* Real kills, for what a snapshot cannot show: sleepers of the kernel.
 *
 * A survivor sleeps on a futex of the segment. A victim is stepped to a random instruction of its operation and
 * killed; its zombie stays. The survivor must get through: the only limit is a watchdog, the worst delay is printed.
 * Three ways:
 *   KILL_AT_STEP    the victim works while the survivor sleeps
 *   KILL_ASLEEP     the victim sleeps as well, before the survivor, and is killed in its sleep
 *   KILL_WOKEN      the same, but it is killed when the kernel has woken it and it has done nothing yet, or little
 * And the other way round, crash_stop: the victim is stopped at a random instruction. Nobody may take it for dead,
 * whatever they do meanwhile; continued, it must finish.
 *
 * SHMCOMM_KILLS says how many kills (500), shared by the cases of a test. */
#ifndef CRASH_KILL_H
#define CRASH_KILL_H

#include "support/crash_impl.h"

typedef enum kill_way {
    KILL_AT_STEP,
    KILL_ASLEEP,
    KILL_WOKEN
} kill_way_t;

typedef struct kill_case {
    const char *name;
    kill_way_t way;
    void (*setup)(crash_party_t *parent);     /* on a fresh segment; may be NULL */
    void (*prepare)(crash_party_t *victim);   /* not traced; may be NULL */
    void (*act)(crash_party_t *victim);       /* traced */
    void (*survive)(crash_party_t *survivor); /* must end, whatever happened; uses CHECK* */
    /* What the parent does when the victim is dead, or (KILL_WOKEN) to wake it. May be NULL. */
    void (*after)(crash_party_t *parent);
} kill_case_t;

void crash_kill(const crash_script_t *script, const kill_case_t *cases, size_t n);

typedef struct stop_case {
    const char *name;
    bool outsider;                            /* the victim does not join before */
    void (*setup)(crash_party_t *parent);     /* may be NULL */
    void (*prepare)(crash_party_t *victim);   /* may be NULL */
    void (*act)(crash_party_t *victim);       /* traced; uses CHECK*: it must succeed in the end */
    void (*meanwhile)(crash_party_t *parent); /* again and again while the victim is stopped */
    void (*after)(crash_party_t *parent);     /* when it has finished */
} stop_case_t;

void crash_stop(const crash_script_t *script, const stop_case_t *cases, size_t n);

#endif
