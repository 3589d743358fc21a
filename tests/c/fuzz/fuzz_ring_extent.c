/* A ring with large messages, whose words and whose arena's words are overwritten between operations. Input: a list of
 * {what, argument}; see tests/SCENARIOS.md. */
#include "fuzz/fuzz_impl.h"

#define OPS_MAX 200u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static fuzz_extents_t x;

static void
tear_down(void)
{
    fuzz_image_free(&x.image);
}

static void
set_up(void)
{
    fuzz_dir_open(&x.dir);
    fuzz_extents_restart(&x);
    fuzz_dir_close(&x.dir);
    (void)atexit(tear_down);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t in = {data, size};
    if (!x.ready)
        set_up();
    fuzz_extents_restart(&x);
    if (!fuzz_extents_open(&x))
        abort(); /* nothing is hostile yet */
    for (unsigned i = 0; i < OPS_MAX && in.left > 0; i++) {
        unsigned op = (unsigned)fuzz_take(&in, 1);
        if (op >= 208)
            fuzz_extents_mutate(&x, &in);
        else
            fuzz_extents_op(&x, op,
                            fuzz_take(&in, op % FUZZ_EXTENT_OPS == 3 || op % FUZZ_EXTENT_OPS >= FUZZ_RING_OPS ? 3 : 1));
    }
    return 0;
}
