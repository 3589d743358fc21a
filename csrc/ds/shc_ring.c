#include "ds/shc_ring.h"

#include <string.h>

#include "base/shc_math.h"
#include "ds/shc_ring_extent.h"

static const shc_layout_row_t ring_rows[] = {SHC_RING_LAYOUT(SHC_LAYOUT_ROW, shc_ring_shm_t)           /* */
                                             SHC_ARENA_LAYOUT(SHC_LAYOUT_ROW, shc_arena_shm_t)         /* */
                                             SHC_ARENA_MAP_LAYOUT(SHC_LAYOUT_ROW, shc_arena_map_shm_t) /* */
                                             SHC_ARENA_PARTY_LAYOUT(SHC_LAYOUT_ROW, shc_arena_party_shm_t)};

/* ---- geometry and cursors ---- */

static inline shc_ring_cursor_t
unpack(uint64_t word)
{
    return (shc_ring_cursor_t){.position = word & SHC_RING_POSITION_MASK, .count = word >> 40};
}

static inline uint64_t
units_between(uint64_t from, uint64_t to)
{
    return (to - from) & SHC_RING_POSITION_MASK;
}

static inline uint64_t
messages_between(uint64_t from, uint64_t to)
{
    return (to - from) & SHC_RING_COUNT_MASK;
}

/* What any two cursors of a ring must satisfy, whoever wrote them. */
static inline bool
cursors_fit(const shc_ring_t *ring, shc_ring_cursor_t head, shc_ring_cursor_t tail)
{
    uint64_t units = units_between(head.position, tail.position);
    uint64_t messages = messages_between(head.count, tail.count);
    return units <= ring->units && messages <= ring->capacity && messages <= units && (messages != 0 || units == 0);
}

uint64_t
shc_ring_body_size(uint64_t data_bytes)
{
    return sizeof(shc_ring_shm_t) + data_bytes;
}

/* The arena of a ring whose body begins at `body`. */
static int
arena_geometry(const uint64_t *config, uint64_t body, uint32_t participants, shc_arena_geometry_t *g)
{
    uint64_t ring_end = body + shc_ring_body_size(config[SHC_RING_CONFIG_DATA_BYTES]);
    uint64_t at = shc_align_up(ring_end, UINT64_C(1) << SHC_EXTENT_PAGE_SHIFT);
    return shc_arena_from_config(config + SHC_RING_CONFIG_ARENA, at, participants, g);
}

static bool
has_arena(const uint64_t *config)
{
    return config[SHC_RING_CONFIG_ARENA] != 0;
}

void
shc_ring_set_extent_bytes(uint64_t config[SHC_SEG_CONFIG_WORDS], uint64_t bytes)
{
    uint64_t pages = bytes >> SHC_EXTENT_PAGE_SHIFT;
    shc_arena_geometry_t g = {.pages = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX, /* lay_out refuses so many */
                              .page_shift = SHC_EXTENT_PAGE_SHIFT};
    shc_arena_to_config(&g, config + SHC_RING_CONFIG_ARENA);
    if (bytes == 0)
        config[SHC_RING_CONFIG_ARENA] = 0;
}

uint64_t
shc_ring_extent_bytes(const uint64_t config[SHC_SEG_CONFIG_WORDS])
{
    return (uint64_t)(uint32_t)config[SHC_RING_CONFIG_ARENA] << SHC_EXTENT_PAGE_SHIFT;
}

int
shc_ring_lay_out(shc_seg_create_args_t *args)
{
    uint64_t ring = shc_ring_body_size(args->config[SHC_RING_CONFIG_DATA_BYTES]), body;
    shc_arena_geometry_t g;
    args->body_size = 0;
    memset(args->reserved, 0, sizeof args->reserved);
    int r = shc_seg_size_for(&shc_ring_spec, args, &body); /* of no body: where one begins */
    args->body_size = ring;
    if (r != 0 || !has_arena(args->config))
        return r;
    r = arena_geometry(args->config, body, args->participants, &g);
    if (r != 0)
        return SHC_E_TOO_LARGE;
    args->body_size = g.end - body;
    args->reserved[0] = (shc_seg_range_t){.from = 0, .n = ring};
    shc_arena_reservation(&g, body, &args->reserved[1]);
    return 0;
}

static bool
is_laid_out(const shc_seg_id_t *id, uint64_t data_bytes)
{
    shc_arena_geometry_t g;
    if (has_arena(id->config) != ((id->flags & SHC_SEG_FLAG_GROWS) != 0))
        return false; /* memory would be used that nobody has reserved */
    if (!has_arena(id->config))
        return id->body_size == shc_ring_body_size(data_bytes) && id->config[SHC_RING_CONFIG_ARENA + 1] == 0;
    return arena_geometry(id->config, id->body_offset, id->participants, &g) == 0 && g.end == id->size &&
           g.page_shift == SHC_EXTENT_PAGE_SHIFT;
}

static int
validate(const shc_seg_id_t *id)
{
    uint64_t capacity = id->config[SHC_RING_CONFIG_CAPACITY];
    uint64_t data_bytes = id->config[SHC_RING_CONFIG_DATA_BYTES];
    bool sound = capacity >= 1 && capacity <= SHC_RING_CAPACITY_MAX && shc_is_pow2(data_bytes) &&
                 data_bytes >= SHC_RING_DATA_BYTES_MIN && data_bytes <= SHC_RING_DATA_BYTES_MAX &&
                 is_laid_out(id, data_bytes);
    return sound ? 0 : SHC_E_CORRUPT;
}

static shc_arena_geometry_t
geometry_of(const shc_seg_t *seg)
{
    shc_arena_geometry_t g;
    (void)!arena_geometry(seg->id.config, seg->id.body_offset, seg->id.participants, &g); /* it was validated */
    return g;
}

void
shc_ring_init(shc_seg_t *seg)
{
    /* Reserved memory is zero, and so is an empty ring. */
    if (!has_arena(seg->id.config))
        return;
    shc_arena_geometry_t g = geometry_of(seg);
    shc_arena_init(seg, &g);
}

void
shc_ring_extents_open(shc_arena_t *arena, shc_seg_t *seg)
{
    shc_arena_geometry_t g = geometry_of(seg);
    shc_arena_open(arena, seg, &g);
}

void
shc_ring_open(shc_ring_t *ring, shc_seg_t *seg)
{
    memset(ring, 0, sizeof *ring);
    ring->seg = seg;
    ring->shm = shc_seg_body(seg);
    ring->data = (uint8_t *)(ring->shm + 1);
    ring->units = seg->id.config[SHC_RING_CONFIG_DATA_BYTES] >> 3;
    ring->capacity = seg->id.config[SHC_RING_CONFIG_CAPACITY];
    ring->has_extents = has_arena(seg->id.config);
    ring->payload_max = shc_ring_payload_max(ring->units << 3, ring->has_extents);
    ring->key = seg->id.key;
    ring->send_watch.word = &ring->shm->head;
    ring->receive_watch.word = &ring->shm->tail;
}

/* ---- leases ---- */

static shc_a64_t *
lease_of(const shc_ring_t *ring, int end)
{
    return end == SHC_RING_PRODUCER ? &ring->shm->producer : &ring->shm->consumer;
}

/* The hint nearest to what it was whose low bits agree with the cursor's count. */
static uint64_t
rebuild_total(uint64_t hint, uint64_t count)
{
    uint64_t missing = messages_between(hint & SHC_RING_COUNT_MASK, count);
    return missing <= SHC_RING_COUNT_MASK / 2 ? hint + missing : hint - (SHC_RING_COUNT_MASK + 1 - missing);
}

static int
load_producer(shc_ring_t *ring)
{
    shc_ring_cursor_t tail = unpack(shc_a64_load_acquire(&ring->shm->tail)); /* A1 */
    shc_ring_cursor_t head = unpack(shc_a64_load_acquire(&ring->shm->head)); /* A2 */
    if (!cursors_fit(ring, head, tail))
        return SHC_E_CORRUPT;
    ring->tail.position = tail.position;
    ring->tail.count = rebuild_total(shc_a64_load_relaxed(&ring->shm->sent), tail.count);
    ring->head_copy = head;
    ring->room_units = ring->claim_skip = 0;
    return 0;
}

static void
note_backlog(shc_ring_t *ring)
{
    uint64_t backlog = messages_between(ring->read.count, ring->tail_copy.count);
    if (backlog > ring->peak) {
        ring->peak = backlog;
        shc_a64_store_relaxed(&ring->shm->peak, backlog);
    }
}

static int
load_consumer(shc_ring_t *ring)
{
    shc_ring_cursor_t head = unpack(shc_a64_load_acquire(&ring->shm->head)); /* A2 */
    shc_ring_cursor_t tail = unpack(shc_a64_load_acquire(&ring->shm->tail)); /* A1 */
    if (!cursors_fit(ring, head, tail))
        return SHC_E_CORRUPT;
    ring->read.position = ring->run_end = head.position;
    ring->read.count = rebuild_total(shc_a64_load_relaxed(&ring->shm->received), head.count);
    ring->inherited_end = ring->read.position + units_between(head.position, tail.position);
    ring->tail_copy = tail;
    ring->peak = shc_a64_load_relaxed(&ring->shm->peak);
    ring->hold_first = ring->hold_last = 0;
    return 0;
}

static void
count_death(shc_ring_t *ring, int end)
{
    shc_a64_t *deaths = end == SHC_RING_PRODUCER ? &ring->shm->producer_deaths : &ring->shm->consumer_deaths;
    shc_a64_store_relaxed(deaths, shc_a64_load_relaxed(deaths) + 1);
}

int
shc_ring_take(shc_ring_t *ring, int end)
{
    shc_a64_t *lease = lease_of(ring, end);
    uint64_t me = shc_seg_owner_word(ring->seg);
    uint64_t holder = shc_a64_load_relaxed(lease);
    int outcome = 0;
    while (holder != me) {
        if (holder != 0 && !shc_seg_owner_is_dead(ring->seg, holder))
            return SHC_BUSY;
        outcome = holder != 0 ? SHC_OWNER_DIED : 0;
        if (shc_a64_cas_acquire(lease, &holder, me)) /* AR1 */
            break;
    }
    if (outcome == SHC_OWNER_DIED)
        count_death(ring, end);
    int r = end == SHC_RING_PRODUCER ? load_producer(ring) : load_consumer(ring);
    if (r != 0)
        shc_ring_drop(ring, end);
    else if (end == SHC_RING_CONSUMER)
        note_backlog(ring);
    return r != 0 ? r : outcome;
}

void
shc_ring_drop(shc_ring_t *ring, int end)
{
    shc_a64_t *lease = lease_of(ring, end);
    if (shc_a64_load_relaxed(lease) == shc_seg_owner_word(ring->seg))
        shc_a64_store_release(lease, 0); /* R3 */
}

/* What is on its way, or was just received, stays with its message; the rest is free. */
static void
sweep_extents(shc_seg_t *seg, uint32_t index)
{
    shc_ring_t ring;
    shc_arena_t arena;
    shc_ring_open(&ring, seg);
    shc_ring_extents_open(&arena, seg);
    if (shc_arena_is_fresh(&arena))
        return;
    shc_ring_settle_extents(&ring, &arena, index);
    shc_arena_sweep(&arena, index, NULL, NULL);
}

/* A reaped participant's ends become free. */
static void
sweep(void *arg, uint32_t index, uint32_t generation)
{
    shc_seg_t *seg = arg;
    shc_ring_shm_t *shm = shc_seg_body(seg);
    if (has_arena(seg->id.config))
        sweep_extents(seg, index);
    uint64_t dead = (uint64_t)(index + 1) | (uint64_t)generation << 12;
    uint64_t word = dead;
    if (shc_a64_cas_seq_cst(&shm->producer, &word, 0)) /* AR1 */
        shc_a64_store_relaxed(&shm->producer_deaths, shc_a64_load_relaxed(&shm->producer_deaths) + 1);
    word = dead;
    if (shc_a64_cas_seq_cst(&shm->consumer, &word, 0)) /* AR1 */
        shc_a64_store_relaxed(&shm->consumer_deaths, shc_a64_load_relaxed(&shm->consumer_deaths) + 1);
}

uint32_t
shc_ring_holder_pid(const shc_ring_t *ring, int end)
{
    uint64_t word = shc_a64_load_relaxed(lease_of(ring, end));
    uint32_t index = (uint32_t)(word & 0xfff) - 1;
    shc_identity_t who;
    uint64_t since;
    uint32_t phase, generation;
    if (index >= ring->seg->participants.count)
        return 0;
    if (!shc_participant_read(&ring->seg->participants, index, &who, &since, &phase, &generation))
        return 0;
    return generation == (uint32_t)(word >> 12) ? who.pid : 0;
}

/* ---- producer ---- */

/* Units that a record which needs need_units may take: behind the tail, or (claim_skip != 0) at the start of the data.
 * A skip that was not staged is thought over by the next claim: room_units 0 sends it here. */
static uint64_t
place_record(shc_ring_t *ring, uint64_t need_units)
{
    uint64_t free_units = ring->units - units_between(ring->head_copy.position, ring->tail.position);
    uint64_t to_end = ring->units - (ring->tail.position & (ring->units - 1));
    uint64_t here = free_units < to_end ? free_units : to_end;
    bool wraps = free_units > to_end && to_end < need_units;
    ring->claim_skip = wraps ? to_end : 0;
    ring->room_units = wraps ? 0 : here;
    ring->room_count = ring->tail.count + ring->capacity - messages_between(ring->head_copy.count, ring->tail.count);
    return wraps ? free_units - to_end : here;
}

static bool
fits(shc_ring_t *ring, uint64_t need_units, uint64_t *room_units)
{
    *room_units = place_record(ring, need_units);
    return *room_units >= need_units && ring->tail.count != ring->room_count;
}

static int
refresh_head(shc_ring_t *ring)
{
    uint64_t word = shc_a64_load_acquire(&ring->shm->head); /* A2 */
    shc_ring_cursor_t head = unpack(word);
    if (!cursors_fit(ring, head, ring->tail))
        return SHC_E_CORRUPT;
    ring->head_copy = head;
    ring->send_watch.seen = word;
    return 0;
}

SHC_NOINLINE int
shc_ring__make_room(shc_ring_t *ring, uint64_t need_units, uint64_t *room_units)
{
    if (fits(ring, need_units, room_units))
        return 0;
    int r = refresh_head(ring);
    if (r != 0)
        return r;
    return fits(ring, need_units, room_units) ? 0 : SHC_FULL;
}

SHC_COLD void
shc_ring__stage_skip(shc_ring_t *ring)
{
    uint64_t skip = shc_ring_record_head(ring, ring->tail.position, SHC_RING_SKIP, 0);
    memcpy(shc_ring_record_at(ring, ring->tail.position), &skip, sizeof skip);
    ring->tail.position += ring->claim_skip;
    (void)place_record(ring, 0);
}

/* ---- consumer ---- */

int
shc_ring__look(shc_ring_t *ring)
{
    uint64_t word = shc_a64_load_acquire(&ring->shm->tail); /* A1 */
    shc_ring_cursor_t tail = unpack(word);
    ring->receive_watch.seen = word;
    if (word == shc_ring_word(ring->read))
        return SHC_EMPTY;
    if (!cursors_fit(ring, ring->read, tail))
        return SHC_E_CORRUPT;
    ring->tail_copy = tail;
    note_backlog(ring);
    return 0;
}

/* Nothing is left: is that for ever? Who shut down may have published just before. */
static int
empty_or_shutdown(shc_ring_t *ring)
{
    if (shc_a32_load_acquire(&ring->shm->shutdown) == 0) /* A3 */
        return SHC_EMPTY;
    int r = shc_ring__look(ring);
    return r == SHC_EMPTY ? SHC_SHUTDOWN : r;
}

/* How far the consumer may read without a look: to tail_copy, or to the end of the data if that comes first. */
static void
measure_run(shc_ring_t *ring)
{
    uint64_t to_tail = units_between(ring->read.position, ring->tail_copy.position);
    uint64_t to_end = ring->units - (ring->read.position & (ring->units - 1));
    ring->run_end = ring->read.position + (to_tail < to_end ? to_tail : to_end);
}

SHC_NOINLINE int
shc_ring__find_run(shc_ring_t *ring)
{
    int r = 0;
    if (units_between(ring->read.position, ring->tail_copy.position) == 0)
        r = shc_ring__look(ring);
    if (r == SHC_EMPTY)
        r = empty_or_shutdown(ring);
    if (r == 0)
        measure_run(ring);
    return r;
}

/* Steps over the mark that fills the end of the data; a message must follow it. */
SHC_COLD int
shc_ring__skip_to_start(shc_ring_t *ring, uint64_t head)
{
    uint64_t rest = ring->units - (ring->read.position & (ring->units - 1));
    if (head != shc_ring_record_head(ring, ring->read.position, SHC_RING_SKIP, 0) ||
        rest >= units_between(ring->read.position, ring->tail_copy.position))
        return SHC_E_CORRUPT;
    ring->read.position += rest;
    measure_run(ring);
    return 0;
}

SHC_COLD void
shc_ring__extend_hold(shc_ring_t *ring)
{
    ring->holds[(ring->hold_last - 1) % SHC_RING_HOLDS].end = ring->read;
}

int
shc_ring_hold(shc_ring_t *ring, const shc_ring_message_t *msg, uint32_t *hold)
{
    if (ring->hold_last - ring->hold_first == SHC_RING_HOLDS)
        return SHC_E_LEASES;
    shc_ring__go_past(ring, msg);
    *hold = ring->hold_last++;
    ring->holds[*hold % SHC_RING_HOLDS] = (shc_ring_hold_t){.end = ring->read, .released = false};
    return 0;
}

void
shc_ring_mark_released(shc_ring_t *ring, uint32_t hold)
{
    ring->holds[hold % SHC_RING_HOLDS].released = true;
}

bool
shc_ring_settle_holds(shc_ring_t *ring)
{
    shc_ring_cursor_t end = ring->read;
    uint32_t first = ring->hold_first;
    while (ring->hold_first != ring->hold_last && ring->holds[ring->hold_first % SHC_RING_HOLDS].released)
        end = ring->holds[ring->hold_first++ % SHC_RING_HOLDS].end;
    if (ring->hold_first == first)
        return false;
    shc_a64_store_release(&ring->shm->head, shc_ring_word(end)); /* R2 */
    shc_a64_store_relaxed(&ring->shm->received, end.count);
    return true;
}

int
shc_ring__next(shc_ring_t *ring, shc_ring_message_t *msg)
{
    for (;;) {
        measure_run(ring);
        uint64_t head = shc_racy_u64(shc_ring_record_at(ring, ring->read.position));
        if (shc_ring__read_record(ring, head, msg) == 0)
            return 0;
        int r = shc_ring__skip_to_start(ring, head);
        if (r != 0)
            return r;
    }
}

void
shc_ring__forget(shc_ring_t *ring)
{
    ring->read.position += units_between(ring->read.position, ring->tail_copy.position);
    ring->read.count += messages_between(ring->read.count, ring->tail_copy.count);
    ring->run_end = ring->read.position;
    if (ring->hold_first != ring->hold_last)
        shc_ring__extend_hold(ring);
    shc_ring_give_back(ring);
}

int
shc_ring_clear(shc_ring_t *ring)
{
    int r = shc_ring__look(ring);
    if (r == 0)
        shc_ring__forget(ring);
    return r == SHC_EMPTY ? 0 : r;
}

/* ---- anybody ---- */

void
shc_ring_shutdown(shc_ring_t *ring, bool immediate)
{
    uint32_t flags = SHC_RING_SHUTDOWN | (immediate ? SHC_RING_IMMEDIATE : 0);
    (void)shc_a32_fetch_or_seq_cst(&ring->shm->shutdown, flags); /* AR2 */
    shc_event_notify_all(&ring->shm->items);
    shc_event_notify_all(&ring->shm->space);
}

void
shc_ring_backlog(const shc_ring_t *ring, uint64_t *messages, uint64_t *bytes)
{
    /* head first: it never passes the tail that is read after it */
    shc_ring_cursor_t head = unpack(shc_a64_load_acquire(&ring->shm->head)); /* A2 */
    shc_ring_cursor_t tail = unpack(shc_a64_load_acquire(&ring->shm->tail)); /* A1 */
    uint64_t units = units_between(head.position, tail.position);
    *messages = messages_between(head.count, tail.count);
    *bytes = units << 3;
    /* The producer may have gone round between the two loads: then the numbers say "full". */
    if (*messages > ring->capacity)
        *messages = ring->capacity;
    if (units > ring->units)
        *bytes = ring->units << 3;
}

uint64_t
shc_ring_held(const shc_ring_t *ring)
{
    shc_ring_cursor_t head = unpack(shc_a64_load_relaxed(&ring->shm->head));
    return messages_between(head.count, ring->read.count);
}

static int
check_records(const shc_ring_t *ring)
{
    shc_ring_t walk = *ring;
    int r = load_consumer(&walk);
    while (r == 0 && units_between(walk.read.position, walk.tail_copy.position) != 0) {
        shc_ring_message_t msg;
        r = shc_ring__next(&walk, &msg);
        if (r == 0)
            shc_ring__go_past(&walk, &msg);
    }
    if (r != 0)
        return r;
    return messages_between(walk.read.count, walk.tail_copy.count) == 0 ? 0 : SHC_E_CORRUPT;
}

int
shc_ring_check(const shc_ring_t *ring)
{
    const shc_ring_shm_t *shm = ring->shm;
    uint64_t head = shc_a64_load_acquire(&shm->head); /* A2 */
    uint64_t tail = shc_a64_load_acquire(&shm->tail); /* A1 */
    int r = check_records(ring);
    shc_fence_seq_cst(); /* SC1 */
    bool moved = shc_a64_load_relaxed(&shm->head) != head || shc_a64_load_relaxed(&shm->tail) != tail;
    return r != 0 && moved ? SHC_AGAIN : r;
}

static int
check_extents(shc_seg_t *seg, bool at_rest)
{
    shc_arena_t arena;
    shc_ring_extents_open(&arena, seg);
    return shc_arena_inspect(&arena, at_rest);
}

/* What was found in the ring while no cursor moved is nobody's work in progress. */
static int
check_segment(shc_seg_t *seg, bool at_rest)
{
    shc_ring_t ring;
    shc_ring_open(&ring, seg);
    int r = shc_ring_check(&ring);
    return r == 0 && ring.has_extents ? check_extents(seg, at_rest) : r;
}

const shc_seg_spec_t shc_ring_spec = {
    .kind = SHC_KIND_RING,
    .rows = ring_rows,
    .row_count = SHC_ARRAY_SIZE(ring_rows),
    .body_align = SHC_HOT_PAD,
    .grows = true,
    .sweep = sweep,
    .validate = validate,
    .check = check_segment,
};
