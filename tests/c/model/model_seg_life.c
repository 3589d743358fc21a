/* The life of a segment's name, explored: whoever has the segment open keeps its name, the last one out removes it, a
 * dead one's name is removed by whoever comes next, and nobody ever removes another segment's name. */
#include "ds/shc_buffer.h"
#include "support/fake_os.c"
#include "support/model_impl.h"
#include "t.h"

#define NAME "shmcomm.life"
#define BODY 64u

static struct {
    shc_self_t selves[MODEL_THREADS];
    shc_seg_t segs[MODEL_THREADS];
    uint32_t uses[MODEL_THREADS]; /* file + 1 that this thread has open, and means to keep */
    bool asked[FAKE_FILES];       /* somebody has asked for the removal of this file's name */
    unsigned removals[FAKE_FILES];
    uint32_t slots; /* of a segment */
} plan;

static uint32_t
life_of(uint32_t file)
{
    const shc_seg_shm_t *shm = (const shc_seg_shm_t *)(const void *)fake.files[file].bytes;
    return shc_seg_life_state(atomic_load_explicit(&((shc_seg_shm_t *)(uintptr_t)shm)->life.v, memory_order_relaxed));
}

/* The name leads to a file that its remover has doomed, nobody living uses it, and it happens once. */
static void
fake_on_unlink(uint32_t file)
{
    MODEL_CHECK(life_of(file) == SHC_SEG_DOOMED);
    MODEL_CHECK(++plan.removals[file] == 1);
    for (uint32_t i = 0; i < MODEL_THREADS; i++)
        MODEL_CHECK(plan.uses[i] != file + 1 || model_is_dead(i) || plan.asked[file]);
}

static shc_self_t *
me(void)
{
    return &plan.selves[model_self()];
}

static uint32_t
file_of(const shc_seg_t *seg)
{
    return (uint32_t)(seg->ino - FAKE_FIRST_FD);
}

/* ---- what threads do ---- */

static int
create(shc_seg_t *seg)
{
    const shc_seg_create_args_t args = {
        .body_size = shc_buffer_body_size(BODY), .config = {BODY}, .participants = plan.slots, .mode = 0600};
    return shc_seg_create(0, NAME, me(), &shc_buffer_spec, &args, shc_buffer_init, seg);
}

static int
attach(shc_seg_t *seg)
{
    int fd;
    shc_os_file_info_t info;
    int r = shc_seg_locate(0, NAME, false, &fd, &info);
    return r != 0 ? r : shc_seg_attach(0, NAME, fd, &info, me(), &shc_buffer_spec, seg);
}

/* What success promises: this is the segment of that name, and it stays so while it is in use. */
static void
begin_use(const shc_seg_t *seg)
{
    uint32_t file = file_of(seg);
    MODEL_CHECK(plan.removals[file] == 0 || plan.asked[file]);
    MODEL_CHECK(shc_seg_check(seg) == 0);
    plan.uses[model_self()] = file + 1;
}

static void
close_it(shc_seg_t *seg)
{
    plan.uses[model_self()] = 0;
    shc_seg_leave(seg, 0, NAME);
}

static bool
open_it(shc_seg_t *seg)
{
    int r = create(seg);
    MODEL_CHECK(r == 0 || r == -EEXIST || r == SHC_GONE);
    if (r != 0)
        r = attach(seg);
    MODEL_CHECK(r == 0 || r == -ENOENT || r == SHC_GONE || (r == SHC_E_PARTICIPANTS && plan.slots == 1));
    if (r == 0)
        begin_use(seg);
    return r == 0;
}

static void
begin(void)
{
    MODEL_CHECK(shc_self_init(me()) == 0);
}

static void
user(void)
{
    shc_seg_t *seg = &plan.segs[model_self()];
    begin();
    if (!open_it(seg))
        return;
    model_point("use");
    close_it(seg);
}

static void
visitor(void)
{
    shc_seg_t *seg = &plan.segs[model_self()];
    begin();
    int r = attach(seg);
    MODEL_CHECK(r == 0 || r == -ENOENT || r == SHC_GONE);
    if (r != 0)
        return;
    begin_use(seg);
    model_point("use");
    close_it(seg);
}

static void
unlinker(void)
{
    shc_seg_t *seg = &plan.segs[model_self()];
    begin();
    if (!open_it(seg))
        return;
    plan.asked[file_of(seg)] = true;
    int r = shc_seg_unlink(seg, 0, NAME);
    MODEL_CHECK(r == 0 || r == -ENOENT || r == SHC_GONE);
    close_it(seg);
}

/* Creates, and its process is gone. */
static void
deserter(void)
{
    shc_seg_t *seg = &plan.segs[model_self()];
    begin();
    (void)open_it(seg);
    model_exit();
}

static void
sweeper(void)
{
    begin();
    MODEL_CHECK(shc_seg_sweep_dir(0, "shmcomm.", me(), SHC_NEVER, NULL, NULL, NULL) == 0);
}

/* The mistake: the last one out looks around and unlinks, without a word to decide it. */
static void
careless_user(void)
{
    shc_seg_t *seg = &plan.segs[model_self()];
    begin();
    if (!open_it(seg))
        return;
    plan.uses[model_self()] = 0;
    shc_participant_begin_leave(&seg->participants, seg->index);
    bool same = false;
    if (shc_participant_count_alive(&seg->participants, seg->index, 1, &me()->id) == 0 &&
        shc_os_file_is(0, NAME, seg->dev, seg->ino, &same) == 0 && same) {
        shc_a64_store_relaxed(&shc_seg_shm(seg)->life, shc_seg_life_word(SHC_SEG_DOOMED, seg->index, seg->generation));
        (void)!shc_os_file_unlink(0, NAME);
    }
    shc_participant_end_leave(&seg->participants, seg->index);
}

/* ---- models ---- */

static void
reset(void)
{
    fake_reset();
    memset(&plan, 0, sizeof plan);
    plan.slots = 3;
}

/* Nobody else finds a slot free. */
static void
reset_narrow(void)
{
    reset();
    plan.slots = 1;
}

static unsigned
count_names(void)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < FAKE_NAMES; i++)
        n += fake.names[i].file != 0;
    return n;
}

/* After a sweep by somebody who lives nothing is left: all have closed or died. Every file that had a name lost it
 * once. */
static void
finish_after_deaths(void)
{
    shc_self_t other;
    MODEL_CHECK(shc_self_init(&other) == 0);
    MODEL_CHECK(shc_seg_sweep_dir(0, "shmcomm.", &other, SHC_NEVER, NULL, NULL, NULL) == 0);
    MODEL_CHECK(count_names() == 0);
}

/* Without deaths nobody has to sweep. */
static void
finish(void)
{
    MODEL_CHECK(count_names() == 0);
}

static void
run_all(const model_t *models, size_t n)
{
    model_print_head();
    for (size_t i = 0; i < n; i++)
        model_run(&models[i]);
    model_print_sum();
}

TEST_LIMIT(the_last_one_out_removes_the_name, 120)
{
    static const model_t models[] = {
        {.name = "2 users", .threads = 2, .body = {user, user}, .reset = reset, .finish = finish, .preemptions = 3},
        {.name = "3 users",
         .threads = 3,
         .body = {user, user, user},
         .reset = reset,
         .finish = finish,
         .preemptions = 2},
        {.name = "user, visitor, sweeper",
         .threads = 3,
         .body = {user, visitor, sweeper},
         .reset = reset,
         .finish = finish,
         .preemptions = 2},
        {.name = "2 users, one unlinks",
         .threads = 2,
         .body = {user, unlinker},
         .reset = reset,
         .finish = finish,
         .preemptions = 3},
        {.name = "2 that unlink and a user",
         .threads = 3,
         .body = {unlinker, unlinker, user},
         .reset = reset,
         .finish = finish,
         .preemptions = 2},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(what_the_dead_leave_goes_away, 120)
{
    static const model_t models[] = {
        {.name = "2 users, one dies",
         .threads = 2,
         .body = {user, user},
         .reset = reset,
         .finish = finish_after_deaths,
         .preemptions = 2,
         .kills = 1},
        {.name = "2 users, both die",
         .threads = 2,
         .body = {user, user},
         .reset = reset,
         .finish = finish_after_deaths,
         .preemptions = 1,
         .kills = 2},
        {.name = "deserter, 2 users",
         .threads = 3,
         .body = {deserter, user, user},
         .reset = reset,
         .finish = finish_after_deaths,
         .preemptions = 2},
        {.name = "deserter, user, sweeper",
         .threads = 3,
         .body = {deserter, user, sweeper},
         .reset = reset,
         .finish = finish_after_deaths,
         .preemptions = 2},
        {.name = "deserter, visitor, sweeper, one dies",
         .threads = 3,
         .body = {deserter, visitor, sweeper},
         .reset = reset,
         .finish = finish_after_deaths,
         .preemptions = 1,
         .kills = 1,
         .killable = 6},
        {.name = "deserter with the only slot, 2 sweepers, one dies",
         .threads = 3,
         .body = {deserter, sweeper, sweeper},
         .reset = reset_narrow,
         .finish = finish_after_deaths,
         .preemptions = 2,
         .kills = 1,
         .killable = 6},
        {.name = "deserter with the only slot, user, sweeper, one dies",
         .threads = 3,
         .body = {deserter, user, sweeper},
         .reset = reset_narrow,
         .finish = finish_after_deaths,
         .preemptions = 2,
         .kills = 1,
         .killable = 6},
        {.name = "2 users, one unlinks and dies",
         .threads = 3,
         .body = {user, user, unlinker},
         .reset = reset,
         .finish = finish_after_deaths,
         .preemptions = 2,
         .kills = 1,
         .killable = 4},
        {.name = "user, one unlinks, one dies",
         .threads = 2,
         .body = {user, unlinker},
         .reset = reset,
         .finish = finish_after_deaths,
         .preemptions = 2,
         .kills = 1},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}

TEST_LIMIT(known_mistakes_are_found, 120)
{
    static const model_t models[] = {
        {.name = "the last one out decides by looking around",
         .threads = 2,
         .body = {careless_user, user},
         .reset = reset,
         .finish = finish,
         .preemptions = 3,
         .must_fail = true},
    };
    run_all(models, SHC_ARRAY_SIZE(models));
}
