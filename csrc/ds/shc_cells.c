#include "ds/shc_cells.h"

#include <errno.h>
#include <string.h>

#define ONE (UINT64_C(1) << SHC_CELLS_NUMBER_SHIFT)

/* Among living processes nobody loses so many races in a row; rounds in which the caller itself gets on count, too,
 * and of those there are as many as entries. */
#define ROUNDS 4096u

/* So far may recl get ahead of the last number that was counted, before it is written that nothing was to count:
 * numbers compare within half of their range only. */
#define COUNTED_AHEAD (UINT64_C(1) << 62)

/* No more numbers than a copy of recl may be old, so that positions tell how far apart they are: a message takes fewer
 * than twice its cells, with what it skips at the end of the data. */
#define NEAR_MAX ((SHC_CELLS_POSITION + 1) / 2 / (2 * (SHC_CELLS_COUNT_MAX + 1)))

/* ---- geometry ---- */

int
shc_cells_lay_out(shc_cells_geometry_t *g)
{
    if (g->capacity == 0 || g->capacity > SHC_CELLS_CAPACITY_MAX || !shc_is_pow2(g->entries) ||
        g->entries < g->capacity || g->entries > 2 * SHC_CELLS_CAPACITY_MAX || !shc_is_pow2(g->cells) ||
        g->cells < SHC_CELLS_CELLS_MIN || g->cells > SHC_CELLS_CELLS_MAX)
        return -EINVAL;
    g->entries_at = sizeof(shc_cells_shm_t);
    g->cells_at = g->entries_at + g->entries * sizeof(shc_cells_entry_shm_t);
    g->size = g->cells_at + g->cells * SHC_CELLS_CELL;
    return 0;
}

void
shc_cells_to_config(const shc_cells_geometry_t *g, uint64_t config[SHC_CELLS_CONFIG_WORDS])
{
    config[0] = g->capacity;
    config[1] = g->entries | g->cells << 32;
}

int
shc_cells_from_config(const uint64_t config[SHC_CELLS_CONFIG_WORDS], shc_cells_geometry_t *g)
{
    *g = (shc_cells_geometry_t){.capacity = config[0], .entries = config[1] & UINT32_MAX, .cells = config[1] >> 32};
    return shc_cells_lay_out(g) == 0 ? 0 : SHC_E_CORRUPT;
}

void
shc_cells_init(void *at, const shc_cells_geometry_t *g)
{
    shc_cells_t c;
    shc_cells_open(&c, NULL, at, g, 0);
    for (uint64_t i = 0; i < g->entries; i++)
        shc_a64_store_relaxed(&c.entries[i].word, (i << SHC_CELLS_NUMBER_SHIFT) - c.lap);
    shc_a64_store_relaxed(&c.shm->lost, UINT64_C(0) - ONE);
    shc_a64_store_relaxed(&c.shm->aborted, UINT64_C(0) - ONE);
}

static uint64_t
least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void
shc_cells_open(shc_cells_t *c, const shc_seg_t *seg, void *at, const shc_cells_geometry_t *g, uint32_t hold_limit)
{
    memset(c, 0, sizeof *c);
    c->seg = seg;
    c->shm = at;
    c->entries = (shc_cells_entry_shm_t *)(c->shm + 1);
    c->cells = (uint8_t *)(c->entries + g->entries);
    c->entry_mask = g->entries - 1;
    c->cell_count = g->cells;
    c->capacity = g->capacity << SHC_CELLS_NUMBER_SHIFT;
    c->lap = g->entries << SHC_CELLS_NUMBER_SHIFT;
    c->near = least(g->capacity, NEAR_MAX) << SHC_CELLS_NUMBER_SHIFT;
    c->run = least(g->entries - 1, 63) << SHC_CELLS_NUMBER_SHIFT;
    c->chunk = g->capacity < 8 ? 0 : (least(g->capacity / 4, 64) - 1) << SHC_CELLS_NUMBER_SHIFT;
    c->payload_max = (uint32_t)(shc_cells_count_max(g->cells) * SHC_CELLS_CELL);
    c->hold_limit = hold_limit;
    shc_a64_store_relaxed(&c->recl_seen, shc_a64_load_acquire(&c->shm->recl)); /* A3 */
}

static void
wake_all(const shc_cells_t *c)
{
    shc_event_notify_all(&c->shm->items);
    shc_event_notify_all(&c->shm->space);
    shc_event_notify_all(&c->shm->memory);
}

/* ---- helping ---- */

static uint64_t
rounds_of(const shc_cells_t *c)
{
    return c->entry_mask + ROUNDS;
}

static uint64_t
after(const shc_cells_t *c, uint64_t cursor, uint64_t word)
{
    return shc_cells_after(cursor, shc_cells_count_of(word), c->cell_count);
}

static void
move(shc_a64_t *hint, uint64_t from, uint64_t to)
{
    (void)shc_a64_cas_relaxed(hint, &from, to);
}

/* Moves head over what is no message to be taken. Returns where it stands. */
static uint64_t
settle_head(const shc_cells_t *c)
{
    uint64_t head = shc_a64_load_relaxed(&c->shm->head);
    for (uint64_t round = 0; round < rounds_of(c); round++) {
        uint64_t word = shc_a64_load_relaxed(&shc_cells__entry(c, head)->word), state = shc_cells_state(word);
        if (!shc_cells__same(word, head) || state == SHC_CELLS_READY || state == SHC_CELLS_CLAIMED)
            break;
        move(&c->shm->head, head, after(c, head, word));
        head = shc_a64_load_relaxed(&c->shm->head);
    }
    return head;
}

/* Counts message `number_bits`, once: it is recl's turn, so all younger ones will be counted later. */
static void
count_once(shc_a64_t *counter, uint64_t number_bits)
{
    uint64_t seen = shc_a64_load_relaxed(counter);
    while ((int64_t)shc_cells_apart(seen, number_bits) > 0) {
        uint64_t n = seen & SHC_CELLS_POSITION;
        n += n != SHC_CELLS_POSITION;
        if (shc_a64_cas_relaxed(counter, &seen, number_bits | n))
            return;
    }
}

/* Everything before `recl` has been counted. */
static void
count_none(shc_a64_t *counter, uint64_t recl)
{
    uint64_t seen = shc_a64_load_relaxed(counter);
    if (SHC_UNLIKELY(shc_cells_apart(seen, recl) - COUNTED_AHEAD < COUNTED_AHEAD))
        move(counter, seen, ((recl - ONE) & SHC_CELLS_NUMBER) | (seen & SHC_CELLS_POSITION));
}

/* Whether reclamation may go past a message: the one place that knows what it waits for. */
static bool
may_pass(const shc_cells_t *c, uint64_t cursor, uint64_t word)
{
    uint64_t state = shc_cells_state(word);
    if (!shc_cells__same(word, cursor) || !shc_cells_is_over(word))
        return false;
    if (state != SHC_CELLS_FREE)
        count_once(state == SHC_CELLS_LOST ? &c->shm->lost : &c->shm->aborted, cursor & SHC_CELLS_NUMBER);
    return true;
}

/* Moves recl as far as it can go, but not beyond head. Returns where it stands. */
static uint64_t
reclaim(const shc_cells_t *c)
{
    uint64_t recl = shc_a64_load_acquire(&c->shm->recl); /* A3 */
    uint64_t end = settle_head(c), at = recl;
    for (uint64_t i = 0; i <= c->entry_mask && !shc_cells__same(at, end); i++) {
        uint64_t word = shc_a64_load_acquire(&shc_cells__entry(c, at)->word); /* A2 */
        if (!may_pass(c, at, word))
            break;
        at = after(c, at, word);
    }
    if (at == recl || !shc_a64_cas_seq_cst(&c->shm->recl, &recl, at)) /* AR1 */
        return recl;
    count_none(&c->shm->lost, at);
    count_none(&c->shm->aborted, at);
    return at;
}

/* The same, and remembers it for this process's senders. */
static uint64_t
reclaim_and_note(shc_cells_t *c)
{
    uint64_t recl = reclaim(c);
    shc_a64_store_release(&c->recl_seen, recl); /* R4 */
    return recl;
}

SHC_NOINLINE void
shc_cells__reclaim_some(shc_cells_t *c)
{
    (void)reclaim_and_note(c);
}

/* ---- senders ---- */

static int
is_in_the_way(shc_cells_slot_t *slot, shc_cells_entry_shm_t *entry, uint64_t word, int outcome)
{
    slot->entry = entry;
    slot->word = word;
    return outcome;
}

/* Whether a message of `count` cells has room at `tail`, which was read before and not claimed then: 0, SHC_FULL, or
 * SHC_AGAIN. */
static int
look_for_room(shc_cells_t *c, uint64_t tail, uint64_t count, shc_cells_slot_t *slot)
{
    uint64_t head = settle_head(c), recl = reclaim_and_note(c);
    slot->wants_memory = false;
    if ((int64_t)shc_cells_apart(head, tail) < 0 || (int64_t)shc_cells_apart(recl, tail) < 0)
        return SHC_AGAIN;
    bool full = shc_cells_apart(head, tail) >= c->capacity, lapped = shc_cells_apart(recl, tail) >= c->lap;
    if (!full && !lapped && shc_cells__fit(c, shc_cells_after(tail, count, c->cell_count), recl))
        return 0;
    slot->wants_memory = !full && !lapped;
    uint64_t blocked = full ? head : recl;
    shc_cells_entry_shm_t *entry = shc_cells__entry(c, blocked);
    uint64_t word = shc_a64_load_relaxed(&entry->word);
    bool gone = !shc_cells__same(word, blocked) || shc_cells_is_over(word) ||
                (full && shc_cells_state(word) == SHC_CELLS_TAKEN);
    return gone ? SHC_AGAIN : is_in_the_way(slot, entry, word, SHC_FULL);
}

/* One try at `tail`: 0 and the claim, SHC_AGAIN, or why not. */
static int
try_claim(shc_cells_t *c, uint64_t tail, uint64_t count, shc_cells_slot_t *slot)
{
    shc_cells_entry_shm_t *entry = shc_cells__entry(c, tail);
    uint64_t word = shc_a64_load_relaxed(&entry->word);
    if (shc_cells__same(word, tail)) {
        move(&c->shm->tail, tail, after(c, tail, word));
        return SHC_AGAIN;
    }
    if (shc_cells_apart(word, tail) != c->lap)
        return SHC_AGAIN;
    int r = look_for_room(c, tail, count, slot);
    if (r != 0)
        return r;
    slot->base = slot->cursor = tail;
    slot->next = shc_cells_after(tail, count, c->cell_count);
    slot->entry = entry;
    slot->word = shc_cells_word(tail & SHC_CELLS_NUMBER, SHC_CELLS_CLAIMED, count, shc_cells__me(c));
    return shc_a64_cas_seq_cst(&entry->word, &word, slot->word) ? 0 : SHC_AGAIN; /* AR2 */
}

SHC_NOINLINE int
shc_cells__claim_slow(shc_cells_t *c, uint64_t count, shc_cells_slot_t *slot)
{
    for (uint64_t round = 0; round < rounds_of(c); round++) {
        if (shc_a32_load_relaxed(&c->shm->shutdown) != 0)
            return SHC_SHUTDOWN;
        uint64_t tail = shc_a64_load_relaxed(&c->shm->tail);
        int r = try_claim(c, tail, count, slot);
        if (r == 0)
            return shc_cells__claimed(c, slot);
        if (r != SHC_AGAIN)
            return r;
    }
    return SHC_E_CORRUPT;
}

SHC_COLD int
shc_cells__withdraw(shc_cells_t *c, const shc_cells_slot_t *slot)
{
    shc_cells_abort(c, slot);
    return SHC_SHUTDOWN;
}

void
shc_cells_abort(const shc_cells_t *c, const shc_cells_slot_t *slot)
{
    uint64_t word = slot->word & ~(SHC_CELLS_STATE | SHC_CELLS_OWNER);
    shc_a64_store_release(&slot->entry->word, word | SHC_CELLS_ABORTED); /* R2 */
    (void)shc_cells__step(&c->shm->tail, slot);
    shc_event_notify_one(&c->shm->items);
    shc_cells_notify_space(c);
}

/* A place serves any one sender. Memory may be too little for one and enough for another. */
SHC_NOINLINE void
shc_cells__wake_senders(const shc_cells_t *c)
{
    if (shc_a32_load_relaxed(&c->shm->space.word) & SHC_EVENT_SLEEPERS)
        shc_event_wake(&c->shm->space, 1);
    if (shc_a32_load_relaxed(&c->shm->memory.word) & SHC_EVENT_SLEEPERS)
        shc_event_wake(&c->shm->memory, INT32_MAX);
}

/* ---- receivers ---- */

/* What to do about the word that stands at `head`: 0 it can be taken; SHC_AGAIN; SHC_EMPTY; SHC_BUSY;
 * SHC_E_CORRUPT. */
static int
judge_head(const shc_cells_t *c, uint64_t head, uint64_t word)
{
    if (!shc_cells__same(word, head))
        return shc_cells_apart(word, head) == c->lap ? SHC_EMPTY : SHC_AGAIN;
    if (shc_cells_count_of(word) * SHC_CELLS_CELL > c->payload_max)
        return SHC_E_CORRUPT;
    switch (shc_cells_state(word)) {
    case SHC_CELLS_READY:
        return 0;
    case SHC_CELLS_CLAIMED:
        return SHC_BUSY;
    default:
        move(&c->shm->head, head, after(c, head, word));
        return SHC_AGAIN;
    }
}

/* Takes the oldest message whatever the shutdown says. *shut: a shutdown was seen before the last look. */
static int
take_any(shc_cells_t *c, bool *shut, shc_cells_slot_t *slot)
{
    for (uint64_t round = 0; round < rounds_of(c); round++) {
        uint64_t head = shc_a64_load_relaxed(&c->shm->head);
        slot->base = slot->cursor = head;
        slot->entry = shc_cells__entry(c, head);
        slot->word = shc_a64_load_seq_cst(&slot->entry->word); /* SC2, A1 */
        uint64_t word = slot->word;
        int r = judge_head(c, head, word);
        if (r == 0 && shc_cells__take_ready(c, word, slot))
            return shc_cells__taken(c, slot);
        if (r == SHC_EMPTY && !*shut && shc_a32_load_seq_cst(&c->shm->shutdown) != 0) { /* SC1 */
            *shut = true;
            continue;
        }
        if (r != 0 && r != SHC_AGAIN)
            return r;
    }
    return SHC_E_CORRUPT;
}

SHC_NOINLINE int
shc_cells__take_slow(shc_cells_t *c, shc_cells_slot_t *slot)
{
    bool shut = false;
    if (shc_a32_load_relaxed(&c->shm->shutdown) & SHC_CELLS_IMMEDIATE)
        return SHC_SHUTDOWN;
    int r = take_any(c, &shut, slot);
    return r == SHC_EMPTY && shut ? SHC_SHUTDOWN : r;
}

SHC_COLD int
shc_cells__refuse(shc_cells_t *c, const shc_cells_slot_t *slot)
{
    shc_cells_finish(c, slot);
    return SHC_E_CORRUPT;
}

int
shc_cells_hold(shc_cells_t *c)
{
    uint32_t held = shc_a32_load_relaxed(&c->held);
    do {
        if (held >= c->hold_limit)
            return SHC_E_LEASES;
    } while (!shc_a32_cas_relaxed(&c->held, &held, held + 1));
    return 0;
}

void
shc_cells_end_hold(shc_cells_t *c)
{
    (void)shc_a32_fetch_add_relaxed(&c->held, UINT32_MAX);
}

int
shc_cells_peek(const shc_cells_t *c, shc_cells_slot_t *slot)
{
    for (uint64_t round = 0; round < rounds_of(c); round++) {
        uint64_t head = settle_head(c);
        slot->cursor = head;
        slot->entry = shc_cells__entry(c, head);
        slot->word = shc_a64_load_acquire(&slot->entry->word); /* A1 */
        slot->next = after(c, head, slot->word);
        int r = judge_head(c, head, slot->word);
        if (r == SHC_AGAIN)
            continue;
        if (r != 0 || shc_cells__read(c, slot) == 0)
            return r;
        if (shc_cells_peeked(slot))
            return SHC_E_CORRUPT;
    }
    return SHC_E_CORRUPT;
}

bool
shc_cells_peeked(const shc_cells_slot_t *slot)
{
    shc_fence_seq_cst(); /* SC4 */
    return shc_a64_load_relaxed(&slot->entry->word) == slot->word;
}

uint64_t
shc_cells_clear(shc_cells_t *c, void (*drop)(void *arg, const shc_cells_slot_t *slot), void *arg)
{
    uint64_t end = shc_a64_load_relaxed(&c->shm->tail), n = 0;
    bool shut = true;
    shc_cells_slot_t slot;
    while ((int64_t)shc_cells_apart(shc_a64_load_relaxed(&c->shm->head), end) > 0 && n <= c->entry_mask &&
           take_any(c, &shut, &slot) == 0) {
        if (drop != NULL)
            drop(arg, &slot);
        shc_cells_give_back(c, &slot);
        shc_cells_end_takes(c, &slot);
        n++;
    }
    wake_all(c);
    return n;
}

/* ---- the dead ---- */

static bool
is_dead(const shc_cells_t *c, uint64_t word)
{
    uint32_t index = (uint32_t)(word & SHC_CELLS_OWNER) - 1;
    return index != c->seg->index && shc_participant_is_dead(&c->seg->participants, index, 0, 0, &c->seg->self->id);
}

/* What the owner in `word` was writing or reading comes to nothing. */
static bool
lose(shc_cells_entry_shm_t *entry, uint64_t word)
{
    uint64_t lost = (word & ~(SHC_CELLS_STATE | SHC_CELLS_OWNER)) | SHC_CELLS_LOST;
    return shc_a64_cas_seq_cst(&entry->word, &word, lost); /* AR3 */
}

bool
shc_cells_unblock(const shc_cells_t *c, const shc_cells_slot_t *slot)
{
    if (shc_a64_load_relaxed(&slot->entry->word) != slot->word)
        return true;
    if (!shc_cells_is_held(slot->word) || !is_dead(c, slot->word))
        return false;
    if (lose(slot->entry, slot->word)) {
        (void)reclaim(c);
        wake_all(c);
    }
    return true;
}

void
shc_cells_sweep(const shc_cells_t *c, uint32_t index)
{
    bool swept = false;
    for (uint64_t i = 0; i <= c->entry_mask; i++) {
        uint64_t word = shc_a64_load_relaxed(&c->entries[i].word);
        if (shc_cells_is_held(word) && (word & SHC_CELLS_OWNER) == index + UINT64_C(1))
            swept |= lose(&c->entries[i], word);
    }
    if (!swept)
        return;
    (void)reclaim(c);
    wake_all(c);
}

/* ---- anybody ---- */

void
shc_cells_shutdown(const shc_cells_t *c, bool immediate)
{
    uint32_t flags = SHC_CELLS_SHUTDOWN | (immediate ? SHC_CELLS_IMMEDIATE : 0);
    (void)shc_a32_fetch_or_seq_cst(&c->shm->shutdown, flags); /* AR4 */
    wake_all(c);
}

uint64_t
shc_cells_length(const shc_cells_t *c)
{
    uint64_t head = shc_a64_load_relaxed(&c->shm->head);
    uint64_t apart = shc_cells_apart(head, shc_a64_load_relaxed(&c->shm->tail));
    return (int64_t)apart <= 0 ? 0 : least(apart, c->capacity) >> SHC_CELLS_NUMBER_SHIFT;
}

/* From recl on, what was claimed; `visit` may see one that has come to an end meanwhile. Returns behind the last
 * one. */
static uint64_t
walk(const shc_cells_t *c, void (*visit)(void *arg, const shc_cells_slot_t *slot), void *arg)
{
    uint64_t at = shc_a64_load_acquire(&c->shm->recl); /* A3 */
    for (uint64_t i = 0; i <= c->entry_mask; i++) {
        shc_cells_slot_t slot = {.entry = shc_cells__entry(c, at), .cursor = at};
        slot.word = shc_a64_load_acquire(&slot.entry->word); /* A1, A2 */
        if (!shc_cells__same(slot.word, at) || shc_cells_count_of(slot.word) * SHC_CELLS_CELL > c->payload_max)
            break;
        slot.next = after(c, at, slot.word);
        if (shc_cells__read(c, &slot) != 0)
            slot.length = slot.room;
        visit(arg, &slot);
        at = slot.next;
    }
    return at;
}

typedef struct visitor {
    void (*visit)(void *arg, const shc_cells_slot_t *slot);
    void *arg;
} visitor_t;

static void
visit_if_open(void *arg, const shc_cells_slot_t *slot)
{
    const visitor_t *visitor = arg;
    if (!shc_cells_is_over(slot->word))
        visitor->visit(visitor->arg, slot);
}

void
shc_cells_walk(const shc_cells_t *c, void (*visit)(void *arg, const shc_cells_slot_t *slot), void *arg)
{
    visitor_t visitor = {visit, arg};
    (void)walk(c, visit_if_open, &visitor);
}

typedef struct tally {
    shc_cells_counts_t n;
    uint64_t lost; /* the counters as they were before the walk */
    uint64_t aborted;
} tally_t;

/* Behind recl, but its last step may have been cut off between counting and moving. */
static bool
is_uncounted(uint64_t counter, const shc_cells_slot_t *slot)
{
    return (int64_t)shc_cells_apart(counter, slot->cursor) > 0;
}

static void
count_state(void *arg, const shc_cells_slot_t *slot)
{
    tally_t *t = arg;
    uint64_t state = shc_cells_state(slot->word);
    t->n.lost += state == SHC_CELLS_LOST && is_uncounted(t->lost, slot);
    t->n.aborted += state == SHC_CELLS_ABORTED && is_uncounted(t->aborted, slot);
    t->n.writing += state == SHC_CELLS_CLAIMED;
    t->n.ready += state == SHC_CELLS_READY;
    t->n.held += state == SHC_CELLS_TAKEN;
}

shc_cells_counts_t
shc_cells_count(const shc_cells_t *c)
{
    tally_t t = {.lost = shc_a64_load_relaxed(&c->shm->lost), .aborted = shc_a64_load_relaxed(&c->shm->aborted)};
    t.n.lost = t.lost & SHC_CELLS_POSITION;
    t.n.aborted = t.aborted & SHC_CELLS_POSITION;
    uint64_t claimed = walk(c, count_state, &t) >> SHC_CELLS_NUMBER_SHIFT;
    t.n.sent = claimed - t.n.aborted - t.n.writing;
    t.n.received = t.n.sent - t.n.lost - t.n.ready - t.n.held;
    return t.n;
}

uint32_t
shc_cells_held_by(const shc_cells_t *c, uint32_t index)
{
    uint32_t n = 0;
    for (uint64_t i = 0; i <= c->entry_mask; i++) {
        uint64_t word = shc_a64_load_relaxed(&c->entries[i].word);
        n += shc_cells_is_held(word) && (word & SHC_CELLS_OWNER) == index + UINT64_C(1);
    }
    return n;
}

/* ---- check ---- */

typedef struct findings {
    const shc_cells_t *c;
    uint64_t at; /* the cursor that the walk has reached */
    uint64_t recl;
    bool sound;
    bool head_met;
    bool tail_met;
} findings_t;

static void
meet_cursors(findings_t *f)
{
    f->head_met |= shc_a64_load_relaxed(&f->c->shm->head) == f->at;
    f->tail_met |= shc_a64_load_relaxed(&f->c->shm->tail) == f->at;
}

static void
check_entry(void *arg, const shc_cells_slot_t *slot)
{
    findings_t *f = arg;
    uint64_t owner = slot->word & SHC_CELLS_OWNER, state = shc_cells_state(slot->word);
    meet_cursors(f);
    bool taken_or_over = state != SHC_CELLS_CLAIMED && state != SHC_CELLS_READY;
    f->sound &= state <= SHC_CELLS_TAKEN && (f->head_met || taken_or_over);
    f->sound &= shc_cells_is_over(slot->word) ? owner == 0 : owner != 0 && owner <= f->c->seg->participants.count;
    f->sound &= shc_cells__fit(f->c, slot->next, f->recl);
    f->at = slot->next;
}

/* Behind the last claimed message: the lap before, all over. */
static bool
rest_is_over(const shc_cells_t *c, uint64_t from, uint64_t n)
{
    bool sound = true;
    for (uint64_t i = 0; i < n; i++, from += ONE) {
        uint64_t word = shc_a64_load_relaxed(&shc_cells__entry(c, from)->word);
        sound = sound && shc_cells_apart(word, from) == c->lap && shc_cells_is_over(word);
    }
    return sound;
}

static bool
counter_is_sound(const shc_a64_t *counter, uint64_t end)
{
    return (int64_t)shc_cells_apart(shc_a64_load_relaxed(counter), end) > 0;
}

/* Whether tail is where the walk has come by, or behind: a dead process may have claimed some numbers beyond it, and
 * recl may have passed them since. */
static bool
tail_is_sound(const findings_t *f, uint64_t end)
{
    uint64_t tail = shc_a64_load_relaxed(&f->c->shm->tail);
    bool behind = (int64_t)shc_cells_apart(tail, f->recl) > 0;
    return (f->tail_met || behind) && shc_cells_apart(tail, end) <= f->c->run + ONE;
}

int
shc_cells_check(const shc_cells_t *c)
{
    findings_t f = {.c = c, .at = shc_a64_load_acquire(&c->shm->recl), .sound = true}; /* A3 */
    f.recl = f.at;
    uint64_t end = walk(c, check_entry, &f);
    uint64_t claimed = shc_cells_apart(f.recl, end) >> SHC_CELLS_NUMBER_SHIFT;
    meet_cursors(&f);
    bool sound = f.sound && f.at == end && f.head_met && tail_is_sound(&f, end);
    sound = sound && rest_is_over(c, end, c->entry_mask + 1 - claimed);
    sound = sound && counter_is_sound(&c->shm->lost, end) && counter_is_sound(&c->shm->aborted, end);
    return sound ? 0 : SHC_E_CORRUPT;
}
