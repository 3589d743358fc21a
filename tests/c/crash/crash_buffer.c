/* A writer of a named buffer is killed at every instruction. */
#include <string.h>

#include "ds/shc_buffer.h"
#include "support/crash_impl.h"
#include "t.h"

#define SIZE 1000u
#define OLD_END 200u

static shc_buffer_t *
buffer_of(const crash_party_t *party)
{
    return party->own;
}

static void
bind(crash_party_t *party)
{
    shc_buffer_open(buffer_of(party), &party->seg);
}

static int
verify(const crash_party_t *party)
{
    return shc_buffer_check(buffer_of(party));
}

static void
write_bytes(shc_buffer_t *buffer, uint64_t offset, uint64_t length, int byte)
{
    memset(buffer->data + offset, byte, length);
    shc_buffer_note_write(buffer, offset, length);
}

static void
recover(crash_party_t *survivor, const crash_case_t *c)
{
    (void)c;
    write_bytes(buffer_of(survivor), 0, OLD_END, 'a');
}

static const crash_script_t script = {
    .name = "buffer",
    .spec = &shc_buffer_spec,
    .args = {.body_size = sizeof(shc_buffer_shm_t) + SIZE,
             .config = {SIZE, 1},
             .participants = 4,
             .mode = 0600,
             .persist = true},
    .init = shc_buffer_init,
    .own_size = sizeof(shc_buffer_t),
    .bind = bind,
    .rebase = bind,
    .recover = recover,
    .verify = verify,
};

/* [offset, offset + length) is what the operation changes, to `byte`; before it, the first OLD_END bytes are 'a'. */
typedef struct plan {
    uint32_t offset;
    uint32_t length;
    uint32_t used; /* afterwards */
    int byte;
} plan_t;

static const plan_t *
plan_of(const crash_case_t *c)
{
    return c->plan;
}

static void
setup(crash_party_t *peer, const crash_case_t *c)
{
    (void)c;
    write_bytes(buffer_of(peer), 0, OLD_END, 'a');
}

/* Nothing but the range was touched, each of its bytes is old or new, and the mark is the old or the new one. */
static void
check(crash_party_t *survivor, crash_party_t *peer, const crash_case_t *c)
{
    const plan_t *plan = plan_of(c);
    shc_buffer_t *buffer = buffer_of(survivor);
    uint64_t used = shc_buffer_used(buffer);
    bool marked = used == plan->used && used != OLD_END;
    SURVIVES(used == OLD_END || used == plan->used);
    for (uint32_t i = 0; i < SIZE; i++) {
        bool in_range = i - plan->offset < plan->length;
        int old = i < OLD_END ? 'a' : 0;
        SURVIVES(buffer->data[i] == old || (in_range && buffer->data[i] == plan->byte));
        SURVIVES(!in_range || !marked || buffer->data[i] == plan->byte || (crash_is_double() && i < OLD_END));
    }
    SURVIVES_EQ(verify(survivor), 0);
    write_bytes(buffer_of(peer), 0, SIZE, 'z');
    SURVIVES_EQ(shc_buffer_used(buffer), SIZE);
    shc_buffer_clear(buffer, 0, SIZE);
    SURVIVES_EQ(shc_buffer_used(buffer), 0);
}

static void
act_write(crash_party_t *victim, const crash_case_t *c)
{
    write_bytes(buffer_of(victim), plan_of(c)->offset, plan_of(c)->length, plan_of(c)->byte);
}

static void
act_clear(crash_party_t *victim, const crash_case_t *c)
{
    shc_buffer_clear(buffer_of(victim), plan_of(c)->offset, plan_of(c)->length);
}

TEST_LIMIT(writer_killed_at_every_instruction, 60)
{
    const crash_case_t cases[] = {
        {.name = "write behind the mark",
         .plan = &(const plan_t){OLD_END, 100, 300, 'b'},
         .setup = setup,
         .act = act_write,
         .check = check},
        {.name = "write below the mark",
         .plan = &(const plan_t){50, 100, OLD_END, 'b'},
         .setup = setup,
         .act = act_write,
         .check = check},
        {.name = "write to the end",
         .plan = &(const plan_t){100, SIZE - 100, SIZE, 'b'},
         .setup = setup,
         .act = act_write,
         .check = check},
        {.name = "clear across the mark",
         .plan = &(const plan_t){150, 100, 150, 0},
         .setup = setup,
         .act = act_clear,
         .check = check},
        {.name = "clear below the mark",
         .plan = &(const plan_t){20, 30, OLD_END, 0},
         .setup = setup,
         .act = act_clear,
         .check = check},
        {.name = "clear all", .plan = &(const plan_t){0, SIZE, 0, 0}, .setup = setup, .act = act_clear, .check = check},
    };
    crash_run(&script, cases, SHC_ARRAY_SIZE(cases));
}
