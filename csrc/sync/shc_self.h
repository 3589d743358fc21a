/* The calling process as the core sees it: its identity, and an epoch that tells a forked child from its parent.
 *
 * One shc_self_t serves the whole process (the binding owns it). `word` lies on a page that the kernel wipes in a
 * child, so `shc_self_epoch()` reads 0 there until shc_self_refresh() has given the child an identity and a new
 * epoch. A handle stores the epoch under which it joined; one load and one comparison per operation tell that its
 * participant slot, leases and locks belong to the parent. */
#ifndef SHC_SELF_H
#define SHC_SELF_H

#include "os/shc_os.h"

typedef struct shc_self {
    shc_a64_t *word;
    uint64_t epoch; /* of the last refresh in this process or the one that it was forked from */
    shc_identity_t id;
} shc_self_t;

SHC_MUST_USE int shc_self_init(shc_self_t *self);

/* 0 in a forked child that has not refreshed, else > 0 and constant. */
static SHC_ALWAYS_INLINE uint64_t
shc_self_epoch(const shc_self_t *self)
{
    return shc_a64_load_relaxed(self->word);
}

/* Re-reads the identity if this is a forked child; the caller serialises its threads. */
SHC_MUST_USE int shc_self_refresh(shc_self_t *self);

#endif
