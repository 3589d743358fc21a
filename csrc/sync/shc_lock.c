#include "sync/shc_lock.h"

#define SPIN_NS UINT64_C(4000)
#define SLICE_MIN_NS UINT64_C(10000000)
#define SLICE_MAX_NS UINT64_C(100000000)

static bool
holder_is_dead(uint32_t word, const shc_lock_party_t *party)
{
    uint32_t index = (word & SHC_LOCK_INDEX_MASK) - 1;
    uint32_t generation = word >> 12 & SHC_LOCK_GENERATION_MASK;
    return shc_participant_is_dead(party->participants, index, generation, SHC_LOCK_GENERATION_MASK, party->me);
}

/* One attempt. `claim` is our owner word with CONTENDED if we have slept. On SHC_BUSY *seen is the holder's word. */
static int
attempt(shc_lock_shm_t *lock, const shc_lock_party_t *party, uint32_t claim, bool ask_kernel, uint32_t *seen)
{
    *seen = 0;
    if (shc_a32_cas_acquire(&lock->word, seen, claim)) /* A1 */
        return 0;
    if ((*seen & SHC_LOCK_INDEX_MASK) == 0) {
        /* No holder but stray bits: only a scribbler writes that. Taking it over mends it. */
        uint32_t stolen = claim | SHC_LOCK_CONTENDED | SHC_LOCK_RECOVER;
        return shc_a32_cas_acquire(&lock->word, seen, stolen) ? SHC_OWNER_DIED : SHC_BUSY; /* A2 */
    }
    if (!ask_kernel || !holder_is_dead(*seen, party))
        return SHC_BUSY;
    uint32_t stolen = claim | SHC_LOCK_CONTENDED | SHC_LOCK_RECOVER;
    return shc_a32_cas_acquire(&lock->word, seen, stolen) ? SHC_OWNER_DIED : SHC_BUSY; /* A2 */
}

int
shc_lock_try_acquire(shc_lock_shm_t *lock, const shc_lock_party_t *party)
{
    uint32_t seen;
    return attempt(lock, party, shc_lock_owner_word(party), true, &seen);
}

static int
spin(shc_lock_shm_t *lock, const shc_lock_party_t *party, uint32_t claim, uint32_t *seen)
{
    int r = attempt(lock, party, claim, false, seen);
    if (r != SHC_BUSY || shc_os_cpus() == 1)
        return r;
    uint64_t end = shc_os_now_ns() + SPIN_NS;
    do {
        shc_pause();
        if (shc_a32_load_relaxed(&lock->word) == 0)
            r = attempt(lock, party, claim, false, seen);
    } while (r == SHC_BUSY && shc_os_now_ns() < end);
    return r;
}

int
shc_lock_acquire(shc_lock_shm_t *lock, const shc_lock_party_t *party, uint64_t deadline_ns)
{
    uint32_t seen;
    int r = spin(lock, party, shc_lock_owner_word(party), &seen);
    uint32_t claim = shc_lock_owner_word(party) | SHC_LOCK_CONTENDED;
    for (uint64_t slice = SLICE_MIN_NS; r == SHC_BUSY; slice = slice < SLICE_MAX_NS ? 2 * slice : slice) {
        uint32_t marked = seen | SHC_LOCK_CONTENDED;
        if (seen == 0 || (seen != marked && !shc_a32_cas_acquire(&lock->word, &seen, marked))) { /* A1 */
            r = attempt(lock, party, claim, false, &seen);
            continue;
        }
        uint64_t now = shc_os_now_ns();
        if (now >= deadline_ns)
            return SHC_TIMEOUT;
        uint64_t slice_end = deadline_ns - now > slice ? now + slice : deadline_ns;
        int woken = shc_os_futex_wait(&lock->word, marked, slice_end);
        /* Signals can keep every slice from ending by itself: who was interrupted asks, too. */
        r = attempt(lock, party, claim, woken == SHC_TIMEOUT || woken == SHC_INTERRUPTED, &seen);
        if (r == SHC_BUSY && woken == SHC_INTERRUPTED)
            return SHC_INTERRUPTED;
    }
    return r;
}

void
shc_lock_mark_consistent(shc_lock_shm_t *lock)
{
    uint32_t word = shc_a32_load_relaxed(&lock->word);
    while (!shc_a32_cas_seq_cst(&lock->word, &word, word & ~SHC_LOCK_RECOVER)) /* AR1 */
        ;
}

void
shc_lock_release(shc_lock_shm_t *lock)
{
    uint32_t old = shc_a32_exchange_release(&lock->word, 0); /* R1 */
    if (old & SHC_LOCK_CONTENDED)
        (void)shc_os_futex_wake(&lock->word, 1);
}

int
shc_lock_check(const shc_lock_shm_t *lock, const shc_participants_t *table)
{
    uint32_t word = shc_a32_load_relaxed(&lock->word);
    uint32_t index = word & SHC_LOCK_INDEX_MASK;
    return (index == 0 && word != 0) || index > table->count ? SHC_E_CORRUPT : 0;
}
