#include "py/pyshc_shared.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Create looks around for this long for segments whose users are all dead; attach for less. */
#define CREATE_SWEEP_NS UINT64_C(1000000)
#define ATTACH_SWEEP_NS UINT64_C(20000)

shc_self_t pyshc_self;

static shc_a32_t registry_word;
static pyshc_shared_t *registry;
static uint32_t sweep_cursor;
static bool is_set_up;

void
pyshc_registry_lock(void)
{
    uint32_t free_word = 0;
    while (!shc_a32_cas_acquire(&registry_word, &free_word, 1)) { /* A1 */
        shc_os_yield();
        free_word = 0;
    }
}

void
pyshc_registry_unlock(void)
{
    shc_a32_store_release(&registry_word, 0); /* R1 */
}

int
pyshc_shared_setup(void)
{
    pyshc_registry_lock();
    int r = 0;
    if (!is_set_up) {
        r = shc_self_init(&pyshc_self);
        if (r == 0)
            r = -pthread_atfork(pyshc_registry_lock, pyshc_registry_unlock, pyshc_registry_unlock);
        is_set_up = r == 0;
    }
    pyshc_registry_unlock();
    return r;
}

static void
destroy(pyshc_shared_t *shared)
{
    shc_seg_unmap(&shared->seg);
    free(shared->directory);
    free(shared->file);
    free(shared);
}

static void
forget(pyshc_shared_t *shared)
{
    pyshc_shared_t **link = &registry;
    while (*link != NULL && *link != shared)
        link = &(*link)->next;
    if (*link == shared)
        *link = shared->next;
}

static void
leave(pyshc_shared_t *shared)
{
    int dir_fd = -1;
    if (shared->leaving != NULL && pyshc_shared_is_current(shared))
        shared->leaving(shared);
    /* Without the directory the name cannot be removed: then the slot is given back and the next sweep removes it. */
    int r = shc_os_dir_open(shared->directory, &dir_fd);
    shc_seg_leave(&shared->seg, r == 0 ? dir_fd : -1, shared->file);
    if (r == 0)
        shc_os_close(dir_fd);
}

static void
remember(pyshc_shared_t *shared)
{
    shared->users = 1;
    shared->next = registry;
    registry = shared;
}

static pyshc_shared_t *
find(int64_t interpreter, uint64_t dev, uint64_t ino)
{
    pyshc_shared_t *shared = registry;
    while (shared != NULL && (shared->interpreter != interpreter || shared->seg.dev != dev || shared->seg.ino != ino))
        shared = shared->next;
    return shared;
}

static pyshc_shared_t *
allocate(const pyshc_place_t *place, const shc_seg_spec_t *spec)
{
    bool pools = spec == &shc_pool_spec;
    pyshc_shared_t *shared = calloc(1, sizeof *shared + (pools ? sizeof(shc_pool_t) : 0));
    if (shared == NULL)
        return NULL;
    if (pools)
        shared->pool = (shc_pool_t *)(void *)(shared + 1);
    shared->interpreter = place->interpreter;
    shared->directory = strdup(place->directory);
    shared->file = strdup(place->file);
    if (shared->directory != NULL && shared->file != NULL)
        return shared;
    free(shared->directory);
    free(shared->file);
    free(shared);
    return NULL;
}

static void
sweep(int dir_fd, const char *file, uint64_t budget_ns)
{
    /* The namespace of `file` is not known here: everything of ours in the directory is looked at, a little at a
     * time. */
    (void)file;
    int r = shc_seg_sweep_dir(dir_fd, SHC_SEG_FILE_PREFIX, &pyshc_self, budget_ns, &sweep_cursor, NULL, NULL);
    (void)r; /* an unreadable directory shows itself in what the caller does next */
}

int
pyshc_shared_create(const pyshc_place_t *place, const shc_seg_spec_t *spec, const shc_seg_create_args_t *args,
                    void (*init)(shc_seg_t *), void (*bind)(pyshc_shared_t *), pyshc_shared_t **out)
{
    int dir_fd;
    pyshc_shared_t *shared = allocate(place, spec);
    if (shared == NULL)
        return -ENOMEM;
    pyshc_registry_lock();
    int r = shc_os_dir_open(place->directory, &dir_fd);
    if (r == 0) {
        sweep(dir_fd, place->file, CREATE_SWEEP_NS);
        r = shc_seg_create(dir_fd, place->file, &pyshc_self, spec, args, init, &shared->seg);
        shc_os_close(dir_fd);
    }
    if (r == 0) {
        bind(shared);
        remember(shared);
        *out = shared;
    }
    pyshc_registry_unlock();
    if (r != 0) {
        free(shared->directory);
        free(shared->file);
        free(shared);
    }
    return r;
}

/* Makes the segment a forked child's own. The registry is locked. */
static int
refresh(pyshc_shared_t *shared)
{
    if (pyshc_shared_is_current(shared))
        return 0;
    memset(shared->end_users, 0, sizeof shared->end_users);
    memset(&shared->send_lock, 0, sizeof shared->send_lock);
    memset(&shared->receive_lock, 0, sizeof shared->receive_lock);
    shc_a64_store_relaxed(&shared->reserver, 0);
    memset(&shared->reservation_over, 0, sizeof shared->reservation_over);
    shared->holds_deferred = false;
    int r = shc_seg_rejoin(&shared->seg);
    if (r == 0 && shared->rejoined != NULL)
        shared->rejoined(shared);
    return r;
}

/* Attaches a located file, or finds that this process has it open. Closes fd. */
static int
attach_located(int dir_fd, const pyshc_place_t *place, const shc_seg_spec_t *spec, int fd,
               const shc_os_file_info_t *info, void (*bind)(pyshc_shared_t *), pyshc_shared_t **out)
{
    pyshc_shared_t *known = find(place->interpreter, info->dev, info->ino);
    if (known != NULL) {
        shc_os_close(fd);
        if (known->seg.spec != spec)
            return SHC_E_KIND;
        int joined = refresh(known);
        if (joined != 0)
            return joined;
        known->users++;
        *out = known;
        return 0;
    }
    pyshc_shared_t *shared = allocate(place, spec);
    if (shared == NULL) {
        shc_os_close(fd);
        return -ENOMEM;
    }
    int r = shc_seg_attach(dir_fd, place->file, fd, info, &pyshc_self, spec, &shared->seg);
    if (r != 0) {
        free(shared->directory);
        free(shared->file);
        free(shared);
        return r;
    }
    bind(shared);
    remember(shared);
    *out = shared;
    return 0;
}

int
pyshc_shared_attach(const pyshc_place_t *place, const shc_seg_spec_t *spec, bool any_owner,
                    void (*bind)(pyshc_shared_t *), shc_os_file_info_t *info, pyshc_shared_t **out)
{
    int dir_fd, fd;
    pyshc_registry_lock();
    int r = shc_os_dir_open(place->directory, &dir_fd);
    if (r == 0) {
        r = shc_seg_locate(dir_fd, place->file, any_owner, &fd, info);
        if (r == 0)
            r = attach_located(dir_fd, place, spec, fd, info, bind, out);
        sweep(dir_fd, place->file, ATTACH_SWEEP_NS);
        shc_os_close(dir_fd);
    }
    pyshc_registry_unlock();
    return r;
}

static void
drop_ends(pyshc_shared_t *shared, uint32_t ends)
{
    for (int end = 0; end < 2; end++) {
        if ((ends >> end & 1) && --shared->end_users[end] == 0)
            shc_ring_drop(&shared->ring, end);
    }
}

void
pyshc_shared_release(pyshc_shared_t *shared, uint32_t ends)
{
    pyshc_registry_lock();
    if (pyshc_shared_is_current(shared))
        drop_ends(shared, ends);
    bool unused = --shared->users == 0;
    if (unused) {
        forget(shared);
        leave(shared);
    }
    bool unmapped = unused && shared->exports == 0;
    pyshc_registry_unlock();
    if (unmapped)
        destroy(shared);
}

void
pyshc_shared_export(pyshc_shared_t *shared)
{
    pyshc_registry_lock();
    shared->exports++;
    pyshc_registry_unlock();
}

void
pyshc_shared_unexport(pyshc_shared_t *shared)
{
    pyshc_registry_lock();
    bool unmapped = --shared->exports == 0 && shared->users == 0;
    pyshc_registry_unlock();
    if (unmapped)
        destroy(shared);
}

void
pyshc_shared_add_end_user(pyshc_shared_t *shared, int end)
{
    pyshc_registry_lock();
    shared->users++;
    shared->end_users[end]++;
    pyshc_registry_unlock();
}

int
pyshc_shared_refresh(pyshc_shared_t *shared)
{
    pyshc_registry_lock();
    int r = refresh(shared);
    pyshc_registry_unlock();
    return r;
}

int
pyshc_shared_take_end(pyshc_shared_t *shared, int end)
{
    pyshc_registry_lock();
    int r = 0;
    if (shared->end_users[end] == 0)
        r = shc_ring_take(&shared->ring, end);
    if (r == SHC_OWNER_DIED)
        r = 0;
    if (r == 0)
        shared->end_users[end]++;
    pyshc_registry_unlock();
    return r;
}
