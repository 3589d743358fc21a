#include "support/crash_impl.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "support/crash_trace.h"
#include "t.h"

#define STEPS_MAX UINT64_C(3000000) /* an operation that takes longer under the tracer hangs */
#define SURVIVOR_LIMIT_S 3
#define FAILURES_SHOWN 4
#define VICTIMS 2u /* the corpses that stand for the victims; the others are for setup */

typedef struct image {
    uint8_t *bytes;
    uint64_t step;
    uint64_t where;
} image_t;

/* The counters of one case. */
typedef struct tally {
    uint64_t points;
    uint64_t images;
    uint64_t starts;
    uint64_t double_points;
    uint64_t double_images;
    uint64_t failures;
} tally_t;

/* Everything of the case that runs. One per process: the handlers of a survivor's signals need it, too. */
static struct {
    const crash_script_t *script;
    const crash_case_t *c;
    shc_self_t self;
    uint64_t size;
    crash_party_t peer; /* on the live segment */
    uint8_t *second;    /* shared with the second victim */
    uint8_t *copy;      /* what survivors work on */
    image_t *images;    /* of the first victim, already without it */
    size_t image_room;
    tally_t tally;
    /* what the survivor at work looks at */
    uint32_t victim_pid; /* of the corpse that stands for it */
    bool reaped;
    bool is_double;
    image_t first_fault;
    image_t at;
    sigjmp_buf out;
} now;

/* ---- failures ---- */

static void
describe_point(void)
{
    fprintf(stderr, "    case \"%s\", killed behind instruction %" PRIu64 " (before program+%#" PRIx64 ")", now.c->name,
            now.is_double ? now.first_fault.step : now.at.step, now.is_double ? now.first_fault.where : now.at.where);
    if (now.is_double)
        fprintf(stderr, ", its successor behind instruction %" PRIu64 " (before program+%#" PRIx64 ")", now.at.step,
                now.at.where);
    fprintf(stderr, ", %s\n", now.reaped ? "reaped" : "not yet reaped");
}

void
crash_failed(const char *file, int line, const char *format, ...)
{
    if (now.tally.failures < FAILURES_SHOWN) {
        va_list args;
        va_start(args, format);
        fflush(stdout);
        fprintf(stderr, "%s:%d: survivor: ", file, line);
        vfprintf(stderr, format, args);
        fputc('\n', stderr);
        describe_point();
        va_end(args);
    }
    siglongjmp(now.out, 1);
}

void
crash_expect_eq(const char *file, int line, const char *text, long long a, long long b)
{
    if (a != b)
        crash_failed(file, line, "%s, but these are %lld (%#llx) and %lld (%#llx)", text, a, (unsigned long long)a, b,
                     (unsigned long long)b);
}

static void
on_signal(int sig)
{
    crash_failed(__FILE__, __LINE__, "%s", sig == SIGALRM ? "the survivor hangs" : strsignal(sig));
}

static void
catch_signals(void)
{
    static const int caught[] = {SIGALRM, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    struct sigaction action = {.sa_handler = on_signal};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(caught); i++)
        CHECK_EQ(sigaction(caught[i], &action, NULL), 0);
}

static void
default_signals(void)
{
    static const int caught[] = {SIGALRM, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(caught); i++)
        (void)signal(caught[i], SIG_DFL);
}

static void
set_watchdog(int seconds)
{
    struct itimerval limit = {{0, 0}, {seconds, 0}};
    (void)setitimer(ITIMER_REAL, &limit, NULL);
}

/* ---- images ---- */

static void *
shared_memory(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

static shc_participant_shm_t *
slots_of(uint8_t *base)
{
    return (shc_participant_shm_t *)(void *)(base + SHC_SEG_PARTICIPANTS_OFFSET);
}

static void
replace_word(shc_a64_t *word, uint64_t from, uint64_t to)
{
    if (shc_a64_load_relaxed(word) == from)
        shc_a64_store_relaxed(word, to);
}

/* Wherever the image names the process `dead`, it names `corpse` from now on. */
static void
exchange_process(uint8_t *base, const shc_identity_t *dead, const shc_identity_t *corpse)
{
    shc_participant_shm_t *slot = slots_of(base);
    for (uint32_t i = 0; i < now.peer.seg.participants.count; i++, slot++) {
        uint64_t word = shc_a64_load_relaxed(&slot->state);
        if (shc_participant_actor(word) == dead->pid)
            shc_a64_store_relaxed(&slot->state, shc_participant_word(shc_participant_phase(word), corpse->pid,
                                                                     shc_participant_generation(word)));
        if (shc_a32_load_relaxed(&slot->pid) != dead->pid)
            continue;
        shc_a32_store_relaxed(&slot->pid, corpse->pid);
        replace_word(&slot->start, dead->start, corpse->start);
        replace_word(&slot->pidino, dead->pidino, corpse->pidino);
    }
}

/* ---- survivors ---- */

static void
adopt(crash_party_t *party, uint8_t *base)
{
    SURVIVES_EQ(shc_seg_adopt(base, now.size, &now.self, now.script->spec, &party->seg), 0);
}

/* The peer as it was before the operation, on the copy. */
static void
move_peer(crash_party_t *peer)
{
    void *own = peer->own;
    *peer = now.peer;
    peer->own = own;
    peer->seg.base = now.copy;
    peer->seg.is_copy = true;
    peer->seg.participants.slots = slots_of(now.copy);
    memcpy(own, now.peer.own, now.script->own_size);
    now.script->rebase(peer);
}

bool
crash_reaped_before(void)
{
    return now.reaped;
}

bool
crash_is_double(void)
{
    return now.is_double;
}

static bool
is_corpse(uint32_t pid)
{
    bool found = false;
    for (unsigned i = 0; i < TRACE_CORPSES; i++)
        found = found || pid == trace_corpse(i)->pid;
    return found;
}

bool
crash_victim_slot(const crash_party_t *party, uint32_t *index, uint32_t *generation)
{
    for (uint32_t i = 0; i < party->seg.participants.count; i++) {
        uint64_t word = shc_a64_load_relaxed(&party->seg.participants.slots[i].state);
        if (shc_participant_actor(word) != now.victim_pid)
            continue;
        *index = i;
        *generation = shc_participant_generation(word);
        return true;
    }
    return false;
}

/* The participants, by index and generation, that have died. */
typedef struct dead_list {
    unsigned n;
    struct {
        uint32_t index;
        uint32_t generation;
    } who[16];
} dead_list_t;

static void
add_dead(dead_list_t *list, uint8_t *image)
{
    const shc_participant_shm_t *slot = slots_of(image);
    for (uint32_t i = 0; i < now.peer.seg.participants.count && list->n < SHC_ARRAY_SIZE(list->who); i++) {
        uint64_t word = shc_a64_load_relaxed(&slot[i].state);
        if (!is_corpse(shc_participant_actor(word)))
            continue;
        list->who[list->n].index = i;
        list->who[list->n++].generation = shc_participant_generation(word);
    }
}

static void
check_owns_nothing(const crash_party_t *survivor, const dead_list_t *dead)
{
    for (unsigned i = 0; i < dead->n && now.script->owns != NULL; i++)
        SURVIVES(!now.script->owns(survivor, dead->who[i].index, dead->who[i].generation));
}

/* After the sweep nothing is anybody's who is dead. */
static void
check_swept(const crash_party_t *survivor, const dead_list_t *dead)
{
    for (uint32_t i = 0; i < survivor->seg.participants.count; i++) {
        uint64_t word = shc_a64_load_relaxed(&survivor->seg.participants.slots[i].state);
        SURVIVES(shc_participant_phase(word) == SHC_PARTICIPANT_FREE ||
                 shc_participant_phase(word) == SHC_PARTICIPANT_LIVE);
        SURVIVES(!is_corpse(shc_participant_actor(word)));
    }
    check_owns_nothing(survivor, dead);
    SURVIVES_EQ(shc_seg_check(&survivor->seg), 0);
    SURVIVES_EQ(now.script->verify(survivor), 0);
}

/* A new process over the copy: joins, as every process must. */
static void
join_survivor(crash_party_t *survivor, const dead_list_t *dead)
{
    adopt(survivor, now.copy);
    memset(survivor->own, 0, now.script->own_size);
    now.script->bind(survivor);
    if (now.reaped) {
        (void)shc_seg_reap_participants(&survivor->seg);
        check_owns_nothing(survivor, dead);
    }
    SURVIVES_EQ(shc_seg_rejoin(&survivor->seg), 0);
}

static void
survive(void *survivor_own, void *peer_own)
{
    crash_party_t survivor = {.own = survivor_own}, peer = {.own = peer_own};
    dead_list_t dead = {.n = 0};
    add_dead(&dead, now.copy);
    if (now.is_double)
        add_dead(&dead, now.first_fault.bytes);
    join_survivor(&survivor, &dead);
    move_peer(&peer);
    now.c->check(&survivor, &peer, now.c);
    (void)shc_seg_reap_participants(&survivor.seg);
    check_swept(&survivor, &dead);
}

static void
run_survivors(const image_t *image, bool reaped, void *survivor_own, void *peer_own)
{
    memcpy(now.copy, image->bytes, now.size);
    now.at = *image;
    now.reaped = reaped;
    set_watchdog(SURVIVOR_LIMIT_S);
    if (sigsetjmp(now.out, 1) == 0)
        survive(survivor_own, peer_own);
    else
        now.tally.failures++;
    set_watchdog(0);
}

static void
judge(const image_t *image)
{
    void *survivor_own = calloc(1, now.script->own_size + 1);
    void *peer_own = calloc(1, now.script->own_size + 1);
    CHECK(survivor_own != NULL && peer_own != NULL);
    run_survivors(image, false, survivor_own, peer_own);
    run_survivors(image, true, survivor_own, peer_own);
    free(survivor_own);
    free(peer_own);
}

/* ---- victims ---- */

typedef struct victim {
    crash_party_t party;
    uint8_t *base;
    shc_identity_t *identity; /* shared with the parent */
    pid_t pid;
} victim_t;

static void
become_process(victim_t *victim)
{
    default_signals();
    CHECK_OK(shc_self_refresh(&now.self));
    *victim->identity = now.self.id;
    CHECK_OK(shc_seg_adopt(victim->base, now.size, &now.self, now.script->spec, &victim->party.seg));
    victim->party.own = calloc(1, now.script->own_size + 1);
    CHECK(victim->party.own != NULL);
}

static void
prepare_first(void *arg)
{
    victim_t *victim = arg;
    become_process(victim);
    if (!now.c->outsider)
        CHECK_OK(shc_seg_rejoin(&victim->party.seg));
    now.script->bind(&victim->party);
    if (now.c->prepare != NULL)
        now.c->prepare(&victim->party, now.c);
}

static void
act_first(void *arg)
{
    victim_t *victim = arg;
    now.c->act(&victim->party, now.c);
}

static void
prepare_second(void *arg)
{
    become_process(arg);
}

static void
act_second(void *arg)
{
    victim_t *victim = arg;
    CHECK_OK(shc_seg_rejoin(&victim->party.seg));
    now.script->bind(&victim->party);
    (void)shc_seg_reap_participants(&victim->party.seg);
    if (now.script->recover != NULL)
        now.script->recover(&victim->party, now.c);
}

static void
start_victim(victim_t *victim, uint8_t *base, bool second)
{
    memset(victim, 0, sizeof *victim);
    victim->base = base;
    victim->identity = shared_memory(sizeof *victim->identity);
    victim->pid = trace_start(second ? prepare_second : prepare_first, second ? act_second : act_first, victim);
}

static void
end_victim(victim_t *victim)
{
    trace_kill(victim->pid);
    trace_bury(victim->pid);
    (void)munmap(victim->identity, sizeof *victim->identity);
}

/* Steps through the operation; `seen` gets each distinct state with the victim replaced by a corpse. */
static void
watch_victim(victim_t *victim, const shc_identity_t *corpse, uint64_t *points, void (*seen)(const image_t *image))
{
    uint8_t *last = malloc(now.size), *buried = malloc(now.size);
    CHECK(last != NULL && buried != NULL);
    shc_identity_t dead = *victim->identity; /* written before it stood at the mark */
    bool more = true;
    for (uint64_t step = 0; more; step++) {
        CHECK_LT(step, STEPS_MAX);
        if (step == 0 || memcmp(last, victim->base, now.size) != 0) {
            memcpy(last, victim->base, now.size);
            memcpy(buried, last, now.size);
            exchange_process(buried, &dead, corpse);
            image_t image = {.bytes = buried, .step = step, .where = trace_where(victim->pid)};
            seen(&image);
        }
        more = trace_step(victim->pid);
        *points += 1;
    }
    free(last);
    free(buried);
}

/* ---- one case ---- */

static void
keep_image(const image_t *image)
{
    size_t n = now.tally.images++;
    if (n == now.image_room) {
        now.image_room = now.image_room == 0 ? 64 : 2 * now.image_room;
        now.images = realloc(now.images, now.image_room * sizeof *now.images);
        CHECK(now.images != NULL);
    }
    now.images[n] = *image;
    now.images[n].bytes = malloc(now.size);
    CHECK(now.images[n].bytes != NULL);
    memcpy(now.images[n].bytes, image->bytes, now.size);
    judge(image);
}

static void
judge_double(const image_t *image)
{
    now.tally.double_images++;
    judge(image);
}

static void
double_fault(const image_t *from)
{
    victim_t second;
    now.first_fault = *from;
    now.is_double = true;
    memcpy(now.second, from->bytes, now.size);
    start_victim(&second, now.second, true);
    watch_victim(&second, trace_corpse(1), &now.tally.double_points, judge_double);
    end_victim(&second);
    now.is_double = false;
    now.tally.starts++;
}

/* How many images recovery starts from. */
static uint64_t
double_starts(uint64_t images)
{
    const char *text = getenv("SHMCOMM_CRASH_DOUBLE");
    uint64_t wanted = text == NULL ? 16 : strcmp(text, "all") == 0 ? images : strtoull(text, NULL, 10);
    return wanted < images ? wanted : images;
}

/* Spread evenly, first and last included. */
static void
double_faults(void)
{
    uint64_t n = double_starts(now.tally.images);
    for (uint64_t i = 0; i < n; i++)
        double_fault(&now.images[n == 1 ? 0 : i * (now.tally.images - 1) / (n - 1)]);
}

/* A segment that only its mapping holds: its name is gone at once, though it does not know. */
static void
make_segment(void)
{
    int dir_fd = t_dir_fd();
    CHECK_OK(shc_seg_create(dir_fd, "shmcomm.crash", &now.self, now.script->spec, &now.script->args, now.script->init,
                            &now.peer.seg));
    CHECK_OK(shc_os_file_unlink(dir_fd, "shmcomm.crash"));
    shc_os_close(dir_fd);
    now.size = now.peer.seg.id.size;
    now.peer.own = calloc(1, now.script->own_size + 1);
    now.second = shared_memory(now.size);
    now.copy = aligned_alloc(4096, (now.size + 4095) & ~UINT64_C(4095));
    CHECK(now.peer.own != NULL && now.copy != NULL);
    now.script->bind(&now.peer);
}

static void
drop_segment(void)
{
    for (size_t i = 0; i < now.tally.images; i++)
        free(now.images[i].bytes);
    free(now.images);
    free(now.peer.own);
    free(now.copy);
    (void)munmap(now.second, now.size);
    shc_seg_unmap(&now.peer.seg);
    now.images = NULL;
    now.image_room = 0;
}

static bool
in_table(const shc_participants_t *table, uint32_t pid)
{
    bool found = false;
    for (uint32_t i = 0; i < table->count; i++)
        found = found || shc_participant_actor(shc_a64_load_relaxed(&table->slots[i].state)) == pid;
    return found;
}

uint64_t
crash_plant_dead(crash_party_t *peer)
{
    unsigned i = VICTIMS;
    shc_seg_t dead = peer->seg;
    while (in_table(&peer->seg.participants, trace_corpse(i)->pid))
        i++;
    CHECK_OK(shc_participant_join(&peer->seg.participants, trace_corpse(i), &dead.index, &dead.generation));
    return shc_seg_owner_word(&dead);
}

static void
run_case(const crash_script_t *script, const crash_case_t *c)
{
    victim_t victim;
    now.script = script;
    now.c = c;
    memset(&now.tally, 0, sizeof now.tally);
    make_segment();
    if (c->setup != NULL)
        c->setup(&now.peer, c);
    now.victim_pid = trace_corpse(0)->pid;
    start_victim(&victim, now.peer.seg.base, false);
    watch_victim(&victim, trace_corpse(0), &now.tally.points, keep_image);
    end_victim(&victim);
    double_faults();
    drop_segment();
}

static void
print_head(const char *name)
{
    printf("    %-34s %8s %8s %8s %8s %8s %8s\n", name, "points", "states", "starts", "points2", "states2", "failures");
}

static void
print_tally(const char *name, const tally_t *t)
{
    printf("    %-34s %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %8" PRIu64 "\n", name, t->points,
           t->images, t->starts, t->double_points, t->double_images, t->failures);
    fflush(stdout);
}

static void
add_tally(tally_t *sum, const tally_t *t)
{
    sum->points += t->points;
    sum->images += t->images;
    sum->starts += t->starts;
    sum->double_points += t->double_points;
    sum->double_images += t->double_images;
    sum->failures += t->failures;
}

void
crash_run(const crash_script_t *script, const crash_case_t *cases, size_t n)
{
    tally_t sum = {0};
    trace_require();
    CHECK_OK(shc_self_init(&now.self));
    for (unsigned i = 0; i < TRACE_CORPSES; i++)
        (void)trace_corpse(i); /* before the signals are caught */
    catch_signals();
    print_head(script->name);
    for (size_t i = 0; i < n; i++) {
        run_case(script, &cases[i]);
        print_tally(cases[i].name, &now.tally);
        add_tally(&sum, &now.tally);
    }
    print_tally("total", &sum);
    trace_bury_corpses();
    CHECK_EQ(sum.failures, 0u);
}
