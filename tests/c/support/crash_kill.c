#include "support/crash_kill.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/crash_trace.h"
#include "t.h"

#define MS UINT64_C(1000000)
#define WATCHDOG_NS (20000 * MS)
#define STEPS_MAX 100000u
#define KILLS 500u
#define STOPS 30u
#define MEANWHILE_ROUNDS 20u

/* What the processes of one round tell each other beside the segment. */
typedef struct board {
    shc_a32_t about_to_sleep;
    shc_a64_t survivor_ended;
} board_t;

static struct {
    const crash_script_t *script;
    shc_self_t self;
    crash_party_t parent;
    uint64_t size;
    uint8_t *fresh_bytes; /* segment and private state right after creation */
    uint8_t *fresh_own;
    board_t *board;
    uint64_t seed;
} now;

/* ---- processes ---- */

static void
become_process(crash_party_t *party, bool join)
{
    CHECK_OK(shc_self_refresh(&now.self));
    CHECK_OK(shc_seg_adopt(now.parent.seg.base, now.size, &now.self, now.script->spec, &party->seg));
    party->own = calloc(1, now.script->own_size + 1);
    CHECK(party->own != NULL);
    if (join)
        CHECK_OK(shc_seg_rejoin(&party->seg));
    now.script->bind(party);
}

static pid_t
start_survivor(const kill_case_t *c)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK_GE(pid, 0);
    if (pid != 0)
        return pid;
    crash_party_t survivor;
    become_process(&survivor, true);
    shc_a32_store_relaxed(&now.board->about_to_sleep, 1);
    c->survive(&survivor);
    shc_a64_store_relaxed(&now.board->survivor_ended, shc_os_now_ns());
    _exit(0);
}

static void
nap(void)
{
    struct timespec t = {0, 50000};
    (void)nanosleep(&t, NULL);
}

static char
state_of(pid_t pid)
{
    char path[40], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_GE(fd, 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    CHECK_GT(n, 0);
    text[n] = '\0';
    const char *end = strrchr(text, ')');
    CHECK(end != NULL && end[1] == ' ');
    return end[2];
}

/* Or at its end already: on a busy machine what it waits for may come first. */
static void
wait_until_asleep(pid_t pid)
{
    uint64_t end = shc_os_now_ns() + WATCHDOG_NS;
    char state;
    while ((state = state_of(pid)) != 'S' && state != 'Z') {
        if (shc_os_now_ns() >= end)
            t_fail(__FILE__, __LINE__, "process %d does not fall asleep: its state is %c", (int)pid, state);
        nap();
    }
}

static void
wait_until_survivor_sleeps(pid_t pid)
{
    uint64_t end = shc_os_now_ns() + WATCHDOG_NS;
    while (shc_a32_load_relaxed(&now.board->about_to_sleep) == 0 && state_of(pid) != 'Z') {
        CHECK_LT(shc_os_now_ns(), end);
        nap();
    }
    wait_until_asleep(pid);
}

static void
expect_end(const char *name, const char *who, pid_t pid)
{
    int status;
    uint64_t end = shc_os_now_ns() + WATCHDOG_NS;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (shc_os_now_ns() >= end)
            t_fail(__FILE__, __LINE__, "\"%s\": %s hangs", name, who);
        nap();
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        t_fail(__FILE__, __LINE__, "\"%s\": %s failed", name, who);
}

/* ---- the stage ---- */

static void
make_stage(const crash_script_t *script)
{
    trace_require();
    now.script = script;
    now.seed = t_seed();
    int dir_fd = t_dir_fd();
    CHECK_OK(shc_self_init(&now.self));
    CHECK_OK(
        shc_seg_create(dir_fd, "shmcomm.crash", &now.self, script->spec, &script->args, script->init, &now.parent.seg));
    CHECK_OK(shc_os_file_unlink(dir_fd, "shmcomm.crash"));
    shc_os_close(dir_fd);
    now.size = now.parent.seg.id.size;
    now.parent.own = calloc(1, script->own_size + 1);
    now.fresh_bytes = malloc(now.size);
    now.fresh_own = malloc(script->own_size + 1);
    now.board = mmap(NULL, sizeof *now.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(now.parent.own != NULL && now.fresh_bytes != NULL && now.fresh_own != NULL && now.board != MAP_FAILED);
    script->bind(&now.parent);
    memcpy(now.fresh_bytes, now.parent.seg.base, now.size);
    memcpy(now.fresh_own, now.parent.own, script->own_size);
}

static void
reset_stage(void)
{
    memcpy(now.parent.seg.base, now.fresh_bytes, now.size);
    memcpy(now.parent.own, now.fresh_own, now.script->own_size);
    memset(now.board, 0, sizeof *now.board);
}

static void
drop_stage(void)
{
    (void)munmap(now.board, sizeof *now.board);
    shc_seg_unmap(&now.parent.seg);
    free(now.parent.own);
    free(now.fresh_bytes);
    free(now.fresh_own);
    trace_bury_corpses();
}

/* ---- kills ---- */

typedef struct delays {
    uint64_t kills;
    uint64_t sum_ns;
    uint64_t worst_ns;
} delays_t;

typedef struct kill_victim {
    const kill_case_t *c;
    crash_party_t party;
} kill_victim_t;

static void
prepare_victim(void *arg)
{
    kill_victim_t *victim = arg;
    become_process(&victim->party, true);
    if (victim->c->prepare != NULL)
        victim->c->prepare(&victim->party);
}

static void
act_victim(void *arg)
{
    kill_victim_t *victim = arg;
    victim->c->act(&victim->party);
}

/* Returns how many it did. */
static uint32_t
step(pid_t pid, uint32_t steps)
{
    uint32_t done = 0;
    while (done < steps && trace_step(pid))
        done++;
    return done;
}

static uint32_t
count_steps(const kill_case_t *c)
{
    kill_victim_t victim = {.c = c};
    reset_stage();
    if (c->setup != NULL)
        c->setup(&now.parent);
    pid_t pid = trace_start(prepare_victim, act_victim, &victim);
    uint32_t n = step(pid, STEPS_MAX);
    CHECK_LT(n, STEPS_MAX);
    trace_kill(pid);
    trace_bury(pid);
    return n;
}

/* Lets the victim run into its sleep. It stops when it leaves the system call. */
static void
put_to_sleep(pid_t pid)
{
    do {
        CHECK(trace_to_syscall(pid));
    } while (!trace_at_futex(pid));
    CHECK_EQ(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
    wait_until_asleep(pid);
}

static void
wait_until_woken(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        CHECK_EQ(errno, EINTR);
    CHECK(WIFSTOPPED(status));
}

static void
note_delay(delays_t *d, uint64_t from_ns)
{
    uint64_t ended = shc_a64_load_relaxed(&now.board->survivor_ended);
    uint64_t delay = ended > from_ns ? ended - from_ns : 0;
    d->kills++;
    d->sum_ns += delay;
    d->worst_ns = delay > d->worst_ns ? delay : d->worst_ns;
}

static void
kill_once(const kill_case_t *c, uint32_t all_steps, delays_t *d)
{
    kill_victim_t victim = {.c = c};
    reset_stage();
    if (c->setup != NULL)
        c->setup(&now.parent);
    pid_t pid = trace_start(prepare_victim, act_victim, &victim);
    if (c->way != KILL_AT_STEP)
        put_to_sleep(pid);
    pid_t survivor = start_survivor(c);
    wait_until_survivor_sleeps(survivor);
    if (c->way == KILL_AT_STEP)
        (void)step(pid, (uint32_t)(t_random(&now.seed) % (all_steps + 1)));
    if (c->way == KILL_WOKEN) {
        c->after(&now.parent);
        wait_until_woken(pid);
        (void)step(pid, (uint32_t)(t_random(&now.seed) % 12));
    }
    uint64_t killed = shc_os_now_ns();
    trace_kill(pid);
    if (c->way != KILL_WOKEN && c->after != NULL)
        c->after(&now.parent);
    expect_end(c->name, "the survivor", survivor);
    note_delay(d, killed);
    trace_bury(pid);
}

static uint64_t
kills_per_case(size_t cases)
{
    const char *text = getenv("SHMCOMM_KILLS");
    uint64_t all = text == NULL ? KILLS : strtoull(text, NULL, 10);
    return (all + cases - 1) / cases;
}

void
crash_kill(const crash_script_t *script, const kill_case_t *cases, size_t n)
{
    make_stage(script);
    printf("    %-46s %8s %12s %12s\n", script->name, "kills", "mean delay", "worst delay");
    for (size_t i = 0; i < n; i++) {
        delays_t d = {0};
        uint32_t steps = cases[i].way == KILL_AT_STEP ? count_steps(&cases[i]) : 0;
        for (uint64_t k = kills_per_case(n); k > 0; k--)
            kill_once(&cases[i], steps, &d);
        printf("    %-46s %8" PRIu64 " %9.1f ms %9.1f ms\n", cases[i].name, d.kills,
               (double)d.sum_ns / (double)d.kills / 1e6, (double)d.worst_ns / 1e6);
        fflush(stdout);
    }
    drop_stage();
}

/* ---- stops ---- */

typedef struct stop_victim {
    const stop_case_t *c;
    crash_party_t party;
} stop_victim_t;

static void
prepare_stopped(void *arg)
{
    stop_victim_t *victim = arg;
    become_process(&victim->party, !victim->c->outsider);
    if (victim->c->prepare != NULL)
        victim->c->prepare(&victim->party);
}

static void
act_stopped(void *arg)
{
    stop_victim_t *victim = arg;
    victim->c->act(&victim->party);
}

/* Behind `steps` instructions; false if it had finished by then (and is gone). */
static bool
stop_behind(pid_t pid, uint32_t steps)
{
    if (step(pid, steps) < steps) {
        trace_detach(pid);
        CHECK_EQ(t_wait(pid), 0);
        return false;
    }
    CHECK_EQ(ptrace(PTRACE_DETACH, pid, NULL, (void *)(uintptr_t)SIGSTOP), 0);
    return true;
}

static void
wait_until_stopped(pid_t pid)
{
    int status;
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
}

/* How many instructions there are, from a run that goes to its end. */
static uint32_t
finish_once(const stop_case_t *c)
{
    stop_victim_t victim = {.c = c};
    reset_stage();
    if (c->setup != NULL)
        c->setup(&now.parent);
    pid_t pid = trace_start(prepare_stopped, act_stopped, &victim);
    uint32_t n = step(pid, STEPS_MAX);
    trace_detach(pid);
    CHECK_EQ(t_wait(pid), 0);
    if (c->after != NULL)
        c->after(&now.parent);
    return n;
}

static void
stop_once(const stop_case_t *c, uint32_t steps)
{
    stop_victim_t victim = {.c = c};
    reset_stage();
    if (c->setup != NULL)
        c->setup(&now.parent);
    pid_t pid = trace_start(prepare_stopped, act_stopped, &victim);
    if (stop_behind(pid, steps)) {
        wait_until_stopped(pid);
        for (unsigned i = 0; i < MEANWHILE_ROUNDS; i++) {
            c->meanwhile(&now.parent);
            CHECK_EQ(state_of(pid), 'T');
            nap();
        }
        CHECK_EQ(kill(pid, SIGCONT), 0);
        expect_end(c->name, "the continued process", pid);
    }
    if (c->after != NULL)
        c->after(&now.parent);
}

void
crash_stop(const crash_script_t *script, const stop_case_t *cases, size_t n)
{
    make_stage(script);
    printf("    %-46s %12s %8s\n", script->name, "instructions", "stops");
    for (size_t i = 0; i < n; i++) {
        uint32_t steps = finish_once(&cases[i]);
        for (unsigned k = 0; k < STOPS; k++)
            stop_once(&cases[i], (uint32_t)(t_random(&now.seed) % steps));
        printf("    %-46s %12" PRIu32 " %8u\n", cases[i].name, steps, STOPS);
        fflush(stdout);
    }
    drop_stage();
}
