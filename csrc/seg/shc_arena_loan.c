/* Blocks that several processes hold; the argument is in shc_arena.h. */
#include "seg/shc_arena_internal.h"

shc_a64_t *
shc_arena__record(const shc_arena_t *a, uint32_t index, uint32_t k)
{
    shc_a64_t *records = shc_seg_at(a->seg, a->g.record_table + index * a->g.record_stride);
    return &records[k];
}

uint32_t
shc_arena__records(const shc_arena_t *a, uint32_t index)
{
    uint32_t n = shc_a32_load_relaxed(&a->parties[index].records);
    return n < a->g.records ? n : a->g.records;
}

static bool
any_record(const shc_arena_t *a, uint64_t mask, uint64_t wanted)
{
    for (uint32_t i = 0; i < a->g.participants; i++) {
        uint32_t n = shc_arena__records(a, i);
        for (uint32_t k = 0; k < n; k++)
            if ((shc_a64_load_acquire(shc_arena__record(a, i, k)) & mask) == wanted) /* A6 */
                return true;
    }
    return false;
}

bool
shc_arena__is_held(const shc_arena_t *a, shc_ref_t ref)
{
    return any_record(a, SHC_ARENA_REF_MASK | SHC_ARENA_LEAVING, ref);
}

bool
shc_arena__is_recorded(const shc_arena_t *a, shc_ref_t ref)
{
    return any_record(a, SHC_ARENA_REF_MASK, ref);
}

/* ---- one record ---- */

/* Memory for the record behind the last one that has it. */
static int
add_record(shc_arena_t *a, uint32_t n)
{
    uint32_t me = a->seg->index;
    if (n == a->g.records)
        return SHC_E_LEASES;
    if (n % SHC_ARENA_RECORDS_STEP == 0) {
        uint64_t offset = a->g.record_table + me * a->g.record_stride + n * sizeof(shc_a64_t);
        int r = shc_seg_reserve(a->seg, offset, SHC_ARENA_RECORDS_STEP * sizeof(shc_a64_t));
        if (r != 0)
            return r;
    }
    shc_a32_store_relaxed(&a->parties[me].records, n + 1);
    return 0;
}

/* A record to write to, in *record. */
static int
find_record(shc_arena_t *a, uint32_t *record)
{
    uint32_t me = a->seg->index, n = shc_arena__records(a, me);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = a->record < n ? a->record : 0;
        a->record = at + 1;
        if (shc_a64_load_relaxed(shc_arena__record(a, me, at)) != 0)
            continue;
        *record = at;
        return 0;
    }
    int r = add_record(a, n);
    if (r == 0)
        *record = n;
    return r;
}

/* Whoever looks at all records after SC2 sees it. */
static void
write_record(shc_arena_t *a, uint32_t record, uint64_t word)
{
    shc_a64_store_relaxed(shc_arena__record(a, a->seg->index, record), word);
    shc_fence_seq_cst(); /* SC2 */
}

static void
clear_record(const shc_arena_t *a, uint32_t record)
{
    shc_a64_store_release(shc_arena__record(a, a->seg->index, record), 0); /* R6 */
}

/* ---- letting go ---- */

static bool
is_lent(uint32_t word, shc_ref_t ref)
{
    uint32_t state = shc_arena_state_of(word);
    return (state == SHC_ARENA_LOANED || state == SHC_ARENA_CLOSING) &&
           shc_arena_generation_of(word) == shc_arena_ref_generation(ref);
}

/* LOANED or CLOSING(anybody) -> CLOSING(owner). False: the block is not lent (any more). */
static bool
begin_closing(shc_arena_t *a, const shc_arena_place_t *place, shc_ref_t ref, uint32_t closing)
{
    for (uint32_t round = 0; round < SHC_ARENA_ROUNDS; round++) {
        uint32_t seen = shc_arena__load(a, place);
        if (!is_lent(seen, ref))
            return false;
        if (shc_arena__change(a, place, seen, closing))
            return true;
    }
    return false;
}

static bool
close_located(shc_arena_t *a, uint32_t owner, const shc_arena_place_t *place, shc_ref_t ref)
{
    uint32_t g = shc_arena_ref_generation(ref);
    uint32_t closing = shc_arena_state(SHC_ARENA_CLOSING, owner, g);
    if (!begin_closing(a, place, ref, closing))
        return false;
    shc_fence_seq_cst(); /* SC2 */
    if (!shc_arena__is_held(a, ref))
        return shc_arena__change(a, place, closing, shc_arena_state(SHC_ARENA_OWNED, owner, g));
    /* If this fails, somebody else has taken it over, and decides. */
    (void)shc_arena__change(a, place, closing, shc_arena_state(SHC_ARENA_LOANED, 0, g));
    return false;
}

/* Announces a change in the slab that a reference leads to, and finds the block there. */
static int
locate_announced(shc_arena_t *a, uint32_t owner, shc_ref_t ref, shc_arena_place_t *place)
{
    int r = shc_arena__locate(a, ref, place);
    if (r != 0 || place->word == NULL)
        return r;
    uint64_t word = shc_arena__enter(a, owner, place->page);
    return word == place->page_word ? 0 : SHC_E_STALE;
}

bool
shc_arena__close(shc_arena_t *a, uint32_t owner, shc_ref_t ref)
{
    shc_arena_place_t place;
    bool last = locate_announced(a, owner, ref, &place) == 0 && close_located(a, owner, &place, ref);
    shc_arena__exit(a, owner);
    return last;
}

/* Lets go of what one of our records holds, if that is `word`. */
static int
drop_record(shc_arena_t *a, uint32_t k, uint64_t word)
{
    shc_ref_t ref = word & SHC_ARENA_REF_MASK;
    if (k >= shc_arena__records(a, a->seg->index))
        return SHC_E_STALE;
    shc_a64_t *record = shc_arena__record(a, a->seg->index, k);
    if (!shc_a64_cas_seq_cst(record, &word, ref | SHC_ARENA_LEAVING)) /* AR5, R6 */
        return SHC_E_STALE;
    int r = 0;
    if (shc_arena__close(a, shc_arena__owner(a), ref)) {
        a->outstanding++;
        r = shc_arena_release(a, ref);
    }
    clear_record(a, k);
    return r;
}

int
shc_arena_drop(shc_arena_t *a, shc_ref_t ref, uint32_t record)
{
    return shc_arena_is_ref(ref) ? drop_record(a, record, ref) : SHC_E_STALE;
}

/* ---- taking hold ---- */

int
shc_arena_lend(shc_arena_t *a, shc_ref_t ref, uint32_t *record)
{
    shc_arena_place_t place;
    uint32_t g = shc_arena_ref_generation(ref), k;
    uint32_t mine = shc_arena_state(SHC_ARENA_OWNED, shc_arena__owner(a), g);
    int r = shc_arena__locate(a, ref, &place);
    if (r == 0 && shc_arena__load(a, &place) != mine)
        r = SHC_E_STALE;
    if (r == 0)
        r = find_record(a, &k);
    if (r != 0)
        return r;
    write_record(a, k, ref);
    if (!shc_arena__change(a, &place, mine, shc_arena_state(SHC_ARENA_LOANED, 0, g))) {
        clear_record(a, k);
        return SHC_E_STALE;
    }
    a->outstanding--;
    *record = k;
    return 0;
}

/* The record is written: whether the block is lent, and stays so. */
static int
join(shc_arena_t *a, const shc_arena_place_t *place, shc_ref_t ref)
{
    uint32_t loaned = shc_arena_state(SHC_ARENA_LOANED, 0, shc_arena_ref_generation(ref));
    for (uint32_t round = 0; round < SHC_ARENA_ROUNDS; round++) {
        uint32_t seen = shc_arena__load(a, place);
        if (seen == loaned)
            return 0;
        if (!is_lent(seen, ref))
            return SHC_E_STALE;
        if (shc_arena__change(a, place, seen, loaned))
            return 0;
    }
    return SHC_E_CORRUPT;
}

/* One more record of a block that is lent; `marks` are kept in it beside the reference. */
static int
hold_as(shc_arena_t *a, shc_ref_t ref, uint64_t marks, uint32_t *record)
{
    shc_arena_place_t place;
    uint32_t k;
    if (!shc_arena_is_ref(ref)) /* it would not be found in the record */
        return SHC_E_STALE;
    int r = find_record(a, &k);
    if (r != 0)
        return r;
    write_record(a, k, ref | marks);
    r = locate_announced(a, shc_arena__owner(a), ref, &place);
    if (r == 0)
        r = join(a, &place, ref);
    shc_arena__exit(a, shc_arena__owner(a));
    if (r == 0)
        *record = k;
    else if (r == SHC_E_CORRUPT) /* undecided: somebody who closed may have left the block to us */
        (void)drop_record(a, k, ref | marks);
    else
        clear_record(a, k);
    return r;
}

int
shc_arena_hold(shc_arena_t *a, shc_ref_t ref, uint32_t *record)
{
    return hold_as(a, ref, 0, record);
}

/* ---- on its way ---- */

/* A ticket: {participant index | record 16 | nonce 9}. */
#define TICKET_RECORD_SHIFT 9
#define TICKET_INDEX_SHIFT 25

static uint64_t
posted_word(shc_ref_t ref, uint64_t nonce)
{
    return ref | SHC_ARENA_POSTED | (nonce & SHC_ARENA_NONCE_MASK) << 53;
}

int
shc_arena_post(shc_arena_t *a, shc_ref_t ref, uint64_t *ticket)
{
    uint32_t k;
    uint64_t nonce = ++a->posted & SHC_ARENA_NONCE_MASK;
    int r = hold_as(a, ref, posted_word(0, nonce), &k);
    if (r == 0)
        *ticket = nonce | (uint64_t)k << TICKET_RECORD_SHIFT | (uint64_t)a->seg->index << TICKET_INDEX_SHIFT;
    return r;
}

int
shc_arena_collect(shc_arena_t *a, shc_ref_t ref, uint64_t ticket, uint32_t *record)
{
    uint64_t index = ticket >> TICKET_INDEX_SHIFT, k = ticket >> TICKET_RECORD_SHIFT & 0xffff;
    int r = hold_as(a, ref, 0, record);
    if (r != 0)
        return r;
    uint64_t posted = posted_word(ref, ticket);
    if (index < a->g.participants &&
        k < shc_arena__records(a, (uint32_t)index)) /* ours holds it: this is not the last */
        (void)shc_a64_cas_seq_cst(shc_arena__record(a, (uint32_t)index, (uint32_t)k), &posted, 0); /* AR5 */
    return 0;
}

int
shc_arena_unpost(shc_arena_t *a, shc_ref_t ref, uint64_t ticket)
{
    if (!shc_arena_is_ref(ref) || ticket >> TICKET_INDEX_SHIFT != a->seg->index)
        return SHC_E_STALE;
    return drop_record(a, (uint32_t)(ticket >> TICKET_RECORD_SHIFT & 0xffff), posted_word(ref, ticket));
}

uint32_t
shc_arena_unpost_all(shc_arena_t *a)
{
    uint32_t n = shc_arena__records(a, a->seg->index), unposted = 0;
    for (uint32_t k = 0; k < n; k++) {
        uint64_t word = shc_a64_load_relaxed(shc_arena__record(a, a->seg->index, k));
        unposted += (word & SHC_ARENA_POSTED) != 0 && drop_record(a, k, word) == 0;
    }
    return unposted;
}
