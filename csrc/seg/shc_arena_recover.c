/* What the dead held, what there is, and whether it can be. */
#include "seg/shc_arena_internal.h"

/* ---- sweep ---- */

typedef struct sweep {
    shc_arena_t *arena;
    uint32_t owner; /* index + 1 of the dead one, under whose stamp everything is done */
    shc_arena_keep_fn keep;
    void *arg;
} sweep_t;

/* *next: what becomes of a word that the dead one left. False: it is not its own. What it was closing is decided
 * before, with its records. */
static bool
successor(const sweep_t *s, uint32_t word, uint64_t offset, uint32_t *next)
{
    uint32_t state = shc_arena_state_of(word), g = shc_arena_generation_of(word);
    bool held = state == SHC_ARENA_OWNED || state == SHC_ARENA_RETIRING;
    if (shc_arena_owner_of(word) != s->owner || !held)
        return false;
    bool kept = s->keep != NULL && s->keep(s->arg, shc_arena_ref(offset, g));
    *next = kept ? shc_arena_state(SHC_ARENA_ATTACHED, 0, g) : shc_arena_state(SHC_ARENA_FREE, 0, g + 1);
    return true;
}

static void
sweep_records(const sweep_t *s)
{
    shc_arena_t *a = s->arena;
    uint32_t n = shc_arena__records(a, s->owner - 1);
    for (uint32_t k = 0; k < n; k++) {
        shc_a64_t *record = shc_arena__record(a, s->owner - 1, k);
        shc_ref_t ref = shc_a64_load_relaxed(record) & SHC_ARENA_REF_MASK;
        if (ref == SHC_ARENA_NOTHING)
            continue;
        shc_a64_store_release(record, ref | SHC_ARENA_LEAVING); /* R6 */
        (void)shc_arena__close(a, s->owner, ref); /* the last one's block is OWNED(dead) now, and is met below */
        shc_a64_store_release(record, 0);         /* R6 */
    }
}

static void
sweep_slab(const sweep_t *s, uint32_t page)
{
    shc_arena_t *a = s->arena;
    uint64_t word = shc_arena__enter(a, s->owner, page);
    uint32_t class = shc_arena_length_of(word);
    if (shc_arena__is_open_slab(word) && class < a->classes) {
        shc_a32_t *states = shc_arena__states(a, page, class);
        for (uint32_t i = 0; i < a->class[class].count; i++) {
            uint32_t seen = shc_a32_load_relaxed(&states[i]);
            uint64_t place = shc_arena__ref_of(a, page, class, i, 0) & SHC_ARENA_PLACE_MASK;
            uint32_t next;
            if (!successor(s, seen, place * SHC_ARENA_UNIT, &next))
                continue;
            if (!shc_a32_cas_seq_cst(&states[i], &seen, next)) /* AR2 */
                continue;
            if (shc_arena_state_of(next) == SHC_ARENA_FREE)
                shc_arena__mark_free(a, page, i / 64, UINT64_C(1) << i % 64);
        }
    }
    shc_arena__exit(a, s->owner);
}

/* A slab that the dead one was emptying is one again. */
static void
open_slab(const sweep_t *s, uint32_t page, uint64_t word)
{
    uint32_t g = shc_arena__generation(word);
    uint64_t open = shc_arena_page(SHC_ARENA_SLAB, shc_arena_length_of(word), shc_arena_state(SHC_ARENA_FREE, 0, g));
    (void)shc_a64_cas_seq_cst(shc_arena__word(s->arena, page), &word, open); /* AR1 */
}

static void
sweep_run(const sweep_t *s, uint32_t page, uint64_t word, uint32_t length)
{
    uint32_t next;
    if (!successor(s, shc_arena_upper_of(word), shc_arena__page_offset(s->arena, page), &next))
        return;
    if (shc_arena_state_of(next) == SHC_ARENA_FREE)
        shc_arena__free_pages(s->arena, page, length, shc_arena_generation_of(next));
    else
        (void)shc_a64_cas_seq_cst(shc_arena__word(s->arena, page), &word,
                                  shc_arena_page(SHC_ARENA_RUN, length, next)); /* AR1 */
}

static void
sweep_page(const sweep_t *s, uint32_t page, uint64_t word, uint32_t length)
{
    bool of_dead = shc_arena_owner_of(shc_arena_upper_of(word)) == s->owner;
    switch (shc_arena_kind_of(word)) {
    case SHC_ARENA_MOVING:
        if (of_dead)
            shc_arena__unback(s->arena, page, length, s->owner);
        break;
    case SHC_ARENA_SLAB:
        if (of_dead && !shc_arena__is_open_slab(word))
            open_slab(s, page, word);
        sweep_slab(s, page);
        break;
    case SHC_ARENA_RUN:
        if (shc_arena__is_free_run(word))
            shc_arena__mark_run(s->arena, page, length); /* if it was freed by the dead one */
        else
            sweep_run(s, page, word, length);
        break;
    default:
        break;
    }
}

/* Ends at a word that no correct process writes: what lies behind it is lost rather than taken from whose run it may
 * be the middle of. */
static void
sweep_pages(const sweep_t *s)
{
    shc_arena_t *a = s->arena;
    uint32_t frontier = shc_arena__frontier(a), length;
    for (uint32_t page = 0; page < frontier; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        if (!shc_arena__walk(a, word, page, &frontier, &length))
            return;
        sweep_page(s, page, word, length);
    }
}

void
shc_arena_sweep(shc_arena_t *a, uint32_t index, shc_arena_keep_fn keep, void *arg)
{
    sweep_t s = {.arena = a, .owner = index + 1, .keep = keep, .arg = arg};
    if (index >= a->g.participants)
        return;
    sweep_records(&s);
    sweep_pages(&s);
    for (uint32_t c = 0; c < SHC_ARENA_CLASSES; c++)
        shc_a8_store_relaxed(&a->parties[index].cached[c], 0);
    shc_arena__exit(a, s.owner);
}

/* ---- statistics ---- */

static void
count_slab(const shc_arena_t *a, uint32_t page, uint32_t class, shc_arena_stats_t *out)
{
    const shc_a32_t *states = shc_arena__states(a, page, class);
    shc_arena_class_stats_t *c = &out->class[class];
    c->pages++;
    c->blocks += a->class[class].count;
    for (uint32_t i = 0; i < a->class[class].count; i++)
        c->used += shc_arena_state_of(shc_a32_load_relaxed(&states[i])) != SHC_ARENA_FREE;
}

static void
add_to_piece(uint64_t *piece, uint64_t bytes, shc_arena_stats_t *out)
{
    *piece += bytes;
    out->bytes_largest = *piece > out->bytes_largest ? *piece : out->bytes_largest;
}

/* Adds a link of the chain; *piece is the length of the available piece that it belongs to. */
static int
count_page(const shc_arena_t *a, uint32_t page, uint64_t word, uint32_t length, uint64_t *piece, shc_arena_stats_t *out)
{
    uint64_t bytes = (uint64_t)length << a->g.page_shift;
    uint32_t kind = shc_arena_kind_of(word);
    bool free = shc_arena__is_free_run(word);
    if (free || kind == SHC_ARENA_UNBACKED)
        add_to_piece(piece, bytes, out);
    else
        *piece = 0;
    if (kind == SHC_ARENA_SLAB && length == 1 && shc_arena_length_of(word) < a->classes)
        count_slab(a, page, shc_arena_length_of(word), out);
    else if (kind == SHC_ARENA_SLAB)
        return SHC_E_CORRUPT;
    if (kind == SHC_ARENA_SLAB || kind == SHC_ARENA_RUN)
        out->bytes_backed += bytes;
    if (free)
        out->bytes_free += bytes;
    else if (kind == SHC_ARENA_RUN) {
        out->bytes_used += bytes;
        out->runs++;
    }
    return 0;
}

static void
add_up(const shc_arena_t *a, shc_arena_stats_t *out)
{
    for (uint32_t i = 0; i < a->g.participants; i++) {
        for (uint32_t c = 0; c < a->classes; c++)
            out->class[c].cached += shc_a8_load_relaxed(&a->parties[i].cached[c]);
        uint32_t n = shc_arena__records(a, i);
        for (uint32_t k = 0; k < n; k++) {
            uint64_t word = shc_a64_load_relaxed(shc_arena__record(a, i, k));
            out->records += word != 0;
            out->posted += (word & SHC_ARENA_POSTED) != 0;
        }
    }
    for (uint32_t c = 0; c < a->classes; c++) {
        shc_arena_class_stats_t *s = &out->class[c];
        s->cached = s->cached < s->used ? s->cached : s->used; /* it is a hint */
        out->bytes_used += (s->used - s->cached) * shc_arena_class_size(c);
    }
    uint64_t unused = out->bytes_total - (out->bytes_used < out->bytes_total ? out->bytes_used : out->bytes_total);
    if (out->bytes_largest < unused)
        out->fragmentation = (uint32_t)(100 * (unused - out->bytes_largest) / unused);
}

int
shc_arena_stats(shc_arena_t *a, shc_arena_stats_t *out)
{
    uint64_t piece = 0;
    uint32_t frontier = shc_arena__frontier(a), length;
    memset(out, 0, sizeof *out);
    out->bytes_total = (uint64_t)a->g.pages << a->g.page_shift;
    for (uint32_t page = 0; page < frontier; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        if (!shc_arena__walk(a, word, page, &frontier, &length))
            return SHC_E_CORRUPT;
        int r = count_page(a, page, word, length, &piece, out);
        if (r != 0)
            return r;
    }
    add_to_piece(&piece, (uint64_t)(a->g.pages - frontier) << a->g.page_shift, out);
    add_up(a, out);
    return 0;
}

int
shc_arena_count_runs(shc_arena_t *a, uint32_t pages, uint64_t *used, uint64_t *free)
{
    uint32_t frontier = shc_arena__frontier(a), length;
    *used = *free = 0;
    for (uint32_t page = 0; page < frontier && pages != 0; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        if (!shc_arena__walk(a, word, page, &frontier, &length))
            return SHC_E_CORRUPT;
        if (shc_arena__is_free_run(word))
            *free += length / pages;
        else if (shc_arena_kind_of(word) == SHC_ARENA_RUN)
            *used += length == pages;
    }
    return 0;
}

/* ---- who holds what ---- */

static void
add_owned(const shc_arena_t *a, uint32_t word, uint64_t bytes, shc_arena_holding_t *out)
{
    uint32_t owner = shc_arena_owner_of(word);
    if (shc_arena_state_of(word) != SHC_ARENA_OWNED || owner == 0 || owner > a->g.participants)
        return;
    out[owner - 1].blocks++;
    out[owner - 1].bytes += bytes;
}

static void
add_page(const shc_arena_t *a, uint32_t page, uint64_t word, uint32_t length, shc_arena_holding_t *out)
{
    uint32_t class = shc_arena_length_of(word);
    if (shc_arena_kind_of(word) == SHC_ARENA_RUN)
        add_owned(a, shc_arena_upper_of(word), (uint64_t)length << a->g.page_shift, out);
    if (!shc_arena__is_open_slab(word) || class >= a->classes)
        return;
    const shc_a32_t *states = shc_arena__states(a, page, class);
    for (uint32_t i = 0; i < a->class[class].count; i++)
        add_owned(a, shc_a32_load_relaxed(&states[i]), shc_arena_class_size(class), out);
}

static void
add_records(const shc_arena_t *a, uint32_t index, shc_arena_holding_t *out)
{
    uint32_t n = shc_arena__records(a, index);
    for (uint32_t k = 0; k < n; k++) {
        uint64_t word = shc_a64_load_relaxed(shc_arena__record(a, index, k));
        out->posted += (word & SHC_ARENA_POSTED) != 0;
        out->shared += word != 0 && (word & SHC_ARENA_POSTED) == 0;
    }
}

static void
leave_out_cached(const shc_arena_t *a, uint32_t index, shc_arena_holding_t *out)
{
    for (uint32_t c = 0; c < a->classes; c++) {
        uint64_t cached = shc_a8_load_relaxed(&a->parties[index].cached[c]), bytes = cached * shc_arena_class_size(c);
        out->blocks -= cached < out->blocks ? cached : out->blocks; /* it is a hint */
        out->bytes -= bytes < out->bytes ? bytes : out->bytes;
    }
}

int
shc_arena_holdings(shc_arena_t *a, shc_arena_holding_t *out)
{
    uint32_t frontier = shc_arena__frontier(a), length;
    memset(out, 0, a->g.participants * sizeof *out);
    for (uint32_t page = 0; page < frontier; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        if (!shc_arena__walk(a, word, page, &frontier, &length))
            return SHC_E_CORRUPT;
        add_page(a, page, word, length, out);
    }
    for (uint32_t i = 0; i < a->g.participants; i++) {
        add_records(a, i, &out[i]);
        leave_out_cached(a, i, &out[i]);
    }
    return 0;
}

static bool
is_slab_used(const shc_arena_t *a, uint32_t page, uint32_t class)
{
    if (class >= a->classes)
        return true;
    const shc_a32_t *states = shc_arena__states(a, page, class);
    for (uint32_t i = 0; i < a->class[class].count; i++)
        if (shc_arena_state_of(shc_a32_load_relaxed(&states[i])) != SHC_ARENA_FREE)
            return true;
    return false;
}

bool
shc_arena_is_used(shc_arena_t *a)
{
    uint32_t frontier = shc_arena__frontier(a), length;
    for (uint32_t page = 0; page < frontier; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        uint32_t kind = shc_arena_kind_of(word);
        if (!shc_arena__walk(a, word, page, &frontier, &length))
            return true;
        if (kind == SHC_ARENA_MOVING || (kind == SHC_ARENA_RUN && !shc_arena__is_free_run(word)) ||
            (kind == SHC_ARENA_SLAB && is_slab_used(a, page, shc_arena_length_of(word))))
            return true;
    }
    return false;
}

/* ---- check ---- */

static bool
is_sound_state(const shc_arena_t *a, uint32_t word)
{
    uint32_t state = shc_arena_state_of(word), owner = shc_arena_owner_of(word);
    bool stamped = state == SHC_ARENA_OWNED || state == SHC_ARENA_RETIRING || state == SHC_ARENA_CLOSING;
    return state <= SHC_ARENA_CLOSING && (stamped ? owner >= 1 && owner <= a->g.participants : owner == 0);
}

/* Somebody holds what is lent, or was killed while letting go. */
static bool
is_known(const shc_arena_t *a, shc_ref_t ref, uint32_t word)
{
    uint32_t state = shc_arena_state_of(word);
    bool lent = state == SHC_ARENA_LOANED || state == SHC_ARENA_CLOSING;
    return !lent || shc_arena__is_recorded(a, ref);
}

static bool
check_slab(const shc_arena_t *a, uint32_t page, uint64_t page_word)
{
    uint32_t class = shc_arena_length_of(page_word);
    uint32_t state = shc_arena_state_of(shc_arena_upper_of(page_word));
    if (class >= a->classes || state > SHC_ARENA_OWNED || (uint32_t)page_word >> 3 != class << 5)
        return false;
    const shc_a32_t *states = shc_arena__states(a, page, class);
    for (uint32_t i = 0; i < a->class[class].count; i++) {
        uint32_t word = shc_a32_load_relaxed(&states[i]);
        shc_ref_t ref = shc_arena__ref_of(a, page, class, i, shc_arena_generation_of(word));
        if (!is_sound_state(a, word) || !is_known(a, ref, word))
            return false;
    }
    return true;
}

static bool
check_page(const shc_arena_t *a, uint32_t page, uint64_t word)
{
    uint32_t upper = shc_arena_upper_of(word), state = shc_arena_state_of(upper);
    if (!is_sound_state(a, upper) || ((uint32_t)word >> 3 & 0x1f) != 0)
        return false;
    shc_ref_t ref = shc_arena_ref(shc_arena__page_offset(a, page), shc_arena_generation_of(upper));
    switch (shc_arena_kind_of(word)) {
    case SHC_ARENA_UNBACKED:
        return state == SHC_ARENA_FREE && shc_arena_length_of(word) == 0;
    case SHC_ARENA_MOVING:
        return state == SHC_ARENA_OWNED;
    case SHC_ARENA_SLAB:
        return check_slab(a, page, word);
    default:
        return is_known(a, ref, upper);
    }
}

static bool
check_head(const shc_arena_t *a)
{
    const shc_arena_shm_t *shm = a->shm;
    bool sound = shc_a64_load_relaxed(&shm->frontier) <= a->g.pages;
    for (size_t i = 0; i < sizeof shm->pad0; i++)
        sound = sound && shm->pad0[i] == 0;
    for (size_t i = 0; i < sizeof shm->pad1; i++)
        sound = sound && shm->pad1[i] == 0;
    for (uint32_t i = 0; i < a->g.participants; i++) {
        const shc_arena_party_shm_t *party = &a->parties[i];
        sound = sound && shc_a64_load_relaxed(&party->page) <= a->g.pages &&
                shc_a32_load_relaxed(&party->records) <= a->g.records;
        for (size_t k = 0; k < sizeof party->spare; k++)
            sound = sound && party->spare[k] == 0;
    }
    return sound;
}

int
shc_arena_check(shc_arena_t *a)
{
    uint32_t frontier = shc_arena__frontier(a), length;
    if (!check_head(a))
        return SHC_E_CORRUPT;
    for (uint32_t page = 0; page < frontier; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        if (!shc_arena__walk(a, word, page, &frontier, &length) || !check_page(a, page, word))
            return SHC_E_CORRUPT;
    }
    return 0;
}

int
shc_arena_inspect(shc_arena_t *a, bool at_rest)
{
    shc_arena_stats_t unused;
    return at_rest ? shc_arena_check(a) : shc_arena_stats(a, &unused);
}

/* ---- who is named ---- */

static bool
slab_names(const shc_arena_t *a, uint32_t page, uint32_t class, uint32_t owner)
{
    const shc_a32_t *states = shc_arena__states(a, page, class);
    for (uint32_t i = 0; i < a->class[class].count; i++)
        if (shc_arena_owner_of(shc_a32_load_relaxed(&states[i])) == owner)
            return true;
    return false;
}

bool
shc_arena_names(shc_arena_t *a, uint32_t index)
{
    uint32_t frontier = shc_arena__frontier(a), length, n = shc_arena__records(a, index);
    bool named = shc_a64_load_relaxed(&a->parties[index].page) != 0;
    for (uint32_t k = 0; k < n; k++)
        named = named || shc_a64_load_relaxed(shc_arena__record(a, index, k)) != 0;
    for (uint32_t page = 0; page < frontier && !named; page += length) {
        uint64_t word = shc_a64_load_acquire(shc_arena__word(a, page)); /* A1 */
        if (!shc_arena__walk(a, word, page, &frontier, &length))
            break;
        uint32_t class = shc_arena_length_of(word);
        named = shc_arena_owner_of(shc_arena_upper_of(word)) == index + 1;
        if (shc_arena_kind_of(word) == SHC_ARENA_SLAB && class < a->classes)
            named = named || slab_names(a, page, class, index + 1);
    }
    return named;
}
