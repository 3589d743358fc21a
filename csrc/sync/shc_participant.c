#include "sync/shc_participant.h"

static void
fill_slot(shc_participant_shm_t *slot, const shc_identity_t *me, uint32_t generation, uint64_t since)
{
    shc_a64_store_relaxed(&slot->waiters, shc_participant_waiters_word(generation, 0));
    shc_a64_store_relaxed(&slot->start, me->start);
    shc_a64_store_relaxed(&slot->pidino, me->pidino);
    shc_a64_store_relaxed(&slot->pidns, me->pidns);
    shc_a64_store_relaxed(&slot->since, since);
    shc_a32_store_relaxed(&slot->pid, me->pid);
    shc_a32_store_relaxed(&slot->uid, me->uid);
}

static void
read_identity(const shc_participant_shm_t *slot, shc_identity_t *who)
{
    who->start = shc_a64_load_relaxed(&slot->start);
    who->pidino = shc_a64_load_relaxed(&slot->pidino);
    who->pidns = shc_a64_load_relaxed(&slot->pidns);
    who->pid = shc_a32_load_relaxed(&slot->pid);
    who->uid = shc_a32_load_relaxed(&slot->uid);
}

/* The actor of a JOINING or REAPING word is known by its pid alone. */
static bool
actor_is_dead(uint64_t word, const shc_identity_t *me)
{
    shc_identity_t actor = {.pid = shc_participant_actor(word), .pidns = me->pidns};
    return actor.pid == 0 || shc_os_is_dead(&actor, me);
}

/* Whether whoever the word stands for is dead; *word is what was judged. */
static bool
slot_is_dead(shc_participant_shm_t *slot, const shc_identity_t *me, uint64_t *word)
{
    *word = shc_a64_load_acquire(&slot->state); /* A1 */
    shc_identity_t who;
    switch (shc_participant_phase(*word)) {
    case SHC_PARTICIPANT_FREE:
        return false;
    case SHC_PARTICIPANT_JOINING:
    case SHC_PARTICIPANT_REAPING:
        return actor_is_dead(*word, me);
    case SHC_PARTICIPANT_LIVE:
    case SHC_PARTICIPANT_LEAVING:
        read_identity(slot, &who);
        return who.pid != shc_participant_actor(*word) || shc_os_is_dead(&who, me);
    default:
        return true;
    }
}

static int
take_slot(const shc_participants_t *table, const shc_identity_t *me, uint32_t phase, uint32_t *index,
          uint32_t *generation)
{
    for (uint32_t i = 0; i < table->count; i++) {
        shc_participant_shm_t *slot = &table->slots[i];
        uint64_t word = shc_a64_load_acquire(&slot->state); /* A1 */
        if (shc_participant_phase(word) != SHC_PARTICIPANT_FREE)
            continue;
        uint32_t g = shc_participant_generation(word);
        uint64_t joining = shc_participant_word(SHC_PARTICIPANT_JOINING, me->pid, g);
        if (!shc_a64_cas_seq_cst(&slot->state, &word, joining)) /* AR1 */
            continue;
        fill_slot(slot, me, g, shc_os_wall_ns());
        shc_a64_store_release(&slot->state, shc_participant_word(phase, me->pid, g)); /* R1 */
        *index = i;
        *generation = g;
        return 0;
    }
    return SHC_FULL;
}

int
shc_participant_join(const shc_participants_t *table, const shc_identity_t *me, uint32_t *index, uint32_t *generation)
{
    return take_slot(table, me, SHC_PARTICIPANT_LIVE, index, generation);
}

int
shc_participant_visit(const shc_participants_t *table, const shc_identity_t *me, uint32_t *index, uint32_t *generation)
{
    return take_slot(table, me, SHC_PARTICIPANT_LEAVING, index, generation);
}

void
shc_participant_begin_leave(const shc_participants_t *table, uint32_t index)
{
    shc_participant_shm_t *slot = &table->slots[index];
    uint64_t word = shc_a64_load_relaxed(&slot->state);
    uint64_t leaving =
        shc_participant_word(SHC_PARTICIPANT_LEAVING, shc_participant_actor(word), shc_participant_generation(word));
    (void)shc_a64_cas_seq_cst(&slot->state, &word, leaving); /* AR1 */
    shc_fence_seq_cst();                                     /* SC1 */
}

void
shc_participant_end_leave(const shc_participants_t *table, uint32_t index)
{
    shc_participant_shm_t *slot = &table->slots[index];
    uint32_t g = shc_participant_generation(shc_a64_load_relaxed(&slot->state));
    shc_a64_store_release(&slot->state, shc_participant_word(SHC_PARTICIPANT_FREE, 0, g + 1)); /* R2 */
}

bool
shc_participant_is_dead(const shc_participants_t *table, uint32_t index, uint32_t generation, uint32_t generation_mask,
                        const shc_identity_t *me)
{
    if (index >= table->count)
        return true;
    shc_participant_shm_t *slot = &table->slots[index];
    uint64_t word;
    bool dead = slot_is_dead(slot, me, &word);
    uint32_t phase = shc_participant_phase(word);
    if (((shc_participant_generation(word) ^ generation) & generation_mask) != 0)
        return true;
    return dead || phase == SHC_PARTICIPANT_FREE || phase == SHC_PARTICIPANT_REAPING;
}

uint32_t
shc_participant_count_alive(const shc_participants_t *table, uint32_t self_index, uint32_t enough,
                            const shc_identity_t *me)
{
    uint32_t alive = 0;
    for (uint32_t i = 0; i < table->count && alive < enough; i++) {
        uint64_t word = shc_a64_load_acquire(&table->slots[i].state); /* A1 */
        if (i == self_index || shc_participant_phase(word) != SHC_PARTICIPANT_LIVE)
            continue;
        if (!slot_is_dead(&table->slots[i], me, &word) && shc_participant_phase(word) == SHC_PARTICIPANT_LIVE)
            alive++;
    }
    return alive;
}

bool
shc_participant_any_acts(const shc_participants_t *table, const shc_identity_t *me)
{
    for (uint32_t i = 0; i < table->count; i++) {
        uint64_t word = shc_a64_load_acquire(&table->slots[i].state); /* A1 */
        if (shc_participant_phase(word) != SHC_PARTICIPANT_FREE && !slot_is_dead(&table->slots[i], me, &word) &&
            shc_participant_phase(word) != SHC_PARTICIPANT_FREE)
            return true;
    }
    return false;
}

void
shc_participant_begin_wait(const shc_participants_t *table, uint32_t index, uint32_t generation)
{
    shc_a64_t *waiters = &table->slots[index].waiters;
    uint64_t word = shc_a64_load_relaxed(waiters);
    while (shc_participant_waiters_generation(word) == generation &&
           shc_participant_waiters(word) < SHC_PARTICIPANT_WAITERS_MAX &&
           !shc_a64_cas_relaxed(waiters, &word, word + 1))
        ;
}

void
shc_participant_end_wait(const shc_participants_t *table, uint32_t index, uint32_t generation)
{
    shc_a64_t *waiters = &table->slots[index].waiters;
    uint64_t word = shc_a64_load_relaxed(waiters);
    while (shc_participant_waiters_generation(word) == generation && shc_participant_waiters(word) > 0 &&
           !shc_a64_cas_relaxed(waiters, &word, word - 1))
        ;
}

/* Of whoever has the slot now, if it lives. */
static uint32_t
waiters_in(shc_participant_shm_t *slot, const shc_identity_t *me)
{
    uint64_t waiters = shc_a64_load_relaxed(&slot->waiters);
    uint32_t threads = shc_participant_waiters(waiters);
    uint64_t word;
    if (threads == 0 || slot_is_dead(slot, me, &word) || shc_participant_phase(word) != SHC_PARTICIPANT_LIVE ||
        shc_participant_generation(word) != shc_participant_waiters_generation(waiters))
        return 0;
    return threads < SHC_PARTICIPANT_WAITERS_MAX ? threads : SHC_PARTICIPANT_WAITERS_MAX;
}

uint64_t
shc_participant_count_waiters(const shc_participants_t *table, const shc_identity_t *me)
{
    uint64_t waiters = 0;
    for (uint32_t i = 0; i < table->count; i++)
        waiters += waiters_in(&table->slots[i], me);
    return waiters;
}

static bool
reap_slot(shc_participant_shm_t *slot, uint32_t index, const shc_identity_t *me, shc_sweep_fn sweep, void *arg)
{
    uint64_t word;
    if (!slot_is_dead(slot, me, &word))
        return false;
    uint32_t g = shc_participant_generation(word);
    uint64_t mine = shc_participant_word(SHC_PARTICIPANT_REAPING, me->pid, g);
    if (!shc_a64_cas_seq_cst(&slot->state, &word, mine)) /* AR1 */
        return false;
    if (sweep != NULL)
        sweep(arg, index, g);
    shc_a64_store_release(&slot->state, shc_participant_word(SHC_PARTICIPANT_FREE, 0, g + 1)); /* R2 */
    return true;
}

uint32_t
shc_participant_reap(const shc_participants_t *table, const shc_identity_t *me, shc_sweep_fn sweep, void *arg)
{
    uint32_t reaped = 0;
    for (uint32_t i = 0; i < table->count; i++)
        reaped += reap_slot(&table->slots[i], i, me, sweep, arg);
    return reaped;
}

bool
shc_participant_read(const shc_participants_t *table, uint32_t index, shc_identity_t *who, uint64_t *since,
                     uint32_t *phase, uint32_t *generation)
{
    const shc_participant_shm_t *slot = &table->slots[index];
    uint64_t word = shc_a64_load_acquire(&slot->state); /* A1 */
    read_identity(slot, who);
    *since = shc_a64_load_relaxed(&slot->since);
    *phase = shc_participant_phase(word);
    *generation = shc_participant_generation(word);
    return *phase != SHC_PARTICIPANT_FREE;
}

int
shc_participant_check(const shc_participants_t *table)
{
    for (uint32_t i = 0; i < table->count; i++) {
        const shc_participant_shm_t *slot = &table->slots[i];
        uint64_t word = shc_a64_load_relaxed(&slot->state);
        if (shc_participant_phase(word) > SHC_PARTICIPANT_REAPING || word >> 57 != 0)
            return SHC_E_CORRUPT;
        if (shc_participant_waiters(shc_a64_load_relaxed(&slot->waiters)) > SHC_PARTICIPANT_WAITERS_MAX)
            return SHC_E_CORRUPT;
        if (shc_a64_load_relaxed(&slot->spare) != 0)
            return SHC_E_CORRUPT;
    }
    return 0;
}
