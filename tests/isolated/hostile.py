"""Spoils the memory of objects in every way and calls everything. Ends with 0 unless something undocumented happens.

hostile.py FOLDER KIND SEED       every word of head, slots, control and records, one after the other
hostile.py FOLDER scribble SEED   a process that scribbles over the memory while it is used
"""

import contextlib
import errno
import faulthandler
import mmap
import os
import pickle
import random
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np

import shmcomm
from shmcomm import _core

folder, kind, seed = sys.argv[1:]
os.environ["SHMCOMM_DIR"], os.environ["SHMCOMM_NAMESPACE"] = folder, ""
chance = random.Random(int(seed))
faulthandler.dump_traceback_later(100, exit=True)

DOCUMENTED = (
    shmcomm.CorruptedError, shmcomm.LayoutError, shmcomm.BusyError, shmcomm.Empty, shmcomm.Full, shmcomm.ShutDown,
    FileNotFoundError, FileExistsError, PermissionError, BufferError,
    shmcomm.NotEncodableError, shmcomm.DecryptionError, ImportError,  # another codec, a key, a compression stands there
)  # fmt: skip
# ValueErrors: of what such a word asks for, and of a pool's memory
WORDS = {"ring": "codec|encrypted", "pool": "is gone|is full|was released"}
seen = {}
held = []  # of a pool
PAGE, QUIET = 65536, {"cleanup_interval": None}


@contextlib.contextmanager
def documented():
    try:
        yield
    except DOCUMENTED as error:
        seen[type(error).__name__] = seen.get(type(error).__name__, 0) + 1
    except OSError as error:
        if error.errno != errno.EUSERS:
            raise
    except (ValueError, MemoryError) as error:
        if kind not in WORDS or not re.search(WORDS[kind], str(error)):
            raise


MESSAGES = [
    1,
    "text",
    b"bytes" * 20,
    [1, {"a": (2.5, None, 1 << 80)}],
    np.arange(12, dtype="<i4").reshape(3, 4),
    {3, 4},
    "\u00e9",
]


def make(name, free=False):
    """With `free`, nobody has the ends of a ring."""
    if kind == "objects":
        made = shmcomm.ObjectPool(memoryview, slot_size=16, max_size=8, name=name, max_participants=4)
        for _ in range(3):
            made.acquire(timeout=0)
        return made
    if kind == "pool":
        made = shmcomm.BufferPool(3, initial_size=2 * PAGE, max_size=4 * PAGE, name=name, max_participants=4, **QUIET)
        for block in [made.get_buffer(1000), made.get_buffer(1000), made.get_buffer(64)]:
            made.return_buffer(block)
        held.append(made.get_buffer(1000))  # two lie there, one is held, and was sent
        held.append(pickle.dumps(held[-1]))
        return made
    if kind == "buffer":
        made = shmcomm.SharedMemoryBuffer(300, name=name)
        made.write(b"content" * 20)
        return made
    made = shmcomm.RingBufferChannel(16, name=name, codec="native", buffer_size=4096, max_participants=4)
    with shmcomm.RingBufferChannel.attach(name) as handle:
        user = handle if free else made
        user.send_batch([0] * 3)
        user.receive_batch(3)
        user.send_batch(MESSAGES)
    return made


def use_ring(channel, end=True):
    for call in (
        lambda: len(channel), channel.is_full, channel.is_empty, channel.stats, channel.peek,
        lambda: channel.receive(timeout=0), lambda: channel.receive(timeout=0, copy=False),
        lambda: channel.receive_batch(3, timeout=0), lambda: channel.send(MESSAGES[3], timeout=0),
        lambda: channel.try_send(b"x" * 500), lambda: channel.send_batch(MESSAGES, timeout=0),
        lambda: channel.receive(timeout=0.0001),
        lambda: channel.receive_batch(100, timeout=0), lambda: reserve(channel), channel.dequeue, channel.clear,
        lambda: channel.send([1], timeout=0), channel.dequeue, lambda: channel.capacity,
        *([channel.shutdown, channel.dequeue] if end else []),
    ):  # fmt: skip
        with documented():
            call()


def reserve(channel):
    with channel.reserve(100, timeout=0) as room:
        room[:5] = b"12345"
    with channel.reserve_array(10, "u4", timeout=0) as array:
        array[:] = 5


def use_buffer(buffer, end=True):
    for call in (
        lambda: buffer.header, buffer.validate_header, buffer.read, lambda: buffer.write(b"abc", 297), buffer.stats,
        lambda: (buffer.size, buffer.used, buffer.available, len(buffer)), buffer.is_full, buffer.is_empty,
        buffer.verify_checksum, buffer.flush_checksum, lambda: buffer.set_header(flags=1, user=2),
        lambda: buffer.clear(5), lambda: memoryview(buffer)[299], lambda: buffer.as_array(300, "u1").sum(),
    ):  # fmt: skip
        with documented():
            call()


def use_objects(pool, end=True):
    mine = []

    def back():
        pool.release(mine.pop())

    def acquire():
        mine.append(pool.acquire(timeout=0))
        mine[-1][0] = 5

    for call in (
        lambda: (pool.size, pool.allocated, pool.available, pool.max_size), pool.stats, acquire, acquire, back,
        lambda: use_borrowed(pool), pool.clear, *[acquire] * 9, lambda: pool.acquire(timeout=0.0001), pool.try_acquire,
        *[back] * 9, *([pool.close] if end else []),
    ):  # fmt: skip
        with documented(), contextlib.suppress(IndexError):  # nothing was to be had before
            call()


def use_borrowed(pool):
    with pool.borrow(timeout=0) as view:
        view[0] = 1


def use_block(size, get, give):
    block = get(size)
    memoryview(block)[:] = bytes(size)
    with pickle.loads(pickle.dumps(block)) as same:
        assert bytes(memoryview(same)[:1]) == b"\0"
    give(block)


def use_pool(pool, end=True):
    def get(size):
        return use_block(size, pool.get_buffer, pool.return_buffer)

    for call in (
        lambda: (pool.total_buffers, pool.pool_sizes), pool.stats, lambda: get(1000), lambda: get(64),
        lambda: pool.return_buffer(pool.get_buffer(5000)), lambda: get(PAGE), lambda: pickle.loads(held[-1]),
        pool.cleanup, pool.clear, lambda: get(1), lambda: pool.cleanup(parcels=True), pool._tend,
        *([held[-2].release, pool.close, held.clear] if end else []),
    ):  # fmt: skip
        with documented():
            call()


def use(thing, end=True):
    {"buffer": use_buffer, "objects": use_objects, "pool": use_pool}.get(kind, use_ring)(thing, end)


def use_names(name):
    """By name, as a stranger would; the file of `name` is not open in this process."""
    cls, *arguments = {
        "buffer": (shmcomm.SharedMemoryBuffer,),
        "objects": (shmcomm.ObjectPool, memoryview),
        "pool": (shmcomm.BufferPool,),
    }.get(kind, (shmcomm.RingBufferChannel,))
    size = {"buffer": {"size": 300}, "objects": {"slot_size": 16}, "pool": {"growth_factor": 2}}.get(
        kind, {"capacity": 16}
    )
    for call in (
        lambda: cls.attach(name, *arguments),
        lambda: cls.open(name, *arguments, **size),
        lambda: cls.attach(name, *arguments, foreign=True),
    ):
        with documented(), call() as attached:
            use(attached, end=False)
    _core.list_segments()
    with documented():
        _core.remove_segment(name)
    with documented():
        _core.remove_segment(name, force=True)
    _core.collect_garbage()
    Path(folder, "shmcomm." + name).unlink(missing_ok=True)


def spoil(memory, at, number):
    """Mutation `number` of the word at `at`."""
    word = memory[at : at + 8]
    value = int.from_bytes(word, "little")
    new = [
        value ^ (0xFF << 8 * chance.randrange(8)), value ^ (1 << chance.randrange(64)), 0, (1 << 64) - 1,
        chance.getrandbits(64), value + 1 & (1 << 64) - 1, value - 1 & (1 << 64) - 1, value ^ (1 << 63),
    ][number]  # fmt: skip
    memory[at : at + 8] = new.to_bytes(8, "little")


MUTATIONS = 8
HOLE = bytes(4096)


def copy(memory):
    """With the holes that there are."""
    with open(Path(folder, "shmcomm.copy"), "wb") as file:
        for at in range(0, len(memory), 4096):
            if (page := memory[at : at + 4096]) != HOLE:
                file.seek(at)
                file.write(page)
        file.truncate(len(memory))


def words_of_pool(body):
    """Head and places; the arena's head, parties, page words, records of two participants, words of two slabs."""
    arena = PAGE
    words, records, data = arena + 4096, arena + 8192, 10 * PAGE
    for begin, end in (
        (body, body + 128 + 3 * 32), (arena, arena + 640 + 2 * 64), (words, words + 4 * 8),
        (records, records + 3 * 8), (records + 16384 * 8, records + 16384 * 8 + 16),
        (data, data + 4 * 8), (data + PAGE, data + PAGE + 3 * 8),
    ):  # fmt: skip
        yield from range(begin, end, 8)


def mutate_all():
    with make("size") as made:
        path = Path(folder, "shmcomm.size")
        size = path.stat().st_size
        slots = 512 + 64 * 3 if kind == "buffer" else 512 + 64 * 4
        if kind == "objects":
            body, end = size - 1024, size - 512
        elif kind == "ring":
            body = size - 4096 - 640
            end = body + 640 + 1024
        elif kind == "buffer":
            body = made.data_offset - 128
            end = min(size - 8, body + 704)
        offsets = [*range(0, slots, 8), *(words_of_pool(slots) if kind == "pool" else range(body, end, 8))]
    for at in offsets:
        numbers = range(MUTATIONS) if kind != "pool" else sorted(chance.sample(range(MUTATIONS), 4))
        for number in numbers:
            with make("open", free=number % 2 == 0 or at % 16 == 0) as made:
                with open(Path(folder, "shmcomm.open"), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
                    spoil(memory, at, number)
                    copy(memory)
                use_names("copy")
                use(made, end=False)
                use(made)
            Path(folder, "shmcomm.open").unlink(missing_ok=True)
    print(len(offsets) * len(numbers), "mutations", dict(sorted(seen.items())))


def scribble(memory, size, parent):
    body = size - 4096 - 640
    shutdown = body + 528
    while os.getppid() == parent:
        at = chance.choice(
            [
                8 * chance.randrange(64, size // 8),
                body + 8 * chance.randrange(80),
                body + 640 + 8 * chance.randrange(100),
            ]
        )
        if at == shutdown and chance.random() < 0.99:
            continue  # it would be the end of all
        memory[at : at + 8] = chance.choice(
            [chance.getrandbits(64).to_bytes(8, "little"), bytes(8), memory[body : body + 8]]
        )


def scribble_over():
    end = time.monotonic() + 3
    rounds = 0
    while time.monotonic() < end:
        made = shmcomm.RingBufferChannel(16, name="open", codec="native", buffer_size=4096, max_participants=4)
        path = Path(folder, "shmcomm.open")
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                scribble(memory, path.stat().st_size, parent)
                os._exit(0)
            try:
                for _ in range(20):
                    rounds += 1
                    use_ring(made, end=False)
                    with documented(), shmcomm.RingBufferChannel.attach("open") as other:
                        use_ring(other, end=False)
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        made.close()
        path.unlink(missing_ok=True)
    print(rounds, "rounds", dict(sorted(seen.items())))


if kind == "scribble":
    scribble_over()
else:
    mutate_all()
