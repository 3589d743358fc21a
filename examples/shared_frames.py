"""A camera and a viewer share four frames; only the numbers of the frames travel.

Run it: python examples/shared_frames.py
"""

import multiprocessing
import zlib

from shmcomm import RingBufferChannel, SharedMemoryBuffer

FRAME = 640 * 480
SLOTS = 4
FRAMES = 100


def camera(frames_name, ready_name, free_name):
    with (
        SharedMemoryBuffer.attach(frames_name) as frames,
        RingBufferChannel.attach(ready_name) as ready,
        RingBufferChannel.attach(free_name) as free,
    ):
        for number in range(FRAMES):
            slot = free.receive()
            with memoryview(frames) as memory, memory[slot * FRAME : (slot + 1) * FRAME] as frame:
                frame[:] = bytes([number]) * FRAME
            ready.send(slot)
        ready.shutdown()


def main():
    with (
        SharedMemoryBuffer(SLOTS * FRAME) as frames,
        RingBufferChannel(SLOTS) as ready,
        RingBufferChannel(SLOTS) as free,
    ):
        free.send_batch(list(range(SLOTS)))
        process = multiprocessing.get_context("spawn").Process(target=camera, args=(frames.name, ready.name, free.name))
        process.start()
        seen = []
        for slot in ready:
            with memoryview(frames) as memory, memory[slot * FRAME : (slot + 1) * FRAME] as frame:
                seen.append(zlib.crc32(frame))
            free.send(slot)
        process.join()

    right = seen == [zlib.crc32(bytes([number]) * FRAME) for number in range(FRAMES)]
    print(f"{len(seen)} frames, {'all right' if right else 'WRONG'}")


if __name__ == "__main__":
    main()
