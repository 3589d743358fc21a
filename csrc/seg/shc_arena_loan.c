/* Blocks that several processes hold; the argument is in shc_arena.h. */
#include "seg/shc_arena_internal.h"

#define PARCEL_BITS (SHC_ARENA_PARCEL | SHC_ARENA_SERIAL_MASK << SHC_ARENA_SERIAL_SHIFT)

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

bool
shc_arena__is_held(const shc_arena_t *a, shc_ref_t ref)
{
    for (uint32_t i = 0; i < a->g.participants; i++) {
        uint32_t n = shc_arena__records(a, i);
        for (uint32_t k = 0; k < n; k++)
            if ((shc_a64_load_acquire(shc_arena__record(a, i, k)) & ~PARCEL_BITS) == ref) /* A6 */
                return true;
    }
    return false;
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

/* Writes a reference, or a parcel of one, into a free record. Whoever looks at all records after SC2 sees it. */
static int
write_record(shc_arena_t *a, uint64_t word, uint32_t *record)
{
    uint32_t me = a->seg->index, n = shc_arena__records(a, me), k = n;
    for (uint32_t i = 0; i < n && k == n; i++) {
        uint32_t at = a->record < n ? a->record : 0;
        if (shc_a64_load_relaxed(shc_arena__record(a, me, at)) == 0)
            k = at;
        a->record = at + 1;
    }
    if (k == n) {
        int r = add_record(a, n);
        if (r != 0)
            return r;
    }
    shc_a64_store_relaxed(shc_arena__record(a, me, k), word);
    shc_fence_seq_cst(); /* SC2 */
    *record = k;
    return 0;
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

/* A record of ours is LEAVING: the last one out releases the block. */
static int
end_leaving(shc_arena_t *a, shc_ref_t ref, uint32_t record)
{
    int r = 0;
    if (shc_arena__close(a, shc_arena__owner(a), ref)) {
        a->outstanding++;
        r = shc_arena_release(a, ref);
    }
    clear_record(a, record);
    return r;
}

int
shc_arena_drop(shc_arena_t *a, shc_ref_t ref, uint32_t record)
{
    if (ref == SHC_ARENA_NOTHING || record >= shc_arena__records(a, a->seg->index))
        return SHC_E_STALE;
    shc_a64_t *word = shc_arena__record(a, a->seg->index, record);
    if (shc_a64_load_relaxed(word) != ref)
        return SHC_E_STALE;
    shc_a64_store_release(word, ref | SHC_ARENA_LEAVING); /* R6 */
    return end_leaving(a, ref, record);
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
        r = write_record(a, ref, &k);
    if (r != 0)
        return r;
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

/* A record that says `word` holds the block of its reference. */
static int
hold_as(shc_arena_t *a, uint64_t word, uint32_t *record)
{
    shc_arena_place_t place;
    shc_ref_t ref = word & SHC_ARENA_REF_MASK;
    uint32_t k;
    int r = write_record(a, word, &k);
    if (r != 0)
        return r;
    r = locate_announced(a, shc_arena__owner(a), ref, &place);
    if (r == 0)
        r = join(a, &place, ref);
    shc_arena__exit(a, shc_arena__owner(a));
    if (r != 0)
        clear_record(a, k);
    else
        *record = k;
    return r;
}

int
shc_arena_hold(shc_arena_t *a, shc_ref_t ref, uint32_t *record)
{
    if (ref == SHC_ARENA_NOTHING || ref > SHC_ARENA_REF_MASK)
        return SHC_E_STALE;
    return hold_as(a, ref, record);
}

/* ---- parcels ---- */

/* Where a parcel was posted; NULL if that cannot be. */
static shc_a64_t *
parcel_record(const shc_arena_t *a, const shc_arena_parcel_t *parcel)
{
    bool known = parcel->index < a->g.participants && (parcel->word & SHC_ARENA_PARCEL) != 0 &&
                 (parcel->word & SHC_ARENA_LEAVING) == 0 && shc_arena_parcel_ref(parcel) != SHC_ARENA_NOTHING;
    if (!known || parcel->record >= shc_arena__records(a, parcel->index))
        return NULL;
    return shc_arena__record(a, parcel->index, parcel->record);
}

int
shc_arena_post(shc_arena_t *a, shc_ref_t ref, shc_arena_parcel_t *parcel)
{
    if (ref == SHC_ARENA_NOTHING || ref > SHC_ARENA_REF_MASK)
        return SHC_E_STALE;
    uint64_t serial = ++a->serial & SHC_ARENA_SERIAL_MASK;
    parcel->word = ref | serial << SHC_ARENA_SERIAL_SHIFT | SHC_ARENA_PARCEL;
    parcel->index = a->seg->index;
    return hold_as(a, parcel->word, &parcel->record);
}

int
shc_arena_collect(shc_arena_t *a, const shc_arena_parcel_t *parcel, uint32_t *record)
{
    shc_a64_t *posted = parcel_record(a, parcel);
    if (posted == NULL)
        return SHC_E_STALE;
    int r = hold_as(a, shc_arena_parcel_ref(parcel), record);
    uint64_t seen = parcel->word;
    if (r == 0)
        (void)shc_a64_cas_seq_cst(posted, &seen, 0); /* AR6 */
    return r;
}

int
shc_arena_recall(shc_arena_t *a, const shc_arena_parcel_t *parcel)
{
    shc_a64_t *posted = parcel->index == a->seg->index ? parcel_record(a, parcel) : NULL;
    shc_ref_t ref = shc_arena_parcel_ref(parcel);
    uint64_t seen = parcel->word;
    if (posted == NULL || !shc_a64_cas_seq_cst(posted, &seen, ref | SHC_ARENA_LEAVING)) /* AR6 */
        return SHC_E_STALE;
    return end_leaving(a, ref, parcel->record);
}

uint32_t
shc_arena_recall_all(shc_arena_t *a)
{
    uint32_t n = shc_arena__records(a, a->seg->index), recalled = 0;
    for (uint32_t k = 0; k < n; k++) {
        uint64_t word = shc_a64_load_relaxed(shc_arena__record(a, a->seg->index, k));
        shc_arena_parcel_t parcel = {.word = word, .index = a->seg->index, .record = k};
        recalled += (word & SHC_ARENA_PARCEL) != 0 && shc_arena_recall(a, &parcel) == 0;
    }
    return recalled;
}
