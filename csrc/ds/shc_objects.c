#include "ds/shc_objects.h"

#include <string.h>

static const shc_layout_row_t objects_rows[] = {SHC_OBJECTS_LAYOUT(SHC_LAYOUT_ROW, shc_objects_shm_t) /* */
                                                SHC_OBJECTS_SLOT_LAYOUT(SHC_LAYOUT_ROW, shc_objects_slot_shm_t)};

#define SLOTS_PER_LINE (SHC_CACHE_LINE / sizeof(shc_objects_slot_shm_t))
#define ALL_BITS UINT64_MAX

/* ---- geometry ---- */

static int
validate(const shc_seg_id_t *id)
{
    uint64_t max_size = id->config[SHC_OBJECTS_CONFIG_MAX_SIZE];
    uint64_t slot_size = id->config[SHC_OBJECTS_CONFIG_SLOT_SIZE];
    bool sound = max_size >= 1 && max_size <= SHC_OBJECTS_MAX_SIZE_MAX && slot_size <= SHC_OBJECTS_SLOT_SIZE_MAX &&
                 id->body_size == shc_objects_body_size(max_size, slot_size);
    return sound ? 0 : SHC_E_CORRUPT;
}

uint64_t
shc_objects_body_size(uint64_t max_size, uint64_t slot_size)
{
    return shc_objects_memory_at(max_size) + max_size * shc_objects_pitch(slot_size);
}

/* The hints of word w that belong to slots. */
static uint64_t
bits_of_word(uint32_t max_size, uint32_t w)
{
    uint32_t slots = max_size - w * 64;
    return slots >= 64 ? ALL_BITS : (UINT64_C(1) << slots) - 1;
}

void
shc_objects_open(shc_objects_t *o, const shc_seg_t *seg)
{
    uint8_t *body = shc_seg_body(seg);
    uint64_t max_size = seg->id.config[SHC_OBJECTS_CONFIG_MAX_SIZE];
    memset(o, 0, sizeof *o);
    o->seg = seg;
    o->shm = (shc_objects_shm_t *)(void *)body;
    o->hints = (shc_a64_t *)(void *)(body + sizeof(shc_objects_shm_t));
    o->slots = (shc_objects_slot_shm_t *)(void *)(body + shc_objects_slots_at(max_size));
    o->memory = body + shc_objects_memory_at(max_size);
    o->max_size = (uint32_t)max_size;
    o->slot_size = seg->id.config[SHC_OBJECTS_CONFIG_SLOT_SIZE];
    o->pitch = shc_objects_pitch(o->slot_size);
}

void
shc_objects_init(shc_seg_t *seg)
{
    shc_objects_t o;
    shc_objects_open(&o, seg);
    for (uint32_t w = 0; w < shc_objects_hint_words(o.max_size); w++)
        shc_a64_store_relaxed(&o.hints[w], bits_of_word(o.max_size, w));
}

/* ---- hints ---- */

SHC_COLD void
shc_objects__set_hint(const shc_objects_t *o, uint32_t slot)
{
    (void)shc_a64_fetch_or_seq_cst(&o->hints[slot / 64], UINT64_C(1) << slot % 64); /* SC1 */
}

static bool
is_free(const shc_objects_t *o, uint32_t slot)
{
    return (shc_a64_load_relaxed(&o->slots[slot].word) & SHC_OBJECTS_OWNER) == 0;
}

/* The slot was not free. One try: who changes the word at the same time will be misled as we were, no more. */
static void
clear_hint(const shc_objects_t *o, uint32_t slot)
{
    shc_a64_t *word = &o->hints[slot / 64];
    uint64_t bits = shc_a64_load_relaxed(word);
    (void)shc_a64_cas_seq_cst(word, &bits, bits & ~(UINT64_C(1) << slot % 64)); /* SC1 */
    shc_fence_seq_cst();                                                        /* SC1 */
    if (is_free(o, slot))
        shc_objects__set_hint(o, slot);
}

static bool
take_hinted(const shc_objects_t *o, uint32_t w, uint64_t bits, uint32_t *slot, bool *dirty)
{
    for (; bits != 0; bits &= bits - 1) {
        *slot = w * 64 + shc_lowest_bit(bits);
        if (shc_objects_try_take(o, *slot, dirty))
            return true;
        clear_hint(o, *slot);
    }
    return false;
}

/* ---- taking ---- */

/* Where this process begins to search: far from where others do, so that their words lie on other lines. */
static uint32_t
start_of(const shc_objects_t *o)
{
    return (uint32_t)(o->seg->index * SLOTS_PER_LINE % o->max_size);
}

/* Once round the hints: the first word's upper half first, its lower half last. */
static bool
take_by_hints(const shc_objects_t *o, uint32_t start, uint32_t *slot, bool *dirty)
{
    uint32_t words = (uint32_t)shc_objects_hint_words(o->max_size);
    for (uint32_t k = 0; k <= words; k++) {
        uint32_t w = (start / 64 + k) % words;
        uint64_t mask = bits_of_word(o->max_size, w);
        uint64_t upper = ALL_BITS << start % 64;
        if (k == 0)
            mask &= upper;
        else if (k == words)
            mask &= ~upper;
        if (take_hinted(o, w, shc_a64_load_relaxed(&o->hints[w]) & mask, slot, dirty))
            return true;
    }
    return false;
}

static bool
take_by_words(const shc_objects_t *o, uint32_t start, uint32_t *slot, bool *dirty)
{
    for (uint32_t k = 0; k < o->max_size; k++) {
        *slot = (start + k) % o->max_size;
        if (shc_objects_try_take(o, *slot, dirty))
            return true;
    }
    return false;
}

/* Holders that the kernel called living in this search, so that it is seldom asked twice. */
typedef struct living {
    uint64_t owners[64]; /* each at its index modulo 64 */
} living_t;

static bool
holder_is_dead(const shc_objects_t *o, uint64_t owner, living_t *living)
{
    uint64_t *known = &living->owners[owner % SHC_ARRAY_SIZE(living->owners)];
    if (owner == *known || owner == shc_seg_owner_word(o->seg))
        return false;
    if (shc_seg_owner_is_dead(o->seg, owner))
        return true;
    *known = owner;
    return false;
}

static void
count_deaths(shc_objects_shm_t *shm, uint64_t slots)
{
    (void)shc_a64_fetch_add_relaxed(&shm->deaths, slots);
}

/* True: the slot is ours, from the dead or because it has become free meanwhile. */
static bool
take_over(const shc_objects_t *o, uint32_t slot, living_t *living, bool *dirty)
{
    shc_a64_t *word = &o->slots[slot].word;
    uint64_t seen = shc_a64_load_relaxed(word);
    uint64_t owner = seen & SHC_OBJECTS_OWNER;
    if (owner == 0)
        return shc_objects_try_take(o, slot, dirty);
    if (!holder_is_dead(o, owner, living) ||
        !shc_a64_cas_acquire(word, &seen, shc_seg_owner_word(o->seg) | SHC_OBJECTS_USED)) /* A1 */
        return false;
    count_deaths(o->shm, 1);
    *dirty = true;
    return true;
}

static SHC_NOINLINE bool
take_from_dead(const shc_objects_t *o, uint32_t start, uint32_t *slot, bool *dirty)
{
    living_t living;
    memset(&living, 0, sizeof living);
    for (uint32_t k = 0; k < o->max_size; k++) {
        *slot = (start + k) % o->max_size;
        if (take_over(o, *slot, &living, dirty))
            return true;
    }
    return false;
}

int
shc_objects_take(const shc_objects_t *o, uint32_t *slot, bool *dirty)
{
    uint32_t start = start_of(o);
    bool taken = take_by_hints(o, start, slot, dirty) || take_by_words(o, start, slot, dirty) ||
                 take_from_dead(o, start, slot, dirty);
    return taken ? 0 : SHC_EMPTY;
}

/* A reaped participant's slots become free, and dirty. */
static void
sweep(void *arg, uint32_t index, uint32_t generation)
{
    shc_objects_t o;
    uint64_t dead = (uint64_t)(index + 1) | (uint64_t)generation << 12;
    uint32_t swept = 0;
    shc_objects_open(&o, arg);
    for (uint32_t slot = 0; slot < o.max_size; slot++) {
        uint64_t word = shc_a64_load_relaxed(&o.slots[slot].word);
        if ((word & SHC_OBJECTS_OWNER) != dead ||
            !shc_a64_cas_seq_cst(&o.slots[slot].word, &word, SHC_OBJECTS_USED | SHC_OBJECTS_DIRTY)) /* AR1 */
            continue;
        shc_objects__set_hint(&o, slot);
        swept++;
    }
    if (swept == 0)
        return;
    count_deaths(o.shm, swept);
    shc_event_notify_all(&o.shm->returned);
}

/* ---- looking ---- */

shc_objects_counts_t
shc_objects_count(const shc_objects_t *o)
{
    shc_objects_counts_t n = {0};
    for (uint32_t slot = 0; slot < o->max_size; slot++) {
        uint64_t word = shc_a64_load_relaxed(&o->slots[slot].word);
        bool taken = (word & SHC_OBJECTS_OWNER) != 0;
        n.taken += taken;
        n.used += taken || (word & SHC_OBJECTS_USED) != 0;
        n.dirty += !taken && (word & SHC_OBJECTS_DIRTY) != 0;
    }
    return n;
}

uint32_t
shc_objects_held_by(const shc_objects_t *o, uint32_t index, uint32_t generation)
{
    uint64_t owner = (uint64_t)(index + 1) | (uint64_t)generation << 12;
    uint32_t held = 0;
    for (uint32_t slot = 0; slot < o->max_size; slot++)
        held += (shc_a64_load_relaxed(&o->slots[slot].word) & SHC_OBJECTS_OWNER) == owner;
    return held;
}

static bool
word_is_sound(const shc_objects_t *o, uint64_t word)
{
    uint64_t flags = word & ~SHC_OBJECTS_OWNER;
    if ((word & SHC_OBJECTS_OWNER) == 0)
        return flags == 0 || flags == SHC_OBJECTS_USED || flags == (SHC_OBJECTS_USED | SHC_OBJECTS_DIRTY);
    return flags == SHC_OBJECTS_USED && (word & 0xfff) != 0 && (word & 0xfff) <= o->seg->participants.count;
}

int
shc_objects_check(const shc_objects_t *o)
{
    bool sound = true;
    for (uint32_t slot = 0; slot < o->max_size; slot++)
        sound = sound && word_is_sound(o, shc_a64_load_relaxed(&o->slots[slot].word));
    for (uint32_t w = 0; w < shc_objects_hint_words(o->max_size); w++)
        sound = sound && (shc_a64_load_relaxed(&o->hints[w]) & ~bits_of_word(o->max_size, w)) == 0;
    return sound ? 0 : SHC_E_CORRUPT;
}

/* Each word by itself is sound at any time. */
static int
check_segment(shc_seg_t *seg, bool at_rest)
{
    shc_objects_t o;
    (void)at_rest;
    shc_objects_open(&o, seg);
    return shc_objects_check(&o);
}

const shc_seg_spec_t shc_objects_spec = {
    .kind = SHC_KIND_OBJECTS,
    .rows = objects_rows,
    .row_count = SHC_ARRAY_SIZE(objects_rows),
    .body_align = SHC_HOT_PAD,
    .sweep = sweep,
    .validate = validate,
    .check = check_segment,
};
