/* Stands in for libFuzzer where only gcc is there: random and mutated inputs, without coverage. Takes libFuzzer's
 * options -max_total_time=S and -seed=N, folders with examples, or files to replay. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "t.h"

#define INPUT_MAX 65536
#define EXAMPLES_MAX 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t input[INPUT_MAX];
static char *examples[EXAMPLES_MAX];
static size_t example_count;

static size_t
load(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return 0;
    size_t n = fread(input, 1, sizeof input, f);
    fclose(f);
    return n;
}

/* In a block of its own size, so that the sanitizer sees a read past its end. */
static void
try_input(size_t n)
{
    uint8_t *exact = malloc(n > 0 ? n : 1);
    if (exact == NULL)
        exit(2);
    memcpy(exact, input, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

static void
add_examples(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return;
    if (!S_ISDIR(st.st_mode)) {
        if (example_count < EXAMPLES_MAX)
            examples[example_count++] = strdup(path);
        return;
    }
    DIR *dir = opendir(path);
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char child[4096];
        int n = snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.' && n > 0 && (size_t)n < sizeof child && stat(child, &st) == 0 &&
            S_ISREG(st.st_mode) && example_count < EXAMPLES_MAX)
            examples[example_count++] = strdup(child);
    }
    closedir(dir);
}

static void
mutate(size_t n, uint64_t *rng)
{
    static const uint64_t odd[] = {0, 1, UINT64_MAX, 0x7fffffff, 0x80000000, INT64_MAX, UINT64_C(1) << 63};
    for (uint64_t times = t_random(rng) % 8; n > 0 && times > 0; times--) {
        size_t at = t_random(rng) % n, wide = (size_t)1 << t_random(rng) % 4;
        uint64_t value = t_random(rng) % 2 ? t_random(rng) : odd[t_random(rng) % (sizeof odd / sizeof odd[0])];
        memcpy(input + at, &value, at + wide <= n ? wide : n - at);
    }
}

static size_t
make_input(uint64_t *rng)
{
    size_t n;
    if (example_count > 0 && t_random(rng) % 4 != 0) {
        n = load(examples[t_random(rng) % example_count]);
        mutate(n, rng);
        return t_random(rng) % 8 == 0 && n > 0 ? t_random(rng) % n : n;
    }
    n = t_random(rng) % (t_random(rng) % 2 ? 64 : 4096);
    for (size_t i = 0; i < n; i++)
        input[i] = (uint8_t)t_random(rng);
    return n;
}

int
main(int argc, char **argv)
{
    time_t begun = time(NULL);
    long seconds = 10;
    uint64_t rng = (uint64_t)begun ^ (uint64_t)getpid() << 32, runs = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-max_total_time=", 16) == 0)
            seconds = atol(argv[i] + 16);
        else if (strncmp(argv[i], "-seed=", 6) == 0)
            rng = strtoull(argv[i] + 6, NULL, 0);
        else if (argv[i][0] != '-')
            add_examples(argv[i]);
    }
    fprintf(stderr, "random inputs, -seed=%llu\n", (unsigned long long)rng);
    for (size_t i = 0; i < example_count; i++)
        try_input(load(examples[i]));
    for (; time(NULL) < begun + seconds; runs++)
        try_input(make_input(&rng));
    fprintf(stderr, "%zu examples and %llu random inputs\n", example_count, (unsigned long long)runs);
    for (size_t i = 0; i < example_count; i++)
        free(examples[i]);
    return 0;
}
