/* A process that creates, attaches, closes, unlinks, reaps or sweeps is really killed, because files are kernel state
 * that no snapshot shows.
 *
 * A first run steps through the operation and notes where something can have changed: behind every system call, behind
 * every instruction that changed the segment, and behind every SAMPLE-th one (which should add nothing). Then the
 * operation is run again for each of these points and killed there; the victim stays a zombie while the survivors
 * work. Each point is met by several kinds of survivors (they sweep, create, attach or close first), and once more
 * after a second victim that was killed while it did the same. In the end no file is left. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ds/shc_buffer.h"
#include "support/crash_trace.h"
#include "t.h"

#define FILE_NAME "shmcomm.life"
#define BODY 256u
#define SAMPLE 4999u
#define STEPS_MAX 300000u

/* Survivors begin with ... */
typedef enum opening {
    SWEEP,
    CREATE,
    ATTACH,
    STRANGERS,         /* how many of these anybody can begin with */
    CLOSE = STRANGERS, /* the user's own last step */
    OPENINGS
} opening_t;

/* What is there, beside the victim. */
typedef enum company {
    NOBODY,  /* no segment of that name */
    REMAINS, /* a segment whose only user was killed */
    USER,    /* a segment that the parent uses all the time */
} company_t;

typedef struct life_case {
    const char *name;
    company_t company;
    bool joins;   /* the victim has the segment open before the operation */
    bool unlinks; /* the operation removes the name whoever uses it */
    bool persist; /* the victim's segment is to keep its name */
    void (*act)(void);
} life_case_t;

/* Where a victim is killed: so many system calls, and then so many instructions, into the operation. */
typedef struct point {
    uint32_t calls;
    uint32_t steps;
} point_t;

static struct {
    const life_case_t *c;
    bool persist; /* for the next create() */
    int dir_fd;
    shc_self_t self;
    shc_seg_t user;   /* the parent's handle while company is USER */
    shc_seg_t victim; /* the victim's, in the victim */
    pid_t maker;      /* zombie that left the remains */
    point_t *points;
    size_t n_points;
    uint64_t instructions;
    uint64_t kills;
    uint64_t seed;
} now;

/* ---- the core's functions with this test's arguments ---- */

static int
create(shc_seg_t *seg)
{
    shc_seg_create_args_t args = {.body_size = shc_buffer_body_size(BODY),
                                  .config = {BODY},
                                  .participants = 4,
                                  .mode = 0600,
                                  .persist = now.persist};
    return shc_seg_create(now.dir_fd, FILE_NAME, &now.self, &shc_buffer_spec, &args, shc_buffer_init, seg);
}

static int
attach(shc_seg_t *seg)
{
    int fd;
    shc_os_file_info_t info;
    int r = shc_seg_locate(now.dir_fd, FILE_NAME, false, &fd, &info);
    return r != 0 ? r : shc_seg_attach(now.dir_fd, FILE_NAME, fd, &info, &now.self, &shc_buffer_spec, seg);
}

static void
leave(shc_seg_t *seg)
{
    shc_seg_leave(seg, now.dir_fd, FILE_NAME);
    shc_seg_unmap(seg);
}

static int
sweep(void)
{
    return shc_seg_sweep_dir(now.dir_fd, "shmcomm.", &now.self, SHC_NEVER, NULL, NULL, NULL);
}

/* ---- operations of the victim ---- */

static void
act_create(void)
{
    (void)!create(&now.victim);
}

static void
act_attach(void)
{
    (void)!attach(&now.victim);
}

static void
act_close(void)
{
    leave(&now.victim);
}

static void
act_unlink(void)
{
    (void)!shc_seg_unlink(&now.victim, now.dir_fd, FILE_NAME);
}

static void
act_force_unlink(void)
{
    (void)!shc_seg_force_unlink(now.dir_fd, FILE_NAME, &now.self);
}

static void
act_reap(void)
{
    (void)!shc_seg_reap(now.dir_fd, FILE_NAME, &now.self, true);
}

static void
act_sweep(void)
{
    (void)!sweep();
}

static void
act_rejoin(void)
{
    shc_seg_t child = now.user;
    (void)!shc_seg_rejoin(&child);
    shc_seg_leave(&child, now.dir_fd, FILE_NAME);
}

/* ---- stage ---- */

static unsigned
count_files(void)
{
    unsigned n = 0;
    DIR *dir = opendir(t_dir());
    CHECK(dir != NULL);
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        n += e->d_name[0] != '.';
    (void)closedir(dir);
    return n;
}

static bool
name_is_users(void)
{
    bool same = false;
    CHECK_OK(shc_os_file_is(now.dir_fd, FILE_NAME, now.user.dev, now.user.ino, &same));
    return same;
}

/* A child that creates the segment and dies without a word. */
static pid_t
leave_remains(void)
{
    siginfo_t info;
    fflush(NULL);
    pid_t pid = fork();
    CHECK_GE(pid, 0);
    if (pid == 0)
        _exit(create(&now.victim) == 0 ? 0 : 1);
    CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    CHECK_EQ(info.si_status, 0);
    return pid;
}

static void
set_stage(void)
{
    CHECK_EQ(count_files(), 0);
    now.maker = now.c->company == REMAINS ? leave_remains() : 0;
    if (now.c->company == USER)
        CHECK_OK(create(&now.user));
}

static void
clear_stage(void)
{
    CHECK_EQ(count_files(), 0);
    if (now.maker != 0)
        trace_bury(now.maker);
}

static void
prepare(void *arg)
{
    (void)arg;
    CHECK_OK(shc_self_refresh(&now.self));
    now.persist = now.c->persist;
    if (now.c->joins)
        CHECK_OK(now.c->company == NOBODY ? create(&now.victim) : attach(&now.victim));
}

static void
act(void *arg)
{
    (void)arg;
    now.c->act();
}

/* ---- going to a point ---- */

static pid_t
start_and_go_to(point_t at)
{
    pid_t pid = trace_start(prepare, act, NULL);
    bool more = true;
    for (uint32_t i = 0; i < 2 * at.calls && more; i++)
        more = trace_to_syscall(pid);
    for (uint32_t i = 0; i < at.steps && more; i++)
        more = trace_step(pid);
    return pid;
}

/* ---- finding the points ---- */

/* The parent's own view of the victim's segment, from the moment on that it has a name. */
typedef struct view {
    void *base;
    uint64_t size;
    void *last;
} view_t;

static void
try_to_view(view_t *view)
{
    int fd;
    shc_os_file_info_t info;
    if (view->base != NULL || shc_os_file_open(now.dir_fd, FILE_NAME, &fd) != 0)
        return;
    CHECK_OK(shc_os_file_info(fd, &info));
    view->size = info.size;
    CHECK_OK(shc_os_map(fd, info.size, &view->base));
    shc_os_close(fd);
    view->last = malloc(info.size);
    CHECK(view->last != NULL);
    memcpy(view->last, view->base, info.size);
}

static bool
view_changed(view_t *view)
{
    bool changed = view->base != NULL && memcmp(view->base, view->last, view->size) != 0;
    if (changed)
        memcpy(view->last, view->base, view->size);
    return changed;
}

static void
end_view(view_t *view)
{
    if (view->base != NULL)
        shc_os_unmap(view->base, view->size);
    free(view->last);
}

static void
add_point(point_t at)
{
    now.points = realloc(now.points, (now.n_points + 1) * sizeof *now.points);
    CHECK(now.points != NULL);
    now.points[now.n_points++] = at;
}

static void
find_points(void)
{
    view_t view = {0};
    point_t at = {0, 0};
    set_stage();
    pid_t pid = trace_start(prepare, act, NULL);
    now.n_points = 0;
    now.instructions = 0;
    for (bool more = true; more; now.instructions++) {
        bool is_call = trace_before_syscall(pid);
        try_to_view(&view);
        if (is_call || view_changed(&view) || at.steps % SAMPLE == 0)
            add_point(at);
        more = trace_step(pid);
        at = is_call ? (point_t){at.calls + 1, 0} : (point_t){at.calls, at.steps + 1};
        CHECK_LT(now.instructions, STEPS_MAX);
    }
    end_view(&view);
    trace_kill(pid);
    trace_bury(pid);
    if (now.c->company == USER)
        leave(&now.user);
    if (now.c->persist)
        (void)!shc_seg_reap(now.dir_fd, FILE_NAME, &now.self, true);
    CHECK_OK(sweep());
    clear_stage();
}

/* ---- killing ---- */

static pid_t
kill_at(point_t at)
{
    pid_t pid = start_and_go_to(at);
    trace_kill(pid);
    now.kills++;
    return pid;
}

/* ---- survivors ---- */

/* With nobody left: the name is free for whoever comes, and what is left goes away. */
static void
use_after_all_died(opening_t opening)
{
    shc_seg_t seg;
    if (opening == SWEEP) {
        CHECK_OK(sweep());
        CHECK_EQ(count_files(), 0);
    }
    if (opening == ATTACH)
        CHECK_EQ(attach(&seg), -ENOENT);
    CHECK_OK(create(&seg));
    CHECK_OK(shc_seg_check(&seg));
    CHECK_OK(sweep());
    CHECK_EQ(count_files(), 1);
    leave(&seg);
}

/* A persistent segment keeps its name when all died, unless the victim got as far as to doom it. */
static void
use_persistent(opening_t opening)
{
    shc_seg_t seg;
    shc_seg_report_t report;
    int r = shc_seg_inspect(now.dir_fd, FILE_NAME, &now.self, &report);
    CHECK(r == 0 || r == -ENOENT);
    if (r != 0 || report.life != SHC_SEG_OPEN || !(report.id.flags & SHC_SEG_FLAG_PERSIST)) {
        use_after_all_died(opening);
        return;
    }
    if (opening == SWEEP)
        CHECK_OK(sweep());
    if (opening == CREATE)
        CHECK_EQ(create(&seg), -EEXIST);
    CHECK_OK(attach(&seg));
    leave(&seg);
    CHECK_OK(sweep());
    CHECK_EQ(count_files(), 1);
    CHECK_OK(shc_seg_reap(now.dir_fd, FILE_NAME, &now.self, true));
}

/* The user's segment is still the one of that name: others can attach, nobody can create. */
static void
use_beside_user(opening_t opening)
{
    shc_seg_t seg;
    if (opening == SWEEP)
        CHECK_OK(sweep());
    if (opening == CREATE)
        CHECK_EQ(create(&seg), -EEXIST);
    CHECK(name_is_users());
    CHECK_OK(attach(&seg));
    CHECK_EQ(seg.ino, now.user.ino);
    leave(&seg);
    CHECK(name_is_users());
    CHECK_OK(sweep());
    CHECK_EQ(count_files(), 1);
}

/* The name may be gone, but only by the victim's wish; if it got as far as to doom it, everybody helps. */
static void
use_while_unlinked(opening_t opening)
{
    shc_seg_t seg;
    bool doomed = shc_seg_life_state(shc_a64_load_relaxed(&shc_seg_shm(&now.user)->life)) != SHC_SEG_OPEN;
    if (!doomed) {
        use_beside_user(opening);
        leave(&now.user);
        return;
    }
    if (opening == SWEEP)
        CHECK_OK(sweep());
    if (opening == ATTACH)
        CHECK_EQ(attach(&seg), -ENOENT);
    CHECK_OK(create(&seg));
    CHECK_NE(seg.ino, now.user.ino);
    CHECK_OK(shc_seg_check(&now.user));
    leave(&now.user); /* meets what the dead one left undone, and the name of the new segment */
    CHECK_EQ(count_files(), 1);
    leave(&seg);
}

static void
survive(opening_t opening)
{
    if (now.c->persist) {
        use_persistent(opening);
    } else if (now.c->company != USER) {
        use_after_all_died(opening);
    } else if (opening == CLOSE) {
        leave(&now.user);
        CHECK(!name_is_users());
        use_after_all_died(ATTACH);
    } else if (now.c->unlinks) {
        use_while_unlinked(opening);
    } else {
        use_beside_user(opening);
        CHECK_OK(shc_seg_check(&now.user));
        leave(&now.user);
    }
    CHECK_EQ(count_files(), 0);
}

/* ---- a second victim, killed while it does what survivors do ---- */

static opening_t second_opening;

static void
prepare_second(void *arg)
{
    (void)arg;
    CHECK_OK(shc_self_refresh(&now.self));
}

static void
act_second(void *arg)
{
    (void)arg;
    if (second_opening == SWEEP)
        (void)!sweep();
    else
        (void)!(second_opening == CREATE ? create(&now.victim) : attach(&now.victim));
}

static pid_t
kill_second(opening_t opening)
{
    second_opening = opening;
    pid_t pid = trace_start(prepare_second, act_second, NULL);
    uint64_t stops = t_random(&now.seed) % 70, steps = t_random(&now.seed) % 60;
    bool more = true;
    while (more && stops-- > 0)
        more = trace_to_syscall(pid);
    while (more && steps-- > 0)
        more = trace_step(pid);
    trace_kill(pid);
    now.kills++;
    return pid;
}

/* ---- running ---- */

static void
run_point(point_t at, opening_t opening, bool twice)
{
    set_stage();
    pid_t first = kill_at(at);
    pid_t second = twice ? kill_second((opening_t)(t_random(&now.seed) % STRANGERS)) : 0;
    survive(opening);
    trace_bury(first);
    if (second != 0)
        trace_bury(second);
    clear_stage();
}

static void
print_case(const life_case_t *c)
{
    printf("    %-38s %12" PRIu64 " %8zu %8" PRIu64 "\n", c->name, now.instructions, now.n_points, now.kills);
    fflush(stdout);
    free(now.points);
    now.points = NULL;
}

static void
run_case(const life_case_t *c)
{
    unsigned openings = c->company == USER ? OPENINGS : STRANGERS;
    now.c = c;
    now.kills = 0;
    find_points();
    for (size_t i = 0; i < now.n_points; i++) {
        for (unsigned opening = 0; opening < openings; opening++)
            run_point(now.points[i], (opening_t)opening, false);
        run_point(now.points[i], (opening_t)(i % openings), true);
    }
    print_case(c);
}

static void
run_cases(const life_case_t *cases, size_t n, void (*run)(const life_case_t *c))
{
    trace_require();
    now.dir_fd = t_dir_fd();
    now.seed = t_seed();
    CHECK_OK(shc_self_init(&now.self));
    printf("    %-38s %12s %8s %8s\n", "segment life", "instructions", "points", "victims");
    for (size_t i = 0; i < n; i++)
        run(&cases[i]);
    shc_os_close(now.dir_fd);
}

TEST_LIMIT(killed_with_nobody_else, 200)
{
    static const life_case_t cases[] = {
        {.name = "create", .act = act_create},
        {.name = "close, last one out", .joins = true, .act = act_close},
        {.name = "unlink, only user", .joins = true, .act = act_unlink},
        {.name = "create a persistent one", .persist = true, .act = act_create},
        {.name = "unlink a persistent one", .joins = true, .persist = true, .act = act_unlink},
        {.name = "create over remains", .company = REMAINS, .act = act_create},
        {.name = "attach to remains", .company = REMAINS, .act = act_attach},
        {.name = "reap remains", .company = REMAINS, .act = act_reap},
        {.name = "force unlink of remains", .company = REMAINS, .act = act_force_unlink},
        {.name = "sweep the folder", .company = REMAINS, .act = act_sweep},
    };
    run_cases(cases, SHC_ARRAY_SIZE(cases), run_case);
}

TEST_LIMIT(killed_beside_a_living_user, 200)
{
    static const life_case_t cases[] = {
        {.name = "create under a taken name", .company = USER, .act = act_create},
        {.name = "attach", .company = USER, .act = act_attach},
        {.name = "close", .company = USER, .joins = true, .act = act_close},
        {.name = "rejoin in a forked child", .company = USER, .act = act_rejoin},
        {.name = "unlink", .company = USER, .joins = true, .unlinks = true, .act = act_unlink},
        {.name = "reap", .company = USER, .act = act_reap},
        {.name = "force unlink", .company = USER, .unlinks = true, .act = act_force_unlink},
        {.name = "sweep the folder", .company = USER, .act = act_sweep},
    };
    run_cases(cases, SHC_ARRAY_SIZE(cases), run_case);
}

/* ---- a victim that is only stopped ---- */

static void
stop(pid_t pid)
{
    int status;
    CHECK_EQ(ptrace(PTRACE_DETACH, pid, NULL, (void *)(uintptr_t)SIGSTOP), 0);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
}

/* Another name is not concerned; this one may be in use, or gone, or in his hands, but a user's stays. */
static void
use_meanwhile(void)
{
    shc_seg_t seg;
    shc_seg_create_args_t args = {
        .body_size = shc_buffer_body_size(BODY), .config = {BODY}, .participants = 4, .mode = 0600};
    CHECK_OK(shc_seg_create(now.dir_fd, "shmcomm.other", &now.self, &shc_buffer_spec, &args, shc_buffer_init, &seg));
    shc_seg_leave(&seg, now.dir_fd, "shmcomm.other");
    shc_seg_unmap(&seg);
    CHECK_OK(sweep());
    int r = create(&seg);
    CHECK(r == 0 || r == -EEXIST || r == SHC_GONE);
    if (r == 0)
        leave(&seg);
    r = attach(&seg);
    CHECK(r == 0 || r == -ENOENT || r == SHC_GONE);
    if (r == 0)
        leave(&seg);
    CHECK(now.c->company != USER || now.c->unlinks || name_is_users());
}

static void
stop_at(point_t at)
{
    set_stage();
    pid_t pid = start_and_go_to(at);
    stop(pid);
    use_meanwhile();
    use_meanwhile();
    CHECK_EQ(kill(pid, SIGCONT), 0);
    CHECK_EQ(t_wait(pid), 0);
    now.kills++;
    if (now.c->company == USER)
        leave(&now.user);
    CHECK_OK(sweep());
    clear_stage();
}

static void
run_stops(const life_case_t *c)
{
    now.c = c;
    now.kills = 0;
    find_points();
    for (size_t i = 0; i < now.n_points; i++)
        stop_at(now.points[i]);
    print_case(c);
}

TEST_LIMIT(stopped_anywhere_it_delays_one_name_only, 60)
{
    static const life_case_t cases[] = {
        {.name = "create", .act = act_create},
        {.name = "close, last one out", .joins = true, .act = act_close},
        {.name = "unlink, only user", .joins = true, .act = act_unlink},
        {.name = "reap remains", .company = REMAINS, .act = act_reap},
        {.name = "attach", .company = USER, .act = act_attach},
        {.name = "close", .company = USER, .joins = true, .act = act_close},
        {.name = "unlink", .company = USER, .joins = true, .unlinks = true, .act = act_unlink},
        {.name = "sweep the folder", .company = USER, .act = act_sweep},
    };
    run_cases(cases, SHC_ARRAY_SIZE(cases), run_stops);
}
