/* A cell ring whose words are overwritten between operations of two participants. Input: where the numbers stand, then
 * a list of {what, argument}; see tests/SCENARIOS.md. */
#include "ds/shc_cells.h"
#include "fuzz/fuzz_impl.h"

#define OPS_MAX 300u
#define PARTIES 2u
#define SLOTS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct party {
    shc_seg_t seg;
    shc_cells_t ring;
    shc_cells_slot_t slots[SLOTS]; /* claimed, taken, or what was in the way */
    bool ours[SLOTS];
} party_t;

static struct {
    bool ready;
    fuzz_dir_t dir;
    fuzz_image_t image;
    uint8_t *pristine;
    shc_cells_geometry_t geometry;
    uint64_t body;
    party_t parties[PARTIES];
} all;

static int
validate(const shc_seg_id_t *id)
{
    (void)id; /* the geometry is private */
    return 0;
}

static const shc_seg_spec_t spec = {.kind = 0xfffffffdu, .body_align = SHC_HOT_PAD, .validate = validate};

static void
init(shc_seg_t *seg)
{
    shc_cells_init(shc_seg_body(seg), &all.geometry);
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
    all.ready = true;
    fuzz_dir_open(&all.dir);
    all.geometry = (shc_cells_geometry_t){.capacity = 11, .entries = 16, .cells = 64};
    FUZZ_CHECK(shc_cells_lay_out(&all.geometry) == 0);
    args.body_size = all.geometry.size;
    FUZZ_CHECK(shc_seg_create(all.dir.fd, "shmcomm.fuzz", &all.dir.self, &spec, &args, init, &seg) == 0);
    all.body = seg.id.body_offset;
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
    shc_cells_open(&p->ring, &p->seg, shc_seg_body(&p->seg), &all.geometry, 2);
    for (unsigned i = 0; i < SLOTS; i++)
        p->slots[i].entry = p->ring.entries;
}

/* As if so many messages had passed. */
static void
age(uint64_t messages, uint64_t position)
{
    shc_cells_t *ring = &all.parties[0].ring;
    uint64_t cursor = messages << 24 | (position & 0xffffff);
    for (uint64_t i = 0; i < all.geometry.entries; i++)
        shc_a64_store_relaxed(&ring->entries[(messages + i) & ring->entry_mask].word,
                              ((messages + i) << 24) - ring->lap);
    shc_a64_store_relaxed(&ring->shm->tail, cursor);
    shc_a64_store_relaxed(&ring->shm->head, cursor);
    shc_a64_store_relaxed(&ring->shm->recl, cursor);
}

/* What is handed out lies in the entries or in the cells, whole. */
static void
touch(const party_t *p, const shc_cells_slot_t *slot, uint32_t n)
{
    const uint8_t *begin = (const uint8_t *)p->ring.entries, *end = all.image.base + all.image.size;
    FUZZ_CHECK(n <= slot->room && slot->payload >= begin && slot->payload <= end - slot->room);
    memset(slot->payload, 0x77, n);
}

static void
visit(void *arg, const shc_cells_slot_t *slot)
{
    touch(arg, slot, slot->length);
}

static void
release(party_t *p, unsigned which, bool properly)
{
    shc_cells_slot_t *slot = &p->slots[which];
    if (!p->ours[which])
        return;
    p->ours[which] = false;
    if (shc_cells_state(slot->word) == SHC_CELLS_TAKEN)
        shc_cells_finish(&p->ring, slot);
    else if (properly)
        shc_cells_send(&p->ring, slot, slot->room / 2, 1, 0);
    else
        shc_cells_abort(&p->ring, slot);
}

static bool
is_outcome(int r)
{
    return r == 0 || r == SHC_FULL || r == SHC_EMPTY || r == SHC_BUSY || r == SHC_SHUTDOWN || r == SHC_E_TOO_LARGE ||
           r == SHC_E_CORRUPT;
}

static void
acquire(party_t *p, unsigned which, int r)
{
    FUZZ_CHECK(is_outcome(r));
    p->ours[which] = r == 0;
    if (r == 0)
        touch(p, &p->slots[which], p->slots[which].room);
}

static void
operate(party_t *p, unsigned op, uint64_t argument)
{
    unsigned which = argument % SLOTS, other = (which + 1) % SLOTS;
    shc_cells_slot_t *slot = &p->slots[which], *last = &p->slots[other];
    switch (op % 16) {
    case 0:
    case 1:
        release(p, which, true);
        acquire(p, which, shc_cells_claim(&p->ring, (argument >> 8) % 2100, slot));
        break;
    case 2:
    case 3:
        release(p, which, false);
        acquire(p, which, shc_cells_take(&p->ring, slot));
        break;
    case 4:
        release(p, which, true);
        if (p->ours[other] && shc_cells_state(last->word) == SHC_CELLS_CLAIMED)
            acquire(p, which, shc_cells_claim_next(&p->ring, last, (argument >> 8) % 200, slot));
        break;
    case 5:
        release(p, which, true);
        if (p->ours[other] && shc_cells_state(last->word) == SHC_CELLS_TAKEN)
            acquire(p, which, shc_cells_take_next(&p->ring, last, slot));
        break;
    case 6:
    case 7:
        release(p, which, (argument & 0x100) == 0);
        break;
    case 8:
        if (!p->ours[which])
            (void)!shc_cells_unblock(&p->ring, slot);
        break;
    case 9:
        if (!p->ours[which] && shc_cells_peek(&p->ring, slot) == 0)
            touch(p, slot, 0);
        break;
    case 10:
        (void)shc_cells_clear(&p->ring, argument & 0x100 ? visit : NULL, p);
        break;
    case 11:
        shc_cells_walk(&p->ring, visit, p);
        break;
    case 12:
        (void)shc_cells_count(&p->ring);
        (void)shc_cells_length(&p->ring);
        (void)shc_cells_held_by(&p->ring, (uint32_t)(argument >> 8));
        break;
    case 13:
        (void)!shc_cells_check(&p->ring);
        break;
    case 14:
        shc_cells_sweep(&p->ring, (uint32_t)(argument >> 8) % 4);
        break;
    default:
        if ((argument & 0xf00) == 0)
            shc_cells_shutdown(&p->ring, (argument & 0x1000) != 0);
        else if (p->ours[which] && shc_cells_state(slot->word) == SHC_CELLS_CLAIMED)
            shc_cells_end_claims(&p->ring, slot);
        else if (p->ours[which])
            shc_cells_end_takes(&p->ring, slot);
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
    if (fuzz_take(&in, 1) & 1)
        age((UINT64_C(1) << 40) - fuzz_take(&in, 1), fuzz_take(&in, 3));
    for (unsigned i = 0; i < OPS_MAX && in.left > 0; i++) {
        unsigned op = (unsigned)fuzz_take(&in, 1);
        if (op >= 208)
            fuzz_mutate(&in, all.image.base + all.body, all.image.size - all.body);
        else
            operate(&all.parties[op / 16 % PARTIES], op, fuzz_take(&in, 4));
    }
    return 0;
}
