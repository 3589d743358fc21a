/* Segments: what makes one, what is refused, and the life of a name. */
#include "seg/shc_seg.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"

#define NAME "shmcomm.s"
#define SIZE 100u

static shc_seg_t seg;

static int
create(shc_seg_t *out)
{
    return fix_create_buffer(NAME, SIZE, out);
}

static int
create_persistent(shc_seg_t *out)
{
    shc_seg_create_args_t args = fix_buffer_args(SIZE);
    args.persist = true;
    return fix_create_with(NAME, &shc_buffer_spec, &args, out);
}

static int
attach(shc_seg_t *out)
{
    return fix_attach(NAME, &shc_buffer_spec, out);
}

static void
leave(shc_seg_t *s)
{
    fix_leave(s, NAME);
}

static void
set_up(void)
{
    fix_open();
    CHECK_OK(create(&seg));
}

static void
tear_down(void)
{
    leave(&seg);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

static void
set_life(const shc_seg_t *s, uint64_t word)
{
    shc_a64_store_relaxed(&shc_seg_shm(s)->life, word);
}

static uint32_t
alive(const shc_seg_t *s)
{
    return shc_participant_count_alive(&s->participants, SHC_PARTICIPANT_MAX, UINT32_MAX, &fix.self.id);
}

/* The handle goes, its slot stays as that of a dead process: what a kill leaves. */
static void
play_death(shc_seg_t *s)
{
    fix_plant_dead(s, s->index, s->generation, SHC_PARTICIPANT_LIVE);
    shc_seg_unmap(s);
}

/* ---- making ---- */

TEST(a_new_segment_has_its_creator_and_its_geometry)
{
    set_up();
    CHECK_EQ(seg.index, 0);
    CHECK_EQ(alive(&seg), 1);
    CHECK_EQ(seg.id.size, 512 + FIX_PARTICIPANTS * 64 + 128 + SIZE);
    CHECK_EQ(seg.id.body_offset % 128, 0);
    CHECK_EQ(seg.id.creator_pid, getpid());
    CHECK_EQ(fix_life(&seg), SHC_SEG_OPEN);
    CHECK_OK(shc_seg_check(&seg));
    CHECK_EQ(fix_count_files(), 1);
    tear_down();
}

TEST(the_mode_is_what_was_asked_for_whatever_the_umask)
{
    struct stat st;
    shc_seg_create_args_t args = fix_buffer_args(SIZE);
    args.mode = 0666;
    fix_open();
    (void)umask(0777);
    CHECK_OK(fix_create_with(NAME, &shc_buffer_spec, &args, &seg));
    CHECK_EQ(fstatat(fix.dir_fd, NAME, &st, 0), 0);
    CHECK_EQ(st.st_mode & 07777, 0666);
    tear_down();
}

TEST(all_memory_is_reserved_when_it_is_made)
{
    shc_seg_report_t report;
    fix_open();
    CHECK_OK(fix_create_buffer(NAME, 1 << 20, &seg));
    CHECK_OK(shc_seg_inspect(fix.dir_fd, NAME, &fix.self, &report));
    CHECK_GE(report.file.allocated, seg.id.size);
    tear_down();
}

TEST(sizes_that_overflow_are_too_large_and_leave_nothing)
{
    shc_seg_create_args_t args = fix_buffer_args(SIZE);
    uint64_t size;
    fix_open();
    args.body_size = UINT64_MAX - 100;
    CHECK_EQ(fix_create_with(NAME, &shc_buffer_spec, &args, &seg), SHC_E_TOO_LARGE);
    args.body_size = INT64_MAX;
    CHECK_EQ(shc_seg_size_for(&shc_buffer_spec, &args, &size), SHC_E_TOO_LARGE);
    args.body_size = UINT64_C(1) << 60;
    CHECK_LT(fix_create_with(NAME, &shc_buffer_spec, &args, &seg), 0);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(a_table_has_1_to_2047_participants)
{
    static const struct {
        uint32_t participants;
        int status;
    } cases[] = {
        {0, -EINVAL}, {1, 0}, {SHC_PARTICIPANT_MAX, 0}, {SHC_PARTICIPANT_MAX + 1, -EINVAL}, {UINT32_MAX, -EINVAL}};
    fix_open();
    for (size_t i = 0; i < SHC_ARRAY_SIZE(cases); i++) {
        shc_seg_create_args_t args = fix_buffer_args(SIZE);
        args.participants = cases[i].participants;
        CHECK_EQ(fix_create_with(NAME, &shc_buffer_spec, &args, &seg), cases[i].status);
        if (cases[i].status == 0)
            leave(&seg);
        CHECK_EQ(fix_count_files(), 0);
    }
    fix_close();
}

TEST(creating_in_a_folder_that_is_gone_fails_with_its_errno)
{
    fix_open();
    CHECK_EQ(rmdir(t_dir()), 0);
    CHECK_EQ(create(&seg), -ENOENT);
    fix_close();
}

TEST(a_name_that_a_living_process_uses_exists)
{
    shc_seg_t second;
    set_up();
    CHECK_EQ(create(&second), -EEXIST);
    CHECK_EQ(alive(&seg), 1);
    CHECK_OK(shc_seg_check(&seg));
    CHECK_EQ(fix_count_files(), 1);
    tear_down();
}

TEST(a_name_that_a_strangers_file_has_exists_and_the_file_stays)
{
    fix_open();
    fix_write_file(NAME, "hello", 5);
    CHECK_EQ(create(&seg), -EEXIST);
    CHECK(fix_exists(NAME));
    CHECK_EQ(unlinkat(fix.dir_fd, NAME, 0), 0);
    fix_close();
}

TEST(creating_over_a_segment_whose_users_all_died_replaces_it)
{
    shc_seg_t dead;
    fix_open();
    CHECK_OK(create(&dead));
    uint64_t ino = dead.ino, key = dead.id.key;
    play_death(&dead);
    CHECK_OK(create(&seg));
    CHECK(seg.ino != ino || seg.id.key != key);
    CHECK_EQ(alive(&seg), 1);
    tear_down();
}

TEST(creating_over_a_persistent_segment_says_it_exists)
{
    shc_seg_t old;
    fix_open();
    CHECK_OK(create_persistent(&old));
    play_death(&old);
    CHECK_EQ(create(&seg), -EEXIST);
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(one_that_does_not_grow_keeps_its_memory_and_no_descriptor)
{
    shc_seg_t second;
    set_up();
    CHECK_OK(attach(&second));
    CHECK(seg.fd == -1 && second.fd == -1);
    ((uint8_t *)shc_seg_body(&seg))[SIZE] = 42;
    CHECK_OK(shc_seg_reserve(&second, second.id.body_offset, SIZE));
    CHECK_EQ(shc_seg_give_back(&second, second.id.body_offset + SIZE, 1), -EOPNOTSUPP);
    CHECK_EQ(((uint8_t *)shc_seg_body(&seg))[SIZE], 42);
    leave(&second);
    tear_down();
}

/* ---- attaching ---- */

TEST(attaching_finds_the_creators_segment)
{
    shc_seg_t second;
    set_up();
    CHECK_OK(attach(&second));
    CHECK_EQ(second.ino, seg.ino);
    CHECK_EQ(second.index, 1);
    CHECK_EQ(memcmp(&second.id, &seg.id, sizeof seg.id), 0);
    CHECK_EQ(alive(&seg), 2);
    CHECK_EQ(shc_a64_load_relaxed(&shc_seg_shm(&seg)->life), shc_seg_life_word(SHC_SEG_OPEN, 0, 1));
    ((uint8_t *)shc_seg_body(&second))[128] = 42;
    CHECK_EQ(((uint8_t *)shc_seg_body(&seg))[128], 42);
    leave(&second);
    CHECK_EQ(alive(&seg), 1);
    tear_down();
}

TEST(attaching_to_no_name_says_so)
{
    fix_open();
    CHECK_EQ(attach(&seg), -ENOENT);
    fix_close();
}

TEST(attaching_to_another_kind_is_refused)
{
    shc_seg_t other;
    set_up();
    CHECK_EQ(fix_attach(NAME, &shc_ring_spec, &other), SHC_E_KIND);
    CHECK_EQ(alive(&seg), 1);
    tear_down();
}

TEST(a_full_table_of_living_participants_is_told)
{
    shc_seg_t others[FIX_PARTICIPANTS];
    set_up();
    for (uint32_t i = 1; i < FIX_PARTICIPANTS; i++)
        CHECK_OK(attach(&others[i]));
    CHECK_EQ(attach(&others[0]), SHC_E_PARTICIPANTS);
    leave(&others[2]);
    CHECK_OK(attach(&others[0]));
    CHECK_EQ(others[0].index, 2);
    CHECK_EQ(others[0].generation, 1);
    leave(&others[0]);
    leave(&others[1]);
    leave(&others[3]);
    tear_down();
}

TEST(a_full_table_with_dead_ones_makes_room)
{
    shc_seg_t other;
    set_up();
    for (uint32_t i = 1; i < FIX_PARTICIPANTS; i++)
        fix_plant_dead(&seg, i, 6, i == 2 ? SHC_PARTICIPANT_LEAVING : SHC_PARTICIPANT_LIVE);
    CHECK_OK(attach(&other));
    CHECK_EQ(other.index, 1);
    CHECK_EQ(other.generation, 7);
    leave(&other);
    tear_down();
}

TEST(a_slot_that_somebody_living_is_reaping_is_not_taken)
{
    shc_seg_t other;
    set_up();
    for (uint32_t i = 1; i < FIX_PARTICIPANTS; i++)
        fix_plant_living(&seg, i, 6, SHC_PARTICIPANT_REAPING);
    CHECK_EQ(attach(&other), SHC_E_PARTICIPANTS);
    for (uint32_t i = 1; i < FIX_PARTICIPANTS; i++)
        shc_a64_store_relaxed(&seg.participants.slots[i].state, 0);
    tear_down();
}

TEST(attaching_to_a_segment_whose_users_all_died_finds_nothing_and_removes_it)
{
    fix_open();
    CHECK_OK(create(&seg));
    play_death(&seg);
    CHECK_EQ(attach(&seg), -ENOENT);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(a_persistent_segment_is_found_when_nobody_is_left)
{
    fix_open();
    CHECK_OK(create_persistent(&seg));
    leave(&seg);
    CHECK(fix_exists(NAME));
    CHECK_OK(attach(&seg));
    play_death(&seg);
    CHECK_OK(attach(&seg));
    CHECK_OK(shc_seg_unlink(&seg, fix.dir_fd, NAME));
    tear_down();
}

/* ---- files that are no segments, or not for us ---- */

TEST(an_empty_file_a_short_one_and_noise_are_no_segments)
{
    static uint8_t noise[8192];
    uint64_t state = t_seed();
    shc_seg_report_t report;
    fix_open();
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)t_random(&state);
    static const size_t sizes[] = {0, 1, 8, 255, 511, 512, 4096, 8192};
    for (size_t i = 0; i < SHC_ARRAY_SIZE(sizes); i++) {
        fix_write_file(NAME, noise, sizes[i]);
        CHECK_EQ(attach(&seg), SHC_E_NOT_SEGMENT);
        CHECK_EQ(shc_seg_inspect(fix.dir_fd, NAME, &fix.self, &report), SHC_E_NOT_SEGMENT);
        CHECK_EQ(report.file.size, sizes[i]);
        CHECK_EQ(report.file.uid, geteuid());
        CHECK_EQ(report.id.size, 0);
        CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, true), SHC_E_NOT_SEGMENT);
        shc_seg_slot_t slots[1];
        CHECK_EQ(shc_seg_list_participants(fix.dir_fd, NAME, &fix.self, slots, 1), 0);
        CHECK_OK(fix_sweep());
        CHECK(fix_exists(NAME));
        CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
        CHECK_EQ(fix_count_files(), 0);
    }
    CHECK_EQ(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self), -ENOENT);
    fix_close();
}

TEST(a_symbolic_link_a_folder_and_a_fifo_are_no_segments)
{
    shc_seg_report_t report;
    fix_open();
    CHECK_OK(fix_create_buffer("shmcomm.real", SIZE, &seg));
    CHECK_EQ(symlinkat("shmcomm.real", fix.dir_fd, "shmcomm.link"), 0);
    CHECK_EQ(mkdirat(fix.dir_fd, "shmcomm.folder", 0700), 0);
    CHECK_EQ(mkfifoat(fix.dir_fd, "shmcomm.fifo", 0600), 0);
    static const char *const names[] = {"shmcomm.link", "shmcomm.folder", "shmcomm.fifo"};
    shc_seg_t other;
    for (size_t i = 0; i < SHC_ARRAY_SIZE(names); i++) {
        CHECK_EQ(fix_attach(names[i], &shc_buffer_spec, &other), SHC_E_NO_FILE);
        CHECK_EQ(shc_seg_inspect(fix.dir_fd, names[i], &fix.self, &report), SHC_E_NO_FILE);
        CHECK_EQ(report.file.is_directory, strcmp(names[i], "shmcomm.folder") == 0);
        CHECK_EQ(report.file.uid, geteuid());
        CHECK_EQ(fix_create_buffer(names[i], SIZE, &other), -EEXIST);
        CHECK_EQ(shc_seg_reap(fix.dir_fd, names[i], &fix.self, true), SHC_E_NO_FILE);
    }
    CHECK_OK(fix_sweep());
    for (size_t i = 0; i < SHC_ARRAY_SIZE(names); i++)
        CHECK(fix_exists(names[i]));
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, "shmcomm.link", &fix.self));
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, "shmcomm.fifo", &fix.self));
    CHECK(fix_exists("shmcomm.real"));
    int r = shc_seg_force_unlink(fix.dir_fd, "shmcomm.folder", &fix.self);
    CHECK(r == -EISDIR || r == -EPERM);
    CHECK_EQ(unlinkat(fix.dir_fd, "shmcomm.folder", AT_REMOVEDIR), 0);
    fix_leave(&seg, "shmcomm.real");
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

/* A segment as its file has it, changed, and looked at under another name. */
static union {
    uint8_t bytes[4096];
    shc_seg_shm_t shm;
} image;

static int
attach_image(size_t size)
{
    shc_seg_t other;
    fix_write_file("image", image.bytes, size);
    int r = fix_attach("image", &shc_buffer_spec, &other);
    if (r == 0)
        fix_leave(&other, "image");
    else
        CHECK_EQ(unlinkat(fix.dir_fd, "image", 0), 0);
    return r;
}

static size_t
take_image(void)
{
    memset(&image, 0, sizeof image);
    return fix_read_file(NAME, image.bytes, sizeof image);
}

TEST(heads_that_do_not_fit_are_refused_each_with_its_reason)
{
    set_up();
    size_t size = take_image();
    CHECK_EQ(size, seg.id.size);
    CHECK_OK(attach_image(size));
    struct {
        void *field;
        size_t width;
        uint64_t value;
        int status;
    } cases[] = {
        {&image.shm.id.magic, 8, 0, SHC_E_NOT_SEGMENT},
        {&image.shm.id.magic, 8, SHC_SEG_MAGIC + 1, SHC_E_NOT_SEGMENT},
        {&image.shm.id.version, 4, SHC_SEG_FORMAT_VERSION + 1, SHC_E_VERSION},
        {&image.shm.id.version, 4, 0, SHC_E_VERSION},
        {&image.shm.id.kind, 4, SHC_KIND_RING, SHC_E_KIND},
        {&image.shm.id.kind, 4, 0, SHC_E_KIND},
        {&image.shm.id.fingerprint, 8, seg.id.fingerprint ^ 1, SHC_E_FINGERPRINT},
        {&image.shm.id.size, 8, size + 1, SHC_E_CORRUPT},
        {&image.shm.id.size, 8, size - 1, SHC_E_CORRUPT},
        {&image.shm.id.size, 8, UINT64_MAX, SHC_E_CORRUPT},
        {&image.shm.id.body_offset, 8, 0, SHC_E_CORRUPT},
        {&image.shm.id.body_offset, 8, 640, SHC_E_CORRUPT},
        {&image.shm.id.body_offset, 8, size + 128, SHC_E_CORRUPT},
        {&image.shm.id.body_offset, 8, UINT64_MAX - 127, SHC_E_CORRUPT},
        {&image.shm.id.body_size, 8, SIZE + 129, SHC_E_CORRUPT},
        {&image.shm.id.body_size, 8, 0, SHC_E_CORRUPT},
        {&image.shm.id.participants_offset, 4, 576, SHC_E_CORRUPT},
        {&image.shm.id.participants, 4, 0, SHC_E_CORRUPT},
        {&image.shm.id.participants, 4, FIX_PARTICIPANTS + 1, SHC_E_CORRUPT},
        {&image.shm.id.participants, 4, UINT32_MAX, SHC_E_CORRUPT},
        {&image.shm.id.participants, 4, 1 << 26, SHC_E_CORRUPT},
        {&image.shm.id.flags, 4, 2, SHC_E_CORRUPT},
        {&image.shm.id.pidns, 8, seg.id.pidns + 1, SHC_E_FOREIGN_PIDNS},
        {&image.shm.id.pidns, 8, seg.id.pidns == 0 ? 1 : 0, SHC_E_FOREIGN_PIDNS},
        {&image.shm.id.config[SHC_BUFFER_CONFIG_SIZE], 8, SIZE + 1, SHC_E_CORRUPT},
        {&image.shm.id.config[SHC_BUFFER_CONFIG_SIZE], 8, UINT64_MAX, SHC_E_CORRUPT},
        {&image.shm.id.spare[0], 8, 1, SHC_E_CORRUPT},
        {&image.shm.id.spare[12], 8, UINT64_C(1) << 63, SHC_E_CORRUPT},
    };
    for (size_t i = 0; i < SHC_ARRAY_SIZE(cases); i++) {
        CHECK_EQ(take_image(), size);
        memcpy(cases[i].field, &cases[i].value, cases[i].width);
        CHECK_EQ(attach_image(size), cases[i].status);
    }
    tear_down();
}

TEST(a_file_that_was_cut_or_lengthened_is_refused)
{
    set_up();
    size_t size = take_image();
    for (size_t n = 0; n < size; n += 37)
        CHECK_EQ(attach_image(n), n < 512 ? SHC_E_NOT_SEGMENT : SHC_E_CORRUPT);
    CHECK_EQ(attach_image(size - 1), SHC_E_CORRUPT);
    CHECK_EQ(attach_image(size + 1), SHC_E_CORRUPT);
    tear_down();
}

TEST(a_segment_of_another_user_is_refused_unless_asked_for)
{
    shc_seg_t other;
    if (geteuid() != 0)
        T_SKIP("changing a file's owner takes root");
    set_up();
    CHECK_EQ(fchownat(fix.dir_fd, NAME, 12345, 12345, 0), 0);
    CHECK_EQ(attach(&other), SHC_E_FOREIGN_USER);
    CHECK_OK(fix_attach_any_owner(NAME, &shc_buffer_spec, &other));
    leave(&other);
    fix_plant_dead(&seg, seg.index, seg.generation, SHC_PARTICIPANT_LIVE);
    CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, true), SHC_E_FOREIGN_USER);
    CHECK_OK(fix_sweep());
    CHECK(fix_exists(NAME));
    CHECK_EQ(create(&other), -EEXIST);
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
    shc_seg_unmap(&seg);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

/* In a child that is nobody in particular. */
static void
be_somebody_else_and(void (*act)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(setuid(12345), 0);
        CHECK_OK(shc_self_refresh(&fix.self));
        act();
        fflush(NULL);
        _exit(0);
    }
    proc_join(pid);
}

static void
see_but_neither_read_nor_remove(void)
{
    shc_seg_t other;
    shc_seg_report_t report;
    CHECK_EQ(attach(&other), -EACCES);
    CHECK_EQ(shc_seg_inspect(fix.dir_fd, NAME, &fix.self, &report), -EACCES);
    CHECK_EQ(report.file.uid, 0);
    CHECK_EQ(report.file.mode, 0600);
    CHECK_EQ(report.file.ino, seg.ino);
    CHECK_EQ(report.id.size, 0);
    CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, true), -EACCES);
    CHECK_EQ(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self), -EPERM);
    CHECK_OK(fix_sweep());
}

TEST(a_file_of_another_user_is_not_even_looked_into_by_who_reaps)
{
    if (geteuid() != 0)
        T_SKIP("changing a file's owner takes root");
    fix_open();
    fix_write_file(NAME, "noise", 5);
    CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, true), SHC_E_NOT_SEGMENT);
    CHECK_EQ(fchownat(fix.dir_fd, NAME, 12345, 12345, 0), 0);
    CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, true), SHC_E_FOREIGN_USER);
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
    fix_close();
}

static void
reap_what_is_mine_now(void)
{
    fix.self.id.uid = 0; /* as read before this process became somebody else */
    CHECK_OK(shc_seg_reap(fix.dir_fd, NAME, &fix.self, false));
}

TEST(whose_a_segment_is_is_asked_when_it_matters)
{
    if (geteuid() != 0)
        T_SKIP("becoming another user takes root");
    set_up();
    CHECK_EQ(fchmodat(fix.dir_fd, ".", 0777, 0), 0);
    CHECK_EQ(fchownat(fix.dir_fd, NAME, 12345, 12345, 0), 0);
    fix_plant_dead(&seg, seg.index, seg.generation, SHC_PARTICIPANT_LIVE);
    be_somebody_else_and(reap_what_is_mine_now);
    CHECK_EQ(fix_count_files(), 0);
    shc_seg_unmap(&seg);
    fix_close();
}

static void
remove_unread(void)
{
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
}

TEST(a_segment_that_may_not_be_opened_is_known_by_its_file)
{
    if (geteuid() != 0)
        T_SKIP("becoming another user takes root");
    set_up();
    CHECK_EQ(fchmodat(fix.dir_fd, ".", 01777, 0), 0);
    be_somebody_else_and(see_but_neither_read_nor_remove);
    CHECK(fix_exists(NAME));
    CHECK_EQ(fchmodat(fix.dir_fd, ".", 0777, 0), 0);
    be_somebody_else_and(remove_unread); /* who may write to the directory may remove any file in it */
    CHECK_EQ(fix_count_files(), 0);
    leave(&seg);
    fix_close();
}

static void
attach_but_not_unlink(void)
{
    shc_seg_t other;
    CHECK_EQ(attach(&other), SHC_E_FOREIGN_USER);
    CHECK_OK(fix_attach_any_owner(NAME, &shc_buffer_spec, &other));
    CHECK_EQ(shc_seg_unlink(&other, fix.dir_fd, NAME), -EACCES);
    CHECK_EQ(fix_life(&other), SHC_SEG_OPEN);
    CHECK_EQ(shc_seg_unlink(&other, fix.dir_fd, NAME), -EACCES);
    leave(&other);
}

TEST(other_users_may_attach_if_the_mode_allows_and_cannot_doom_what_they_cannot_unlink)
{
    shc_seg_t other;
    if (geteuid() != 0)
        T_SKIP("becoming another user takes root");
    set_up();
    CHECK_EQ(fchmodat(fix.dir_fd, ".", 0755, 0), 0);
    CHECK_EQ(fchmodat(fix.dir_fd, NAME, 0666, 0), 0);
    be_somebody_else_and(attach_but_not_unlink);
    CHECK_OK(attach(&other));
    leave(&other);
    tear_down();
}

/* ---- leaving ---- */

TEST(the_last_one_out_removes_the_name)
{
    shc_seg_t second;
    set_up();
    CHECK_OK(attach(&second));
    leave(&seg);
    CHECK(fix_exists(NAME));
    leave(&second);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(the_last_living_one_out_removes_the_name_beside_dead_ones)
{
    set_up();
    fix_plant_dead(&seg, 1, 3, SHC_PARTICIPANT_LIVE);
    fix_plant_dead(&seg, 2, 3, SHC_PARTICIPANT_JOINING);
    fix_plant_dead(&seg, 3, 3, SHC_PARTICIPANT_LEAVING);
    tear_down();
}

TEST(a_living_one_that_is_leaving_does_not_keep_the_name)
{
    set_up();
    fix_plant_living(&seg, 1, 3, SHC_PARTICIPANT_LEAVING);
    tear_down();
}

TEST(leaving_twice_does_no_harm)
{
    set_up();
    shc_seg_leave(&seg, fix.dir_fd, NAME);
    CHECK_OK(create(&(shc_seg_t){0}));
    CHECK(fix_exists(NAME));
    shc_seg_leave(&seg, fix.dir_fd, NAME);
    CHECK(fix_exists(NAME));
    shc_seg_unmap(&seg);
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
    fix_close();
}

TEST(the_creator_may_leave_before_the_others)
{
    shc_seg_t second, third;
    set_up();
    CHECK_OK(attach(&second));
    leave(&seg);
    CHECK_OK(attach(&third));
    CHECK_EQ(third.index, 0);
    CHECK_EQ(third.generation, 1);
    leave(&second);
    leave(&third);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

/* ---- unlinking ---- */

TEST(unlink_removes_the_name_and_leaves_the_memory)
{
    shc_seg_t second;
    set_up();
    CHECK_OK(attach(&second));
    CHECK_OK(shc_seg_unlink(&seg, fix.dir_fd, NAME));
    CHECK_EQ(fix_count_files(), 0);
    CHECK_EQ(fix_life(&seg), SHC_SEG_UNLINKED);
    CHECK_EQ(shc_seg_unlink(&second, fix.dir_fd, NAME), -ENOENT);
    ((uint8_t *)shc_seg_body(&second))[128] = 42;
    CHECK_EQ(((uint8_t *)shc_seg_body(&seg))[128], 42);
    CHECK_OK(shc_seg_check(&seg));
    leave(&second);
    tear_down();
}

TEST(a_new_segment_of_that_name_is_not_hit_by_users_of_the_old_one)
{
    shc_seg_t second, third;
    set_up();
    CHECK_OK(attach(&second));
    CHECK_OK(shc_seg_unlink(&seg, fix.dir_fd, NAME));
    CHECK_OK(create(&third));
    CHECK_NE(third.ino, seg.ino);
    CHECK_EQ(shc_seg_unlink(&second, fix.dir_fd, NAME), -ENOENT);
    leave(&second);
    leave(&seg);
    CHECK(fix_exists(NAME));
    leave(&third);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(a_name_that_somebody_else_removed_is_gone_and_his_new_file_stays)
{
    set_up();
    CHECK_EQ(unlinkat(fix.dir_fd, NAME, 0), 0);
    fix_write_file(NAME, "other", 5);
    leave(&seg);
    CHECK(fix_exists(NAME));
    CHECK_EQ(unlinkat(fix.dir_fd, NAME, 0), 0);
    fix_close();
}

/* ---- doomed names ---- */

static uint64_t
doomed(uint32_t index, uint32_t generation)
{
    return shc_seg_life_word(SHC_SEG_DOOMED, index, generation);
}

TEST(a_life_word_keeps_its_parts_apart)
{
    uint64_t word = shc_seg_life_word(SHC_SEG_DOOMED, 2046, UINT32_MAX);
    CHECK_EQ(shc_seg_life_state(word), SHC_SEG_DOOMED);
    CHECK_EQ(shc_seg_life_index(word), 2046);
    CHECK_EQ(shc_seg_life_number(word), UINT32_MAX);
}

TEST(a_name_that_somebody_living_is_removing_is_left_to_him)
{
    shc_seg_t other;
    set_up();
    fix_plant_living(&seg, 3, 5, SHC_PARTICIPANT_LEAVING);
    set_life(&seg, doomed(3, 5));
    CHECK_EQ(attach(&other), SHC_GONE);
    CHECK_EQ(create(&other), SHC_GONE);
    CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, true), SHC_GONE);
    CHECK_EQ(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self), SHC_GONE);
    CHECK_EQ(shc_seg_unlink(&seg, fix.dir_fd, NAME), SHC_GONE);
    CHECK_OK(fix_sweep());
    CHECK(fix_exists(NAME));
    CHECK_EQ(fix_life(&seg), SHC_SEG_DOOMED);
    shc_a64_store_relaxed(&seg.participants.slots[3].state, 0);
    set_life(&seg, 0);
    tear_down();
}

static void
doom_by_dead(void)
{
    fix_plant_dead(&seg, 3, 5, SHC_PARTICIPANT_LEAVING);
    set_life(&seg, doomed(3, 5));
}

TEST(a_name_doomed_by_a_dead_process_is_removed_by_whoever_comes)
{
    shc_seg_t other;
    set_up();
    doom_by_dead();
    CHECK_EQ(attach(&other), -ENOENT);
    CHECK_EQ(fix_count_files(), 0);
    CHECK_EQ(fix_life(&seg), SHC_SEG_UNLINKED);
    leave(&seg);

    CHECK_OK(create(&seg));
    doom_by_dead();
    CHECK_OK(create(&other));
    CHECK_NE(other.ino, seg.ino);
    leave(&seg);
    CHECK(fix_exists(NAME));
    leave(&other);

    CHECK_OK(create(&seg));
    doom_by_dead();
    CHECK_OK(fix_sweep());
    CHECK_EQ(fix_count_files(), 0);
    leave(&seg);

    CHECK_OK(create(&seg));
    doom_by_dead();
    CHECK_OK(shc_seg_unlink(&seg, fix.dir_fd, NAME));
    CHECK_EQ(fix_count_files(), 0);
    leave(&seg);

    CHECK_OK(create(&seg));
    doom_by_dead();
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
    CHECK_EQ(fix_count_files(), 0);
    leave(&seg);

    CHECK_OK(create(&seg));
    doom_by_dead();
    leave(&seg);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(who_died_between_unlink_and_unlinked_has_not_doomed_the_next_of_that_name)
{
    shc_seg_t next;
    set_up();
    doom_by_dead();
    CHECK_EQ(unlinkat(fix.dir_fd, NAME, 0), 0);
    CHECK_OK(create(&next));
    CHECK_OK(shc_seg_unlink(&seg, fix.dir_fd, NAME));
    CHECK_EQ(fix_life(&seg), SHC_SEG_UNLINKED);
    leave(&seg);
    CHECK(fix_exists(NAME));
    leave(&next);
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(a_remover_whose_slot_has_moved_on_counts_as_dead)
{
    set_up();
    fix_plant_living(&seg, 3, 6, SHC_PARTICIPANT_LIVE);
    set_life(&seg, doomed(3, 5));
    CHECK_OK(fix_sweep());
    CHECK_EQ(fix_count_files(), 0);
    leave(&seg);
    fix_close();
}

TEST(a_persistent_name_doomed_by_a_dead_process_goes_too)
{
    fix_open();
    CHECK_OK(create_persistent(&seg));
    doom_by_dead();
    play_death(&seg);
    CHECK_OK(fix_sweep());
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(a_life_word_that_cannot_be_does_not_make_a_name_eternal)
{
    static const uint64_t words[] = {SHC_SEG_UNLINKED, 3, UINT64_MAX};
    fix_open();
    for (size_t i = 0; i < SHC_ARRAY_SIZE(words); i++) {
        CHECK_OK(create(&seg));
        set_life(&seg, words[i]);
        shc_seg_t other;
        int r = attach(&other);
        CHECK(r == -ENOENT || r == SHC_GONE);
        CHECK_OK(create(&other));
        leave(&seg);
        CHECK(fix_exists(NAME));
        leave(&other);
        CHECK_EQ(fix_count_files(), 0);
    }
    fix_close();
}

/* ---- reaping, sweeping, looking ---- */

TEST(reap_takes_dead_segments_only)
{
    set_up();
    CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, true), SHC_BUSY);
    play_death(&seg);
    CHECK_OK(shc_seg_reap(fix.dir_fd, NAME, &fix.self, false));
    CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, false), -ENOENT);
    fix_close();
}

TEST(reap_takes_a_segment_whose_table_is_full_of_dead)
{
    set_up();
    for (uint32_t i = 1; i < FIX_PARTICIPANTS; i++)
        fix_plant_dead(&seg, i, 1, SHC_PARTICIPANT_LIVE);
    play_death(&seg);
    CHECK_OK(shc_seg_reap(fix.dir_fd, NAME, &fix.self, false));
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(reap_takes_persistent_ones_only_when_asked_to)
{
    fix_open();
    CHECK_OK(create_persistent(&seg));
    play_death(&seg);
    CHECK_EQ(shc_seg_reap(fix.dir_fd, NAME, &fix.self, false), SHC_BUSY);
    CHECK_OK(fix_sweep());
    CHECK(fix_exists(NAME));
    CHECK_OK(shc_seg_reap(fix.dir_fd, NAME, &fix.self, true));
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(force_unlink_takes_a_name_from_living_users_who_go_on)
{
    shc_seg_t next;
    set_up();
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
    CHECK_EQ(fix_count_files(), 0);
    CHECK_OK(shc_seg_check(&seg));
    CHECK_EQ(alive(&seg), 1);
    CHECK_OK(create(&next));
    leave(&seg);
    CHECK(fix_exists(NAME));
    leave(&next);
    fix_close();
}

TEST(force_unlink_needs_no_free_slot)
{
    for (int dead = 0; dead < 2; dead++) {
        set_up();
        for (uint32_t i = 1; i < FIX_PARTICIPANTS; i++)
            fix_plant_living(&seg, i, 0, SHC_PARTICIPANT_LIVE);
        if (dead)
            fix_plant_dead(&seg, 2, 0, SHC_PARTICIPANT_LIVE);
        CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
        CHECK_EQ(fix_count_files(), 0);
        CHECK_EQ(fix_phase(&seg, 2), SHC_PARTICIPANT_LIVE); /* what a dead one held is swept by who knows the kind */
        CHECK_EQ(fix_life(&seg), SHC_SEG_UNLINKED);
        leave(&seg);
        fix_close();
    }
}

TEST(a_segment_whose_slots_are_all_taken_by_the_dead_is_reaped)
{
    set_up();
    for (uint32_t i = 0; i < FIX_PARTICIPANTS; i++)
        fix_plant_dead(&seg, i, 0, SHC_PARTICIPANT_LIVE);
    CHECK_OK(shc_seg_reap(fix.dir_fd, NAME, &fix.self, false));
    CHECK_EQ(fix_count_files(), 0);
    for (uint32_t i = 0; i < FIX_PARTICIPANTS; i++)
        CHECK_EQ(fix_phase(&seg, i), SHC_PARTICIPANT_LIVE);
    shc_seg_unmap(&seg);
    fix_close();
}

/* The number of a visitor's word is its pid. */
TEST(a_visitor_without_a_slot_is_taken_over_when_it_is_dead_and_waited_for_while_it_lives)
{
    set_up();
    shc_a64_t *life = &shc_seg_shm(&seg)->life;
    shc_a64_store_relaxed(life, shc_seg_life_word(SHC_SEG_DOOMED, SHC_SEG_LIFE_VISITOR, (uint32_t)getppid()));
    CHECK_EQ(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self), SHC_GONE);
    CHECK_EQ(shc_seg_unlink(&seg, fix.dir_fd, NAME), SHC_GONE);
    CHECK(fix_exists(NAME));
    shc_a64_store_relaxed(life, shc_seg_life_word(SHC_SEG_DOOMED, SHC_SEG_LIFE_VISITOR, fix_corpse()->pid));
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
    CHECK_EQ(fix_count_files(), 0);
    leave(&seg);
    fix_close();
    set_up();
    life = &shc_seg_shm(&seg)->life;
    shc_a64_store_relaxed(life, shc_seg_life_word(SHC_SEG_DOOMED, SHC_SEG_LIFE_VISITOR, 0)); /* nobody's */
    CHECK_OK(shc_seg_unlink(&seg, fix.dir_fd, NAME));
    leave(&seg);
    fix_close();
}

TEST(a_look_from_outside_changes_nothing)
{
    shc_seg_report_t report;
    shc_seg_slot_t slots[8];
    static uint8_t before[4096];
    set_up();
    fix_plant_dead(&seg, 2, 9, SHC_PARTICIPANT_LIVE);
    memcpy(before, seg.base, seg.id.size);
    CHECK_OK(shc_seg_inspect(fix.dir_fd, NAME, &fix.self, &report));
    CHECK_EQ(report.alive, 1);
    CHECK_EQ(report.slots, 2);
    CHECK_EQ(report.life, SHC_SEG_OPEN);
    CHECK_EQ(report.id.kind, SHC_KIND_BUFFER);
    CHECK_EQ(report.file.size, seg.id.size);
    CHECK_EQ(report.file.ino, seg.ino);
    CHECK_EQ(shc_seg_list_participants(fix.dir_fd, NAME, &fix.self, slots, 8), 2);
    CHECK_EQ(slots[0].pid, getpid());
    CHECK(slots[0].alive);
    CHECK_EQ(slots[1].pid, fix_corpse()->pid);
    CHECK(!slots[1].alive);
    CHECK_EQ(shc_seg_list_participants(fix.dir_fd, NAME, &fix.self, slots, 1), 1);
    CHECK_MEM(before, seg.base, seg.id.size);
    tear_down();
}

static void
note_name(void *arg, const char *file)
{
    char *list = arg;
    strcat(strcat(list, file), " ");
}

TEST(a_sweep_takes_the_dead_of_its_prefix_and_tells_their_names)
{
    char removed[256] = "";
    shc_seg_t living, dead, elsewhere;
    fix_open();
    CHECK_OK(fix_create_buffer("shmcomm.a.living", SIZE, &living));
    CHECK_OK(fix_create_buffer("shmcomm.a.dead", SIZE, &dead));
    CHECK_OK(fix_create_buffer("shmcomm.b.dead", SIZE, &elsewhere));
    play_death(&dead);
    play_death(&elsewhere);
    fix_write_file("shmcomm.a.stranger", "x", 1);
    CHECK_OK(shc_seg_sweep_dir(fix.dir_fd, "shmcomm.a.", &fix.self, SHC_NEVER, NULL, note_name, removed));
    CHECK_STR(removed, "shmcomm.a.dead ");
    CHECK_EQ(fix_count_files(), 3);
    removed[0] = '\0';
    CHECK_OK(shc_seg_sweep_dir(fix.dir_fd, "shmcomm.", &fix.self, SHC_NEVER, NULL, note_name, removed));
    CHECK_STR(removed, "shmcomm.b.dead ");
    fix_leave(&living, "shmcomm.a.living");
    CHECK_EQ(unlinkat(fix.dir_fd, "shmcomm.a.stranger", 0), 0);
    fix_close();
}

static void
write_private(char name[80], uint32_t pid, uint64_t pidns)
{
    (void)snprintf(name, 80, SHC_OS_TMP_PREFIX "%u.%llu.0123456789abcdef", pid, (unsigned long long)pidns);
    fix_write_file(name, "x", 1);
}

/* It is there until now. */
static void
remove_private(const char *name)
{
    CHECK_EQ(unlinkat(fix.dir_fd, name, 0), 0);
}

TEST(a_sweep_takes_private_files_of_dead_makers_only)
{
    char dead[80], living[80];
    fix_open();
    write_private(dead, fix_corpse()->pid, fix.self.id.pidns);
    write_private(living, fix.self.id.pid, fix.self.id.pidns);
    CHECK_OK(fix_sweep());
    CHECK(!fix_exists(dead));
    remove_private(living);
    fix_close();
}

/* There, the number may be that of a process at work. */
TEST(a_sweep_leaves_private_files_of_another_pid_namespace)
{
    char here[80], there[80];
    fix_open();
    write_private(here, fix_corpse()->pid, fix.self.id.pidns);
    write_private(there, fix_corpse()->pid, fix.self.id.pidns + 1);
    shc_self_t other = fix.self;
    other.id.pidns++;
    CHECK_OK(shc_seg_sweep_dir(fix.dir_fd, "shmcomm.", &other, SHC_NEVER, NULL, NULL, NULL));
    CHECK(!fix_exists(there));
    CHECK(fix_exists(here));
    write_private(there, fix_corpse()->pid, fix.self.id.pidns + 1);
    CHECK_OK(fix_sweep());
    CHECK(!fix_exists(here));
    remove_private(there);
    fix_close();
}

TEST(a_sweep_leaves_private_names_that_are_not_ours)
{
    /* A dead process's pid wherever one could be read; the last two are its numbers plus 2^32 and 2^64. */
    const char *patterns[] = {
        "what.is.this",
        "%1$u",
        "%1$u.",
        "%1$u.0123456789abcdef",
        "%1$u..0123",
        ".%1$u.0.0123",
        "%1$u.%2$llu",
        "-%1$u.%2$llu.0",
        "%1$u.-%2$llu.0",
        "%1$u.0x%2$llu.0",
        "%3$llu.%2$llu.0123",
        "%1$u.1844674407%4$010llu.0123",
    };
    fix_open();
    unsigned pid = fix_corpse()->pid;
    unsigned long long pidns = fix.self.id.pidns;
    CHECK_LE(pidns, UINT32_MAX);
    for (size_t i = 0; i < SHC_ARRAY_SIZE(patterns); i++) {
        char rest[64], name[80];
        (void)snprintf(rest, sizeof rest, patterns[i], pid, pidns, pid + (1ull << 32), 3709551616ull + pidns);
        (void)snprintf(name, sizeof name, SHC_OS_TMP_PREFIX "%s", rest);
        fix_write_file(name, "x", 1);
        CHECK_OK(fix_sweep());
        remove_private(name);
    }
    fix_close();
}

TEST(a_sweep_that_runs_out_of_time_goes_on_where_it_stopped)
{
    char name[32];
    uint32_t cursor = 0;
    int r;
    unsigned calls = 0;
    fix_open();
    for (int i = 0; i < 20; i++) {
        (void)snprintf(name, sizeof name, "shmcomm.%d", i);
        CHECK_OK(fix_create_buffer(name, SIZE, &seg));
        play_death(&seg);
    }
    while ((r = shc_seg_sweep_dir(fix.dir_fd, "shmcomm.", &fix.self, 0, &cursor, NULL, NULL)) == SHC_TIMEOUT) {
        CHECK_GT(cursor, 0);
        CHECK_LT(calls++, 100);
    }
    CHECK_OK(r);
    CHECK_EQ(cursor, 0);
    CHECK_GT(calls, 1);
    while ((r = shc_seg_sweep_dir(fix.dir_fd, "shmcomm.", &fix.self, 0, &cursor, NULL, NULL)) == SHC_TIMEOUT)
        CHECK_LT(calls++, 200);
    CHECK_OK(fix_sweep());
    CHECK_EQ(fix_count_files(), 0);
    fix_close();
}

TEST(check_finds_a_changed_head)
{
    set_up();
    shc_seg_shm_t *shm = shc_seg_shm(&seg);
    CHECK_OK(shc_seg_check(&seg));
    shm->id.size++;
    CHECK_EQ(shc_seg_check(&seg), SHC_E_CORRUPT);
    shm->id.size--;
    shm->spare[30] = 1;
    CHECK_EQ(shc_seg_check(&seg), SHC_E_CORRUPT);
    shm->spare[30] = 0;
    set_life(&seg, 3);
    CHECK_EQ(shc_seg_check(&seg), SHC_E_CORRUPT);
    set_life(&seg, 0);
    shc_a64_store_relaxed(&seg.participants.slots[1].state, 6);
    CHECK_EQ(shc_seg_check(&seg), SHC_E_CORRUPT);
    shc_a64_store_relaxed(&seg.participants.slots[1].state, 0);
    CHECK_OK(shc_seg_check(&seg));
    tear_down();
}

/* ---- fork ---- */

static void
use_inherited_handle(void *arg)
{
    (void)arg;
    CHECK_NE(seg.epoch, shc_self_epoch(&fix.self));
    CHECK_OK(shc_seg_rejoin(&seg));
    CHECK_EQ(seg.index, 1);
    CHECK_EQ(alive(&seg), 2);
    CHECK_EQ(shc_a64_load_relaxed(&shc_seg_shm(&seg)->life), shc_seg_life_word(SHC_SEG_OPEN, 0, 1));
    CHECK_OK(shc_seg_rejoin(&seg));
    CHECK_EQ(alive(&seg), 2);
    leave(&seg);
}

TEST(a_child_that_uses_an_inherited_handle_becomes_a_participant_of_its_own)
{
    set_up();
    proc_join(proc_start(use_inherited_handle, NULL));
    CHECK_EQ(alive(&seg), 1);
    CHECK(fix_exists(NAME));
    tear_down();
}

static void
close_inherited_handle(void *arg)
{
    (void)arg;
    leave(&seg);
}

TEST(a_child_that_only_closes_an_inherited_handle_leaves_the_parents_slot_alone)
{
    set_up();
    proc_join(proc_start(close_inherited_handle, NULL));
    CHECK_EQ(alive(&seg), 1);
    CHECK_EQ(fix_phase(&seg, 0), SHC_PARTICIPANT_LIVE);
    CHECK(fix_exists(NAME));
    tear_down();
}

static void
outlive_parent_handle(void *arg)
{
    shc_a32_t *stage = arg;
    CHECK_OK(shc_seg_rejoin(&seg));
    proc_signal(stage);
    proc_await(stage, 2);
    CHECK(fix_exists(NAME));
    leave(&seg);
    CHECK(!fix_exists(NAME));
}

TEST(a_child_keeps_the_name_when_its_parent_leaves)
{
    shc_a32_t *stage = proc_share(sizeof *stage);
    set_up();
    pid_t pid = proc_start(outlive_parent_handle, stage);
    proc_await(stage, 1);
    leave(&seg);
    proc_signal(stage);
    proc_join(pid);
    fix_close();
}

static void
rejoin_nameless(void *arg)
{
    proc_await(arg, 1);
    CHECK_OK(shc_seg_rejoin(&seg));
    CHECK_EQ(alive(&seg), 1);
    leave(&seg);
}

TEST(a_child_may_use_the_memory_after_the_name_is_gone)
{
    shc_a32_t *stage = proc_share(sizeof *stage);
    set_up();
    pid_t pid = proc_start(rejoin_nameless, stage);
    leave(&seg);
    CHECK_EQ(fix_count_files(), 0);
    proc_signal(stage);
    proc_join(pid);
    fix_close();
}

/* ---- real deaths ---- */

static void
create_and_die(void *arg)
{
    (void)arg;
    CHECK_OK(create(&seg));
    (void)kill(getpid(), SIGKILL);
}

TEST(what_a_killed_process_leaves_is_removed_by_the_next_look)
{
    fix_open();
    pid_t pid = proc_start(create_and_die, NULL);
    siginfo_t info;
    CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    CHECK_EQ(fix_count_files(), 1);
    CHECK_OK(fix_sweep());
    CHECK_EQ(fix_count_files(), 0);
    CHECK_EQ(t_wait(pid), 128 + SIGKILL);
    fix_close();
}

TEST(a_stopped_process_keeps_its_segment)
{
    fix_open();
    shc_a32_t *stage = proc_share(sizeof *stage);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_OK(create(&seg));
        proc_signal(stage);
        for (;;)
            pause();
    }
    proc_await(stage, 1);
    CHECK_EQ(kill(pid, SIGSTOP), 0);
    CHECK_OK(fix_sweep());
    CHECK_EQ(create(&seg), -EEXIST);
    proc_kill(pid);
    CHECK_OK(create(&seg));
    tear_down();
}

/* ---- many processes at once ---- */

#define CROWD 4

typedef struct crowd {
    shc_a32_t round; /* begins when the parent bumps it */
    shc_a32_t done;  /* with the rounds so far, all workers together */
    shc_a32_t created;
    shc_a32_t attached;
    shc_a32_t refused;
    shc_a32_t inside;
    uint64_t rounds;
    void (*act)(struct crowd *c);
} crowd_t;

/* Spins: what is to happen at once must not wait for a wake-up. */
static void
spin_until(const shc_a32_t *word, uint32_t value)
{
    while (shc_a32_load_acquire(word) < value) /* A <- proc_signal */
        shc_os_yield();
}

/* As long as all workers live. */
static void
await_crowd(const pid_t pids[CROWD], const shc_a32_t *word, uint32_t value)
{
    while (shc_a32_load_acquire(word) < value) { /* A <- proc_signal */
        shc_os_yield();
        for (int i = 0; i < CROWD; i++) {
            siginfo_t info = {0};
            CHECK_EQ(waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOHANG | WNOWAIT), 0);
            CHECK_EQ(info.si_pid, 0);
        }
    }
}

static void
work(void *arg)
{
    crowd_t *c = arg;
    CHECK_OK(shc_self_refresh(&fix.self));
    for (uint32_t i = 1; i <= c->rounds; i++) {
        spin_until(&c->round, i);
        c->act(c);
        proc_signal(&c->done);
    }
    spin_until(&c->round, (uint32_t)c->rounds + 1); /* nobody dies before the last check */
}

/* With as many slots as there can be: a look at all of them takes long, and much can happen meanwhile. */
static int
create_roomy(shc_seg_t *out)
{
    shc_seg_create_args_t args = fix_buffer_args(SIZE);
    args.participants = SHC_PARTICIPANT_MAX;
    return fix_create_with(NAME, &shc_buffer_spec, &args, out);
}

/* Before each round `stage` is called, after it `check`; both in the parent. */
static void
run_crowd(uint64_t rounds, void (*act)(crowd_t *), void (*stage)(void), void (*check)(crowd_t *))
{
    pid_t pids[CROWD];
    crowd_t *c = proc_share(sizeof *c);
    fix_open();
    c->rounds = rounds;
    c->act = act;
    (void)fix_corpse();
    for (int i = 0; i < CROWD; i++)
        pids[i] = proc_start(work, c);
    for (uint32_t i = 1; i <= rounds; i++) {
        if (stage != NULL)
            stage();
        proc_signal(&c->round);
        await_crowd(pids, &c->done, CROWD * i);
        check(c);
    }
    proc_signal(&c->round);
    for (int i = 0; i < CROWD; i++)
        proc_join(pids[i]);
    printf("created %u, attached %u, refused %u\n", shc_a32_load_relaxed(&c->created),
           shc_a32_load_relaxed(&c->attached), shc_a32_load_relaxed(&c->refused));
    fix_close();
}

static void
check_no_file_is_left(crowd_t *c)
{
    (void)c;
    CHECK_EQ(fix_count_files(), 0);
}

static void
leave_remains(void)
{
    CHECK_OK(create_roomy(&seg));
    play_death(&seg);
}

/* While one has it open and nobody unlinks, the name is there and leads to it. */
static void
check_is_common(const shc_seg_t *s)
{
    bool same;
    CHECK_OK(shc_os_file_is(fix.dir_fd, NAME, s->dev, s->ino, &same));
    CHECK(same);
    CHECK_EQ(fix_life(s), SHC_SEG_OPEN);
}

static int
attach_or_create(crowd_t *c, shc_seg_t *mine)
{
    int r = attach(mine);
    if (r == 0) {
        shc_a32_fetch_add_relaxed(&c->attached, 1);
        return 0;
    }
    CHECK(r == -ENOENT || r == SHC_GONE);
    r = create_roomy(mine);
    CHECK(r == 0 || r == -EEXIST || r == SHC_GONE);
    shc_a32_fetch_add_relaxed(r == 0 ? &c->created : &c->refused, 1);
    return r;
}

static void
come_and_go(crowd_t *c)
{
    for (int i = 0; i < 20; i++) {
        shc_seg_t mine;
        if (attach_or_create(c, &mine) != 0)
            continue;
        check_is_common(&mine);
        leave(&mine);
    }
}

TEST_LIMIT(while_somebody_has_it_open_the_name_leads_to_it, 60)
{
    run_crowd(t_scaled(40), come_and_go, NULL, check_no_file_is_left);
}

/* One creates and leaves, the others try to get in before it is gone. */
static void
slip_in(crowd_t *c)
{
    shc_seg_t mine;
    bool creator = shc_a32_fetch_add_relaxed(&c->inside, 1) % CROWD == 0;
    for (int i = 0; i < 30; i++) {
        int r = creator ? create_roomy(&mine) : attach(&mine);
        CHECK(r == 0 || r == -EEXIST || r == -ENOENT || r == SHC_GONE);
        shc_a32_fetch_add_relaxed(r != 0 ? &c->refused : creator ? &c->created : &c->attached, 1);
        if (r != 0)
            continue;
        check_is_common(&mine);
        leave(&mine);
    }
}

TEST_LIMIT(who_gets_in_while_the_last_one_leaves_keeps_the_name, 60)
{
    run_crowd(t_scaled(80), slip_in, NULL, check_no_file_is_left);
}

/* Several find the same dead segment: one of them creates, and all others get to hear of his. */
static void
create_over_dead(crowd_t *c)
{
    shc_seg_t mine;
    int r;
    do
        r = create_roomy(&mine);
    while (r == SHC_GONE);
    if (r == 0) {
        shc_a32_fetch_add_relaxed(&c->created, 1);
        CHECK_OK(shc_seg_check(&mine));
        check_is_common(&mine);
        shc_seg_unmap(&mine); /* stays, as that of a living process */
    } else {
        CHECK_EQ(r, -EEXIST);
    }
}

static void
check_one_created(crowd_t *c)
{
    CHECK_EQ(shc_a32_load_relaxed(&c->created), shc_a32_load_relaxed(&c->round));
    CHECK_EQ(fix_count_files(), 1);
    CHECK_OK(shc_seg_force_unlink(fix.dir_fd, NAME, &fix.self));
}

TEST_LIMIT(of_many_who_create_over_a_dead_segment_one_succeeds, 60)
{
    run_crowd(t_scaled(400), create_over_dead, leave_remains, check_one_created);
}

/* Some sweep, some attach: nobody gets hold of the dead, and the name is gone. */
static void
meet_dead(crowd_t *c)
{
    shc_seg_t mine;
    if (getpid() % 2 == 0) {
        CHECK_OK(fix_sweep());
        return;
    }
    int r = attach(&mine);
    CHECK(r == -ENOENT || r == SHC_GONE);
    shc_a32_fetch_add_relaxed(&c->refused, 1);
}

TEST_LIMIT(a_dead_segment_is_never_attached_and_is_gone_after_the_first_look, 60)
{
    run_crowd(t_scaled(400), meet_dead, leave_remains, check_no_file_is_left);
}

/* Some unlink while others leave as the last: no new segment of the name is hit. */
static void
unlink_and_go(crowd_t *c)
{
    for (int i = 0; i < 20; i++) {
        shc_seg_t mine;
        int r = create_roomy(&mine);
        CHECK(r == 0 || r == -EEXIST || r == SHC_GONE);
        shc_a32_fetch_add_relaxed(r == 0 ? &c->created : &c->refused, 1);
        if (r != 0)
            continue;
        check_is_common(&mine);
        if (i % 2 == 0)
            CHECK_OK(shc_seg_unlink(&mine, fix.dir_fd, NAME));
        leave(&mine);
    }
}

TEST_LIMIT(an_unlink_never_hits_the_next_segment_of_that_name, 60)
{
    run_crowd(t_scaled(40), unlink_and_go, NULL, check_no_file_is_left);
}

/* All users leave at once: one of them is the last. */
static void
leave_together(crowd_t *c)
{
    shc_seg_t mine;
    while (attach_or_create(c, &mine) != 0)
        shc_os_yield();
    uint32_t everybody = CROWD * shc_a32_load_relaxed(&c->round);
    proc_signal(&c->inside);
    spin_until(&c->inside, everybody);
    leave(&mine);
}

TEST_LIMIT(of_many_who_leave_at_once_one_is_the_last, 60)
{
    run_crowd(t_scaled(400), leave_together, NULL, check_no_file_is_left);
}
