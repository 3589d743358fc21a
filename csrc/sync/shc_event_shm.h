/* An event count: the word on which waiters of one condition sleep. */
#ifndef SHC_EVENT_SHM_H
#define SHC_EVENT_SHM_H

#include "atomic/shc_atomic.h"
#include "base/shc_layout.h"

typedef struct shc_event_shm {
    shc_a32_t word;
} shc_event_shm_t;

#define SHC_EVENT_LAYOUT(ROW, T)                                                                                       \
    ROW(T, word, 0, 4, "waiters, notifiers",                                                                           \
        "bit 0: somebody may sleep; bits 1-31: sequence, bumped by every real wake")

SHC_EVENT_LAYOUT(SHC_LAYOUT_ASSERT, shc_event_shm_t)

#endif
