/* Looking at segments from outside, and removing those that nobody uses. */
#include "seg/shc_seg_internal.h"

#include <string.h>

/* A spec that any kind passes: nothing in the body is looked at, and dead participants' holdings stay for those who
 * know the kind. */
static const shc_seg_spec_t any_kind = {.kind = 0, .body_align = 1};

static int
map_located(int fd, const shc_os_file_info_t *info, shc_self_t *self, const shc_seg_spec_t *spec, shc_seg_t *seg)
{
    int r = shc_seg__map(fd, info, self, spec, seg);
    shc_os_close(fd);
    seg->spec = spec != NULL ? spec : &any_kind;
    return r;
}

static int
open_any(int dir_fd, const char *file, bool any_owner, shc_self_t *self, shc_os_file_info_t *info, shc_seg_t *seg)
{
    int fd;
    int r = shc_self_refresh(self);
    if (r == 0)
        r = shc_seg_locate(dir_fd, file, any_owner, &fd, info);
    return r == 0 ? map_located(fd, info, self, NULL, seg) : r;
}

int
shc_seg_view(int dir_fd, const char *file, shc_self_t *self, const shc_seg_spec_t *spec, shc_seg_t *out)
{
    shc_os_file_info_t info;
    int fd;
    int r = shc_self_refresh(self);
    if (r == 0)
        r = shc_seg_locate(dir_fd, file, true, &fd, &info);
    return r == 0 ? map_located(fd, &info, self, spec, out) : r;
}

bool
shc_seg_is_in_use(const shc_seg_t *seg)
{
    return shc_participant_any_acts(&seg->participants, &seg->self->id);
}

static uint32_t
count_slots(const shc_seg_t *seg)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < seg->participants.count; i++) {
        uint64_t word = shc_a64_load_relaxed(&seg->participants.slots[i].state);
        n += shc_participant_phase(word) != SHC_PARTICIPANT_FREE;
    }
    return n;
}

int
shc_seg_inspect(int dir_fd, const char *file, shc_self_t *self, shc_seg_report_t *out)
{
    shc_seg_t seg;
    *out = (shc_seg_report_t){0};
    int r = shc_os_file_look(dir_fd, file, &out->file);
    if (r == 0)
        r = open_any(dir_fd, file, true, self, &out->file, &seg);
    if (r != 0)
        return r;
    out->id = seg.id;
    out->alive = shc_participant_count_alive(&seg.participants, SHC_PARTICIPANT_MAX, UINT32_MAX, &self->id);
    out->slots = count_slots(&seg);
    out->life = shc_seg_life_state(shc_a64_load_acquire(&shc_seg_shm(&seg)->life)); /* A1 */
    shc_seg_unmap(&seg);
    return 0;
}

uint32_t
shc_seg_list_participants(int dir_fd, const char *file, shc_self_t *self, shc_seg_slot_t *slots, uint32_t max)
{
    shc_seg_t seg;
    shc_os_file_info_t info;
    uint32_t n = 0;
    if (open_any(dir_fd, file, true, self, &info, &seg) != 0)
        return 0;
    for (uint32_t i = 0; i < seg.participants.count && n < max; i++) {
        shc_identity_t who;
        uint64_t since;
        uint32_t phase, generation;
        if (!shc_participant_read(&seg.participants, i, &who, &since, &phase, &generation))
            continue;
        bool dead = shc_participant_is_dead(&seg.participants, i, generation, UINT32_MAX, &self->id);
        slots[n++] = (shc_seg_slot_t){.pid = who.pid, .alive = !dead, .since = since};
    }
    shc_seg_unmap(&seg);
    return n;
}

/* Removes the name of a segment that nobody living uses. As a visitor: of several who do this at once, none takes
 * another for a user. */
static int
reap_mapped(shc_seg_t *seg, int dir_fd, const char *file)
{
    uint64_t life = shc_a64_load_acquire(&shc_seg_shm(seg)->life); /* A1 */
    if (shc_seg_life_state(life) == SHC_SEG_OPEN &&
        shc_participant_count_alive(&seg->participants, SHC_PARTICIPANT_MAX, 1, &seg->self->id) != 0)
        return SHC_BUSY;
    shc_seg__visit(seg);
    bool open = shc_seg_life_state(life) == SHC_SEG_OPEN;
    int r = open ? shc_seg__remove_if_unused(seg, dir_fd, file) : shc_seg__remove(seg, dir_fd, file);
    shc_seg__end_visit(seg);
    return r;
}

/* A persistent segment, unless somebody has asked for its removal and was killed over it. */
static bool
keeps_name(const shc_seg_t *seg)
{
    uint64_t life = shc_a64_load_acquire(&shc_seg_shm(seg)->life); /* A1 */
    return (seg->id.flags & SHC_SEG_FLAG_PERSIST) && shc_seg_life_state(life) == SHC_SEG_OPEN;
}

/* Every creation and attach looks around with this: what is another user's is not even mapped, since it could be
 * truncated under us. */
int
shc_seg_reap(int dir_fd, const char *file, shc_self_t *self, bool persist_too)
{
    shc_seg_t seg;
    shc_os_file_info_t info;
    int r = open_any(dir_fd, file, false, self, &info, &seg);
    if (r != 0)
        return r;
    if (keeps_name(&seg) && !persist_too)
        r = SHC_BUSY;
    else
        r = reap_mapped(&seg, dir_fd, file);
    shc_seg_unmap(&seg);
    return r;
}

/* Its users, if it has any, can be neither asked nor told: the name is all there is to remove. */
static bool
is_only_a_file(int status)
{
    switch (status) {
    case -EACCES:
    case -EPERM:
    case SHC_E_NO_FILE:
    case SHC_E_NOT_SEGMENT:
    case SHC_E_VERSION:
    case SHC_E_CORRUPT:
    case SHC_E_FOREIGN_PIDNS:
        return true;
    default:
        return false;
    }
}

int
shc_seg_force_unlink(int dir_fd, const char *file, shc_self_t *self)
{
    shc_seg_t seg;
    shc_os_file_info_t info;
    int r = open_any(dir_fd, file, true, self, &info, &seg);
    if (is_only_a_file(r))
        return shc_os_file_unlink(dir_fd, file);
    if (r != 0)
        return r;
    shc_seg__visit(&seg);
    r = shc_seg__remove(&seg, dir_fd, file);
    shc_seg__end_visit(&seg);
    shc_seg_unmap(&seg);
    return r;
}

typedef struct sweep {
    int dir_fd;
    shc_self_t *self;
    uint64_t end_ns;
    uint32_t skip;
    uint32_t visited;
    void (*removed)(void *arg, const char *file);
    void *arg;
} sweep_t;

/* Reads "<number>." and steps behind it. False if that is not what *at leads to. */
static bool
take_number(const char **at, uint64_t max, uint64_t *out)
{
    uint64_t x = 0;
    const char *p = *at;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (x > (max - digit) / 10)
            return false;
        x = x * 10 + digit;
    }
    if (p == *at || *p != '.')
        return false;
    *at = p + 1;
    *out = x;
    return true;
}

/* Whose file "shmcomm.~<pid>.<pidns>.<random>" is. False: the name is none of ours. */
static bool
maker_of(const char *file, shc_identity_t *maker)
{
    const char *at = file + strlen(SHC_OS_TMP_PREFIX);
    uint64_t pid, pidns;
    if (!take_number(&at, UINT32_MAX, &pid) || !take_number(&at, UINT64_MAX, &pidns))
        return false;
    *maker = (shc_identity_t){.pid = (uint32_t)pid, .pidns = pidns};
    return true;
}

static int
sweep_private(const sweep_t *s, const char *file)
{
    shc_identity_t maker;
    if (!maker_of(file, &maker) || !shc_os_is_dead(&maker, &s->self->id))
        return SHC_BUSY;
    return shc_os_file_unlink(s->dir_fd, file);
}

static int
sweep_one(void *arg, const char *file)
{
    sweep_t *s = arg;
    if (s->visited++ < s->skip)
        return 0;
    bool private = strncmp(file, SHC_OS_TMP_PREFIX, strlen(SHC_OS_TMP_PREFIX)) == 0;
    int r = private ? sweep_private(s, file) : shc_seg_reap(s->dir_fd, file, s->self, false);
    if (r == 0 && s->removed != NULL)
        s->removed(s->arg, file);
    return shc_os_now_ns() >= s->end_ns ? 1 : 0;
}

int
shc_seg_sweep_dir(int dir_fd, const char *prefix, shc_self_t *self, uint64_t budget_ns, uint32_t *cursor,
                  void (*removed)(void *arg, const char *file), void *arg)
{
    int r = shc_self_refresh(self);
    if (r != 0)
        return r;
    sweep_t s = {.dir_fd = dir_fd, .self = self, .removed = removed, .arg = arg};
    s.skip = cursor != NULL ? *cursor : 0;
    s.end_ns = budget_ns == SHC_NEVER ? SHC_NEVER : shc_os_now_ns() + budget_ns;
    r = shc_os_dir_scan(dir_fd, SHC_OS_TMP_PREFIX, sweep_one, &s);
    if (r == 0)
        r = shc_os_dir_scan(dir_fd, prefix, sweep_one, &s);
    if (cursor != NULL)
        *cursor = r == 1 ? s.visited : 0;
    return r == 1 ? SHC_TIMEOUT : r;
}
