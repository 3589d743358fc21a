/* Many writers raise one mark. See tests/SCENARIOS.md. */
#include "ds/shc_buffer.h"
#include "stress_impl.h"

#define WRITERS 3u
#define SIZE 65536u

static shc_seg_t seg;
static shc_a64_t *finished;
static uint64_t writes;

/* Writers have stripes of their own, so that no two write the same byte; the mark is common to all. */
static void
write_stripe(stress_party_t *party)
{
    shc_buffer_t buffer;
    uint64_t highest = 0;
    shc_buffer_open(&buffer, &seg);
    for (uint64_t i = 0; i < writes; i++) {
        uint64_t at = (t_random(&party->rng) % (SIZE / (16 * WRITERS)) * WRITERS + party->number) * 16;
        at = i < writes / 2 ? at / 2 / (16 * WRITERS) * (16 * WRITERS) + party->number * 16 : at;
        memset(buffer.data + at, (int)party->number + 1, 16);
        shc_buffer_note_write(&buffer, at, 16);
        highest = at + 16 > highest ? at + 16 : highest;
        uint64_t used = shc_buffer_used(&buffer);
        CHECK_LE(highest, used);
        CHECK_LE(used, SIZE);
        stress_dawdle(&party->rng);
    }
    shc_a64_fetch_add_relaxed(finished, 1);
}

/* The byte below the mark has been written by whoever raised it: the mark never falls here. */
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
run(stress_kind_t kind)
{
    uint64_t seed = t_seed();
    stress_party_t parties[WRITERS + 1];
    fix_open();
    finished = proc_share(sizeof *finished);
    writes = t_scaled(100000);
    CHECK_OK(fix_create_buffer("b", SIZE, &seg));
    for (unsigned i = 0; i < WRITERS; i++)
        parties[i] = (stress_party_t){.role = write_stripe};
    parties[WRITERS] = (stress_party_t){.role = watch_mark};
    stress_run(parties, WRITERS + 1, kind, &seed);
    shc_buffer_t buffer;
    shc_buffer_open(&buffer, &seg);
    CHECK_OK(shc_buffer_check(&buffer));
    fix_leave(&seg, "b");
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
