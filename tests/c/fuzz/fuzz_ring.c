/* A ring whose words are overwritten between operations. Input: a list of {what, argument}; see tests/SCENARIOS.md. */
#include "fuzz/fuzz_impl.h"

#define OPS_MAX 400u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static fuzz_subject_t subject;

/* Cursors that have gone far, so that wraps are near. */
static void
roll(fuzz_ring_t *f, uint64_t how)
{
    uint64_t position = SHC_RING_POSITION_MASK + 1 - how % 600, count = SHC_RING_COUNT_MASK + 1 - how / 600 % 50;
    uint64_t word = (position & SHC_RING_POSITION_MASK) | (count & SHC_RING_COUNT_MASK) << 40;
    shc_a64_store_relaxed(&f->ring.shm->tail, word);
    shc_a64_store_relaxed(&f->ring.shm->head, word);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t in = {data, size};
    fuzz_ring_t f;
    fuzz_restart(&subject, &shc_ring_spec);
    if (!fuzz_ring_open(&f, &subject.image, &subject.dir.self))
        abort(); /* nothing is hostile yet */
    uint64_t how = fuzz_take(&in, 2);
    if (how != 0)
        roll(&f, how);
    for (unsigned i = 0; i < OPS_MAX && in.left > 0; i++) {
        unsigned op = (unsigned)fuzz_take(&in, 1);
        if (op >= 192)
            fuzz_mutate(&in, subject.image.base, FUZZ_SIZE);
        else
            fuzz_ring_op(&f, op, fuzz_take(&in, op % FUZZ_RING_OPS == 3 ? 3 : 1));
    }
    return 0;
}
