/* An arena whose words are overwritten between operations of two participants. Input: a list of {what, argument}; see
 * tests/SCENARIOS.md. */
#include "fuzz/fuzz_impl.h"
#include "seg/shc_arena.h"

#define OPS_MAX 200u
#define PAGES 12u
#define HELD 16u
#define PARTIES 2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct party {
    shc_seg_t seg;
    shc_arena_t arena;
    shc_ref_t held[HELD];
    uint32_t record[HELD];
} party_t;

static struct {
    bool ready;
    fuzz_dir_t dir;
    fuzz_image_t image;
    uint8_t *pristine;
    shc_arena_geometry_t geometry;
    party_t parties[PARTIES];
    uint64_t ticket; /* of the last message */
} all;

static int
validate(const shc_seg_id_t *id)
{
    (void)id; /* the geometry is private */
    return 0;
}

static const shc_seg_spec_t spec = {.kind = 0xfffffffeu, .body_align = 4096, .grows = true, .validate = validate};

static void
init(shc_seg_t *seg)
{
    shc_arena_init(seg, &all.geometry);
}

static void
tear_down(void)
{
    fuzz_image_free(&all.image);
    free(all.pristine);
}

static void
set_up(void)
{
    shc_seg_create_args_t args = {.participants = 4, .mode = 0600};
    shc_seg_t seg;
    uint64_t body;
    all.ready = true;
    fuzz_dir_open(&all.dir);
    FUZZ_CHECK(shc_seg_size_for(&spec, &args, &body) == 0);
    all.geometry = (shc_arena_geometry_t){.at = body,
                                          .pages = PAGES,
                                          .initial = 6,
                                          .page_shift = 12,
                                          .growth = 50,
                                          .records = 8,
                                          .participants = args.participants};
    FUZZ_CHECK(shc_arena_lay_out(&all.geometry) == 0);
    args.body_size = all.geometry.end - body;
    shc_arena_reservation(&all.geometry, body, args.reserved);
    FUZZ_CHECK(shc_seg_create(all.dir.fd, "shmcomm.fuzz", &all.dir.self, &spec, &args, init, &seg) == 0);
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
    FUZZ_CHECK(shc_seg_adopt(all.image.base, all.image.size, &all.dir.self, &spec, &p->seg) == 0);
    p->seg.index = index;
    shc_arena_open(&p->arena, &p->seg, &all.geometry);
}

/* What is given out lies in the data, whole. */
static void
touch(party_t *p, shc_ref_t ref)
{
    void *memory;
    uint64_t size;
    if (shc_arena_resolve(&p->arena, ref, &memory, &size) != 0)
        return;
    const uint8_t *begin = memory;
    FUZZ_CHECK(begin >= all.image.base + all.geometry.data && size >= 1);
    FUZZ_CHECK(size <= (uint64_t)(all.image.base + all.geometry.end - begin));
    memset(memory, 0x77, size < 64 ? size : 64);
}

static void
operate(party_t *p, unsigned op, uint64_t argument)
{
    shc_arena_t *a = &p->arena;
    shc_arena_stats_t stats;
    shc_arena_holding_t holdings[4]; /* of as many participants */
    uint64_t n[2];
    shc_ref_t *held = &p->held[argument % HELD];
    uint32_t *record = &p->record[argument % HELD];
    switch (op % 18) {
    case 0:
    case 1:
    case 2:
        (void)!shc_arena_allocate(a, (argument >> 8) % 9000, held);
        break;
    case 3:
    case 4:
        (void)!shc_arena_release(a, *held);
        break;
    case 5:
        (void)!shc_arena_attach(a, *held);
        break;
    case 6:
        (void)!shc_arena_take(a, *held);
        break;
    case 7:
        if (shc_arena_retire(a, *held) == 0)
            (void)!(argument & 0x100 ? shc_arena_reclaim(a, *held) : shc_arena_restore(a, *held));
        break;
    case 8:
        (void)!shc_arena_lend(a, *held, record);
        break;
    case 9:
        (void)!shc_arena_hold(a, *held, record);
        break;
    case 10:
        (void)!shc_arena_drop(a, *held, *record);
        break;
    case 11:
        touch(p, *held);
        break;
    case 12:
        (void)shc_arena_cleanup(a, (argument >> 8) % 50000);
        break;
    case 13:
        shc_arena_sweep(a, (uint32_t)(argument % 4), NULL, NULL);
        break;
    case 14:
        (void)!shc_arena_stats(a, &stats);
        (void)!shc_arena_check(a);
        (void)shc_arena_names(a, (uint32_t)(argument % 4));
        (void)!shc_arena_holdings(a, holdings);
        (void)!shc_arena_count_runs(a, (uint32_t)(argument >> 8) % 8, &n[0], &n[1]);
        break;
    case 15:
        (void)!shc_arena_post(a, *held, &all.ticket);
        break;
    case 16:
        if (argument & 0x100)
            (void)!shc_arena_collect(a, *held, argument & 0x200 ? argument : all.ticket, record);
        else if (argument & 0x200)
            (void)!shc_arena_unpost(a, *held, all.ticket);
        else
            (void)shc_arena_unpost_all(a);
        break;
    default: /* a reference that somebody else made up */
        *held = argument & 1 ? argument : all.geometry.data / 16 + (argument >> 4) % (PAGES * 256);
        break;
    }
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
        if (op >= 208)
            fuzz_mutate(&in, all.image.base + all.geometry.at, all.geometry.end - all.geometry.at);
        else
            operate(&all.parties[op / 18 % PARTIES], op, fuzz_take(&in, 4));
    }
    return 0;
}
