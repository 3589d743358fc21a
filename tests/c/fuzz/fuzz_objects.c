/* A pool of objects whose words are overwritten between operations. Input: a list of {what, argument}; see
 * tests/SCENARIOS.md. */
#include "fuzz/fuzz_impl.h"

#define OPS_MAX 200u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    bool ready;
    fuzz_dir_t dir;
    fuzz_image_t image;
    uint8_t pristine[FUZZ_SIZE];
} all;

static void
tear_down(void)
{
    fuzz_image_free(&all.image);
}

static void
set_up(void)
{
    all.ready = true;
    fuzz_dir_open(&all.dir);
    fuzz_pristine(&all.dir, &shc_objects_spec, all.pristine);
    fuzz_dir_close(&all.dir);
    all.image = fuzz_image_new(FUZZ_SIZE);
    (void)atexit(tear_down);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t in = {data, size};
    fuzz_objects_t f;
    if (!all.ready)
        set_up();
    memcpy(all.image.base, all.pristine, FUZZ_SIZE);
    if (!fuzz_objects_open(&f, &all.image, &all.dir.self))
        abort(); /* nothing is hostile yet */
    for (unsigned i = 0; i < OPS_MAX && in.left > 0; i++) {
        unsigned op = (unsigned)fuzz_take(&in, 1);
        if (op >= 192)
            fuzz_mutate(&in, all.image.base, FUZZ_SIZE);
        else
            fuzz_objects_op(&f, op, fuzz_take(&in, 4));
    }
    return 0;
}
