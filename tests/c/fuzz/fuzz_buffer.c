/* A buffer whose words are overwritten between operations. Input: a list of {what, argument}; see
 * tests/SCENARIOS.md. */
#include "fuzz/fuzz_impl.h"

#define OPS_MAX 200u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static fuzz_subject_t subject;

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t in = {data, size};
    fuzz_buffer_t f;
    fuzz_restart(&subject, &shc_buffer_spec);
    if (!fuzz_buffer_open(&f, &subject.image, &subject.dir.self))
        abort(); /* nothing is hostile yet */
    for (unsigned i = 0; i < OPS_MAX && in.left > 0; i++) {
        unsigned op = (unsigned)fuzz_take(&in, 1);
        if (op >= 192)
            fuzz_mutate(&in, subject.image.base, FUZZ_SIZE);
        else
            fuzz_buffer_op(&f, op, fuzz_take(&in, 4));
    }
    return 0;
}
