"""A million messages of all kinds through one channel: memory of the process before and after, in KiB."""

import gc
import sys
import tracemalloc

import numpy as np

import shmcomm

count = int(sys.argv[1])
array = np.arange(50)


def resident():
    with open("/proc/self/smaps_rollup") as file:
        fields = dict(line.split(":")[:2] for line in file if ":" in line)
    return sum(int(fields[name].split()[0]) for name in ("Private_Dirty", "Private_Clean"))


def run(channel, n):
    for i in range(n // 10):
        channel.send(i)
        channel.send("text")
        channel.send_batch([b"bytes", 2.5, (i, "x")])
        channel.receive_batch(4)
        channel.send({"key": i, "list": [1, 2]})
        channel.receive()
        channel.receive()
        channel.send(array)
        held = channel.receive(copy=False)
        channel.send(b"x" * (i % 2000))
        channel.receive()
        with channel.reserve(20) as room:
            room[:4] = b"abcd"
        channel.peek()
        channel.receive()
        channel.enqueue(None)
        channel.dequeue()
        del held


with shmcomm.RingBufferChannel(64) as channel:
    run(channel, count // 10)
    gc.collect()
    before = resident()
    run(channel, count)
    gc.collect()
    after = resident()
    tracemalloc.start()
    run(channel, count // 20)
    gc.collect()
    first, _ = tracemalloc.get_traced_memory()
    run(channel, count // 20)
    gc.collect()
    second, _ = tracemalloc.get_traced_memory()
    assert channel.stats().bytes_used == 0
    assert channel.stats().sent == channel.stats().received >= count
print(after - before, second - first)
