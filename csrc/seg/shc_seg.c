/* Making, opening and validating segments. */
#include "seg/shc_seg.h"

#include <string.h>

#include "base/shc_math.h"
#include "seg/shc_seg_internal.h"

static const shc_layout_row_t head_rows[] = {SHC_SEG_ID_LAYOUT(SHC_LAYOUT_ROW, shc_seg_id_t)               /* */
                                             SHC_SEG_LAYOUT(SHC_LAYOUT_ROW, shc_seg_shm_t)                 /* */
                                             SHC_PARTICIPANT_LAYOUT(SHC_LAYOUT_ROW, shc_participant_shm_t) /* */
                                             SHC_EVENT_LAYOUT(SHC_LAYOUT_ROW, shc_event_shm_t)             /* */
                                             SHC_LOCK_LAYOUT(SHC_LAYOUT_ROW, shc_lock_shm_t)};

static uint64_t
fingerprint_for(const shc_seg_spec_t *spec)
{
    uint64_t h = shc_layout_hash_number(SHC_LAYOUT_SEED, SHC_SEG_FORMAT_VERSION);
    h = shc_layout_hash_text(h, SHC_OS_BODY);
    h = shc_layout_hash(h, head_rows, SHC_ARRAY_SIZE(head_rows));
    return shc_layout_hash(h, spec->rows, spec->row_count);
}

bool
shc_seg_is_laid_out(const shc_seg_id_t *id, const shc_seg_spec_t *spec)
{
    return id->fingerprint == fingerprint_for(spec);
}

static uint64_t
head_size(uint32_t participants)
{
    return SHC_SEG_PARTICIPANTS_OFFSET + (uint64_t)participants * sizeof(shc_participant_shm_t);
}

int
shc_seg_size_for(const shc_seg_spec_t *spec, const shc_seg_create_args_t *args, uint64_t *size)
{
    uint64_t total;
    if (!shc_add_checked(shc_align_up(head_size(args->participants), spec->body_align), args->body_size, &total) ||
        total > INT64_MAX)
        return SHC_E_TOO_LARGE;
    *size = total;
    return 0;
}

/* Whether a segment for these arguments grows. */
static bool
is_to_grow(const shc_seg_spec_t *spec, const shc_seg_create_args_t *args)
{
    return spec->grows && args->reserved[0].n != 0;
}

int
shc_seg_need_for(const shc_seg_spec_t *spec, const shc_seg_create_args_t *args, uint64_t *bytes)
{
    if (!is_to_grow(spec, args))
        return shc_seg_size_for(spec, args, bytes);
    *bytes = head_size(args->participants);
    for (unsigned i = 0; i < SHC_SEG_RANGES; i++)
        *bytes += args->reserved[i].n;
    return 0;
}

static int
fill_id(shc_seg_id_t *id, const shc_self_t *self, const shc_seg_spec_t *spec, const shc_seg_create_args_t *args)
{
    if (args->participants < 1 || args->participants > SHC_PARTICIPANT_MAX)
        return -EINVAL;
    memset(id, 0, sizeof *id);
    id->magic = SHC_SEG_MAGIC;
    id->version = SHC_SEG_FORMAT_VERSION;
    id->kind = spec->kind;
    id->fingerprint = fingerprint_for(spec);
    int r = shc_seg_size_for(spec, args, &id->size);
    if (r != 0)
        return r;
    id->body_size = args->body_size;
    id->body_offset = id->size - id->body_size;
    id->participants_offset = SHC_SEG_PARTICIPANTS_OFFSET;
    id->participants = args->participants;
    id->flags = args->persist ? SHC_SEG_FLAG_PERSIST : 0;
    if (is_to_grow(spec, args))
        id->flags |= SHC_SEG_FLAG_GROWS;
    id->creator_pid = self->id.pid;
    id->created = shc_os_wall_ns();
    id->pidns = self->id.pidns;
    memcpy(id->config, args->config, sizeof id->config);
    return shc_os_random(&id->key, sizeof id->key);
}

static void
bind_handle(shc_seg_t *seg, void *base, shc_self_t *self, const shc_seg_spec_t *spec)
{
    seg->base = base;
    seg->spec = spec;
    seg->self = self;
    seg->participants.slots = (shc_participant_shm_t *)(void *)(seg->base + SHC_SEG_PARTICIPANTS_OFFSET);
    seg->participants.count = seg->id.participants;
    seg->index = 0;
    seg->generation = 0;
    seg->epoch = 0;
    seg->growth = SHC_OS_GROWS_NOT;
    seg->is_copy = false;
    seg->fd = -1;
}

/* Where memory cannot be reserved without overwriting it, everything is reserved before anybody is there. */
static int
reserve_by_writing(int fd, uint64_t size)
{
    int r = shc_os_file_set_size(fd, 0);
    return r == 0 ? shc_os_file_reserve(fd, size) : r;
}

static inline bool
grows(const shc_seg_id_t *id)
{
    return id->flags & SHC_SEG_FLAG_GROWS;
}

/* Keeps the descriptor of the segment's file if growing takes it; else closes it. */
static void
keep_descriptor(shc_seg_t *seg, int fd)
{
    if (grows(&seg->id))
        seg->growth = shc_os_growth_of(fd, seg->base);
    if (seg->growth == SHC_OS_GROWS_BY_FD)
        seg->fd = fd;
    else
        shc_os_close(fd);
}

/* All of it; of one that grows, the head and the ranges asked for. */
static int
reserve_file(int fd, const shc_seg_id_t *id, const shc_seg_create_args_t *args)
{
    if (!grows(id))
        return shc_os_file_reserve(fd, id->size);
    int r = shc_os_file_set_size(fd, id->size);
    if (r == 0)
        r = shc_os_file_reserve_range(fd, 0, head_size(id->participants));
    for (unsigned i = 0; i < SHC_SEG_RANGES && r == 0; i++)
        if (args->reserved[i].n != 0)
            r = shc_os_file_reserve_range(fd, id->body_offset + args->reserved[i].from, args->reserved[i].n);
    return r == -EOPNOTSUPP && !args->sparse ? reserve_by_writing(fd, id->size) : r;
}

/* A reserved, mapped, filled segment without a public name. */
static int
build(int fd, shc_self_t *self, const shc_seg_spec_t *spec, const shc_seg_create_args_t *args,
      void (*init)(shc_seg_t *), shc_seg_t *seg)
{
    shc_os_file_info_t info;
    void *base;
    int r = fill_id(&seg->id, self, spec, args);
    if (r == 0)
        r = reserve_file(fd, &seg->id, args);
    if (r == 0)
        r = shc_os_file_info(fd, &info);
    if (r == 0)
        r = shc_os_map(fd, seg->id.size, &base);
    if (r != 0)
        return r;
    bind_handle(seg, base, self, spec);
    seg->dev = info.dev;
    seg->ino = info.ino;
    memcpy(seg->base, &seg->id, sizeof seg->id);
    init(seg);
    r = shc_seg__join(seg);
    if (r != 0)
        shc_os_unmap(base, seg->id.size);
    return r;
}

int
shc_seg_prepare(int dir_fd, shc_self_t *self, const shc_seg_spec_t *spec, const shc_seg_create_args_t *args,
                void (*init)(shc_seg_t *seg), shc_seg_draft_t *draft)
{
    int r = shc_self_refresh(self);
    if (r == 0)
        r = shc_os_file_new(dir_fd, args->mode, &self->id, &draft->fd, draft->tmp_name);
    if (r != 0)
        return r;
    r = build(draft->fd, self, spec, args, init, &draft->seg);
    if (r != 0) {
        shc_os_file_discard(dir_fd, draft->tmp_name);
        shc_os_close(draft->fd);
    }
    return r;
}

/* A name can be freed and taken again by others between two of our steps, but not this often unless somebody plays
 * with us. */
#define PUBLISH_ROUNDS 64

/* -EEXIST while a living segment (or a stranger's file) has the name. */
static int
take_name(const shc_seg_draft_t *draft, int dir_fd, const char *file)
{
    for (int round = 0; round < PUBLISH_ROUNDS; round++) {
        int r = shc_os_file_publish(dir_fd, draft->fd, draft->tmp_name, file);
        if (r != -EEXIST)
            return r;
        r = shc_seg_reap(dir_fd, file, draft->seg.self, false);
        if (r != 0 && r != -ENOENT)
            return r == SHC_GONE ? SHC_GONE : -EEXIST;
    }
    return -EEXIST;
}

int
shc_seg_publish(shc_seg_draft_t *draft, int dir_fd, const char *file, shc_seg_t *out)
{
    int r = take_name(draft, dir_fd, file);
    if (r != 0)
        return r;
    *out = draft->seg;
    keep_descriptor(out, draft->fd);
    return 0;
}

void
shc_seg_discard(shc_seg_draft_t *draft, int dir_fd)
{
    shc_seg_unmap(&draft->seg);
    shc_os_file_discard(dir_fd, draft->tmp_name);
    shc_os_close(draft->fd);
}

int
shc_seg_create(int dir_fd, const char *file, shc_self_t *self, const shc_seg_spec_t *spec,
               const shc_seg_create_args_t *args, void (*init)(shc_seg_t *seg), shc_seg_t *out)
{
    shc_seg_draft_t draft;
    int r = shc_seg_prepare(dir_fd, self, spec, args, init, &draft);
    if (r != 0)
        return r;
    r = shc_seg_publish(&draft, dir_fd, file, out);
    if (r != 0)
        shc_seg_discard(&draft, dir_fd);
    return r;
}

int
shc_seg_locate(int dir_fd, const char *file, bool any_owner, int *fd, shc_os_file_info_t *info)
{
    int opened;
    int r = shc_os_file_open(dir_fd, file, &opened);
    if (r == -ELOOP || r == -EINVAL)
        return SHC_E_NO_FILE;
    if (r != 0)
        return r;
    r = shc_os_file_info(opened, info);
    if (r == 0 && !any_owner && info->uid != shc_os_uid())
        r = SHC_E_FOREIGN_USER;
    if (r != 0)
        shc_os_close(opened);
    else
        *fd = opened;
    return r;
}

/* Every number of a head that somebody else wrote, checked once. `id` is a private copy. */
static int
validate_id(const shc_seg_id_t *id, uint64_t file_size, const shc_self_t *self, const shc_seg_spec_t *spec)
{
    if (id->magic != SHC_SEG_MAGIC)
        return SHC_E_NOT_SEGMENT;
    if (id->version != SHC_SEG_FORMAT_VERSION)
        return SHC_E_VERSION;
    if (spec != NULL && id->kind != spec->kind)
        return SHC_E_KIND;
    if (spec != NULL && !shc_seg_is_laid_out(id, spec))
        return SHC_E_FINGERPRINT;
    uint64_t slots = (uint64_t)id->participants * sizeof(shc_participant_shm_t);
    bool sound = id->size == file_size && id->participants_offset == SHC_SEG_PARTICIPANTS_OFFSET &&
                 id->participants >= 1 && id->participants <= SHC_PARTICIPANT_MAX &&
                 id->body_offset >= SHC_SEG_PARTICIPANTS_OFFSET + slots && id->body_offset <= id->size &&
                 id->body_size == id->size - id->body_offset &&
                 (id->flags & ~(SHC_SEG_FLAG_PERSIST | SHC_SEG_FLAG_GROWS)) == 0;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(id->spare); i++)
        sound = sound && id->spare[i] == 0;
    if (sound && spec != NULL)
        sound = id->body_offset % spec->body_align == 0 && (spec->grows || !grows(id)) && spec->validate(id) == 0;
    if (!sound)
        return SHC_E_CORRUPT;
    return id->pidns != self->id.pidns ? SHC_E_FOREIGN_PIDNS : 0; /* unknown to one side only counts as another one */
}

/* The handle for a segment at `base`, if it is one. */
static int
bind_checked(void *base, uint64_t size, shc_self_t *self, const shc_seg_spec_t *spec, shc_seg_t *out)
{
    if (size < sizeof(shc_seg_shm_t))
        return SHC_E_NOT_SEGMENT;
    shc_racy_copy(&out->id, base, sizeof out->id);
    int r = validate_id(&out->id, size, self, spec);
    if (r == 0)
        bind_handle(out, base, self, spec);
    return r;
}

int
shc_seg_adopt(void *base, uint64_t size, shc_self_t *self, const shc_seg_spec_t *spec, shc_seg_t *out)
{
    int r = bind_checked(base, size, self, spec, out);
    if (r == 0)
        out->is_copy = true;
    return r;
}

int
shc_seg__map(int fd, const shc_os_file_info_t *info, shc_self_t *self, const shc_seg_spec_t *spec, shc_seg_t *out)
{
    void *base;
    if (info->size < sizeof(shc_seg_shm_t))
        return SHC_E_NOT_SEGMENT;
    int r = shc_os_map(fd, info->size, &base);
    if (r != 0)
        return r;
    out->dev = info->dev;
    out->ino = info->ino;
    r = bind_checked(base, info->size, self, spec, out);
    if (r != 0)
        shc_os_unmap(base, info->size);
    return r;
}

void
shc_seg_unmap(shc_seg_t *seg)
{
    shc_os_unmap(seg->base, seg->id.size);
    seg->base = NULL;
    if (seg->fd >= 0)
        shc_os_close(seg->fd);
    seg->fd = -1;
}

static int
join_and_confirm(int dir_fd, const char *file, shc_self_t *self, shc_seg_t *seg)
{
    bool persist = seg->id.flags & SHC_SEG_FLAG_PERSIST;
    if (!persist && shc_participant_count_alive(&seg->participants, SHC_PARTICIPANT_MAX, 1, &self->id) == 0) {
        int r = shc_seg_reap(dir_fd, file, self, false);
        return r == SHC_BUSY || r == SHC_GONE ? SHC_GONE : -ENOENT;
    }
    int r = shc_seg__join(seg);
    if (r != 0)
        return r;
    if (shc_seg__confirm(seg))
        return 0;
    r = shc_seg__remove(seg, dir_fd, file); /* if whoever doomed it was killed, it is ours to finish */
    shc_seg_leave(seg, dir_fd, file);
    return r == 0 ? -ENOENT : r;
}

int
shc_seg_attach(int dir_fd, const char *file, int fd, const shc_os_file_info_t *info, shc_self_t *self,
               const shc_seg_spec_t *spec, shc_seg_t *out)
{
    shc_seg_t seg;
    int r = shc_self_refresh(self);
    if (r == 0)
        r = shc_seg__map(fd, info, self, spec, &seg);
    if (r != 0) {
        shc_os_close(fd);
        return r;
    }
    keep_descriptor(&seg, fd);
    r = join_and_confirm(dir_fd, file, self, &seg);
    if (r != 0)
        shc_seg_unmap(&seg);
    else
        *out = seg;
    return r;
}

/* 0 if the kept descriptor still leads to this file. */
static int
check_descriptor(const shc_seg_t *seg)
{
    shc_os_file_info_t info;
    int r = shc_os_file_info(seg->fd, &info);
    return r == 0 && (info.dev != seg->dev || info.ino != seg->ino) ? -EBADF : r;
}

int
shc_seg_reserve(const shc_seg_t *seg, uint64_t offset, uint64_t n)
{
    if (n == 0 || seg->growth == SHC_OS_GROWS_NOT)
        return 0;
    if (seg->growth == SHC_OS_GROWS_BY_MAP)
        return shc_os_map_reserve(seg->base, offset, n);
    int r = check_descriptor(seg);
    if (r == 0)
        r = shc_os_file_reserve_range(seg->fd, offset, n);
    return r == -EOPNOTSUPP ? 0 : r; /* then everything was reserved at create */
}

int
shc_seg_give_back(const shc_seg_t *seg, uint64_t offset, uint64_t n)
{
    if (seg->is_copy) {
        memset(shc_seg_at(seg, offset), 0, n);
        return 0;
    }
    if (seg->growth == SHC_OS_GROWS_NOT)
        return -EOPNOTSUPP;
    if (seg->growth == SHC_OS_GROWS_BY_MAP)
        return shc_os_map_give_back(seg->base, offset, n);
    int r = check_descriptor(seg);
    return r == 0 ? shc_os_file_give_back(seg->fd, offset, n) : r;
}

bool
shc_seg_owner_is_dead(const shc_seg_t *seg, uint64_t owner_word)
{
    uint32_t index = (uint32_t)(owner_word & 0xfff) - 1;
    return shc_participant_is_dead(&seg->participants, index, (uint32_t)(owner_word >> 12), UINT32_MAX, &seg->self->id);
}

int
shc_seg_check(const shc_seg_t *seg)
{
    const shc_seg_shm_t *shm = shc_seg_shm(seg);
    uint64_t life = shc_a64_load_relaxed(&shm->life);
    bool sound = memcmp(&shm->id, &seg->id, sizeof seg->id) == 0 && shc_seg_life_state(life) <= SHC_SEG_UNLINKED;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(shm->spare); i++)
        sound = sound && shm->spare[i] == 0;
    return sound ? shc_participant_check(&seg->participants) : SHC_E_CORRUPT;
}
