/* A robust lock: one word. */
#ifndef SHC_LOCK_SHM_H
#define SHC_LOCK_SHM_H

#include "atomic/shc_atomic.h"
#include "base/shc_layout.h"

typedef struct shc_lock_shm {
    shc_a32_t word;
} shc_lock_shm_t;

#define SHC_LOCK_LAYOUT(ROW, T)                                                                                        \
    ROW(T, word, 0, 4, "holder, waiters",                                                                              \
        "holder's participant index + 1 in bits 0-11 (0: free), low 18 bits of its generation, RECOVER, CONTENDED")

SHC_LOCK_LAYOUT(SHC_LAYOUT_ASSERT, shc_lock_shm_t)

#endif
