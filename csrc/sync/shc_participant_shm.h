/* A participant slot: one process that has the segment open. */
#ifndef SHC_PARTICIPANT_SHM_H
#define SHC_PARTICIPANT_SHM_H

#include "atomic/shc_atomic.h"
#include "base/shc_layout.h"

typedef struct shc_participant_shm {
    shc_a64_t state;
    shc_a64_t start;
    shc_a64_t pidino;
    shc_a64_t pidns;
    shc_a64_t since;
    shc_a32_t pid;
    shc_a32_t uid;
    shc_a64_t waiters;
    shc_a64_t spare;
} shc_participant_shm_t;

#define SHC_PARTICIPANT_LAYOUT(ROW, T)                                                                                 \
    ROW(T, state, 0, 8, "joiner, owner, reaper",                                                                       \
        "phase 3 | pid of the actor 22 | generation 32; the owner-stamped word")                                       \
    ROW(T, start, 8, 8, "owner", "start time of the process in clock ticks, 0 unknown")                                \
    ROW(T, pidino, 16, 8, "owner", "inode of its pidfd, 0 unknown")                                                    \
    ROW(T, pidns, 24, 8, "owner", "inode of its PID namespace")                                                        \
    ROW(T, since, 32, 8, "owner", "wall clock of joining, ns since 1970, for people")                                  \
    ROW(T, pid, 40, 4, "owner", "process id")                                                                          \
    ROW(T, uid, 44, 4, "owner", "effective user id")                                                                   \
    ROW(T, waiters, 48, 8, "joiner, owner",                                                                            \
        "generation 32 | 32 threads of the process that are in a blocking wait, at most 2^22; for people")             \
    ROW(T, spare, 56, 8, "nobody", "zero")

SHC_PARTICIPANT_LAYOUT(SHC_LAYOUT_ASSERT, shc_participant_shm_t)
_Static_assert(sizeof(shc_participant_shm_t) == 64, "one slot is one cache line");

/* A dead process's slot stays as it is until somebody reaps it; DEAD is written by tests that play a death. */
enum {
    SHC_PARTICIPANT_FREE = 0,
    SHC_PARTICIPANT_JOINING = 1,
    SHC_PARTICIPANT_LIVE = 2,
    SHC_PARTICIPANT_LEAVING = 3,
    SHC_PARTICIPANT_DEAD = 4,
    SHC_PARTICIPANT_REAPING = 5,
};

#define SHC_PARTICIPANT_MAX 2047

/* No process has more threads: the system's numbers for them end there. */
#define SHC_PARTICIPANT_WAITERS_MAX (UINT32_C(1) << 22)

static inline uint64_t
shc_participant_word(uint32_t phase, uint32_t actor_pid, uint32_t generation)
{
    return (uint64_t)phase | (uint64_t)(actor_pid & 0x3fffff) << 3 | (uint64_t)generation << 25;
}

static inline uint32_t
shc_participant_phase(uint64_t word)
{
    return (uint32_t)(word & 7);
}

static inline uint32_t
shc_participant_actor(uint64_t word)
{
    return (uint32_t)(word >> 3) & 0x3fffff;
}

static inline uint32_t
shc_participant_generation(uint64_t word)
{
    return (uint32_t)(word >> 25);
}

static inline uint64_t
shc_participant_waiters_word(uint32_t generation, uint32_t threads)
{
    return (uint64_t)generation << 32 | threads;
}

static inline uint32_t
shc_participant_waiters(uint64_t word)
{
    return (uint32_t)word;
}

static inline uint32_t
shc_participant_waiters_generation(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

#endif
