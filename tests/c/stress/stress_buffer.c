/* Many writers raise one mark. See tests/SCENARIOS.md. */
#include "ds/shc_buffer.h"
#include "stress_impl.h"

#define WRITERS 3u
#define PIECE 16u
#define STRIDE (PIECE * WRITERS)

static shc_seg_t seg;
static shc_a64_t *finished;

/* Everybody writes just above the mark, so that every write raises it, each into stripes of its own, so that no two
 * write the same byte. */
static void
write_stripe(stress_party_t *party)
{
    shc_buffer_t buffer;
    uint64_t used = 0;
    shc_buffer_open(&buffer, &seg);
    for (;;) {
        uint64_t at = (used / STRIDE + 1) * STRIDE + party->number * PIECE;
        if (at + PIECE > buffer.size)
            break;
        memset(buffer.data + at, (int)party->number + 1, PIECE);
        shc_buffer_note_write(&buffer, at, PIECE);
        used = shc_buffer_used(&buffer);
        CHECK_LE(at + PIECE, used);
        CHECK_LE(used, buffer.size);
    }
    shc_a64_fetch_add_relaxed(finished, 1);
}

/* The byte below the mark has been written by whoever raised it, and the mark never falls. */
static void
watch_mark(stress_party_t *party)
{
    shc_buffer_t buffer;
    uint64_t last = 0;
    (void)party;
    shc_buffer_open(&buffer, &seg);
    while (shc_a64_load_relaxed(finished) < WRITERS) {
        uint64_t used = shc_buffer_used(&buffer);
        uint8_t byte = 0;
        CHECK_LE(last, used);
        if (used > 0)
            shc_racy_copy(&byte, buffer.data + used - 1, 1);
        CHECK(used == 0 || (byte >= 1 && byte <= WRITERS));
        last = used;
        shc_os_yield();
    }
}

static void
run_once(stress_kind_t kind, uint64_t *seed)
{
    stress_party_t parties[WRITERS + 1];
    shc_a64_store_relaxed(finished, 0);
    CHECK_OK(fix_create_buffer("b", STRIDE * 20000, &seg));
    for (unsigned i = 0; i < WRITERS; i++)
        parties[i] = (stress_party_t){.role = write_stripe};
    parties[WRITERS] = (stress_party_t){.role = watch_mark};
    stress_run(parties, WRITERS + 1, kind, seed);
    shc_buffer_t buffer;
    shc_buffer_open(&buffer, &seg);
    CHECK_OK(shc_buffer_check(&buffer));
    fix_leave(&seg, "b");
}

static void
run(stress_kind_t kind)
{
    uint64_t seed = t_seed(), times = t_scaled(300);
    fix_open();
    finished = proc_share(sizeof *finished);
    for (uint64_t i = 0; i < times; i++)
        run_once(kind, &seed);
    fix_close();
}

TEST_LIMIT(threads_the_mark_is_behind_what_is_written, 120)
{
    run(THREADS);
}

TEST_LIMIT(processes_the_mark_is_behind_what_is_written, 120)
{
    run(PROCESSES);
}
