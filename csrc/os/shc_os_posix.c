/* The plain POSIX body of shc_os.h: nothing that is not in the standard, so that a port starts from what works. It pays
 * with latency (a sleeper looks every 20 us to 1 ms) and with knowledge:
 *
 *   - The holder of a reused pid, and the zombie of another parent, are taken for living: kill(2) finds both, and
 *     waitid(2) tells a parent alone. What the dead one held is kept that long, and whoever leaves a segment last
 *     leaves its name, for the next sweep to remove. It never errs the other way round.
 *   - POSIX knows no walls between process ids, and behind one kill(2) denies who lives. PID namespaces are heeded
 *     where /proc shows them, as on Linux. A port to a system that has such walls under another name (jails, zones)
 *     must put what it knows of them into `pidns`; until then nothing may be shared across them.
 *
 * Pairs
 *   A1 <- R1: a fork handler that sees a page in the list sees its link to the older ones. */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, in the standard since 2024 */
#endif

#include "os/shc_os_body.h"

#ifdef SHC_OS_POSIX

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- CPUs and waiting ---- */

unsigned
shc_os_cpus(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

#define NAP_MIN_NS UINT64_C(20000)
#define NAP_MAX_NS UINT64_C(1000000)

/* False: a signal handler ran. */
static bool
nap(uint64_t ns)
{
    struct timespec t = {0, (long)ns};
    return nanosleep(&t, NULL) == 0;
}

int
shc_os_futex_wait(shc_a32_t *word, uint32_t expected, uint64_t deadline_ns)
{
    if (shc_a32_load_relaxed(word) != expected)
        return SHC_AGAIN;
    for (uint64_t ns = NAP_MIN_NS;; ns = 2 * ns < NAP_MAX_NS ? 2 * ns : NAP_MAX_NS) {
        uint64_t now = shc_os_now_ns();
        if (now >= deadline_ns)
            return SHC_TIMEOUT;
        if (!nap(deadline_ns - now < ns ? deadline_ns - now : ns))
            return SHC_INTERRUPTED;
        if (shc_a32_load_relaxed(word) != expected)
            return 0;
    }
}

int
shc_os_futex_wake(shc_a32_t *word, uint32_t count)
{
    (void)word; /* the sleepers look for themselves */
    (void)count;
    return 0;
}

/* ---- identity and liveness ---- */

int
shc_os_identity(shc_identity_t *out)
{
    *out = (shc_identity_t){.pid = (uint32_t)getpid(), .uid = (uint32_t)geteuid(), .pidns = shc__os_pid_namespace()};
    return 0;
}

bool
shc_os_is_dead(const shc_identity_t *who, const shc_identity_t *self)
{
    if (who->pidns != self->pidns || who->pid == 0 || who->pid > INT_MAX)
        return false;
    if (kill((pid_t)who->pid, 0) != 0 && errno == ESRCH)
        return true;
    return shc__os_is_zombie_child(who->pid);
}

/* ---- the word that a forked child finds cleared ---- */

typedef struct fork_page {
    shc_a64_t word;
    struct fork_page *next;
} fork_page_t;

/* The one global of the bodies: the address of the newest page. A fork handler gets no argument. */
static shc_a64_t fork_pages;

static fork_page_t *
newest_page(void)
{
    return (fork_page_t *)(uintptr_t)shc_a64_load_acquire(&fork_pages); /* A1 */
}

static void
clear_in_child(void)
{
    for (fork_page_t *page = newest_page(); page != NULL; page = page->next)
        shc_a64_store_relaxed(&page->word, 0);
}

static void
push_page(fork_page_t *page)
{
    uint64_t head = shc_a64_load_relaxed(&fork_pages);
    do {
        page->next = (fork_page_t *)(uintptr_t)head;
    } while (!shc_a64_cas_seq_cst(&fork_pages, &head, (uint64_t)(uintptr_t)page)); /* R1 */
}

int
shc_os_fork_word(shc_a64_t **out)
{
    /* Registered again for every word, as only this order leaves no moment in which a fork would miss it; clearing
     * twice does no harm, and there are few words. */
    int error = pthread_atfork(NULL, NULL, clear_in_child);
    if (error != 0)
        return -error;
    void *page = mmap(NULL, sizeof(fork_page_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -errno;
    push_page(page);
    *out = &((fork_page_t *)page)->word;
    return 0;
}

int
shc_os_random(void *buf, size_t n)
{
    size_t got;
    int rc = shc__os_read_file("/dev/urandom", buf, n, &got);
    return rc == 0 && got < n ? -EIO : rc;
}

/* ---- files ---- */

int
shc_os_file_new(int dir_fd, uint32_t mode, const shc_identity_t *maker, int *fd, char tmp_name[SHC_OS_TMP_NAME])
{
    return shc__os_named_new(dir_fd, mode, maker, fd, tmp_name);
}

int
shc_os_file_publish(int dir_fd, int fd, const char *tmp_name, const char *name)
{
    (void)fd;
    return shc__os_named_publish(dir_fd, tmp_name, name);
}

/* posix_fallocate(3) is absent on some systems and pretends on others; writing always reserves. */
int
shc__os_allocate(int fd, uint64_t from, uint64_t n)
{
    (void)fd;
    (void)from;
    (void)n;
    return -EOPNOTSUPP;
}

int
shc__os_punch(int fd, uint64_t from, uint64_t n)
{
    (void)fd;
    (void)from;
    (void)n;
    return -EOPNOTSUPP;
}

uint64_t
shc__os_memory_available(int fd)
{
    (void)fd;
    return UINT64_MAX;
}

shc_os_growth_t
shc_os_growth_of(int fd, void *base)
{
    (void)fd;
    (void)base;
    return SHC_OS_GROWS_NOT;
}

int
shc_os_map_reserve(void *base, uint64_t from, uint64_t n)
{
    (void)base;
    (void)from;
    (void)n;
    return -EOPNOTSUPP;
}

int
shc_os_map_give_back(void *base, uint64_t from, uint64_t n)
{
    (void)base;
    (void)from;
    (void)n;
    return -EOPNOTSUPP;
}

#endif
