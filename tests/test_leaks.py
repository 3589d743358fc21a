"""Memory, references, descriptors and mappings do not grow, however long one works."""

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import HERE

from shmcomm import RingBufferChannel, SharedMemoryBuffer


def run_script(script, *arguments):
    done = subprocess.run(
        [sys.executable, HERE / "isolated" / script, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=100, cwd=HERE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.time_limit(120)
def test_no_call_path_leaks():
    assert run_script("refleaks.py") == ""


@pytest.mark.time_limit(120)
def test_a_million_messages():
    resident_kib, traced_bytes = map(int, run_script("million.py", 1_000_000).split())
    assert resident_kib < 512
    assert traced_bytes < 16 * 1024


def mappings():
    with open("/proc/self/maps") as file:
        return sum("/dev/shm/" in line for line in file)


def test_mappings_and_descriptors():
    maps, fds = mappings(), len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        channel = RingBufferChannel(4)
        channel.send(np.arange(100))
        view = channel.receive(copy=False)
        reservation = channel.reserve(10)
        memory = memoryview(reservation)
        other = RingBufferChannel.attach(channel.name)
        channel.close()
        assert mappings() == maps + 1
        other.close()
        del view, memory, reservation
        assert mappings() == maps
        with SharedMemoryBuffer(10) as buffer:
            kept = buffer.as_array(10, "u1")
        assert mappings() == maps + 1
        del kept, buffer
        assert mappings() == maps
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == fds


def test_one_mapping_per_process_and_segment():
    with RingBufferChannel(4) as channel:
        handles = [RingBufferChannel.attach(channel.name) for _ in range(20)]
        assert mappings() == 1
        for handle in handles:
            handle.close()


def test_threads_leave_nothing():
    with RingBufferChannel(4) as channel:
        gc.collect()
        before = sys.getallocatedblocks()
        for i in range(300):
            thread = threading.Thread(target=channel.send, args=([i],))
            thread.start()
            thread.join()
            channel.receive()
        gc.collect()
        assert sys.getallocatedblocks() - before < 300


def test_waiting_allocates_nothing():
    with RingBufferChannel(4) as channel:
        for _ in range(50):
            channel.dequeue()
        before = sys.getallocatedblocks()
        for _ in range(5000):
            channel.dequeue()
            channel.enqueue(1)
            channel.try_receive()
            len(channel)
        assert sys.getallocatedblocks() - before < 100


def test_small_private_memory():
    """At most 4 KiB for a handle, beside what it maps."""
    names = [f"many-{i}" for i in range(100)]
    kept = [RingBufferChannel(1, buffer_size=4096, name=name, max_participants=1) for name in names]

    def private():
        with open("/proc/self/smaps") as file:
            total, ours = 0, False
            for line in file:
                if "-" in line.split(" ")[0]:
                    ours = "/dev/shm/" in line
                elif line.startswith("Private_Dirty") and not ours:
                    total += int(line.split()[1])
            return total

    before = private()
    more = [RingBufferChannel(1, buffer_size=4096, max_participants=1) for _ in range(400)]
    grown = private() - before
    for channel in kept + more:
        channel.close()
    assert grown <= 400 * 4.5  # KiB; the rest is what counting costs
