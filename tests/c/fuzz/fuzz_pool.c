/* A pool with a shelf whose words are overwritten between operations of two participants. Input: a list of
 * {what, argument}; see tests/SCENARIOS.md. */
#include "ds/shc_pool.h"
#include "fuzz/fuzz_impl.h"

#define OPS_MAX 120u
#define PAGE 65536u
#define PAGES 3u
#define PLACES 6u
#define HELD 8u
#define PARTIES 2u
#define PARTICIPANTS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct party {
    shc_seg_t seg;
    shc_pool_t pool;
    shc_ref_t held[HELD];
} party_t;

static struct {
    bool ready;
    fuzz_dir_t dir;
    fuzz_image_t image;
    uint8_t *pristine;
    party_t parties[PARTIES];
} all;

/* Few of them: an image must be copied before each input. */
static const uint64_t sizes[] = {1, 64, 1000, 20000, PAGE, 2 * PAGE};

static void
tear_down(void)
{
    fuzz_image_free(&all.image);
    free(all.pristine);
}

static void
set_up(void)
{
    shc_pool_options_t o = {.initial_bytes = PAGE, .max_bytes = PAGES * PAGE, .growth = 100, .places = PLACES};
    shc_arena_geometry_t g = {
        .pages = PAGES, .initial = 1, .page_shift = SHC_POOL_PAGE_SHIFT, .growth = 100, .records = 8};
    shc_seg_create_args_t args = {.participants = PARTICIPANTS, .mode = 0600};
    shc_seg_t seg;
    all.ready = true;
    fuzz_dir_open(&all.dir);
    FUZZ_CHECK(shc_pool_configure(&o, &args) == 0);
    shc_arena_to_config(&g, args.config + SHC_POOL_CONFIG_ARENA); /* with less room for records */
    FUZZ_CHECK(shc_pool_lay_out(&args) == 0);
    FUZZ_CHECK(shc_seg_create(all.dir.fd, "shmcomm.fuzz", &all.dir.self, &shc_pool_spec, &args, shc_pool_init, &seg) ==
               0);
    all.pristine = malloc(seg.id.size);
    FUZZ_CHECK(all.pristine != NULL);
    memcpy(all.pristine, seg.base, seg.id.size);
    all.image = fuzz_image_new(seg.id.size);
    shc_seg_leave(&seg, all.dir.fd, "shmcomm.fuzz");
    shc_seg_unmap(&seg);
    fuzz_dir_close(&all.dir);
    (void)atexit(tear_down);
}

static void
open_party(uint32_t index)
{
    party_t *p = &all.parties[index];
    memset(p, 0, sizeof *p);
    FUZZ_CHECK(shc_seg_adopt(all.image.base, all.image.size, &all.dir.self, &shc_pool_spec, &p->seg) == 0);
    p->seg.index = index;
    p->seg.generation = 1;
    shc_pool_open(&p->pool, &p->seg);
}

/* What is given out lies in the data, with as many bytes as were asked for. */
static void
touch(party_t *p, shc_ref_t ref, uint64_t size)
{
    const shc_arena_geometry_t *g = &p->pool.arena.g;
    uint8_t *begin = shc_arena_at(&p->pool.arena, ref);
    FUZZ_CHECK(begin != NULL && begin >= all.image.base + g->data);
    FUZZ_CHECK(size <= (uint64_t)(all.image.base + g->end - begin));
    memset(begin, 0x77, size < 64 ? size : 64);
    begin[size - 1] = 0x77;
}

static void
take(party_t *p, shc_ref_t *held, uint64_t size)
{
    shc_ref_t ref;
    int r = shc_pool_unshelve(&p->pool, size, &ref);
    FUZZ_CHECK(r == 0 || r == SHC_EMPTY || r == SHC_E_CORRUPT);
    if (r == SHC_EMPTY)
        r = shc_arena_allocate(&p->pool.arena, size, &ref);
    if (r != 0)
        return;
    touch(p, ref, size);
    *held = ref;
}

static void
look(const party_t *p, uint64_t argument)
{
    uint64_t size, n = 0;
    for (uint32_t i = 0; i <= PLACES; i++)
        n += shc_pool_look(&p->pool, i, &size);
    FUZZ_CHECK(n <= PLACES);
    (void)shc_pool_look(&p->pool, (uint32_t)argument, &size);
}

static void
operate(party_t *p, unsigned op, uint64_t argument)
{
    shc_ref_t *held = &p->held[argument % HELD];
    uint64_t size = sizes[(argument >> 8) % SHC_ARRAY_SIZE(sizes)];
    int r;
    switch (op % 10) {
    case 0:
    case 1:
        take(p, held, size);
        break;
    case 2:
    case 3:
        r = shc_pool_shelve(&p->pool, *held, size);
        FUZZ_CHECK(r == 0 || r == SHC_FULL || r == SHC_E_STALE || r == SHC_E_CORRUPT);
        break;
    case 4:
        (void)!shc_arena_release(&p->pool.arena, *held);
        break;
    case 5:
        FUZZ_CHECK(shc_pool_clear(&p->pool) <= PLACES);
        break;
    case 6:
        shc_pool_spec.sweep(&p->seg, (uint32_t)(argument % PARTICIPANTS), (argument >> 8) % 2);
        break;
    case 7:
        (void)(argument & 0x100 ? shc_pool_tend : shc_pool_cleanup)(&p->pool);
        break;
    case 8:
        fuzz_sanity(shc_pool_check(&p->pool));
        (void)shc_pool_names(&p->pool, (uint32_t)(argument % PARTICIPANTS), 1);
        look(p, argument >> 8);
        break;
    default: /* a reference that somebody else made up */
        *held = argument & 1 ? argument : p->pool.arena.g.data / 16 + (argument >> 4) % (PAGES * PAGE / 16);
        break;
    }
}

/* The shelf, the arena's tables, or anything. */
static void
mutate(fuzz_input_t *in, unsigned how)
{
    const shc_pool_t *pool = &all.parties[0].pool;
    const shc_arena_geometry_t *g = &pool->arena.g;
    uint64_t body = pool->arena.seg->id.body_offset;
    if (how % 4 < 2)
        fuzz_mutate(in, all.image.base + body, sizeof(shc_pool_shm_t) + PLACES * sizeof(shc_pool_place_shm_t));
    else if (how % 4 == 2)
        fuzz_mutate(in, all.image.base + g->at, g->data - g->at);
    else
        fuzz_mutate(in, all.image.base + body, g->end - body);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t in = {data, size};
    if (!all.ready)
        set_up();
    memcpy(all.image.base, all.pristine, all.image.size);
    for (uint32_t i = 0; i < PARTIES; i++)
        open_party(i);
    for (unsigned i = 0; i < OPS_MAX && in.left > 0; i++) {
        unsigned op = (unsigned)fuzz_take(&in, 1);
        if (op >= 200)
            mutate(&in, op);
        else
            operate(&all.parties[op / 10 % PARTIES], op, fuzz_take(&in, 3));
    }
    return 0;
}
