/* Segments: named files of shared memory with one structure inside, and their life.
 *
 * Overview. A segment is made under no name at all (or a private one), filled completely, with its creator as
 * participant 0, and then linked to its public name: nobody ever sees half of one. It lives while any process has it
 * open; the last one out removes the name. If all were killed, the next create, attach or listing in that directory
 * removes it (shc_seg_reap). A PERSIST segment keeps its name until shc_seg_unlink.
 *
 * Who may remove the name is decided by ONE word, `life`:
 *
 *     OPEN(n)          --attach, slot already LIVE-->   OPEN(n+1)
 *     OPEN(n)          --last one out, after seeing nobody else-->  DOOMED(me)     fails if anybody attached since n
 *                      was read
 *     OPEN(n)          --unlink()-->                    DOOMED(me)
 *     DOOMED(dead)     --anybody-->                     DOOMED(me)
 *     DOOMED(me)       --name removed-->                UNLINKED
 *     DOOMED(me)       --the system refuses-->          OPEN(n+1), or DOOMED(dead) as it was
 *
 * Only the participant stamped in DOOMED unlinks, and only after seeing that the name still leads to this file:
 * nobody else can remove it meanwhile, so the name of a new segment can never be hit. An attacher whose OPEN(n) ->
 * OPEN(n+1) fails because of DOOMED or UNLINKED leaves its slot again: for it the segment does not exist. Who reaps or
 * unlinks without using the segment takes a slot as a visitor, whom nobody counts as a user. If none is free, it is
 * stamped by its pid alone: slots of the dead are left to those who know the kind and can sweep what they held.
 *
 * Guarantees
 *   (a) Attach never succeeds on a segment whose name is being or has been removed.
 *   (b) A name is removed only if, at the instant of the OPEN -> DOOMED step, no living process had completed an
 *       attach, or unlink() was asked for, or `life` holds what no correct process writes.
 *   (c) A stopped process that holds DOOMED delays re-use of that one name and nothing else (SHC_GONE / -EEXIST say
 *       so).
 *   (d) All memory is reserved at create: a full file system is -ENOSPC there, never SIGBUS later. (A hostile owner
 *       can still truncate his own file under us; POSIX has no defence for named objects.)
 *   (e) Geometry is copied to private memory at attach and validated once; nothing reads it from the segment again.
 *   (f) A segment that grows (shc_arena.h) reserves ranges of its body only. The file has its full size all the same,
 *       and every process maps all of it: holes cost address space and no memory. RLIMIT_FSIZE and RLIMIT_AS must allow
 *       the full size, else create says -EFBIG, and create or attach says -ENOMEM. Who reserves later, when the name
 *       may be gone, does so by way of the mapping and needs no descriptor (Linux >= 5.14). On older kernels, and
 *       outside tmpfs, such a handle keeps the one that it was opened with, close-on-exec, one per process and segment.
 *       A forked child has it, too. Before each use it is compared with the file's identity, as daemons close
 *       descriptors that are not theirs and the number may lead elsewhere: -EBADF then. A process that locks its memory
 *       (mlockall) reserves, but gives nothing back by way of the mapping.
 *
 * Pairs
 *   A1 <- R1: who reads UNLINKED knows the name is gone (the unlink happened before).
 *   AR1: every step of `life`. A joiner's slot store precedes its AR1, a leaver's AR1 follows its look at the slots:
 *        either the leaver sees the joiner's slot, or the joiner's AR1 fails, or the leaver's does. Of several that
 *        leave at once, the last to begin sees all others LEAVING (SC1 of shc_participant.h).
 *
 * Crash points
 *   create, before link       unnamed file: the kernel frees it. Private name: the next sweep of the directory
 *                             removes it.
 *   create, after link        all participants dead: reaped.
 *   attach, slot taken        dead slot: reaped by pid.
 *   attach, after AR1         as a killed user.
 *   close, LEAVING            does not count as a user; reaped.
 *   DOOMED, before unlink     the name stays; whoever meets it takes DOOMED over and unlinks. That of a visitor without
 *                             a slot is judged by pid: if that was reused meanwhile, when the stranger ends.
 *   DOOMED, after unlink      nobody finds the file any more; those who have it open go on. */
#ifndef SHC_SEG_H
#define SHC_SEG_H

#include "seg/shc_seg_shm.h"
#include "sync/shc_participant.h"

enum {
#define SHC_KIND(id, NAME, stem) SHC_KIND_##NAME = (id),
#include "seg/shc_kinds.def"
#undef SHC_KIND
};

#define SHC_SEG_FILE_PREFIX "shmcomm."
#define SHC_SEG_FILE_MAX 255

/* What a kind asks of its segment. */
typedef struct shc_seg_spec {
    uint32_t kind;
    const shc_layout_row_t *rows; /* the kind's own layout, part of the fingerprint */
    size_t row_count;
    uint64_t body_align;
    bool grows;         /* its segments may grow */
    shc_sweep_fn sweep; /* arg: the shc_seg_t; NULL if the structure owns nothing by participant */
    /* Checks config words and body size of a segment that somebody else made: 0 or SHC_E_CORRUPT. */
    int (*validate)(const shc_seg_id_t *id);
} shc_seg_spec_t;

/* Bytes of the body. */
typedef struct shc_seg_range {
    uint64_t from;
    uint64_t n;
} shc_seg_range_t;

#define SHC_SEG_RANGES 3

typedef struct shc_seg_create_args {
    uint64_t body_size;
    /* If the first one is not empty, the segment grows: what is reserved at once beside the head. */
    shc_seg_range_t reserved[SHC_SEG_RANGES];
    uint64_t config[SHC_SEG_CONFIG_WORDS];
    uint32_t participants;
    uint32_t mode;
    bool persist;
    bool sparse; /* where ranges cannot be reserved: -EOPNOTSUPP rather than all memory at once */
} shc_seg_create_args_t;

/* An open segment: private to the process. */
typedef struct shc_seg {
    uint8_t *base;
    const shc_seg_spec_t *spec;
    shc_self_t *self;
    shc_participants_t participants;
    uint32_t index;
    uint32_t generation;
    uint64_t epoch; /* 0: not a participant */
    shc_os_growth_t growth;
    bool is_copy; /* of shc_seg_adopt: all of it is there, and no file behind it */
    int fd;       /* if growing takes one; else -1 */
    uint64_t dev;
    uint64_t ino;
    shc_seg_id_t id; /* private, validated */
} shc_seg_t;

/* Result of looking at a name without joining. */
typedef struct shc_seg_report {
    shc_os_file_info_t file; /* of whatever has the name; all zero if nothing has */
    shc_seg_id_t id;         /* this and the rest: of a segment that can be read, else zero */
    uint32_t alive;          /* living participants */
    uint32_t slots;          /* slots not free */
    uint32_t life;           /* SHC_SEG_OPEN, ... */
} shc_seg_report_t;

/* Whether the layout of a segment is the one that `spec` describes; the rest of its head is not looked at. */
bool shc_seg_is_laid_out(const shc_seg_id_t *id, const shc_seg_spec_t *spec);

/* How large the file for these arguments will be; SHC_E_TOO_LARGE on overflow. */
SHC_MUST_USE int shc_seg_size_for(const shc_seg_spec_t *spec, const shc_seg_create_args_t *args, uint64_t *size);

/* How much memory create will reserve. */
SHC_MUST_USE int shc_seg_need_for(const shc_seg_spec_t *spec, const shc_seg_create_args_t *args, uint64_t *bytes);

/* A segment that has no public name yet. */
typedef struct shc_seg_draft {
    shc_seg_t seg;
    int fd;
    char tmp_name[SHC_OS_TMP_NAME];
} shc_seg_draft_t;

/* Makes a segment that nobody can see yet, reserves its memory (which may take long) and lets init(seg) fill the body.
 * -EINVAL: no such number of participants. A draft ends by publish or discard. */
SHC_MUST_USE int shc_seg_prepare(int dir_fd, shc_self_t *self, const shc_seg_spec_t *spec,
                                 const shc_seg_create_args_t *args, void (*init)(shc_seg_t *seg),
                                 shc_seg_draft_t *draft);

/* Gives it its name. -EEXIST: a living one has that name (a dead one is removed on the way), SHC_GONE: a living process
 * is just removing it; then the draft is as it was. */
SHC_MUST_USE int shc_seg_publish(shc_seg_draft_t *draft, int dir_fd, const char *file, shc_seg_t *out);

void shc_seg_discard(shc_seg_draft_t *draft, int dir_fd);

/* All of it: prepare and publish, or discard. */
SHC_MUST_USE int shc_seg_create(int dir_fd, const char *file, shc_self_t *self, const shc_seg_spec_t *spec,
                                const shc_seg_create_args_t *args, void (*init)(shc_seg_t *seg), shc_seg_t *out);

/* Opens the file and validates it as far as possible without joining; *fd and *info are the caller's. */
SHC_MUST_USE int shc_seg_locate(int dir_fd, const char *file, bool any_owner, int *fd, shc_os_file_info_t *info);

/* Maps, validates and joins a located file; closes fd in every case. -ENOENT: all its users are dead (and it is
 * removed now) or its name is gone; SHC_GONE: being removed by a living process. */
SHC_MUST_USE int shc_seg_attach(int dir_fd, const char *file, int fd, const shc_os_file_info_t *info, shc_self_t *self,
                                const shc_seg_spec_t *spec, shc_seg_t *out);

/* In a forked child: becomes a participant of its own. Nothing to do otherwise. SHC_E_PARTICIPANTS. */
SHC_MUST_USE int shc_seg_rejoin(shc_seg_t *seg);

/* Gives the participant slot back; the last one out removes the name. The mapping stays. The caller has swept what
 * it held. */
void shc_seg_leave(shc_seg_t *seg, int dir_fd, const char *file);

void shc_seg_unmap(shc_seg_t *seg);

/* Removes the name now. 0; -ENOENT if it is gone already; SHC_GONE: a living process is at it. If the system refuses,
 * the segment is as it was. */
SHC_MUST_USE int shc_seg_unlink(shc_seg_t *seg, int dir_fd, const char *file);

/* Sweeps everything that dead participants held and frees their slots. Returns how many. */
uint32_t shc_seg_reap_participants(shc_seg_t *seg);

/* Looks at a file of any kind. 0, or why it is no segment of ours; *out is written in every case. */
SHC_MUST_USE int shc_seg_inspect(int dir_fd, const char *file, shc_self_t *self, shc_seg_report_t *out);

/* One participant of a segment that was only looked at. */
typedef struct shc_seg_slot {
    uint32_t pid;
    bool alive;
    uint64_t since;
} shc_seg_slot_t;

/* Fills up to `max` slots of a file's participants; returns how many. 0 also if the file is no segment (any more). */
uint32_t shc_seg_list_participants(int dir_fd, const char *file, shc_self_t *self, shc_seg_slot_t *slots, uint32_t max);

/* Removes the name of a segment none of whose users lives. 0: removed. SHC_BUSY: it has living users, or is
 * persistent and `persist_too` is false. SHC_GONE: being removed by somebody living. Else why it is no segment of
 * ours. */
SHC_MUST_USE int shc_seg_reap(int dir_fd, const char *file, shc_self_t *self, bool persist_too);

/* Removes a name whatever its users do: they keep the memory they have. What cannot be read as a segment of ours, for
 * whatever reason, is removed as any file is. */
SHC_MUST_USE int shc_seg_force_unlink(int dir_fd, const char *file, shc_self_t *self);

/* Reaps every dead segment and abandoned private file whose name starts with `prefix`. Stops when budget_ns is over
 * (SHC_NEVER: none) with SHC_TIMEOUT; *cursor (may be NULL) then says how many entries to skip next time. `removed`
 * (may be NULL) is told each name. Else 0, or why the directory cannot be read. */
SHC_MUST_USE int shc_seg_sweep_dir(int dir_fd, const char *prefix, shc_self_t *self, uint64_t budget_ns,
                                   uint32_t *cursor, void (*removed)(void *arg, const char *file), void *arg);

/* Reserves memory for n bytes at an offset of the segment's file. 0; -ENOSPC (part of the range may be reserved now);
 * -EBADF: the descriptor that this takes here was closed by somebody. */
SHC_MUST_USE int shc_seg_reserve(const shc_seg_t *seg, uint64_t offset, uint64_t n);

/* Gives their memory back to the system: they read zero, and must not be touched before they are reserved again. 0, or
 * -EOPNOTSUPP and the like: nothing has changed. */
SHC_MUST_USE int shc_seg_give_back(const shc_seg_t *seg, uint64_t offset, uint64_t n);

/* What lies at an offset of the file; the caller has checked it. */
static SHC_ALWAYS_INLINE void *
shc_seg_at(const shc_seg_t *seg, uint64_t offset)
{
    return seg->base + offset;
}

/* The structure's memory. */
static inline void *
shc_seg_body(const shc_seg_t *seg)
{
    return seg->base + seg->id.body_offset;
}

static inline shc_seg_shm_t *
shc_seg_shm(const shc_seg_t *seg)
{
    return (shc_seg_shm_t *)(void *)seg->base;
}

/* A participant's word for "held by me": index + 1 in bits 0-11, generation in bits 12-43; 0 is nobody. */
static inline uint64_t
shc_seg_owner_word(const shc_seg_t *seg)
{
    return (uint64_t)(seg->index + 1) | (uint64_t)seg->generation << 12;
}

bool shc_seg_owner_is_dead(const shc_seg_t *seg, uint64_t owner_word);

/* For tests and tools: a handle over a copy of a segment in private memory; joins nothing. All of the copy is there:
 * reserving does nothing, and giving back leaves zeros, as the hole in a file would. */
SHC_MUST_USE int shc_seg_adopt(void *base, uint64_t size, shc_self_t *self, const shc_seg_spec_t *spec, shc_seg_t *out);

/* Read-only check of head and slots: 0 or SHC_E_CORRUPT. */
SHC_MUST_USE int shc_seg_check(const shc_seg_t *seg);

#endif
