/* What the fuzz targets and tests/c/unit/test_hostile.c share: images of segments between pages that nobody may
 * touch, and operations on them with hostile writes in between.
 *
 * The property is always the same (TARGETS R5): whatever the segment holds, each operation returns one of its
 * documented outcomes, ends, and hands out no pointer that leads out of the data. Which outcome it is does not
 * matter here.
 *
 * Needs neither the harness nor the fixtures of the tests: libFuzzer brings its own main. */
#ifndef FUZZ_IMPL_H
#define FUZZ_IMPL_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ds/shc_buffer.h"
#include "ds/shc_objects.h"
#include "ds/shc_ring_extent.h"
#include "seg/shc_seg.h"

#define FUZZ_CHECK(cond)                                                                                               \
    ((cond) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond), fflush(stderr), abort()))

/* ---- bytes that decide ---- */

typedef struct fuzz_input {
    const uint8_t *at;
    size_t left;
} fuzz_input_t;

/* Zeroes when there is nothing left. */
static inline uint64_t
fuzz_take(fuzz_input_t *in, size_t bytes)
{
    uint64_t x = 0;
    size_t n = bytes < in->left ? bytes : in->left;
    memcpy(&x, in->at, n);
    in->at += n;
    in->left -= n;
    return x;
}

static inline uint64_t
fuzz_below(fuzz_input_t *in, uint64_t limit)
{
    return fuzz_take(in, limit > 0x10000 ? 8 : limit > 0x100 ? 2 : 1) % limit;
}

/* Values at the borders of what a field may hold; `old` is what it holds. */
#define FUZZ_ODD_VALUES 16u

static inline uint64_t
fuzz_odd_value(unsigned which, uint64_t old)
{
    switch (which % FUZZ_ODD_VALUES) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
        return UINT64_MAX;
    case 3:
        return old + 1;
    case 4:
        return old - 1;
    case 5:
        return UINT64_C(1) << 31;
    case 6:
        return UINT64_C(1) << 63;
    case 7:
        return UINT32_MAX;
    case 8:
        return INT64_MAX;
    case 9:
        return 4096;
    case 10:
        return 512;
    case 11:
        return old << 1;
    case 12:
        return old ^ UINT64_C(1) << 40;
    case 13:
        return ~old;
    case 14:
        return old + (UINT64_C(1) << 40) + 1;
    default:
        return UINT64_C(0x5bd1e9955bd1e995);
    }
}

/* ---- images ---- */

typedef struct fuzz_image {
    uint8_t *base; /* image and guard pages touch at the end; at the start, too, if the size is a multiple of a page */
    uint64_t size;
    uint8_t *mapping;
    size_t mapped;
} fuzz_image_t;

static inline fuzz_image_t
fuzz_image_new(uint64_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inside = (size_t)(size + page - 1) / page * page;
    fuzz_image_t image = {.size = size, .mapped = inside + 2 * page};
    image.mapping = mmap(NULL, image.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FUZZ_CHECK(image.mapping != MAP_FAILED);
    FUZZ_CHECK(mprotect(image.mapping + page, inside, PROT_READ | PROT_WRITE) == 0);
    image.base = image.mapping + page + inside - size;
    return image;
}

static inline void
fuzz_image_free(fuzz_image_t *image)
{
    (void)munmap(image->mapping, image->mapped);
}

/* A directory for segments of this process. */
typedef struct fuzz_dir {
    char path[64];
    int fd;
    shc_self_t self;
} fuzz_dir_t;

static inline void
fuzz_dir_open(fuzz_dir_t *dir)
{
    (void)snprintf(dir->path, sizeof dir->path, "%s/shmcomm-fuzz.XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    FUZZ_CHECK(mkdtemp(dir->path) != NULL);
    dir->fd = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(dir->fd >= 0);
    FUZZ_CHECK(shc_self_init(&dir->self) == 0);
}

static inline void
fuzz_dir_close(fuzz_dir_t *dir)
{
    (void)close(dir->fd);
    FUZZ_CHECK(rmdir(dir->path) == 0);
}

/* With 46 participants a ring of the least size takes two pages exactly, and so do a buffer of 4608 bytes and a pool of
 * 60 slots. */
#define FUZZ_PARTICIPANTS 46u
#define FUZZ_RING_BYTES SHC_RING_DATA_BYTES_MIN
#define FUZZ_RING_CAPACITY 40u
#define FUZZ_BUFFER_BYTES 4608u
#define FUZZ_SLOTS 60u
#define FUZZ_SLOT_BYTES 64u
#define FUZZ_SIZE 8192u

static inline shc_seg_create_args_t
fuzz_args(const shc_seg_spec_t *spec)
{
    bool ring = spec == &shc_ring_spec;
    shc_seg_create_args_t args = {.participants = FUZZ_PARTICIPANTS, .mode = 0600};
    if (spec == &shc_objects_spec) {
        args.body_size = shc_objects_body_size(FUZZ_SLOTS, FUZZ_SLOT_BYTES);
        args.config[SHC_OBJECTS_CONFIG_MAX_SIZE] = FUZZ_SLOTS;
        args.config[SHC_OBJECTS_CONFIG_SLOT_SIZE] = FUZZ_SLOT_BYTES;
        return args;
    }
    args.body_size = ring ? shc_ring_body_size(FUZZ_RING_BYTES) : shc_buffer_body_size(FUZZ_BUFFER_BYTES);
    args.config[0] = ring ? FUZZ_RING_CAPACITY : FUZZ_BUFFER_BYTES;
    args.config[1] = ring ? FUZZ_RING_BYTES : 0;
    return args;
}

/* The bytes of a new segment with its creator's slot free, and always the same key: inputs mean the same in every
 * run. */
static inline void
fuzz_pristine(fuzz_dir_t *dir, const shc_seg_spec_t *spec, uint8_t bytes[FUZZ_SIZE])
{
    shc_seg_t seg;
    shc_seg_create_args_t args = fuzz_args(spec);
    void (*init)(shc_seg_t *) = spec == &shc_ring_spec      ? shc_ring_init
                                : spec == &shc_objects_spec ? shc_objects_init
                                                            : shc_buffer_init;
    FUZZ_CHECK(shc_seg_create(dir->fd, "pristine", &dir->self, spec, &args, init, &seg) == 0);
    FUZZ_CHECK(seg.id.size == FUZZ_SIZE);
    memcpy(bytes, seg.base, FUZZ_SIZE);
    memset(bytes + SHC_SEG_PARTICIPANTS_OFFSET, 0, sizeof(shc_participant_shm_t));
    memset(bytes + offsetof(shc_seg_id_t, key), 0x5a, sizeof seg.id.key);
    shc_seg_leave(&seg, dir->fd, "pristine");
    shc_seg_unmap(&seg);
}

/* A segment of one kind as it was made, before each input. */
typedef struct fuzz_subject {
    bool ready;
    fuzz_dir_t dir;
    fuzz_image_t image;
    uint8_t pristine[FUZZ_SIZE];
} fuzz_subject_t;

/* The first time makes it, which lasts until the process ends. */
static inline void
fuzz_restart(fuzz_subject_t *subject, const shc_seg_spec_t *spec)
{
    if (!subject->ready) {
        fuzz_dir_open(&subject->dir);
        fuzz_pristine(&subject->dir, spec, subject->pristine);
        fuzz_dir_close(&subject->dir);
        subject->image = fuzz_image_new(FUZZ_SIZE);
        subject->ready = true;
    }
    memcpy(subject->image.base, subject->pristine, FUZZ_SIZE);
}

/* ---- hostile writes ---- */

static inline void
fuzz_write(uint8_t *at, size_t width, uint64_t value)
{
    memcpy(at, &value, width);
}

/* Input: place (2 bytes, in units of the width), width, what to write. Half of the writes go to the first 2 KiB. */
static inline void
fuzz_mutate(fuzz_input_t *in, uint8_t *base, uint64_t size)
{
    unsigned how = (unsigned)fuzz_take(in, 1);
    size_t width = (size_t)1 << (how & 3);
    uint64_t at = fuzz_take(in, 2) % (size / width) * width;
    uint64_t old = 0;
    memcpy(&old, base + at, width);
    uint64_t value = how & 4 ? fuzz_take(in, width) : fuzz_odd_value(how >> 3, old);
    fuzz_write(base + at, width, value);
}

/* ---- the segment's own operations ---- */

/* Joins an adopted image; false if its table is full. */
static inline bool
fuzz_join(shc_seg_t *seg)
{
    const shc_identity_t *me = &seg->self->id;
    int r = shc_participant_join(&seg->participants, me, &seg->index, &seg->generation);
    if (r == SHC_FULL && shc_seg_reap_participants(seg) > 0)
        r = shc_participant_join(&seg->participants, me, &seg->index, &seg->generation);
    FUZZ_CHECK(r == 0 || r == SHC_FULL);
    if (r == 0) {
        FUZZ_CHECK(seg->index < seg->participants.count);
        seg->epoch = seg->self->epoch;
    }
    return r == 0;
}

static inline void
fuzz_sanity(int r)
{
    FUZZ_CHECK(r == 0 || r == SHC_E_CORRUPT);
}

#define FUZZ_SEG_OPS 9u

static inline void
fuzz_seg_op(shc_seg_t *seg, unsigned op, uint64_t argument)
{
    shc_participants_t *table = &seg->participants;
    const shc_identity_t *me = &seg->self->id;
    shc_identity_t who;
    uint64_t since;
    uint32_t phase, generation, index = (uint32_t)(argument % table->count);
    switch (op % FUZZ_SEG_OPS) {
    case 0:
        fuzz_sanity(shc_seg_check(seg));
        break;
    case 1:
        FUZZ_CHECK(shc_seg_reap_participants(seg) <= table->count);
        break;
    case 2:
        FUZZ_CHECK(shc_participant_count_alive(table, index, UINT32_MAX, me) <= table->count);
        break;
    case 3:
        (void)shc_seg_owner_is_dead(seg, argument);
        break;
    case 4:
        (void)shc_participant_is_dead(table, (uint32_t)argument, (uint32_t)(argument >> 32), UINT32_MAX, me);
        break;
    case 5:
        (void)shc_participant_read(table, index, &who, &since, &phase, &generation);
        break;
    case 6:
        (void)(argument & 1 ? shc_participant_begin_wait : shc_participant_end_wait)(table, index, seg->generation);
        break;
    case 7:
        FUZZ_CHECK(shc_participant_count_waiters(table, me) <= (uint64_t)table->count * SHC_PARTICIPANT_WAITERS_MAX);
        break;
    default: /* as far as memory goes; a directory that cannot be asked stands for one that refuses */
        shc_seg_leave(seg, -1, "none");
        (void)fuzz_join(seg);
        break;
    }
}

/* ---- the ring's ---- */

typedef struct fuzz_ring {
    shc_seg_t seg;
    shc_ring_t ring;
    bool mine[2];
    uint32_t holds[SHC_RING_HOLDS];
    unsigned n_holds;
    uint64_t sink;
} fuzz_ring_t;

static inline void
fuzz_ring_forget(fuzz_ring_t *f, int end)
{
    f->mine[end] = false;
    if (end == SHC_RING_CONSUMER)
        f->n_holds = 0;
}

static inline void
fuzz_ring_take(fuzz_ring_t *f, int end)
{
    int r = shc_ring_take(&f->ring, end);
    FUZZ_CHECK(r == 0 || r == SHC_OWNER_DIED || r == SHC_BUSY || r == SHC_E_CORRUPT);
    fuzz_ring_forget(f, end);
    f->mine[end] = r == 0 || r == SHC_OWNER_DIED;
}

static inline void
fuzz_check_inside(const fuzz_ring_t *f, const uint8_t *p, uint64_t length)
{
    FUZZ_CHECK(p >= f->ring.data + SHC_RING_RECORD_HEAD && p <= f->ring.data + FUZZ_RING_BYTES);
    FUZZ_CHECK(length <= (uint64_t)(f->ring.data + FUZZ_RING_BYTES - p));
    FUZZ_CHECK(length <= f->ring.payload_max);
}

static inline void
fuzz_ring_send(fuzz_ring_t *f, uint64_t need, bool all_room)
{
    uint8_t *dst;
    uint64_t room;
    int r = shc_ring_claim(&f->ring, need, &dst, &room);
    FUZZ_CHECK(r == 0 || r == SHC_FULL || r == SHC_SHUTDOWN || r == SHC_E_TOO_LARGE || r == SHC_E_CORRUPT);
    if (r != 0)
        return;
    FUZZ_CHECK(room >= need);
    fuzz_check_inside(f, dst, room);
    memset(dst, 0x5a, (size_t)room);
    shc_ring_stage(&f->ring, (uint32_t)(all_room ? room : need), (uint8_t)need);
}

static inline void
fuzz_ring_receive(fuzz_ring_t *f, bool hold)
{
    shc_ring_message_t msg;
    uint32_t number;
    int r = shc_ring_front(&f->ring, &msg);
    FUZZ_CHECK(r == 0 || r == SHC_EMPTY || r == SHC_SHUTDOWN || r == SHC_E_CORRUPT);
    if (r != 0)
        return;
    fuzz_check_inside(f, msg.payload, msg.length);
    for (uint32_t i = 0; i < msg.length; i++) {
        uint8_t byte;
        shc_racy_copy(&byte, msg.payload + i, 1);
        f->sink += byte;
    }
    r = hold ? shc_ring_hold(&f->ring, &msg, &number) : SHC_E_LEASES;
    FUZZ_CHECK(r == 0 || r == SHC_E_LEASES);
    if (r == 0)
        f->holds[f->n_holds++] = number;
    else
        shc_ring_consume(&f->ring, &msg);
}

static inline void
fuzz_ring_release(fuzz_ring_t *f, uint64_t which)
{
    if (f->n_holds == 0)
        return;
    uint32_t *hold = &f->holds[which % f->n_holds];
    shc_ring_mark_released(&f->ring, *hold);
    *hold = f->holds[--f->n_holds];
    f->sink += shc_ring_settle_holds(&f->ring);
    FUZZ_CHECK(f->ring.hold_last - f->ring.hold_first <= SHC_RING_HOLDS);
    FUZZ_CHECK(f->ring.hold_last - f->ring.hold_first >= f->n_holds);
}

static inline void
fuzz_ring_look(const fuzz_ring_t *f)
{
    uint64_t messages, bytes;
    shc_ring_backlog(&f->ring, &messages, &bytes);
    FUZZ_CHECK(messages <= f->ring.capacity && bytes <= FUZZ_RING_BYTES);
    (void)shc_ring_holder_pid(&f->ring, SHC_RING_PRODUCER);
    (void)shc_ring_holder_pid(&f->ring, SHC_RING_CONSUMER);
    (void)shc_ring_held(&f->ring);
    int checked = shc_ring_check(&f->ring);
    fuzz_sanity(checked == SHC_AGAIN ? 0 : checked); /* a scribbler moved a cursor */
}

/* For the wait of one who sees something to wait for; it ends at once. */
static inline void
fuzz_ring_wait(fuzz_ring_t *f)
{
    shc_event_shm_t *ev = &f->ring.shm->items;
    int r = shc_event_wait(ev, shc_event_prepare(ev), shc_os_now_ns());
    FUZZ_CHECK(r == 0 || r == SHC_AGAIN || r == SHC_TIMEOUT || r == SHC_INTERRUPTED);
    shc_event_pass_on(ev);
    shc_event_notify_one(ev);
    shc_event_notify_all(&f->ring.shm->space);
}

#define FUZZ_RING_OPS 14u

static inline void
fuzz_ring_op(fuzz_ring_t *f, unsigned op, uint64_t argument)
{
    op %= FUZZ_RING_OPS;
    if ((op >= 2 && op <= 4 && !f->mine[SHC_RING_PRODUCER]) || (op >= 5 && op <= 9 && !f->mine[SHC_RING_CONSUMER]))
        fuzz_ring_take(f, op <= 4 ? SHC_RING_PRODUCER : SHC_RING_CONSUMER);
    if ((op >= 2 && op <= 4 && !f->mine[SHC_RING_PRODUCER]) || (op >= 5 && op <= 9 && !f->mine[SHC_RING_CONSUMER]))
        return;
    int end = (int)(argument & 1), r;
    switch (op) {
    case 0:
        fuzz_ring_take(f, end);
        break;
    case 1:
        shc_ring_drop(&f->ring, end);
        fuzz_ring_forget(f, end);
        break;
    case 2:
    case 3:
        fuzz_ring_send(f, op == 2 ? argument % 64 : argument % (f->ring.payload_max + 2), argument & 0x10000);
        break;
    case 4:
        shc_ring_publish(&f->ring);
        break;
    case 5:
    case 6:
        fuzz_ring_receive(f, op == 6);
        break;
    case 7:
        shc_ring_give_back(&f->ring);
        break;
    case 8:
        fuzz_ring_release(f, argument);
        break;
    case 9:
        r = shc_ring_clear(&f->ring);
        fuzz_sanity(r);
        break;
    case 10:
        shc_ring_shutdown(&f->ring, argument % 8 == 0);
        break;
    case 11:
        fuzz_ring_look(f);
        break;
    case 12:
        fuzz_ring_wait(f);
        break;
    default:
        fuzz_seg_op(&f->seg, (unsigned)argument % (FUZZ_SEG_OPS - 1), argument >> 3);
        break;
    }
}

/* False: refused, as it should be if the head is not sound. */
static inline bool
fuzz_ring_open(fuzz_ring_t *f, const fuzz_image_t *image, shc_self_t *self)
{
    memset(f, 0, sizeof *f);
    int r = shc_seg_adopt(image->base, image->size, self, &shc_ring_spec, &f->seg);
    FUZZ_CHECK(r <= 0);
    if (r != 0 || !fuzz_join(&f->seg))
        return false;
    shc_ring_open(&f->ring, &f->seg);
    return true;
}

/* ---- a ring with large messages ---- */

#define FUZZ_EXTENT_PAGES 3u
#define FUZZ_EXTENT_BYTES ((uint64_t)FUZZ_EXTENT_PAGES << SHC_EXTENT_PAGE_SHIFT)
#define FUZZ_EXTENTS_HELD 4u
#define FUZZ_TABLE_BYTES 8192u /* of the arena, and all of the ring: what is hostile is written there */

typedef struct fuzz_extents {
    bool ready;
    fuzz_dir_t dir;
    fuzz_image_t image;
    uint64_t table_at; /* where the arena begins */
    uint8_t pristine[2][FUZZ_TABLE_BYTES];
    fuzz_ring_t f;
    shc_arena_t arena;
    shc_ref_t held[FUZZ_EXTENTS_HELD]; /* SHC_ARENA_NOTHING: none */
    shc_extent_t claimed;              /* likewise */
} fuzz_extents_t;

static inline void
fuzz_extents_make(fuzz_extents_t *x)
{
    shc_seg_t seg;
    shc_arena_t arena;
    shc_seg_create_args_t args = fuzz_args(&shc_ring_spec);
    shc_ring_set_extent_bytes(args.config, FUZZ_EXTENT_BYTES);
    FUZZ_CHECK(shc_ring_lay_out(&args) == 0);
    FUZZ_CHECK(shc_seg_create(x->dir.fd, "pristine", &x->dir.self, &shc_ring_spec, &args, shc_ring_init, &seg) == 0);
    shc_ring_extents_open(&arena, &seg);
    memset(seg.base + SHC_SEG_PARTICIPANTS_OFFSET, 0, sizeof(shc_participant_shm_t));
    memset(seg.base + offsetof(shc_seg_id_t, key), 0x5a, sizeof seg.id.key);
    x->table_at = arena.g.at;
    FUZZ_CHECK(FUZZ_SIZE <= FUZZ_TABLE_BYTES && arena.g.record_table - arena.g.at <= FUZZ_TABLE_BYTES);
    x->image = fuzz_image_new(seg.id.size);
    memcpy(x->image.base, seg.base, seg.id.size);
    memcpy(x->pristine[0], seg.base, FUZZ_TABLE_BYTES);
    memcpy(x->pristine[1], seg.base + x->table_at, FUZZ_TABLE_BYTES);
    shc_seg_leave(&seg, x->dir.fd, "pristine");
    shc_seg_unmap(&seg);
    x->ready = true;
}

/* As it was made, but for the bytes of messages, which mean nothing. The directory is open the first time. */
static inline void
fuzz_extents_restart(fuzz_extents_t *x)
{
    if (!x->ready)
        fuzz_extents_make(x);
    memcpy(x->image.base, x->pristine[0], FUZZ_TABLE_BYTES);
    memcpy(x->image.base + x->table_at, x->pristine[1], FUZZ_TABLE_BYTES);
}

static inline bool
fuzz_extents_open(fuzz_extents_t *x)
{
    memset(x->held, 0, sizeof x->held);
    x->claimed.ref = SHC_ARENA_NOTHING;
    if (!fuzz_ring_open(&x->f, &x->image, &x->dir.self))
        return false;
    shc_ring_extents_open(&x->arena, &x->f.seg);
    return true;
}

/* What is given out lies in the arena's data, whole. */
static inline void
fuzz_extents_touch(const fuzz_extents_t *x, const shc_extent_t *extent)
{
    const uint8_t *data = x->image.base + x->arena.g.data, *end = x->image.base + x->arena.g.end;
    FUZZ_CHECK(extent->memory >= data && extent->memory < end);
    FUZZ_CHECK(extent->length <= (uint64_t)(end - extent->memory));
    if (extent->length > 0)
        extent->memory[0] = extent->memory[extent->length - 1] = 0x77;
}

static inline bool
fuzz_extents_has(fuzz_extents_t *x, int end)
{
    if (!x->f.mine[end])
        fuzz_ring_take(&x->f, end);
    return x->f.mine[end];
}

static inline void
fuzz_extents_claim(fuzz_extents_t *x, uint64_t n)
{
    shc_extent_t extent;
    int r = shc_ring_claim_extent(&x->f.ring, &x->arena, n, &extent);
    FUZZ_CHECK(r <= 0 || r == SHC_FULL || r == SHC_SHUTDOWN);
    if (r != 0)
        return;
    fuzz_extents_touch(x, &extent);
    FUZZ_CHECK(extent.length >= n);
    x->claimed = extent;
}

static inline void
fuzz_extents_send(fuzz_extents_t *x, uint64_t argument)
{
    if (x->claimed.ref == SHC_ARENA_NOTHING)
        fuzz_extents_claim(x, argument % (FUZZ_EXTENT_BYTES + 2));
    if (x->claimed.ref == SHC_ARENA_NOTHING)
        return;
    if (argument & 0x100000)
        (void)!shc_arena_release(&x->arena, x->claimed.ref);
    else
        shc_ring_stage_extent(&x->f.ring, &x->claimed, argument % (x->claimed.length + 2), (uint8_t)(argument & 0x7f));
    x->claimed.ref = SHC_ARENA_NOTHING;
}

static inline void
fuzz_extents_let_go(fuzz_extents_t *x, uint64_t which)
{
    shc_ref_t *held = &x->held[which % FUZZ_EXTENTS_HELD];
    if (*held != SHC_ARENA_NOTHING)
        (void)!shc_arena_release(&x->arena, *held);
    *held = SHC_ARENA_NOTHING;
}

/* A large one is kept, in the place of one that was kept before. */
static inline void
fuzz_extents_receive(fuzz_extents_t *x, uint64_t which)
{
    shc_ring_message_t msg;
    shc_extent_t extent;
    int r = shc_ring_front(&x->f.ring, &msg);
    FUZZ_CHECK(r == 0 || r == SHC_EMPTY || r == SHC_SHUTDOWN || r == SHC_E_CORRUPT);
    if (r != 0)
        return;
    bool gone = shc_ring_is_gone(&x->f.ring, &x->arena, &msg);
    if (!gone && (msg.tag & SHC_EXTENT_TAG) && shc_extent_read(&x->arena, msg.payload, msg.length, &extent) == 0) {
        fuzz_extents_touch(x, &extent);
        fuzz_extents_let_go(x, which);
        if (shc_arena_adopt(&x->arena, extent.ref) == 0)
            x->held[which % FUZZ_EXTENTS_HELD] = extent.ref;
    }
    shc_ring_consume(&x->f.ring, &msg);
    shc_ring_give_back(&x->f.ring);
}

static inline void
fuzz_extents_look(fuzz_extents_t *x)
{
    shc_arena_stats_t stats;
    fuzz_sanity(shc_arena_check(&x->arena));
    fuzz_sanity(shc_arena_stats(&x->arena, &stats));
    (void)shc_arena_is_used(&x->arena);
}

#define FUZZ_EXTENT_OPS (FUZZ_RING_OPS + 8u)

/* The ring's operations, and those of its large messages. What was claimed is given back before the end
 * is used otherwise. */
static inline void
fuzz_extents_op(fuzz_extents_t *x, unsigned op, uint64_t argument)
{
    op %= FUZZ_EXTENT_OPS;
    if (op < FUZZ_RING_OPS) {
        if (op < 4 && x->claimed.ref != SHC_ARENA_NOTHING)
            fuzz_extents_send(x, 0x100000);
        fuzz_ring_op(&x->f, op, argument);
        return;
    }
    bool sends = op - FUZZ_RING_OPS < 2, receives = op - FUZZ_RING_OPS == 2 || op - FUZZ_RING_OPS == 4;
    if ((sends && !fuzz_extents_has(x, SHC_RING_PRODUCER)) || (receives && !fuzz_extents_has(x, SHC_RING_CONSUMER)))
        return;
    switch (op - FUZZ_RING_OPS) {
    case 0:
        fuzz_extents_send(x, argument);
        shc_ring_publish(&x->f.ring);
        break;
    case 1:
        fuzz_extents_send(x, argument);
        break;
    case 2:
        fuzz_extents_receive(x, argument);
        break;
    case 3:
        fuzz_extents_let_go(x, argument);
        break;
    case 4:
        fuzz_sanity(shc_ring_clear_extents(&x->f.ring, &x->arena));
        break;
    case 5:
        shc_ring_settle_extents(&x->f.ring, &x->arena, (uint32_t)(argument % FUZZ_PARTICIPANTS));
        break;
    case 6:
        shc_ring_extents_leave(&x->f.ring, &x->arena);
        x->claimed.ref = SHC_ARENA_NOTHING;
        break;
    default:
        fuzz_extents_look(x);
        break;
    }
}

/* Input: where (1 byte), then as fuzz_mutate. */
static inline void
fuzz_extents_mutate(fuzz_extents_t *x, fuzz_input_t *in)
{
    uint8_t *base = x->image.base + (fuzz_take(in, 1) % 2 ? x->table_at : 0);
    fuzz_mutate(in, base, FUZZ_TABLE_BYTES);
}

/* ---- the buffer's ---- */

typedef struct fuzz_buffer {
    shc_seg_t seg;
    shc_buffer_t buffer;
    uint32_t sink;
} fuzz_buffer_t;

static inline bool
fuzz_buffer_open(fuzz_buffer_t *f, const fuzz_image_t *image, shc_self_t *self)
{
    memset(f, 0, sizeof *f);
    int r = shc_seg_adopt(image->base, image->size, self, &shc_buffer_spec, &f->seg);
    FUZZ_CHECK(r <= 0);
    if (r != 0 || !fuzz_join(&f->seg))
        return false;
    shc_buffer_open(&f->buffer, &f->seg);
    FUZZ_CHECK(f->buffer.data + f->buffer.size == image->base + image->size);
    return true;
}

#define FUZZ_BUFFER_OPS 6u

static inline void
fuzz_buffer_op(fuzz_buffer_t *f, unsigned op, uint64_t argument)
{
    uint64_t size = f->buffer.size, offset = argument % (size + 1), length = (argument >> 16) % (size - offset + 1);
    switch (op % FUZZ_BUFFER_OPS) {
    case 0:
        FUZZ_CHECK(shc_buffer_used(&f->buffer) <= size);
        break;
    case 1:
        memset(f->buffer.data + offset, 0x5a, (size_t)length);
        shc_buffer_note_write(&f->buffer, offset, length);
        break;
    case 2:
        shc_buffer_clear(&f->buffer, offset, length);
        break;
    case 3:
        f->sink ^= shc_buffer_checksum(&f->buffer);
        break;
    case 4:
        fuzz_sanity(shc_buffer_check(&f->buffer));
        break;
    default:
        fuzz_seg_op(&f->seg, (unsigned)argument % (FUZZ_SEG_OPS - 1), argument >> 3);
        break;
    }
}

/* ---- the pool's ---- */

typedef struct fuzz_objects {
    shc_seg_t seg;
    shc_objects_t pool;
    uint32_t last;
} fuzz_objects_t;

static inline bool
fuzz_objects_open(fuzz_objects_t *f, const fuzz_image_t *image, shc_self_t *self)
{
    memset(f, 0, sizeof *f);
    int r = shc_seg_adopt(image->base, image->size, self, &shc_objects_spec, &f->seg);
    FUZZ_CHECK(r <= 0);
    if (r != 0 || !fuzz_join(&f->seg))
        return false;
    shc_objects_open(&f->pool, &f->seg);
    FUZZ_CHECK(f->pool.memory + f->pool.max_size * f->pool.pitch == image->base + image->size);
    return true;
}

static inline void
fuzz_objects_use(fuzz_objects_t *f, uint32_t slot)
{
    FUZZ_CHECK(slot < f->pool.max_size);
    if (f->pool.slot_size != 0)
        memset(shc_objects_memory(&f->pool, slot), 0x5a, (size_t)f->pool.slot_size);
    f->last = slot;
}

#define FUZZ_OBJECTS_OPS 8u

static inline void
fuzz_objects_op(fuzz_objects_t *f, unsigned op, uint64_t argument)
{
    uint32_t slot = (uint32_t)(argument % f->pool.max_size);
    bool dirty;
    int r;
    shc_objects_counts_t n;
    switch (op % FUZZ_OBJECTS_OPS) {
    case 0:
        if (shc_objects_try_take(&f->pool, slot, &dirty))
            fuzz_objects_use(f, slot);
        break;
    case 1:
    case 2:
        r = shc_objects_take(&f->pool, &slot, &dirty);
        FUZZ_CHECK(r == 0 || r == SHC_EMPTY);
        if (r == 0)
            fuzz_objects_use(f, slot);
        break;
    case 3:
        fuzz_sanity(shc_objects_give_back(&f->pool, argument % 2 ? f->last : slot, argument % 3 == 0));
        break;
    case 4:
        n = shc_objects_count(&f->pool);
        FUZZ_CHECK(n.taken <= n.used && n.used <= f->pool.max_size && n.dirty <= f->pool.max_size - n.taken);
        break;
    case 5:
        FUZZ_CHECK(shc_objects_held_by(&f->pool, slot, (uint32_t)(argument >> 32)) <= f->pool.max_size);
        break;
    case 6:
        fuzz_sanity(shc_objects_check(&f->pool));
        break;
    default:
        fuzz_seg_op(&f->seg, (unsigned)argument % (FUZZ_SEG_OPS - 1), argument >> 3);
        break;
    }
}

#endif
