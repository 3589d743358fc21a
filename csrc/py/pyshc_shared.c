#include "py/pyshc_shared.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Create looks around for this long for segments whose users are all dead; attach for less. */
#define CREATE_SWEEP_NS UINT64_C(1000000)
#define ATTACH_SWEEP_NS UINT64_C(20000)

shc_self_t pyshc_self;

/* Of a lock. */
enum {
    FREE,
    HELD,
    AWAITED /* held, and somebody may sleep */
};

static shc_a32_t registry_word;
static shc_a32_t creation_word;
static pyshc_shared_t *registry;
static uint32_t sweep_cursor;
static bool is_set_up;

static void
lock(shc_a32_t *word)
{
    uint32_t seen = FREE;
    if (shc_a32_cas_acquire(word, &seen, HELD)) /* A1 */
        return;
    while (shc_a32_exchange_seq_cst(word, AWAITED) != FREE) { /* A1 */
        int r = shc_os_futex_wait(word, AWAITED, SHC_NEVER);
        (void)r; /* whatever ended the sleep: the word says whether the lock is free */
    }
}

static void
unlock(shc_a32_t *word)
{
    if (shc_a32_exchange_release(word, FREE) == AWAITED) /* R1 */
        (void)shc_os_futex_wake(word, 1);
}

void
pyshc_registry_lock(void)
{
    lock(&registry_word);
}

void
pyshc_registry_unlock(void)
{
    unlock(&registry_word);
}

static void
before_fork(void)
{
    lock(&creation_word);
    lock(&registry_word);
}

static void
after_fork(void)
{
    unlock(&registry_word);
    unlock(&creation_word);
}

int
pyshc_shared_setup(void)
{
    pyshc_registry_lock();
    int r = 0;
    if (!is_set_up) {
        r = shc_self_init(&pyshc_self);
        if (r == 0)
            r = -pthread_atfork(before_fork, after_fork, after_fork);
        is_set_up = r == 0;
    }
    pyshc_registry_unlock();
    return r;
}

uint64_t
pyshc_shared_own_epoch(void)
{
    pyshc_registry_lock();
    int r = shc_self_refresh(&pyshc_self);
    pyshc_registry_unlock();
    return r == 0 ? shc_self_epoch(&pyshc_self) : 0;
}

static void
free_unmapped(pyshc_shared_t *shared)
{
    free(shared->directory);
    free(shared->file);
    free(shared->extents);
    free(shared);
}

static void
destroy(pyshc_shared_t *shared)
{
    shc_seg_unmap(&shared->seg);
    free_unmapped(shared);
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
    if (shared->extents != NULL && pyshc_shared_is_current(shared))
        shc_ring_extents_leave(&shared->ring, shared->extents);
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
allocate(const pyshc_place_t *place)
{
    pyshc_shared_t *shared = calloc(1, sizeof *shared);
    if (shared == NULL)
        return NULL;
    shared->interpreter = place->interpreter;
    shared->directory = strdup(place->directory);
    shared->file = strdup(place->file);
    if (shared->directory != NULL && shared->file != NULL)
        return shared;
    free_unmapped(shared);
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

/* From now on others can find it, here and elsewhere. */
static int
publish(pyshc_shared_t *shared, shc_seg_draft_t *draft, int dir_fd, void (*bind)(pyshc_shared_t *))
{
    pyshc_registry_lock();
    int r = shc_seg_publish(draft, dir_fd, shared->file, &shared->seg);
    if (r == 0) {
        bind(shared);
        remember(shared);
    }
    pyshc_registry_unlock();
    return r;
}

static int
create(pyshc_shared_t *shared, int dir_fd, const shc_seg_spec_t *spec, const shc_seg_create_args_t *args,
       void (*init)(shc_seg_t *), void (*bind)(pyshc_shared_t *))
{
    shc_seg_draft_t draft;
    pyshc_registry_lock();
    int r = shc_self_refresh(&pyshc_self);
    if (r == 0)
        sweep(dir_fd, shared->file, CREATE_SWEEP_NS);
    pyshc_registry_unlock();
    if (r == 0)
        r = shc_seg_prepare(dir_fd, &pyshc_self, spec, args, init, &draft);
    if (r != 0)
        return r;
    r = publish(shared, &draft, dir_fd, bind);
    if (r != 0)
        shc_seg_discard(&draft, dir_fd);
    return r;
}

int
pyshc_shared_create(const pyshc_place_t *place, const shc_seg_spec_t *spec, const shc_seg_create_args_t *args,
                    void (*init)(shc_seg_t *), void (*bind)(pyshc_shared_t *), pyshc_shared_t **out)
{
    int dir_fd;
    pyshc_shared_t *shared = allocate(place);
    if (shared == NULL)
        return -ENOMEM;
    lock(&creation_word);
    int r = shc_os_dir_open(place->directory, &dir_fd);
    if (r == 0) {
        r = create(shared, dir_fd, spec, args, init, bind);
        shc_os_close(dir_fd);
    }
    unlock(&creation_word);
    if (r == 0)
        *out = shared;
    else
        free_unmapped(shared);
    return r;
}

/* Makes the segment a forked child's own. The registry is locked. */
static int
refresh(pyshc_shared_t *shared)
{
    if (pyshc_shared_is_current(shared))
        return 0;
    shc_a32_store_relaxed(&shared->end_users[0], 0);
    shc_a32_store_relaxed(&shared->end_users[1], 0);
    memset(&shared->send_lock, 0, sizeof shared->send_lock);
    memset(&shared->receive_lock, 0, sizeof shared->receive_lock);
    shc_a64_store_relaxed(&shared->reserver, 0);
    memset(&shared->reservation_over, 0, sizeof shared->reservation_over);
    shared->holds_deferred = false;
    memset(&shared->extents_guard, 0, sizeof shared->extents_guard);
    int r = shc_seg_rejoin(&shared->seg);
    if (r == 0 && shared->extents != NULL)
        shc_ring_extents_open(shared->extents, &shared->seg); /* what was in our parent's hands is not in ours */
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
    pyshc_shared_t *shared = allocate(place);
    if (shared == NULL) {
        shc_os_close(fd);
        return -ENOMEM;
    }
    int r = shc_seg_attach(dir_fd, place->file, fd, info, &pyshc_self, spec, &shared->seg);
    if (r != 0) {
        free_unmapped(shared);
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
    int r = shc_self_refresh(&pyshc_self);
    if (r == 0)
        r = shc_os_dir_open(place->directory, &dir_fd);
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

/* Returns how many they are now. The registry is locked. */
static uint32_t
change_end_users(pyshc_shared_t *shared, int end, uint32_t by)
{
    uint32_t users = shc_a32_load_relaxed(&shared->end_users[end]) + by;
    shc_a32_store_relaxed(&shared->end_users[end], users);
    return users;
}

static void
drop_ends(pyshc_shared_t *shared, uint32_t ends)
{
    for (int end = 0; end < 2; end++) {
        if ((ends >> end & 1) && change_end_users(shared, end, UINT32_MAX) == 0)
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
pyshc_shared_add_user(pyshc_shared_t *shared)
{
    pyshc_registry_lock();
    shared->users++;
    pyshc_registry_unlock();
}

void
pyshc_shared_add_end_user(pyshc_shared_t *shared, int end)
{
    pyshc_registry_lock();
    shared->users++;
    (void)change_end_users(shared, end, 1);
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
    if (shc_a32_load_relaxed(&shared->end_users[end]) == 0)
        r = shc_ring_take(&shared->ring, end);
    if (r == SHC_OWNER_DIED) {
        (void)shc_seg_reap_participants(&shared->seg); /* it may have had memory of large messages, too */
        r = 0;
    }
    if (r == 0)
        (void)change_end_users(shared, end, 1);
    pyshc_registry_unlock();
    return r;
}
