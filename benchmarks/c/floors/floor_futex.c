/* The least that two processes need to tell each other something: `futex TRIPS` asleep, each woken by the other with a
 * bare futex; `line TRIPS` spinning, one cache line going there and back. Prints the p50 and the mean of a round
 * trip in nanoseconds. Uses nothing of the library that is measured against it. */
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct floor_words {
    _Alignas(128) _Atomic uint32_t ping;
    _Alignas(128) _Atomic uint32_t pong;
} floor_words_t;

static uint64_t
now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void
sleep_until(_Atomic uint32_t *word, uint32_t turn)
{
    uint32_t seen;
    while ((seen = atomic_load(word)) != turn)
        (void)syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void
spin_until(_Atomic uint32_t *word, uint32_t turn)
{
    while (atomic_load_explicit(word, memory_order_acquire) != turn)
        ;
}

static void
pass(_Atomic uint32_t *word, uint32_t turn, int asleep)
{
    atomic_store_explicit(word, turn, memory_order_release);
    if (asleep)
        (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void
await(_Atomic uint32_t *word, uint32_t turn, int asleep)
{
    if (asleep)
        sleep_until(word, turn);
    else
        spin_until(word, turn);
}

static int
ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Spinning trips are shorter than a look at the clock: the mean of runs of 64 stands for each. */
static int
measure(floor_words_t *words, uint32_t trips, int asleep)
{
    uint32_t step = asleep ? 1 : 64, count = trips / step;
    uint32_t *ns = malloc(count * sizeof(*ns));
    uint32_t turn = 0;
    if (ns == NULL)
        return 1;
    uint64_t start = now_ns(), before = start;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < step; j++) {
            pass(&words->ping, ++turn, asleep);
            await(&words->pong, turn, asleep);
        }
        uint64_t now = now_ns();
        ns[i] = (uint32_t)((now - before) / step);
        before = now;
    }
    double mean = (double)(before - start) / (count * step);
    qsort(ns, count, sizeof(*ns), ascending);
    (void)printf("%u %.1f\n", ns[count / 2], mean);
    free(ns);
    return 0;
}

int
main(int argc, char **argv)
{
    uint32_t trips = argc == 3 ? (uint32_t)strtoul(argv[2], NULL, 10) / 64 * 64 : 0;
    int asleep = argc == 3 && strcmp(argv[1], "futex") == 0;
    if (trips == 0 || (!asleep && strcmp(argv[1], "line") != 0)) {
        (void)fprintf(stderr, "usage: %s futex|line TRIPS (at least 64)\n", argv[0]);
        return 2;
    }
    floor_words_t *words = mmap(NULL, sizeof(*words), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED)
        return 1;
    pid_t other = fork();
    if (other == 0) {
        for (uint32_t turn = 1; turn <= trips; turn++) {
            await(&words->ping, turn, asleep);
            pass(&words->pong, turn, asleep);
        }
        _exit(0);
    }
    int status, failed = other < 0 ? 1 : measure(words, trips, asleep);
    if (other > 0 && (waitpid(other, &status, 0) != other || status != 0))
        failed = 1;
    return failed;
}
