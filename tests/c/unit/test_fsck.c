/* What is told of a segment by looks alone: nobody's work in progress is damage. */
#include "tool/shc_fsck.h"

#include <errno.h>

#include "support/proc.h"
#include "support/segfix.h"
#include "t.h"
#include "tool/shc_dump.h"

#define NAME "shmcomm.looked-at"

static shc_seg_t seg;

static int
look(shc_fsck_t *found)
{
    return shc_fsck(fix.dir_fd, NAME, &fix.self, found);
}

static void
check_found(int status, shc_fsck_part_t part, bool in_use)
{
    shc_fsck_t found;
    CHECK_EQ(look(&found), status);
    CHECK_EQ(found.part, part);
    CHECK_EQ(found.in_use, in_use);
}

/* Changes a word, and back. */
static void
check_damage(shc_a64_t *word, uint64_t value, shc_fsck_part_t part, bool in_use)
{
    uint64_t before = shc_a64_load_relaxed(word);
    shc_a64_store_relaxed(word, value);
    check_found(SHC_E_CORRUPT, part, in_use);
    shc_a64_store_relaxed(word, before);
    check_found(0, SHC_FSCK_NOTHING, in_use);
}

TEST(every_kind_can_be_checked)
{
#define SHC_KIND(id, NAME, stem) CHECK(shc_kind_spec(id)->check != NULL);
#include "seg/shc_kinds.def"
#undef SHC_KIND
}

TEST(a_sound_segment_is_sound_in_use_and_not)
{
    fix_open();
    CHECK_OK(fix_create_buffer(NAME, 100, &seg));
    check_found(0, SHC_FSCK_NOTHING, true);
    shc_a64_store_relaxed(&seg.participants.slots[seg.index].state, 0); /* as if it were gone */
    check_found(0, SHC_FSCK_NOTHING, false);
    (void)fix_plant_dead(&seg, 1, 1, SHC_PARTICIPANT_LIVE);
    check_found(0, SHC_FSCK_NOTHING, false);
    (void)fix_plant_living(&seg, 2, 1, SHC_PARTICIPANT_LEAVING);
    check_found(0, SHC_FSCK_NOTHING, true);
    (void)fix_plant_living(&seg, 2, 1, SHC_PARTICIPANT_REAPING);
    check_found(0, SHC_FSCK_NOTHING, true);
    CHECK_OK(shc_os_file_unlink(fix.dir_fd, NAME));
    shc_seg_unmap(&seg);
    fix_close();
}

TEST(damage_to_the_head_is_told_at_any_time)
{
    fix_open();
    CHECK_OK(fix_create_objects(NAME, 8, 64, &seg));
    shc_seg_shm_t *shm = shc_seg_shm(&seg);
    check_damage(&shm->life, 3, SHC_FSCK_HEAD, true);
    check_damage((shc_a64_t *)(void *)&shm->spare[30], 1, SHC_FSCK_HEAD, true);
    shm->id.spare[3] = 1;
    check_found(SHC_E_CORRUPT, SHC_FSCK_HEAD, false); /* it is not looked into further */
    shm->id.spare[3] = 0;
    check_damage(&seg.participants.slots[3].state, UINT64_C(1) << 60, SHC_FSCK_HEAD, true);
    fix_leave(&seg, NAME);
    fix_close();
}

TEST(damage_to_the_body_is_told_at_any_time)
{
    shc_objects_t objects;
    shc_buffer_t buffer;
    shc_ring_t ring;
    fix_open();
    CHECK_OK(fix_create_objects(NAME, 8, 64, &seg));
    shc_objects_open(&objects, &seg);
    check_damage(&objects.slots[7].word, UINT64_C(1) << 50, SHC_FSCK_BODY, true);
    fix_leave(&seg, NAME);
    CHECK_OK(fix_create_buffer(NAME, 100, &seg));
    shc_buffer_open(&buffer, &seg);
    check_damage(&buffer.shm->used, 101, SHC_FSCK_BODY, true);
    fix_leave(&seg, NAME);
    CHECK_OK(fix_create_ring(NAME, 8, 4096, &seg));
    shc_ring_open(&ring, &seg);
    check_damage(&ring.shm->tail, UINT64_C(1) << 40 | 2, SHC_FSCK_BODY, true); /* a message that is none */
    check_damage(&ring.shm->tail, 4096, SHC_FSCK_BODY, true);
    fix_leave(&seg, NAME);
    fix_close();
}

TEST(what_cannot_be_read_is_not_judged)
{
    shc_fsck_t found;
    fix_open();
    CHECK_EQ(look(&found), -ENOENT);
    CHECK_OK(fix_create_buffer(NAME, 100, &seg));
    shc_seg_id_t *id = &shc_seg_shm(&seg)->id;
    id->kind = 77;
    CHECK_EQ(look(&found), SHC_E_KIND);
    id->kind = SHC_KIND_BUFFER;
    id->fingerprint ^= 1;
    CHECK_EQ(look(&found), SHC_E_FINGERPRINT);
    CHECK_EQ(found.part, SHC_FSCK_NOTHING);
    id->fingerprint ^= 1;
    id->version ^= 1;
    CHECK_EQ(look(&found), SHC_E_VERSION);
    id->version ^= 1;
    id->config[0] = UINT64_MAX; /* of its kind and layout, but no buffer can be so large */
    CHECK_EQ(look(&found), SHC_E_CORRUPT);
    CHECK_EQ(found.part, SHC_FSCK_HEAD);
    id->config[0] = seg.id.config[0];
    CHECK_EQ(look(&found), 0);
    fix_leave(&seg, NAME);
    fix_close();
}

/* Both ends, as fast as it goes. */
static void
stream(void *arg)
{
    shc_ring_t *ring = arg;
    shc_ring_message_t msg;
    uint8_t *dst;
    uint64_t room;
    CHECK_OK(shc_self_refresh(&fix.self));
    CHECK_OK(shc_seg_rejoin(ring->seg));
    CHECK_OK(shc_ring_take(ring, SHC_RING_PRODUCER));
    CHECK_OK(shc_ring_take(ring, SHC_RING_CONSUMER));
    for (uint32_t i = 0;; i++) {
        while (shc_ring_claim(ring, i % 300, &dst, &room) == 0) {
            memset(dst, 0xff, i % 300); /* no record begins like this */
            shc_ring_stage(ring, i % 300, 0);
            shc_ring_publish(ring);
        }
        CHECK_OK(shc_ring_front(ring, &msg));
        shc_ring_consume(ring, &msg);
        shc_ring_give_back(ring);
    }
}

TEST(a_ring_in_motion_is_never_taken_for_damaged)
{
    shc_ring_t ring;
    shc_seg_t view;
    uint64_t sound = 0, unknown = 0;
    fix_open();
    CHECK_OK(fix_create_ring(NAME, 8, 4096, &seg));
    shc_ring_open(&ring, &seg);
    pid_t pid = proc_start(stream, &ring);
    CHECK_OK(shc_seg_view(fix.dir_fd, NAME, &fix.self, &shc_ring_spec, &view));
    for (uint64_t i = 0, n = t_scaled(300000); i < n; i++) {
        int r = view.spec->check(&view, false);
        if (r != SHC_AGAIN)
            CHECK_OK(r);
        sound += r == 0;
        unknown += r == SHC_AGAIN;
    }
    CHECK_GT(sound, 0);
    shc_seg_unmap(&view);
    proc_kill(pid);
    printf("sound %llu times, in motion %llu times\n", (unsigned long long)sound, (unsigned long long)unknown);
    CHECK_EQ(shc_seg_reap_participants(&seg), 1);
    check_found(0, SHC_FSCK_NOTHING, true);
    fix_leave(&seg, NAME);
    fix_close();
}
