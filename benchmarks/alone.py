"""What one process, or a fresh interpreter, can measure. Each function returns one sample; the message that comes
out is compared with
the one that went in."""

import contextlib
import gc
import json
import multiprocessing
import os
import secrets
import subprocess
import sys
import time

from pairs import Broken

PYTHON = [sys.executable, "-P", "-s", "-c"]


def fresh_name():
    return f"bench.{secrets.token_hex(4)}"


@contextlib.contextmanager
def without_collector():
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


# ---- RingBufferChannel ----


def put_get(channel, messages, laps):
    """Nanoseconds of a send and a receive in one process."""
    put, get = channel.send, channel.receive
    start = time.perf_counter_ns()
    for _ in range(laps):
        for message in messages:
            put(message)
            get()
    elapsed = time.perf_counter_ns() - start
    for message in messages:
        put(message)
        if (got := get()) != message or type(got) is not type(message):
            raise Broken(f"{message!r} came out as {got!r}")
    return elapsed / (laps * len(messages))


def backlog(channel, message, length, n):
    """Nanoseconds of a send and a receive with `length` messages between them."""
    put, get = channel.send, channel.receive
    for _ in range(length):
        put(message)
    start = time.perf_counter_ns()
    for _ in range(n):
        put(message)
        get()
    elapsed = time.perf_counter_ns() - start
    for _ in range(length):
        if get() != message:
            raise Broken("a message of the backlog is damaged")
    if not channel.is_empty():
        raise Broken("more came out than went in")
    return elapsed / n


def array_copy(channel, array, n):
    """Nanoseconds of sending an array and receiving it as an array of its own."""
    put, get = channel.send, channel.receive
    array[:8] = 0
    start = time.perf_counter_ns()
    for i in range(n):
        array[0] = i & 0xFF
        put(array)
        got = get()
        if got[0] != i & 0xFF:
            raise Broken("an array came out of turn")
    elapsed = time.perf_counter_ns() - start
    if not (got == array).all():
        raise Broken("the array that came out differs")
    return elapsed / n


def array_in_place(channel, size, n):
    """Nanoseconds of reserving an array, publishing it, and receiving a view of it: nobody touches more than one
    byte.
    """
    reserve, get = channel.reserve_array, channel.receive
    start = time.perf_counter_ns()
    for i in range(n):
        with reserve(size, "u1") as array:
            array[-1] = i & 0xFF
        del array
        view = get(copy=False)
        last = view[-1]
        del view
        if last != i & 0xFF:
            raise Broken("an array came out of turn")
    return (time.perf_counter_ns() - start) / n


# ---- ObjectPool ----


def pool_use(pool, n):
    """Nanoseconds of acquiring an object and releasing it."""
    acquire, release = pool.acquire, pool.release
    first = acquire()
    release(first)
    start = time.perf_counter_ns()
    for _ in range(n):
        release(acquire())
    elapsed = time.perf_counter_ns() - start
    if acquire() is not first or pool.allocated != 1:
        raise Broken("the pool gave another object")
    release(first)
    return elapsed / n


def pool_use_beside(pool, n):
    """The same while others are in use."""
    acquire, release = pool.acquire, pool.release
    start = time.perf_counter_ns()
    for _ in range(n):
        release(acquire())
    return (time.perf_counter_ns() - start) / n


def semaphore_use(limit, n):
    """The same by hand: a semaphore for all processes, and a list of this one's objects."""
    semaphore, idle = multiprocessing.Semaphore(limit), [object()]
    acquire, release = semaphore.acquire, semaphore.release
    start = time.perf_counter_ns()
    for _ in range(n):
        acquire()
        obj = idle.pop()
        idle.append(obj)
        release()
    return (time.perf_counter_ns() - start) / n


# ---- SharedMemoryBuffer ----


def buffer_write(buffer, data, n):
    write = buffer.write
    start = time.perf_counter_ns()
    for _ in range(n):
        write(data)
    elapsed = time.perf_counter_ns() - start
    if buffer.read(0, len(data)) != data:
        raise Broken("the buffer does not hold what was written")
    return elapsed / n


def buffer_read(buffer, length, n):
    read = buffer.read
    start = time.perf_counter_ns()
    for _ in range(n):
        data = read(0, length)
    elapsed = time.perf_counter_ns() - start
    if data != bytes(memoryview(buffer)[:length]):
        raise Broken("read() returns something else than the memory holds")
    return elapsed / n


def buffer_view(buffer, n):
    start = time.perf_counter_ns()
    for _ in range(n):
        memoryview(buffer).release()
    return (time.perf_counter_ns() - start) / n


def stdlib_write(memory, data, n):
    """The same write into a multiprocessing.shared_memory.SharedMemory."""
    view, length = memory.buf, len(data)
    start = time.perf_counter_ns()
    for _ in range(n):
        view[:length] = data
    return (time.perf_counter_ns() - start) / n


# ---- life ----


def create_close(make, n):
    """Nanoseconds of creating an object and closing it, the last user, which removes it."""
    start = time.perf_counter_ns()
    for _ in range(n):
        make().close()
    return (time.perf_counter_ns() - start) / n


def create_close_stdlib(size, n):
    from multiprocessing.shared_memory import SharedMemory

    start = time.perf_counter_ns()
    for _ in range(n):
        memory = SharedMemory(create=True, size=size)
        memory.close()
        memory.unlink()
    return (time.perf_counter_ns() - start) / n


def in_fresh_interpreter(code, *args, **environment):
    """What the code prints as JSON."""
    run = subprocess.run(
        [*PYTHON, code, *args], check=False, capture_output=True, text=True, env={**os.environ, **environment}
    )
    if run.returncode != 0:
        raise Broken(f"a fresh interpreter failed: {run.stderr}")
    return json.loads(run.stdout)


ATTACH = """
import json, shmcomm, sys, time
cls, name, n = getattr(shmcomm, sys.argv[1]), sys.argv[2], int(sys.argv[3])
times = []
for _ in range(n):
    start = time.perf_counter_ns()
    x = cls.attach(name)
    times.append(time.perf_counter_ns() - start)
    x.close()
print(json.dumps(times))
"""


def attach(cls, name, n=50):
    """Nanoseconds of attaching in a process that does not have the object open: (the first time, median of the
    others).
    """
    first, *others = in_fresh_interpreter(ATTACH, cls, name, str(n))
    return first, sorted(others)[len(others) // 2]


IMPORT = """
import json, sys, time
start = time.perf_counter_ns()
__import__(sys.argv[1])
print(json.dumps([time.perf_counter_ns() - start, [m for m in sys.argv[2:] if m in sys.modules]]))
"""
NOT_NEEDED = ["numpy", "lz4", "asyncio", "multiprocessing", "dataclasses", "zstandard", "cryptography"]


def import_time(module):
    """Nanoseconds of the import statement in a fresh interpreter."""
    elapsed, loaded = in_fresh_interpreter(IMPORT, module, *NOT_NEEDED)
    if loaded:
        raise Broken(f"import {module} has imported {', '.join(loaded)}, too")
    return elapsed


HANDLES = """
import ctypes, json, shmcomm, sys


class Mallinfo2(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


try:
    mallinfo2 = ctypes.CDLL(None).mallinfo2
except AttributeError:
    print("null")
    sys.exit()
mallinfo2.restype = Mallinfo2


def allocated():
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def growth(make, n):
    make(), make()  # what is made once
    kept = [None] * n
    before = allocated()
    for i in range(n):
        kept[i] = make()
    return (allocated() - before) / n


cls, name, n = getattr(shmcomm, sys.argv[1]), sys.argv[2], int(sys.argv[3])
arguments = {"RingBufferChannel": (1024,), "SharedMemoryBuffer": (64,)}[sys.argv[1]]
another = growth(lambda: cls.attach(name), n)
own = growth(lambda: cls(*arguments), n)
print(json.dumps([own, another]))
"""


def handle_memory(cls, name, n=100):
    """Bytes of private heap: (of an object that the process did not have open, of one more handle of one that it has).
    None where the C library does not tell."""
    return in_fresh_interpreter(HANDLES, cls, name, str(n), PYTHONMALLOC="malloc")


def segment_bytes(thing):
    """Memory that the object's file takes."""
    from shmcomm import _core

    for row in _core.list_segments():
        if row["name"] == thing.name:
            return row["allocated"]
    raise Broken(f"{thing!r} is not listed")


IDLE = """
import shmcomm, sys, time
channel = shmcomm.RingBufferChannel.attach(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
start = time.process_time_ns()
message = channel.receive()
print(time.process_time_ns() - start, message, flush=True)
"""


def idle_cpu(consumers, seconds):
    """Share of one core that so many processes burn together, each blocked in receive() on a channel of its own."""
    from shmcomm import RingBufferChannel

    channels = [RingBufferChannel(16, name=fresh_name()) for _ in range(consumers)]
    workers = [
        subprocess.Popen([*PYTHON, IDLE, c.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for c in channels
    ]
    try:
        for worker in workers:
            worker.stdout.readline()
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        time.sleep(seconds)
        burnt = 0
        for i, (worker, channel) in enumerate(zip(workers, channels, strict=True)):
            channel.send(i)
            nanoseconds, message = worker.stdout.readline().split()
            if int(message) != i:
                raise Broken(f"consumer {i} received {message}")
            burnt += int(nanoseconds)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
        for channel in channels:
            channel.close()
    return burnt / (seconds * 1e9)
