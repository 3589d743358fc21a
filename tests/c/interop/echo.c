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

#include "ds/shc_ring.h"
#include "ds/shc_wire.h"

static shc_self_t self;

static void
die(const char *what, int status)
{
    const char *sentence = shc_status_sentence(status);
    fprintf(stderr, "echo: %s: %s (%d)\n", what, sentence != NULL ? sentence : "system error", status);
    exit(1);
}

static void
attach(int dir_fd, const char *file, shc_seg_t *seg, shc_ring_t *ring, int end)
{
    int fd;
    shc_os_file_info_t info;
    int r = shc_seg_locate(dir_fd, file, false, &fd, &info);
    if (r == 0)
        r = shc_seg_attach(dir_fd, file, fd, &info, &self, &shc_ring_spec, seg);
    if (r != 0)
        die(file, r);
    shc_ring_open(ring, seg);
    r = shc_ring_take(ring, end);
    if (r != 0 && r != SHC_OWNER_DIED)
        die("taking an end", r);
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

static void
send_copy(shc_ring_t *ring, const shc_ring_message_t *msg)
{
    uint8_t *dst;
    uint64_t room;
    int r;
    while ((r = shc_ring_claim(ring, msg->length, &dst, &room)) == SHC_FULL)
        wait_for(ring->seg, &ring->shm->space, ring->send_watch.word, ring->send_watch.seen);
    if (r != 0)
        die("sending", r);
    memcpy(dst, msg->payload, msg->length);
    shc_ring_stage(ring, msg->length, msg->tag);
    shc_ring_publish(ring);
    shc_event_notify_one(&ring->shm->items);
}

static void
echo(shc_ring_t *in, shc_ring_t *out)
{
    uint64_t messages = 0;
    int64_t sum = 0, number;
    for (;;) {
        shc_ring_message_t msg;
        int r = shc_ring_front(in, &msg);
        if (r == SHC_EMPTY) {
            wait_for(in->seg, &in->shm->items, in->receive_watch.word, in->receive_watch.seen);
            continue;
        }
        if (r == SHC_SHUTDOWN)
            break;
        if (r != 0)
            die("receiving", r);
        messages++;
        if (shc_wire_get_int64(msg.tag, msg.payload, msg.length, &number))
            sum += number;
        send_copy(out, &msg);
        shc_ring_consume(in, &msg);
        shc_ring_give_back(in);
        shc_event_notify_one(&in->shm->space);
    }
    printf("%" PRIu64 " messages, sum %" PRId64 "\n", messages, sum);
}

int
main(int argc, char **argv)
{
    int dir_fd;
    shc_seg_t seg_in, seg_out;
    static shc_ring_t in, out;
    if (argc != 4) {
        fprintf(stderr, "usage: echo DIRECTORY FILE_IN FILE_OUT\n");
        return 2;
    }
    int r = shc_self_init(&self);
    if (r == 0)
        r = shc_os_dir_open(argv[1], &dir_fd);
    if (r != 0)
        die(argv[1], r);
    attach(dir_fd, argv[2], &seg_in, &in, SHC_RING_CONSUMER);
    attach(dir_fd, argv[3], &seg_out, &out, SHC_RING_PRODUCER);
    echo(&in, &out);
    shc_ring_shutdown(&out, false);
    shc_ring_drop(&in, SHC_RING_CONSUMER);
    shc_ring_drop(&out, SHC_RING_PRODUCER);
    shc_seg_leave(&seg_in, dir_fd, argv[2]);
    shc_seg_leave(&seg_out, dir_fd, argv[3]);
    shc_seg_unmap(&seg_in);
    shc_seg_unmap(&seg_out);
    shc_os_close(dir_fd);
    return 0;
}
