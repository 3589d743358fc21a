/* The operating system of the schedule explorer, in the place of csrc/os: #included by a model_*.c. Processes are the
 * explorer's threads, sleeping is known to it, time is virtual, files are arrays. It must define everything in shc_os.h
 * that the core calls, or the linker takes the real body as well and finds each function twice. */
#include <errno.h>
#include <string.h>

#include "os/shc_os.h"
#include "support/model_impl.h"

#define FAKE_FILES 8u
#define FAKE_NAMES 6u
#ifndef FAKE_FILE_BYTES
#define FAKE_FILE_BYTES 8192u
#endif
#define FAKE_FIRST_PID 1000u
#define FAKE_FIRST_FD 100

typedef struct fake_file {
    uint64_t size;
    _Alignas(128) uint8_t bytes[FAKE_FILE_BYTES];
} fake_file_t;

typedef struct fake_name {
    char text[40];
    uint32_t file; /* index + 1; 0: unused */
} fake_name_t;

static struct {
    fake_file_t files[FAKE_FILES];
    uint32_t n_files;
    fake_name_t names[FAKE_NAMES];
    shc_a64_t fork_words[MODEL_THREADS + 1];
    uint64_t random;
    unsigned cpus;
    uint64_t tick_ns; /* how much time each look at the clock takes */
    shc_os_growth_t growth;
    int reserve_error; /* what reserving and giving back say, in either way; 0: they work */
    int give_back_error;
} fake;

/* Called by the including test when a name is about to be removed. */
static void fake_on_unlink(uint32_t file);

/* For reset(). */
static SHC_UNUSED void
fake_reset(void)
{
    for (uint32_t i = 0; i < fake.n_files; i++) {
        memset(fake.files[i].bytes, 0, fake.files[i].size);
        fake.files[i].size = 0;
    }
    fake.n_files = 0;
    memset(fake.names, 0, sizeof fake.names);
    memset(fake.fork_words, 0, sizeof fake.fork_words);
    fake.random = 1;
    fake.cpus = 1;
    fake.tick_ns = 1;
    fake.growth = SHC_OS_GROWS_BY_MAP;
    fake.reserve_error = 0;
    fake.give_back_error = 0;
}

static uint32_t
fake_process(void)
{
    uint32_t self = model_self();
    return self == MODEL_NOBODY ? MODEL_THREADS : self;
}

/* ---- time ---- */

uint64_t
shc_os_now_ns(void)
{
    return model_now_ns(fake.tick_ns);
}

uint64_t
shc_os_wall_ns(void)
{
    return 1;
}

unsigned
shc_os_cpus(void)
{
    return fake.cpus;
}

void
shc_os_yield(void)
{
    model_point("shc_os_yield");
}

/* ---- waiting ---- */

int
shc_os_futex_wait(shc_a32_t *word, uint32_t expected, uint64_t deadline_ns)
{
    if (shc_a32_load_relaxed(word) != expected) /* a point; what follows is one step */
        return SHC_AGAIN;
    return model_sleep(word, deadline_ns) == MODEL_WOKEN ? 0 : SHC_TIMEOUT;
}

int
shc_os_futex_wake(shc_a32_t *word, uint32_t count)
{
    model_point(__func__);
    return (int)model_wake(word, count);
}

/* ---- processes ---- */

int
shc_os_identity(shc_identity_t *out)
{
    *out = (shc_identity_t){.pid = FAKE_FIRST_PID + fake_process(), .uid = 1, .start = 5, .pidns = 7};
    return 0;
}

uint32_t
shc_os_uid(void)
{
    return 1;
}

bool
shc_os_is_dead(const shc_identity_t *who, const shc_identity_t *self)
{
    (void)self;
    model_point(__func__);
    uint32_t i = who->pid - FAKE_FIRST_PID;
    return i < MODEL_THREADS && model_is_dead(i);
}

int
shc_os_fork_word(shc_a64_t **out)
{
    *out = &fake.fork_words[fake_process()];
    return 0;
}

int
shc_os_random(void *buf, size_t n)
{
    memset(buf, (int)fake.random++, n);
    return 0;
}

/* ---- files ---- */

static fake_name_t *
find_name(const char *text)
{
    for (uint32_t i = 0; i < FAKE_NAMES; i++)
        if (fake.names[i].file != 0 && strcmp(fake.names[i].text, text) == 0)
            return &fake.names[i];
    return NULL;
}

static fake_file_t *
file_of_fd(int fd)
{
    uint32_t i = (uint32_t)(fd - FAKE_FIRST_FD);
    if (i >= fake.n_files)
        model_failed(__FILE__, __LINE__, "no such descriptor: %d", fd);
    return &fake.files[i];
}

int
shc_os_file_new(int dir_fd, uint32_t mode, const shc_identity_t *maker, int *fd, char tmp_name[SHC_OS_TMP_NAME])
{
    (void)dir_fd;
    (void)mode;
    (void)maker;
    if (fake.n_files == FAKE_FILES)
        model_failed(__FILE__, __LINE__, "more files than the fake has");
    tmp_name[0] = '\0';
    *fd = FAKE_FIRST_FD + (int)fake.n_files++;
    return 0;
}

int
shc_os_file_publish(int dir_fd, int fd, const char *tmp_name, const char *name)
{
    (void)dir_fd;
    (void)tmp_name;
    model_point(__func__);
    if (find_name(name) != NULL)
        return -EEXIST;
    for (uint32_t i = 0; i < FAKE_NAMES; i++) {
        if (fake.names[i].file != 0)
            continue;
        strncpy(fake.names[i].text, name, sizeof fake.names[i].text - 1);
        fake.names[i].file = (uint32_t)(fd - FAKE_FIRST_FD) + 1;
        model_share(file_of_fd(fd)->bytes, FAKE_FILE_BYTES); /* until now nobody else could know it */
        return 0;
    }
    model_failed(__FILE__, __LINE__, "more names than the fake has");
}

void
shc_os_file_discard(int dir_fd, const char *tmp_name)
{
    (void)dir_fd;
    (void)tmp_name;
}

int
shc_os_file_reserve(int fd, uint64_t size)
{
    if (size > FAKE_FILE_BYTES)
        return -ENOSPC;
    file_of_fd(fd)->size = size;
    return 0;
}

int
shc_os_file_set_size(int fd, uint64_t size)
{
    return shc_os_file_reserve(fd, size);
}

static int
reserve_range(const fake_file_t *file, uint64_t from, uint64_t n)
{
    if (fake.reserve_error != 0)
        return fake.reserve_error;
    return from + n <= file->size ? 0 : -ENOSPC;
}

static int
give_range_back(fake_file_t *file, uint64_t from, uint64_t n)
{
    if (fake.give_back_error == 0)
        memset(file->bytes + from, 0, n);
    return fake.give_back_error;
}

int
shc_os_file_reserve_range(int fd, uint64_t from, uint64_t n)
{
    model_point(__func__);
    return reserve_range(file_of_fd(fd), from, n);
}

int
shc_os_file_give_back(int fd, uint64_t from, uint64_t n)
{
    model_point(__func__);
    return give_range_back(file_of_fd(fd), from, n);
}

int
shc_os_file_open(int dir_fd, const char *name, int *fd)
{
    (void)dir_fd;
    model_point(__func__);
    const fake_name_t *found = find_name(name);
    if (found == NULL)
        return -ENOENT;
    *fd = FAKE_FIRST_FD + (int)found->file - 1;
    return 0;
}

int
shc_os_file_info(int fd, shc_os_file_info_t *out)
{
    *out = (shc_os_file_info_t){.dev = 1, .ino = (uint64_t)fd, .size = file_of_fd(fd)->size, .uid = 1, .mode = 0600};
    return 0;
}

int
shc_os_file_look(int dir_fd, const char *name, shc_os_file_info_t *out)
{
    (void)dir_fd;
    model_point(__func__);
    const fake_name_t *found = find_name(name);
    return found == NULL ? -ENOENT : shc_os_file_info(FAKE_FIRST_FD + (int)found->file - 1, out);
}

int
shc_os_file_is(int dir_fd, const char *name, uint64_t dev, uint64_t ino, bool *same)
{
    (void)dir_fd;
    (void)dev;
    model_point(__func__);
    const fake_name_t *found = find_name(name);
    *same = found != NULL && (uint64_t)FAKE_FIRST_FD + found->file - 1 == ino;
    return 0;
}

int
shc_os_file_unlink(int dir_fd, const char *name)
{
    (void)dir_fd;
    model_point(__func__);
    fake_name_t *found = find_name(name);
    if (found == NULL)
        return -ENOENT;
    fake_on_unlink(found->file - 1);
    found->file = 0;
    return 0;
}

int
shc_os_file_space(int fd, uint64_t *free_bytes)
{
    (void)fd;
    *free_bytes = UINT64_MAX;
    return 0;
}

int
shc_os_map(int fd, uint64_t size, void **base)
{
    (void)size;
    *base = file_of_fd(fd)->bytes;
    return 0;
}

void
shc_os_unmap(void *base, uint64_t size)
{
    (void)base;
    (void)size;
}

static fake_file_t *
file_of_map(void *base)
{
    for (uint32_t i = 0; i < fake.n_files; i++)
        if (fake.files[i].bytes == base)
            return &fake.files[i];
    model_failed(__FILE__, __LINE__, "nothing is mapped there");
}

shc_os_growth_t
shc_os_growth_of(int fd, void *base)
{
    (void)fd;
    (void)base;
    return fake.growth;
}

int
shc_os_map_reserve(void *base, uint64_t from, uint64_t n)
{
    model_point(__func__);
    return reserve_range(file_of_map(base), from, n);
}

int
shc_os_map_give_back(void *base, uint64_t from, uint64_t n)
{
    model_point(__func__);
    return give_range_back(file_of_map(base), from, n);
}

void
shc_os_close(int fd)
{
    (void)fd;
}

int
shc_os_dir_open(const char *path, int *dir_fd)
{
    (void)path;
    *dir_fd = 0;
    return 0;
}

int
shc_os_dir_scan(int dir_fd, const char *prefix, int (*visit)(void *arg, const char *name), void *arg)
{
    (void)dir_fd;
    int r = 0;
    for (uint32_t i = 0; i < FAKE_NAMES && r == 0; i++) {
        char text[sizeof fake.names[i].text];
        memcpy(text, fake.names[i].text, sizeof text);
        if (fake.names[i].file != 0 && strncmp(text, prefix, strlen(prefix)) == 0)
            r = visit(arg, text);
    }
    return r;
}
