/* The named buffer without Python: the mark that a write leaves, the sum over it, clearing it. */
#include "ds/shc_buffer.h"

#include <string.h>

#include "runner.h"

#define SIZE (UINT64_C(1) << 20)
#define SMALL 64

static shc_seg_t seg;
static shc_buffer_t buffer;

static inline void
write_at(uint64_t offset, const void *bytes, uint64_t length)
{
    memcpy(buffer.data + offset, bytes, length);
    shc_buffer_note_write(&buffer, offset, length);
}

static void
write_64(uint64_t n)
{
    uint64_t bytes[SMALL / 8] = {0};
    for (uint64_t i = 0; i < n; i++) {
        bytes[0] = i;
        write_at(i * SMALL % SIZE, bytes, SMALL);
    }
    BENCH_CHECK(shc_buffer_used(&buffer) == (n < SIZE / SMALL ? n * SMALL : SIZE));
    shc_buffer_clear(&buffer, 0, SIZE);
}

/* Each write raises the mark: the dearest case. */
static void
write_and_clear_64(uint64_t n)
{
    uint64_t bytes[SMALL / 8] = {0};
    while (n-- > 0) {
        write_at(0, bytes, SMALL);
        shc_buffer_clear(&buffer, 0, SMALL);
        BENCH_CHECK(shc_buffer_used(&buffer) == 0);
    }
}

static void
used(uint64_t n)
{
    uint64_t sum = 0;
    while (n-- > 0)
        sum += shc_buffer_used(&buffer);
    BENCH_CHECK(sum == 0);
}

static void
checksum_1mib(uint64_t n)
{
    uint32_t first = shc_buffer_checksum(&buffer);
    for (uint64_t i = 0; i < n; i++)
        BENCH_CHECK(shc_buffer_checksum(&buffer) == first);
}

const bench_op_t bench_ops[] = {
    {"write_64", write_64, 1000000},
    {"write_and_clear_64", write_and_clear_64, 500000},
    {"used", used, 5000000},
    {"checksum_1mib", checksum_1mib, 200},
    {NULL, NULL, 0},
};

void
bench_set_up(void)
{
    shc_seg_create_args_t args = {.body_size = shc_buffer_body_size(SIZE), .participants = 4, .mode = 0600};
    args.config[SHC_BUFFER_CONFIG_SIZE] = SIZE;
    bench_create(&shc_buffer_spec, &args, shc_buffer_init, &seg);
    shc_buffer_open(&buffer, &seg);
}

void
bench_tear_down(void)
{
    bench_close(&seg);
}

void
bench_pair(void)
{
}
