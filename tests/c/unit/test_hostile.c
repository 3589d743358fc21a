/* Hostile segments, systematically: every word of every head with every odd value before any operation, single words in
 * the middle of a sequence, and a scribbler beside it. Random combinations are the fuzz targets' business. */
#include <pthread.h>

#include "fuzz/fuzz_impl.h"
#include "support/proc.h"
#include "t.h"

#define HEAD_END (SHC_SEG_PARTICIPANTS_OFFSET + 3 * 64u) /* the head and some slots */
#define RING_BODY (FUZZ_SIZE - FUZZ_RING_BYTES - sizeof(shc_ring_shm_t))
#define RING_DATA (FUZZ_SIZE - FUZZ_RING_BYTES)
#define BUFFER_BODY (FUZZ_SIZE - FUZZ_BUFFER_BYTES - sizeof(shc_buffer_shm_t))
#define OBJECTS_BODY (FUZZ_SIZE - shc_objects_body_size(FUZZ_SLOTS, FUZZ_SLOT_BYTES))
#define OBJECTS_MEMORY (OBJECTS_BODY + shc_objects_memory_at(FUZZ_SLOTS))

static fuzz_dir_t dir;
static fuzz_image_t image;
static uint8_t pristine[FUZZ_SIZE];

static void
set_up(const shc_seg_spec_t *spec)
{
    dir.fd = t_dir_fd();
    CHECK_OK(shc_self_init(&dir.self));
    fuzz_pristine(&dir, spec, pristine);
    image = fuzz_image_new(FUZZ_SIZE);
}

static void
tear_down(void)
{
    fuzz_image_free(&image);
    (void)close(dir.fd);
}

static void
restore(void)
{
    memcpy(image.base, pristine, FUZZ_SIZE);
}

static void
put_odd(size_t at, size_t width, unsigned which)
{
    uint64_t old = 0;
    memcpy(&old, image.base + at, width);
    fuzz_write(image.base + at, width, fuzz_odd_value(which, old));
}

/* ---- every word, every odd value ---- */

typedef void (*try_fn)(void);

static void
try_words(size_t from, size_t to, try_fn prepare, try_fn use)
{
    for (size_t width = 4; width <= 8; width += 4)
        for (size_t at = from; at + width <= to; at += width)
            for (unsigned which = 0; which < FUZZ_ODD_VALUES; which++) {
                restore();
                if (prepare != NULL)
                    prepare();
                put_odd(at, width, which);
                use();
            }
}

static fuzz_ring_t f;
static fuzz_buffer_t b;
static fuzz_objects_t o;

/* Each operation of a ring at least once, whatever the ones before said. */
static void
use_ring(void)
{
    for (unsigned op = 0; op < FUZZ_RING_OPS; op++)
        for (uint64_t argument = 0; argument < 3; argument++)
            fuzz_ring_op(&f, op, argument * 700 + 1);
    for (unsigned op = 0; op < FUZZ_SEG_OPS; op++)
        fuzz_seg_op(&f.seg, op, 2);
    for (unsigned i = 0; i < 12; i++)
        fuzz_ring_op(&f, i % 2 ? 5 : 8, i);
}

static void
adopt_and_use_ring(void)
{
    if (fuzz_ring_open(&f, &image, &dir.self))
        use_ring();
}

TEST_LIMIT(a_ring_whose_head_was_forged_before_it_is_opened, 120)
{
    set_up(&shc_ring_spec);
    try_words(0, HEAD_END, NULL, adopt_and_use_ring);
    try_words(RING_BODY, RING_DATA + 64, NULL, adopt_and_use_ring);
    tear_down();
}

/* Messages of several lengths are under way, some are held, the end of the data is near. */
static void
work_a_while(void)
{
    if (!fuzz_ring_open(&f, &image, &dir.self))
        t_fail(__FILE__, __LINE__, "the image cannot be opened");
    fuzz_ring_op(&f, 0, SHC_RING_PRODUCER);
    fuzz_ring_op(&f, 0, SHC_RING_CONSUMER);
    for (unsigned i = 0; i < 12; i++) {
        fuzz_ring_op(&f, 3, 310 + i);
        fuzz_ring_op(&f, 4, 0);
        if (i >= 3)
            fuzz_ring_op(&f, i % 4 == 0 ? 6 : 5, 0);
        fuzz_ring_op(&f, i % 3 == 0 ? 8 : 7, 0);
    }
}

TEST_LIMIT(a_ring_whose_words_are_forged_while_it_is_used, 120)
{
    set_up(&shc_ring_spec);
    try_words(SHC_SEG_PARTICIPANTS_OFFSET, HEAD_END, work_a_while, use_ring);
    try_words(RING_BODY, RING_DATA, work_a_while, use_ring);
    tear_down();
}

TEST_LIMIT(a_ring_whose_records_are_forged_while_it_is_used, 120)
{
    set_up(&shc_ring_spec);
    for (unsigned which = 0; which < FUZZ_ODD_VALUES; which++)
        for (size_t at = RING_DATA; at + 8 <= FUZZ_SIZE; at += 8) {
            restore();
            work_a_while();
            put_odd(at, which % 2 ? 4 : 8, which);
            for (unsigned i = 0; i < 8; i++)
                fuzz_ring_op(&f, i % 4 == 3 ? 11 : 5, i);
        }
    tear_down();
}

/* ---- large messages ---- */

static fuzz_extents_t x;

static void
use_extents(void)
{
    static const unsigned order[] = {0, 1, 2, 0, 1, 0, 4, 3, 5, 0, 7, 2, 2, 6, 7};
    for (unsigned i = 0; i < SHC_ARRAY_SIZE(order); i++)
        fuzz_extents_op(&x, FUZZ_RING_OPS + order[i], i * 0x5003);
    fuzz_seg_op(&x.f.seg, 1, 0);
}

/* Some are on their way, one is held, one is claimed. */
static void
prepare_extents(void)
{
    fuzz_extents_restart(&x);
    if (!fuzz_extents_open(&x))
        t_fail(__FILE__, __LINE__, "the image cannot be opened");
    fuzz_extents_op(&x, FUZZ_RING_OPS, 0x11000);
    fuzz_extents_op(&x, FUZZ_RING_OPS + 2, 0);
    fuzz_extents_op(&x, FUZZ_RING_OPS, 0x1000);
    fuzz_ring_op(&x.f, 2, 30);
    fuzz_ring_op(&x.f, 4, 0);
    fuzz_extents_op(&x, FUZZ_RING_OPS + 1, 0x800);
}

static void
try_words_of_extents(size_t from, size_t to, bool before)
{
    for (size_t width = 4; width <= 8; width += 4)
        for (size_t at = from; at + width <= to; at += width)
            for (unsigned which = 0; which < FUZZ_ODD_VALUES; which++) {
                uint64_t old = 0;
                if (before)
                    fuzz_extents_restart(&x);
                else
                    prepare_extents();
                memcpy(&old, x.image.base + at, width);
                fuzz_write(x.image.base + at, width, fuzz_odd_value(which, old));
                if (!before || fuzz_extents_open(&x))
                    use_extents();
            }
}

TEST_LIMIT(a_ring_whose_large_messages_are_forged, 120)
{
    x.dir.fd = t_dir_fd();
    CHECK_OK(shc_self_init(&x.dir.self));
    prepare_extents();
    uint64_t head = x.f.seg.id.body_offset, data = head + sizeof(shc_ring_shm_t), tables = x.arena.g.parties;
    try_words_of_extents(0, SHC_SEG_PARTICIPANTS_OFFSET, true);
    for (int before = 0; before < 2; before++) {
        try_words_of_extents(x.table_at, x.table_at + offsetof(shc_arena_shm_t, pad1), before);
        try_words_of_extents(tables, tables + sizeof(shc_arena_party_shm_t), before);
        try_words_of_extents(x.arena.g.words, x.arena.g.words + FUZZ_EXTENT_PAGES * sizeof(shc_a64_t), before);
    }
    try_words_of_extents(head, head + 16, false);
    try_words_of_extents(head + offsetof(shc_ring_shm_t, head), head + offsetof(shc_ring_shm_t, pad1), false);
    try_words_of_extents(data, data + 160, false);
    fuzz_image_free(&x.image);
    (void)close(x.dir.fd);
}

static void
use_buffer(void)
{
    for (unsigned op = 0; op < FUZZ_BUFFER_OPS; op++)
        for (uint64_t argument = 0; argument < 3; argument++)
            fuzz_buffer_op(&b, op, argument * 0x3000500 + FUZZ_BUFFER_BYTES);
    for (unsigned op = 0; op < FUZZ_SEG_OPS; op++)
        fuzz_seg_op(&b.seg, op, 2);
}

static void
adopt_and_use_buffer(void)
{
    if (fuzz_buffer_open(&b, &image, &dir.self))
        use_buffer();
}

static void
open_buffer(void)
{
    if (!fuzz_buffer_open(&b, &image, &dir.self))
        t_fail(__FILE__, __LINE__, "the image cannot be opened");
}

TEST_LIMIT(a_buffer_whose_words_are_forged, 120)
{
    set_up(&shc_buffer_spec);
    try_words(0, HEAD_END, NULL, adopt_and_use_buffer);
    try_words(BUFFER_BODY, BUFFER_BODY + sizeof(shc_buffer_shm_t), NULL, adopt_and_use_buffer);
    try_words(BUFFER_BODY, BUFFER_BODY + sizeof(shc_buffer_shm_t), open_buffer, use_buffer);
    tear_down();
}

static void
use_objects(void)
{
    for (unsigned op = 0; op < FUZZ_OBJECTS_OPS; op++)
        for (uint64_t argument = 0; argument < 3; argument++)
            fuzz_objects_op(&o, op, argument * 0x300000007 + 1);
    for (unsigned op = 0; op < FUZZ_SEG_OPS; op++)
        fuzz_seg_op(&o.seg, op, 2);
    for (unsigned i = 0; i < FUZZ_SLOTS + 2; i++)
        fuzz_objects_op(&o, 1, i);
}

static void
adopt_and_use_objects(void)
{
    if (fuzz_objects_open(&o, &image, &dir.self))
        use_objects();
}

static void
open_objects(void)
{
    if (!fuzz_objects_open(&o, &image, &dir.self))
        t_fail(__FILE__, __LINE__, "the image cannot be opened");
    for (unsigned i = 0; i < FUZZ_SLOTS / 2; i++)
        fuzz_objects_op(&o, 1, i);
}

TEST_LIMIT(a_pool_of_objects_whose_words_are_forged, 120)
{
    set_up(&shc_objects_spec);
    try_words(0, HEAD_END, NULL, adopt_and_use_objects);
    try_words(OBJECTS_BODY, OBJECTS_MEMORY, NULL, adopt_and_use_objects);
    try_words(SHC_SEG_PARTICIPANTS_OFFSET, HEAD_END, open_objects, use_objects);
    try_words(OBJECTS_BODY, OBJECTS_MEMORY, open_objects, use_objects);
    tear_down();
}

TEST(an_image_of_any_length_is_refused_or_right)
{
    set_up(&shc_ring_spec);
    for (uint64_t size = 0; size <= FUZZ_SIZE; size += size < 1024 ? 1 : 61) {
        shc_seg_t seg;
        fuzz_image_t cut = fuzz_image_new(size);
        memcpy(cut.base, pristine, size);
        int r = shc_seg_adopt(cut.base, size, &dir.self, &shc_ring_spec, &seg);
        CHECK_EQ(r, size < 512 ? SHC_E_NOT_SEGMENT : size < FUZZ_SIZE ? SHC_E_CORRUPT : 0);
        fuzz_image_free(&cut);
    }
    tear_down();
}

/* ---- somebody writes anywhere, all the time ---- */

typedef struct scribbler {
    pthread_t thread;
    shc_a32_t over;
    uint64_t rng;
    uint8_t *base;
    size_t n;
} scribbler_t;

static void *
scribble(void *arg)
{
    scribbler_t *s = arg;
    while (shc_a32_load_relaxed(&s->over) == 0) {
        shc_a64_t *word = (shc_a64_t *)(void *)(s->base + t_random(&s->rng) % s->n / 8 * 8);
        bool odd = t_random(&s->rng) % 2;
        uint64_t value = t_random(&s->rng);
        shc_a64_store_relaxed(word, odd ? fuzz_odd_value((unsigned)value, shc_a64_load_relaxed(word)) : value);
        if (value % 16 == 0)
            shc_os_yield();
    }
    return NULL;
}

static void
skip_under_tsan(void)
{
#if SHC_TSAN
    T_SKIP("a scribbler is a data race on purpose");
#endif
}

static void
start_scribbler_over(scribbler_t *s, uint8_t *base, size_t n, uint64_t *seed)
{
    *s = (scribbler_t){.rng = t_random(seed), .base = base, .n = n};
    CHECK_EQ(pthread_create(&s->thread, NULL, scribble, s), 0);
}

static void
start_scribbler(scribbler_t *s, size_t from, uint64_t *seed)
{
    start_scribbler_over(s, image.base + from, FUZZ_SIZE - from, seed);
}

static void
stop_scribbler(scribbler_t *s)
{
    shc_a32_store_relaxed(&s->over, 1);
    CHECK_EQ(pthread_join(s->thread, NULL), 0);
}

TEST_LIMIT(a_ring_beside_a_scribbler, 120)
{
    scribbler_t s;
    uint64_t seed = t_seed(), rounds = t_scaled(2000);
    skip_under_tsan();
    set_up(&shc_ring_spec);
    for (uint64_t round = 0; round < rounds; round++) {
        restore();
        if (!fuzz_ring_open(&f, &image, &dir.self))
            t_fail(__FILE__, __LINE__, "the image cannot be opened");
        start_scribbler(&s, round % 4 ? (size_t)RING_BODY : 0, &seed);
        for (unsigned i = 0; i < 300; i++)
            fuzz_ring_op(&f, (unsigned)t_random(&seed), t_random(&seed));
        stop_scribbler(&s);
    }
    tear_down();
}

TEST_LIMIT(large_messages_beside_a_scribbler, 120)
{
    scribbler_t s;
    uint64_t seed = t_seed(), rounds = t_scaled(1000);
    skip_under_tsan();
    x.dir.fd = t_dir_fd();
    CHECK_OK(shc_self_init(&x.dir.self));
    for (uint64_t round = 0; round < rounds; round++) {
        prepare_extents();
        const struct {
            uint64_t from;
            size_t n;
        } where[] = {{RING_BODY, FUZZ_SIZE - RING_BODY},
                     {x.table_at, sizeof(shc_arena_shm_t)},
                     {x.arena.g.words, FUZZ_EXTENT_PAGES * sizeof(shc_a64_t)}};
        start_scribbler_over(&s, x.image.base + where[round % 3].from, where[round % 3].n, &seed);
        for (unsigned i = 0; i < 200; i++)
            fuzz_extents_op(&x, (unsigned)t_random(&seed), t_random(&seed));
        stop_scribbler(&s);
    }
    fuzz_image_free(&x.image);
    (void)close(x.dir.fd);
}

TEST_LIMIT(a_buffer_beside_a_scribbler, 120)
{
    scribbler_t s;
    uint64_t seed = t_seed(), rounds = t_scaled(500);
    skip_under_tsan();
    set_up(&shc_buffer_spec);
    for (uint64_t round = 0; round < rounds; round++) {
        restore();
        open_buffer();
        start_scribbler(&s, 0, &seed);
        for (unsigned i = 0; i < 100; i++)
            fuzz_buffer_op(&b, (unsigned)t_random(&seed), t_random(&seed));
        stop_scribbler(&s);
    }
    tear_down();
}

TEST_LIMIT(a_pool_of_objects_beside_a_scribbler, 120)
{
    scribbler_t s;
    uint64_t seed = t_seed(), rounds = t_scaled(500);
    skip_under_tsan();
    set_up(&shc_objects_spec);
    for (uint64_t round = 0; round < rounds; round++) {
        restore();
        open_objects();
        start_scribbler(&s, round % 4 ? (size_t)OBJECTS_BODY : 0, &seed);
        for (unsigned i = 0; i < 200; i++)
            fuzz_objects_op(&o, (unsigned)t_random(&seed), t_random(&seed));
        stop_scribbler(&s);
    }
    tear_down();
}

TEST_LIMIT(opening_beside_a_scribbler, 120)
{
    scribbler_t s;
    uint64_t seed = t_seed(), rounds = t_scaled(30000);
    unsigned opened = 0;
    skip_under_tsan();
    set_up(&shc_ring_spec);
    restore();
    start_scribbler(&s, 0, &seed);
    for (uint64_t round = 0; round < rounds; round++) {
        if (round % 4 == 0)
            memcpy(image.base, pristine, SHC_SEG_PARTICIPANTS_OFFSET);
        if (!fuzz_ring_open(&f, &image, &dir.self))
            continue;
        opened++;
        for (unsigned i = 0; i < 10; i++)
            fuzz_ring_op(&f, (unsigned)t_random(&seed), t_random(&seed));
    }
    stop_scribbler(&s);
    printf("opened %u of %llu times\n", opened, (unsigned long long)rounds);
    CHECK_GT(opened, 0);
    tear_down();
}
