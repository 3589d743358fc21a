#include "support/segfix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

segfix_t fix;

static shc_identity_t corpse;

/* Plain POSIX takes another parent's zombie for living: there the corpse is buried at once, and its pid belongs to
 * nobody as long as the system's numbers do not come round. */
#ifdef SHC_OS_POSIX
#define BURIED 1
#else
#define BURIED 0
#endif

void
fix_open(void)
{
    fix.dir_fd = t_dir_fd();
    CHECK_OK(shc_self_init(&fix.self));
}

void
fix_close(void)
{
    if (corpse.pid != 0 && !BURIED)
        (void)t_wait((int)corpse.pid);
    corpse.pid = 0;
    (void)close(fix.dir_fd);
}

/* ---- segments ---- */

shc_seg_create_args_t
fix_buffer_args(uint64_t size)
{
    shc_seg_create_args_t args = {
        .body_size = shc_buffer_body_size(size), .participants = FIX_PARTICIPANTS, .mode = 0600};
    args.config[SHC_BUFFER_CONFIG_SIZE] = size;
    return args;
}

shc_seg_create_args_t
fix_ring_args(uint64_t capacity, uint64_t data_bytes)
{
    shc_seg_create_args_t args = {
        .body_size = shc_ring_body_size(data_bytes), .participants = FIX_PARTICIPANTS, .mode = 0600};
    args.config[SHC_RING_CONFIG_CAPACITY] = capacity;
    args.config[SHC_RING_CONFIG_DATA_BYTES] = data_bytes;
    return args;
}

shc_seg_create_args_t
fix_ring_extent_args(uint64_t capacity, uint64_t data_bytes, uint64_t pages)
{
    shc_seg_create_args_t args = fix_ring_args(capacity, data_bytes);
    shc_ring_set_extent_bytes(args.config, pages << SHC_EXTENT_PAGE_SHIFT);
    CHECK_OK(shc_ring_lay_out(&args));
    return args;
}

shc_seg_create_args_t
fix_objects_args(uint64_t max_size, uint64_t slot_size)
{
    shc_seg_create_args_t args = {
        .body_size = shc_objects_body_size(max_size, slot_size), .participants = FIX_PARTICIPANTS, .mode = 0600};
    args.config[SHC_OBJECTS_CONFIG_MAX_SIZE] = max_size;
    args.config[SHC_OBJECTS_CONFIG_SLOT_SIZE] = slot_size;
    return args;
}

/* ---- the arena by itself ---- */

#define ARENA_ALIGN (UINT64_C(1) << SHC_ARENA_PAGE_SHIFT_MAX)

static int
arena_validate(const shc_seg_id_t *id)
{
    shc_arena_geometry_t g;
    int r = shc_arena_from_config(id->config, id->body_offset, id->participants, &g);
    return r == 0 && g.end == id->size ? 0 : SHC_E_CORRUPT;
}

static void
arena_sweep(void *arg, uint32_t index, uint32_t generation)
{
    shc_arena_t arena;
    (void)generation;
    fix_arena_open(&arena, arg);
    shc_arena_sweep(&arena, index, NULL, NULL);
}

static const shc_layout_row_t fix_arena_rows[] = {SHC_ARENA_LAYOUT(SHC_LAYOUT_ROW, shc_arena_shm_t)         /* */
                                                  SHC_ARENA_MAP_LAYOUT(SHC_LAYOUT_ROW, shc_arena_map_shm_t) /* */
                                                  SHC_ARENA_PARTY_LAYOUT(SHC_LAYOUT_ROW, shc_arena_party_shm_t)};

const shc_seg_spec_t fix_arena_spec = {.kind = FIX_KIND_ARENA,
                                       .rows = fix_arena_rows,
                                       .row_count = SHC_ARRAY_SIZE(fix_arena_rows),
                                       .body_align = ARENA_ALIGN,
                                       .grows = true,
                                       .sweep = arena_sweep,
                                       .validate = arena_validate};

shc_seg_create_args_t
fix_arena_args(shc_arena_geometry_t *g, uint32_t participants)
{
    shc_seg_create_args_t args = {.participants = participants, .mode = 0600};
    uint64_t body;
    CHECK_OK(shc_seg_size_for(&fix_arena_spec, &args, &body)); /* of no body: where one begins */
    g->at = body;
    g->participants = participants;
    CHECK_OK(shc_arena_lay_out(g));
    args.body_size = g->end - body;
    shc_arena_to_config(g, args.config);
    shc_arena_reservation(g, body, args.reserved);
    return args;
}

void
fix_arena_geometry(const shc_seg_t *seg, shc_arena_geometry_t *g)
{
    CHECK_OK(shc_arena_from_config(seg->id.config, seg->id.body_offset, seg->id.participants, g));
}

void
fix_arena_init(shc_seg_t *seg)
{
    shc_arena_geometry_t g;
    fix_arena_geometry(seg, &g);
    shc_arena_init(seg, &g);
}

void
fix_arena_open(shc_arena_t *arena, shc_seg_t *seg)
{
    shc_arena_geometry_t g;
    fix_arena_geometry(seg, &g);
    shc_arena_open(arena, seg, &g);
}

/* ---- the cell ring by itself ---- */

static int
cells_validate(const shc_seg_id_t *id)
{
    shc_cells_geometry_t g;
    int r = shc_cells_from_config(id->config, &g);
    return r == 0 && g.size == id->body_size ? 0 : SHC_E_CORRUPT;
}

static void
cells_sweep(void *arg, uint32_t index, uint32_t generation)
{
    shc_cells_t c;
    (void)generation;
    fix_cells_open(&c, arg);
    shc_cells_sweep(&c, index);
}

static const shc_layout_row_t fix_cells_rows[] = {SHC_CELLS_LAYOUT(SHC_LAYOUT_ROW, shc_cells_shm_t) /* */
                                                  SHC_CELLS_ENTRY_LAYOUT(SHC_LAYOUT_ROW, shc_cells_entry_shm_t)};

const shc_seg_spec_t fix_cells_spec = {.kind = FIX_KIND_CELLS,
                                       .rows = fix_cells_rows,
                                       .row_count = SHC_ARRAY_SIZE(fix_cells_rows),
                                       .body_align = SHC_HOT_PAD,
                                       .sweep = cells_sweep,
                                       .validate = cells_validate};

shc_seg_create_args_t
fix_cells_args(uint64_t capacity, uint64_t entries, uint64_t cells, uint32_t participants)
{
    shc_cells_geometry_t g = {.capacity = capacity, .entries = entries, .cells = cells};
    shc_seg_create_args_t args = {.participants = participants, .mode = 0600};
    CHECK_OK(shc_cells_lay_out(&g));
    args.body_size = g.size;
    shc_cells_to_config(&g, args.config);
    return args;
}

void
fix_cells_init(shc_seg_t *seg)
{
    shc_cells_geometry_t g;
    CHECK_OK(shc_cells_from_config(seg->id.config, &g));
    shc_cells_init(shc_seg_body(seg), &g);
}

void
fix_cells_open(shc_cells_t *c, const shc_seg_t *seg)
{
    shc_cells_geometry_t g;
    CHECK_OK(shc_cells_from_config(seg->id.config, &g));
    shc_cells_open(c, seg, shc_seg_body(seg), &g, FIX_CELLS_HOLDS);
}

int
fix_create_with(const char *file, const shc_seg_spec_t *spec, const shc_seg_create_args_t *args, shc_seg_t *seg)
{
    void (*init)(shc_seg_t *) = spec == &shc_ring_spec      ? shc_ring_init
                                : spec == &shc_objects_spec ? shc_objects_init
                                : spec == &shc_pool_spec    ? shc_pool_init
                                : spec == &fix_arena_spec   ? fix_arena_init
                                : spec == &fix_cells_spec   ? fix_cells_init
                                                            : shc_buffer_init;
    return shc_seg_create(fix.dir_fd, file, &fix.self, spec, args, init, seg);
}

int
fix_create_buffer(const char *file, uint64_t size, shc_seg_t *seg)
{
    shc_seg_create_args_t args = fix_buffer_args(size);
    return fix_create_with(file, &shc_buffer_spec, &args, seg);
}

int
fix_create_ring(const char *file, uint64_t capacity, uint64_t data_bytes, shc_seg_t *seg)
{
    shc_seg_create_args_t args = fix_ring_args(capacity, data_bytes);
    return fix_create_with(file, &shc_ring_spec, &args, seg);
}

int
fix_create_objects(const char *file, uint64_t max_size, uint64_t slot_size, shc_seg_t *seg)
{
    shc_seg_create_args_t args = fix_objects_args(max_size, slot_size);
    return fix_create_with(file, &shc_objects_spec, &args, seg);
}

static int
attach(const char *file, const shc_seg_spec_t *spec, bool any_owner, shc_seg_t *seg)
{
    int fd;
    shc_os_file_info_t info;
    int r = shc_seg_locate(fix.dir_fd, file, any_owner, &fd, &info);
    return r != 0 ? r : shc_seg_attach(fix.dir_fd, file, fd, &info, &fix.self, spec, seg);
}

int
fix_attach(const char *file, const shc_seg_spec_t *spec, shc_seg_t *seg)
{
    return attach(file, spec, false, seg);
}

int
fix_attach_any_owner(const char *file, const shc_seg_spec_t *spec, shc_seg_t *seg)
{
    return attach(file, spec, true, seg);
}

void
fix_leave(shc_seg_t *seg, const char *file)
{
    shc_seg_leave(seg, fix.dir_fd, file);
    shc_seg_unmap(seg);
}

int
fix_sweep(void)
{
    return shc_seg_sweep_dir(fix.dir_fd, "", &fix.self, SHC_NEVER, NULL, NULL, NULL);
}

/* ---- files ---- */

bool
fix_exists(const char *file)
{
    struct stat st;
    return fstatat(fix.dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

unsigned
fix_count_files(void)
{
    unsigned n = 0;
    DIR *dir = opendir(t_dir());
    CHECK(dir != NULL);
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    (void)closedir(dir);
    return n;
}

void
fix_write_file(const char *file, const void *bytes, size_t n)
{
    int fd = openat(fix.dir_fd, file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_GE(fd, 0);
    CHECK_EQ(ftruncate(fd, (off_t)n), 0);
    CHECK_EQ(pwrite(fd, bytes, n, 0), (ssize_t)n);
    (void)close(fd);
}

size_t
fix_read_file(const char *file, void *bytes, size_t n)
{
    int fd = openat(fix.dir_fd, file, O_RDONLY | O_CLOEXEC);
    CHECK_GE(fd, 0);
    ssize_t got = pread(fd, bytes, n, 0);
    CHECK_GE(got, 0);
    (void)close(fd);
    return (size_t)got;
}

/* ---- who is there ---- */

const shc_identity_t *
fix_corpse(void)
{
    siginfo_t info;
    int to_parent[2];
    if (corpse.pid != 0)
        return &corpse;
    CHECK_EQ(pipe(to_parent), 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK_GE(pid, 0);
    if (pid == 0) {
        shc_identity_t me;
        bool told = shc_os_identity(&me) == 0 && write(to_parent[1], &me, sizeof me) == (ssize_t)sizeof me;
        _exit(told ? 0 : 1);
    }
    CHECK_EQ(read(to_parent[0], &corpse, sizeof corpse), (ssize_t)sizeof corpse);
    (void)close(to_parent[0]);
    (void)close(to_parent[1]);
    CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | (BURIED ? 0 : WNOWAIT)), 0);
    return &corpse;
}

static uint64_t
plant(const shc_seg_t *seg, uint32_t index, uint32_t generation, uint32_t phase, const shc_identity_t *who)
{
    shc_participant_shm_t *slot = &seg->participants.slots[index];
    shc_a64_store_relaxed(&slot->start, who->start);
    shc_a64_store_relaxed(&slot->pidino, who->pidino);
    shc_a64_store_relaxed(&slot->pidns, who->pidns);
    shc_a32_store_relaxed(&slot->pid, who->pid);
    shc_a32_store_relaxed(&slot->uid, who->uid);
    shc_a64_store_relaxed(&slot->state, shc_participant_word(phase, who->pid, generation));
    return (uint64_t)(index + 1) | (uint64_t)generation << 12;
}

uint64_t
fix_plant_dead(const shc_seg_t *seg, uint32_t index, uint32_t generation, uint32_t phase)
{
    return plant(seg, index, generation, phase, fix_corpse());
}

uint64_t
fix_plant_living(const shc_seg_t *seg, uint32_t index, uint32_t generation, uint32_t phase)
{
    shc_identity_t parent = {.pid = (uint32_t)getppid(), .pidns = fix.self.id.pidns, .uid = fix.self.id.uid};
    return plant(seg, index, generation, phase, &parent);
}

uint32_t
fix_phase(const shc_seg_t *seg, uint32_t index)
{
    return shc_participant_phase(shc_a64_load_relaxed(&seg->participants.slots[index].state));
}

uint32_t
fix_generation(const shc_seg_t *seg, uint32_t index)
{
    return shc_participant_generation(shc_a64_load_relaxed(&seg->participants.slots[index].state));
}

uint32_t
fix_life(const shc_seg_t *seg)
{
    return shc_seg_life_state(shc_a64_load_relaxed(&shc_seg_shm(seg)->life));
}

int
fix_join(shc_seg_t *seg)
{
    int r = shc_participant_join(&seg->participants, &fix.self.id, &seg->index, &seg->generation);
    if (r == 0)
        seg->epoch = fix.self.epoch;
    return r;
}

/* ---- guarded memory ---- */

fix_guarded_t
fix_guard(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inside = (n + page - 1) / page * page;
    fix_guarded_t g = {.size = n, .mapped = inside + 2 * page};
    g.mapping = mmap(NULL, g.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(g.mapping != MAP_FAILED);
    CHECK_EQ(mprotect(g.mapping + page, inside, PROT_READ | PROT_WRITE), 0);
    g.bytes = g.mapping + page + inside - n;
    return g;
}

void
fix_unguard(fix_guarded_t *g)
{
    (void)munmap(g->mapping, g->mapped);
    g->mapping = NULL;
}
