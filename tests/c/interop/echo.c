/* Another language's side of a conversation: sends back every message that arrives, through two rings that Python made.
 *
 *     echo DIRECTORY FILE_IN FILE_OUT
 *
 * Uses nothing but the installed headers and the static library; tests/test_interop.py talks to it. Ends with status
 * 0 when FILE_IN is shut down, having printed how many messages it saw and the sum of those that were integers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ds/shc_ring_extent.h"
#include "ds/shc_wire.h"

static shc_self_t self;

typedef struct channel {
    shc_seg_t seg;
    shc_ring_t ring;
    shc_arena_t arena; /* if ring.has_extents */
} channel_t;

/* A message, wherever it lies. */
typedef struct message {
    shc_ring_message_t record;
    shc_extent_t extent; /* of a large one; else its reference is SHC_ARENA_NOTHING */
    const uint8_t *payload;
    uint64_t length;
    uint8_t tag;
} message_t;

static void
die(const char *what, int status)
{
    const char *sentence = shc_status_sentence(status);
    fprintf(stderr, "echo: %s: %s (%d)\n", what, sentence != NULL ? sentence : "system error", status);
    exit(1);
}

static void
attach(int dir_fd, const char *file, channel_t *channel, int end)
{
    int fd;
    shc_os_file_info_t info;
    int r = shc_seg_locate(dir_fd, file, false, &fd, &info);
    if (r == 0)
        r = shc_seg_attach(dir_fd, file, fd, &info, &self, &shc_ring_spec, &channel->seg);
    if (r != 0)
        die(file, r);
    shc_ring_open(&channel->ring, &channel->seg);
    if (channel->ring.has_extents)
        shc_ring_extents_open(&channel->arena, &channel->seg);
    r = shc_ring_take(&channel->ring, end);
    if (r != 0 && r != SHC_OWNER_DIED)
        die("taking an end", r);
}

static void
leave(int dir_fd, const char *file, channel_t *channel, int end)
{
    shc_ring_drop(&channel->ring, end);
    if (channel->ring.has_extents)
        shc_ring_extents_leave(&channel->ring, &channel->arena);
    shc_seg_leave(&channel->seg, dir_fd, file);
    shc_seg_unmap(&channel->seg);
}

/* Sleeps until the event may have happened; the caller looks again. */
static void
wait_for(const shc_seg_t *seg, shc_event_shm_t *event, const shc_a64_t *word, uint64_t seen)
{
    uint32_t prepared = shc_event_prepare(event);
    if (shc_a64_load_relaxed(word) != seen)
        return;
    shc_participant_begin_wait(&seg->participants, seg->index, seg->generation);
    int r = shc_event_wait(event, prepared, shc_os_now_ns() + SHC_EVENT_SLICE_MIN_NS);
    shc_participant_end_wait(&seg->participants, seg->index, seg->generation);
    if (r == 0)
        shc_event_pass_on(event);
}

/* Room for a message of that length: 0 or SHC_FULL, ... */
static int
claim(channel_t *to, uint64_t length, shc_extent_t *extent, uint8_t **dst)
{
    uint64_t room;
    extent->ref = SHC_ARENA_NOTHING;
    if (length <= to->ring.payload_max || !to->ring.has_extents)
        return shc_ring_claim(&to->ring, length, dst, &room);
    int r = shc_ring_claim_extent(&to->ring, &to->arena, length, extent);
    *dst = extent->memory;
    return r;
}

static void
send_copy(channel_t *to, const message_t *msg)
{
    shc_ring_t *ring = &to->ring;
    shc_extent_t extent;
    uint8_t *dst;
    int r;
    while ((r = claim(to, msg->length, &extent, &dst)) == SHC_FULL)
        wait_for(&to->seg, &ring->shm->space, ring->send_watch.word, ring->send_watch.seen);
    if (r != 0)
        die("sending", r);
    memcpy(dst, msg->payload, msg->length);
    if (extent.ref != SHC_ARENA_NOTHING)
        shc_ring_stage_extent(ring, &extent, msg->length, msg->tag);
    else
        shc_ring_stage(ring, (uint32_t)msg->length, msg->tag);
    shc_ring_publish(ring);
    shc_event_notify_one(&ring->shm->items);
}

static int
receive(channel_t *from, message_t *msg)
{
    shc_ring_t *ring = &from->ring;
    shc_ring_message_t *record = &msg->record;
    int r;
    while ((r = shc_ring_front(ring, record)) == SHC_EMPTY)
        wait_for(&from->seg, &ring->shm->items, ring->receive_watch.word, ring->receive_watch.seen);
    msg->extent.ref = SHC_ARENA_NOTHING;
    msg->payload = record->payload;
    msg->length = record->length;
    msg->tag = record->tag;
    if (r != 0 || (record->tag & SHC_EXTENT_TAG) == 0)
        return r;
    r = shc_extent_read(&from->arena, record->payload, record->length, &msg->extent);
    msg->payload = msg->extent.memory;
    msg->length = msg->extent.length;
    msg->tag = (uint8_t)(record->tag & ~SHC_EXTENT_TAG);
    return r == 0 ? shc_arena_adopt(&from->arena, msg->extent.ref) : r;
}

static void
give_back(channel_t *from, const message_t *msg)
{
    shc_ring_consume(&from->ring, &msg->record);
    shc_ring_give_back(&from->ring);
    int r = msg->extent.ref != SHC_ARENA_NOTHING ? shc_arena_release(&from->arena, msg->extent.ref) : 0;
    if (r != 0)
        die("giving memory back", r);
    shc_event_notify_one(&from->ring.shm->space);
}

static void
echo(channel_t *in, channel_t *out)
{
    uint64_t messages = 0;
    int64_t sum = 0, number;
    message_t msg;
    int r;
    while ((r = receive(in, &msg)) == 0) {
        messages++;
        if (shc_wire_get_int64(msg.tag, msg.payload, msg.length, &number))
            sum += number;
        send_copy(out, &msg);
        give_back(in, &msg);
    }
    if (r != SHC_SHUTDOWN)
        die("receiving", r);
    printf("%" PRIu64 " messages, sum %" PRId64 "\n", messages, sum);
}

int
main(int argc, char **argv)
{
    int dir_fd;
    static channel_t in, out;
    if (argc != 4) {
        fprintf(stderr, "usage: echo DIRECTORY FILE_IN FILE_OUT\n");
        return 2;
    }
    int r = shc_self_init(&self);
    if (r == 0)
        r = shc_os_dir_open(argv[1], &dir_fd);
    if (r != 0)
        die(argv[1], r);
    attach(dir_fd, argv[2], &in, SHC_RING_CONSUMER);
    attach(dir_fd, argv[3], &out, SHC_RING_PRODUCER);
    echo(&in, &out);
    shc_ring_shutdown(&out.ring, false);
    leave(dir_fd, argv[2], &in, SHC_RING_CONSUMER);
    leave(dir_fd, argv[3], &out, SHC_RING_PRODUCER);
    shc_os_close(dir_fd);
    return 0;
}
