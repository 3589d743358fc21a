"""Runs every call path many times and counts what Python has allocated. Prints the paths that leak."""

import contextlib
import faulthandler
import gc
import itertools
import multiprocessing.util  # what imports it at a later moment would look like a leak
import pickle
import sys
import threading
from multiprocessing import shared_memory

import numpy as np

import shmcomm
from shmcomm import Block, BufferPool, MemoryPool, ObjectPool, RingBufferChannel, SharedMemoryBuffer, _core

ROUNDS, ALLOWED = 300, 200  # caches grow a little; a leak is at least one block per round
faulthandler.dump_traceback_later(90, exit=True)
assert multiprocessing.util


class Opaque:
    def __init__(self, value=None):
        self.value = value


class Custom:
    @staticmethod
    def dumps(obj):
        if obj == "fail":
            raise KeyError(obj)
        return pickle.dumps(obj)

    @staticmethod
    def loads(data):
        value = pickle.loads(data)
        if value == "fail later":
            raise KeyError(value)
        return value


class Unreadable:
    def __reduce__(self):
        return (int, ("x",))


class Sub(RingBufferChannel):
    pass


# Where memory cannot be reserved in pieces, what is large must fit in the ring.
channel = RingBufferChannel(16, buffer_size=None if _core._os_body == "linux" else 1 << 22)
wide = RingBufferChannel(100)
custom = RingBufferChannel(16, codec=Custom)
closed = RingBufferChannel(1)
closed.close()
full = RingBufferChannel(2)
full.send_batch([1, 2])
over = RingBufferChannel(2)
over.shutdown()
limited = RingBufferChannel(4, buffer_size=4096)
BIG = bytes(10**6)
buffer = SharedMemoryBuffer(1000)
stdlib = shared_memory.SharedMemory(create=True, size=100)
array = np.arange(1000)
pool = ObjectPool(list, reset=list.clear, validate=lambda obj: not obj, max_size=3)
slots = ObjectPool(memoryview, reset=lambda view: view[0], slot_size=100, max_size=3)
memory = MemoryPool(cleanup_interval=None)
shelf = BufferPool(2, cleanup_interval=None)
small = MemoryPool(max_size=1, cleanup_interval=None)
used_up = ObjectPool(list, max_size=1)
used_up.acquire()


def through(value, ch=channel, **how):
    ch.send(value)
    return ch.receive(**how)


def raises(call, *arguments, **keywords):
    with contextlib.suppress(Exception):
        call(*arguments, **keywords)
        raise BaseException("it did not raise")


def fail(thing):
    raise KeyError


def reserve_large(nbytes):
    reservation = channel.reserve(len(BIG))
    if nbytes is None:
        reservation.abort()
    else:
        reservation.commit(nbytes)
        channel.receive()


def reserve(how):
    reservation = channel.reserve(100)
    if how == "with":
        with reservation as room:
            room[0] = 1
        channel.receive()
    elif how == "exception":
        with contextlib.suppress(KeyError), reservation:
            raise KeyError
    elif how == "commit":
        memoryview(reservation)[0] = 1
        reservation.commit(5)
        channel.receive()
    elif how == "abort":
        reservation.abort()
    elif how == "view":
        with contextlib.suppress(BufferError), reservation as room:
            kept = memoryview(room)
        del kept
    elif how == "enter":
        reservation.__enter__()
        del reservation
        channel.try_send(1)
        channel.receive()


class Clearing:
    def __init__(self, batch):
        self.batch = batch

    def __reduce__(self):
        self.batch.clear()
        return (int, ())


def change_batch():
    batch = [1, [2]]
    batch += [Clearing(batch), 3]
    channel.send_batch(batch)
    channel.clear()


def reserve_elsewhere():
    made = []
    thread = threading.Thread(target=lambda: made.append(channel.reserve(10)))
    thread.start()
    thread.join()
    channel.try_send([1])
    raises(channel.send, 1, 0.0001)
    raises(channel.send_batch, [1], 0)
    raises(channel.reserve_array, 3, "u1", timeout=0)
    made.pop().abort()


def reserve_array(fails=False):
    with contextlib.suppress(KeyError), channel.reserve_array((2, 3), "f4") as written:
        written[:] = 1
        if fails:
            raise KeyError
    if not fails:
        channel.receive()


def iterate():
    with RingBufferChannel(4) as other:
        other.send_batch([1, [2]])
        other.shutdown()
        return list(other)


def attach(cls, name):
    cls.attach(name).close()
    cls.open(name).close()
    cls.attach(name)


def fill_holds():
    wide.send_batch([array[:3]] * 66)
    with contextlib.suppress(BufferError):
        held = [wide.receive(copy=False)]
        while True:
            held.append(wide.receive(copy=False))
    del held
    wide.clear()


def cycles():
    one = Sub(2)
    one.myself = one


def borrow(from_pool, fails=False):
    with contextlib.suppress(KeyError), from_pool.borrow(timeout=0) as obj:
        if fails:
            raise KeyError
    return obj


def rebuild():
    obj = pool.acquire()
    pool.release(obj)
    obj.append(1)
    pool.release(pool.acquire())


def blocks():
    with memory.allocate(100) as block:
        memoryview(block)[0] = np.frombuffer(block, "u1")[1]
        pickled, handle = pickle.dumps(block), block.handle
        len(block), block.size, block.released, repr(block)
    for same in (pickle.loads(pickled), Block.attach(handle)):
        memory.release(same)
    memory.allocate(1 << 20)
    raises(pickle.loads, pickled)


def blocks_of_nobody():
    with MemoryPool(cleanup_interval=None) as other, other.allocate(5) as block:
        handle = block.handle
        raises(memory.release, block)
    raises(Block.attach, handle)


def block_errors():
    block = memory.allocate(100)
    view = memoryview(block)
    raises(block.release)
    raises(memory.release, block)
    view.release()
    block.release()
    for call in (block.release, block.__enter__, lambda: len(block), lambda: block.handle, lambda: memoryview(block)):
        raises(call)


def pool_that_fails(what):
    state = {what: True}

    def call(name, result):
        if state.get(name):
            raise KeyError
        return result

    with ObjectPool(
        lambda: call("factory", []), reset=lambda _: call("reset", 1), validate=lambda _: call("validate", 1)
    ) as failing:
        state[what] = False
        failing.release(failing.acquire())
        state[what] = True
        if what == "reset":
            raises(failing.release, failing.acquire())
        else:
            failing.clear() if what == "factory" else None
            raises(failing.acquire)


def pool_cycle():
    held = []
    made = ObjectPool(lambda: [held])
    held.append(made)
    made.release(made.acquire())
    held.append(made.acquire())


def from_stdlib():
    with SharedMemoryBuffer.from_shared_memory(stdlib) as b:
        view = memoryview(b)
        b.write(b"abc")
        b.read()
        view.release()
    SharedMemoryBuffer.from_shared_memory(stdlib)


PATHS = {
    "plain": lambda: [through(v) for v in (1, "text", b"bytes", 2.5, None, True, 1 << 100, "\u00e9\u4e2d")],
    "containers": lambda: through([1, {"key": (2, {3}), "other": frozenset({4})}, bytearray(b"x"), 1j]),
    "arrays": lambda: through(array),
    "array views": lambda: through(array, copy=False).sum(),
    "bytes views": lambda: bytes(through(b"x" * 100, copy=False)),
    "small without copy": lambda: through([1, 2], copy=False),
    "pickled": lambda: through(Opaque([1, 2])),
    "pickled views": lambda: through(Opaque(array), copy=False),
    "custom codec": lambda: through({"a": 1}, custom),
    "custom codec in place": lambda: through({"a": [1] * 100}, custom, copy=False),
    "dumps raises": lambda: raises(custom.send, "fail"),
    "loads raises": lambda: raises(through, "fail later", custom),
    "not encodable": lambda: raises(channel.send, [1, lambda: 2]),
    "unreadable": lambda: raises(through, Unreadable()),
    "large": lambda: [through(v) for v in (BIG, [BIG, 1], Opaque(bytearray(BIG)))],
    "large in place": lambda: [len(through(BIG, copy=False)), through([BIG], copy=False)],
    "large and reserved": lambda: (reserve_large(5), reserve_large(None)),
    "large and cleared": lambda: (channel.send(BIG), channel.peek(), channel.clear()),
    "too large": lambda: (
        raises(limited.send, BIG),
        raises(limited.send, [BIG]),
        raises(limited.reserve, len(BIG)),
        raises(channel.reserve, 1 << 40),
    ),
    "full": lambda: (
        raises(full.send, 1, 0),
        full.try_send(1),
        full.enqueue([1]),
        raises(full.send, [1], 0.0001),
        raises(full.send_batch, [1], 0),
    ),
    "empty": lambda: (
        raises(channel.receive, 0),
        channel.dequeue(),
        channel.try_receive([]),
        channel.peek({}),
        raises(channel.receive, 0.0001, False),
        raises(channel.receive_batch, 3, 0),
    ),
    "peek": lambda: (channel.send([1]), channel.peek(), channel.receive()),
    "peek array": lambda: (channel.send(array), channel.peek(), channel.clear()),
    "batches": lambda: (channel.send_batch([1, [2], "3", Opaque()]), channel.receive_batch(10)),
    "generator": lambda: (channel.send_batch(i for i in range(5)), channel.receive_batch(5)),
    "generator fails": lambda: raises(channel.send_batch, (fail(i) for i in range(5))),
    "iterators fill": lambda: (
        raises(channel.send_batch, itertools.repeat(1), 0),
        channel.clear(),
        raises(channel.send_batch, ([1] for _ in itertools.count()), 0.0001),
        channel.clear(),
        raises(channel.send_batch, range(100), 0),
        channel.clear(),
        raises(channel.send_batch, dict.fromkeys(range(100)).items(), 0),
        channel.clear(),
        raises(channel.send_batch, 5),
    ),
    "batch changes": change_batch,
    "reserved by another thread": reserve_elsewhere,
    "batch fails": lambda: (raises(channel.send_batch, [1, [2], lambda: 3]), channel.clear()),
    "batch unreadable": lambda: (
        channel.send_batch([1, Unreadable(), 2]),
        raises(lambda: [channel.receive_batch(5) for _ in range(3)]),
        channel.clear(),
    ),
    "clear": lambda: (channel.send_batch(range(3)), channel.clear()),
    **{
        f"reserve {how}": lambda how=how: reserve(how)
        for how in ("with", "exception", "commit", "abort", "view", "enter", "drop")
    },
    "reserve_array": reserve_array,
    "reserve_array fails": lambda: reserve_array(True),
    "bad arrays": lambda: (
        raises(channel.reserve_array, 3, object),
        raises(channel.reserve_array, -1, "u1"),
        raises(limited.reserve_array, 10**9, "u1"),
    ),
    "too many views": fill_holds,
    "iterate": iterate,
    "shut down": lambda: (raises(over.send, 1), raises(over.receive), raises(over.reserve, 3), over.shutdown()),
    "create": lambda: RingBufferChannel(4, name="leaks", mode=0o600).close(),
    "create and drop": lambda: SharedMemoryBuffer(4),
    "exists": lambda: raises(RingBufferChannel, 4, name=channel.name),
    "attach ring": lambda: attach(RingBufferChannel, channel.name),
    "attach buffer": lambda: attach(SharedMemoryBuffer, buffer.name),
    "attach nothing": lambda: (raises(RingBufferChannel.attach, "nothing"), raises(RingBufferChannel.open, "nothing")),
    "wrong kind": lambda: (
        raises(RingBufferChannel.attach, buffer.name),
        raises(SharedMemoryBuffer.attach, channel.name),
    ),
    "wrong configuration": lambda: (
        raises(RingBufferChannel.open, channel.name, 3),
        raises(SharedMemoryBuffer.open, buffer.name, 3),
    ),
    "bad names": lambda: [raises(RingBufferChannel, 4, name=n) for n in ("a/b", 3, "", "x" * 300, "\udc80")],
    "bad directory": lambda: raises(RingBufferChannel, 4, directory="/no/such/place"),
    "bad arguments": lambda: (
        raises(RingBufferChannel),
        raises(RingBufferChannel, -1),
        raises(RingBufferChannel, "x"),
        raises(RingBufferChannel, 4, codec="x"),
        raises(RingBufferChannel, 4, spin=-1),
        raises(channel.send),
        raises(channel.send, 1, x=2),
        raises(channel.receive, "x"),
        raises(channel.receive, -1),
        raises(channel.receive, float("nan")),
        raises(channel.receive_batch, 0),
    ),
    "closed": lambda: (
        raises(closed.send, 1),
        raises(closed.receive),
        raises(len, closed),
        raises(closed.stats),
        repr(closed),
        closed.name,
    ),
    "pickle": lambda: (
        pickle.loads(pickle.dumps(channel)),
        pickle.loads(pickle.dumps(buffer)),
        pickle.loads(pickle.dumps(custom)),
    ),
    "properties": lambda: (
        len(channel),
        channel.is_full(),
        channel.is_empty(),
        channel.capacity,
        channel.buffer_size,
        channel.name,
        channel.closed,
        repr(channel),
    ),
    "stats": lambda: (channel.stats().asdict(), buffer.stats().asdict()),
    "blocks": blocks,
    "blocks of nobody": blocks_of_nobody,
    "block errors": block_errors,
    "memory figures": lambda: (
        memory.stats().asdict(),
        memory.get_pool(100),
        memory.get_pool(1 << 20),
        memory.total_allocated,
        memory.pool_count,
        memory.cleanup(),
        memory.cleanup(parcels=True),
        memory._tend(),
    ),
    "memory errors": lambda: (
        raises(memory.allocate, 0),
        raises(memory.allocate, "x"),
        raises(memory.allocate, 1 << 40),
        raises(memory.release, 5),
        [raises(small.allocate, 40000) for _ in [small.allocate(40000)]],
        raises(Block.attach, 5),
        raises(MemoryPool, growth_factor=0),
        raises(MemoryPool, cleanup_interval="x"),
        raises(MemoryPool.open, memory.name, max_size=5),
        raises(BufferPool.attach, memory.name),
    ),
    "memory opened": lambda: (
        MemoryPool.attach(memory.name).close(),
        MemoryPool.open(memory.name).close(),
        pickle.loads(pickle.dumps(memory)),
        MemoryPool(cleanup_interval=None).allocate(100),
    ),
    "buffers": lambda: (
        [shelf.return_buffer(b) for b in [shelf.get_buffer(n) for n in (1, 2, 3)]],
        shelf.pool_sizes,
        shelf.total_buffers,
        shelf.max_pool_size,
        shelf.stats(),
        shelf.get_buffer(2),
        shelf.clear(),
        pickle.loads(pickle.dumps(shelf)),
        raises(BufferPool, 0),
    ),
    "pool": lambda: (borrow(pool), borrow(slots), borrow(pool, True), pool.stats().asdict(), pool.available),
    "pool rebuilds": rebuild,
    "pool drops": lambda: (borrow(pool), pool.clear(), borrow(slots), slots.clear()),
    "pool used up": lambda: (
        used_up.try_acquire(),
        used_up.try_acquire([]),
        raises(used_up.acquire, 0),
        raises(used_up.acquire, 0.0001),
        raises(borrow, used_up),
    ),
    "pool errors": lambda: (
        raises(pool.release, []),
        raises(ObjectPool, 5),
        raises(ObjectPool, list, max_size=0),
        raises(ObjectPool, lambda: 1 / 0, initial_size=1),
        raises(ObjectPool, list, reset=5),
        raises(pool.acquire, -1),
    ),
    **{f"pool, {w} raises": lambda w=w: pool_that_fails(w) for w in ("factory", "reset", "validate")},
    "pool opened": lambda: (
        ObjectPool.attach(pool.name, list).close(),
        ObjectPool.open(pool.name, list, max_size=3),
        raises(ObjectPool.open, pool.name, list, max_size=4),
        pickle.loads(pickle.dumps(used_up)),
        ObjectPool[int],
    ),
    "pool closed in use": lambda: [(p.acquire(), p.close()) for p in [ObjectPool(bytearray, initial_size=2)]],
    "pool cycle": pool_cycle,
    "subclass": cycles,
    "generic alias": lambda: RingBufferChannel[int],
    "unlink": lambda: [(b.unlink(), raises(b.unlink), b.close()) for b in [SharedMemoryBuffer(4, persist=True)]],
    "buffer": lambda: (
        buffer.write(b"abc", 5),
        buffer.read(1, 5),
        buffer.clear(),
        buffer.flush_checksum(),
        buffer.verify_checksum(),
        buffer.header,
        buffer.set_header(flags=1, user=2),
        buffer.validate_header(),
    ),
    "buffer views": lambda: (
        memoryview(buffer)[3],
        buffer.as_array((10, 10), "u1").sum(),
        np.frombuffer(buffer, "u1")[0],
    ),
    "buffer errors": lambda: (
        raises(buffer.write, "x"),
        raises(buffer.write, bytes(2000)),
        raises(buffer.read, -1),
        raises(buffer.as_array, 5000, "u1"),
        raises(buffer.as_array, 1, object),
        raises(SharedMemoryBuffer, 0),
    ),
    "from stdlib": from_stdlib,
    "from something else": lambda: raises(SharedMemoryBuffer.from_shared_memory, 5),
    "list": lambda: (
        _core.list_segments(),
        _core.collect_garbage(),
        raises(_core.remove_segment, "nothing"),
        _core._layout(),
    ),
    "farewell": lambda: shmcomm._core._noop(3),
}


def mappings():
    with open("/proc/self/maps") as file:
        return len(file.readlines())


def collect():
    gc.collect()
    gc.collect()  # free-threaded builds give some memory back only some time after the object went


def growth(path):
    for _ in range(20):
        path()
    collect()
    counters = [sys.getallocatedblocks, getattr(sys, "gettotalrefcount", lambda: 0)]
    before = [counter() for counter in counters]
    for _ in range(ROUNDS):
        path()
    collect()
    return max(counter() - start for counter, start in zip(counters, before, strict=True))


maps = mappings()
chosen = sys.argv[1:] or PATHS
for name in chosen:
    grown = [growth(PATHS[name])]
    while grown[-1] > ALLOWED and len(grown) < 5:
        grown.append(growth(PATHS[name]))
    if grown[-1] > ALLOWED:
        print(f"{name}: {grown} blocks in {ROUNDS} rounds each")
if mappings() - maps > 20:
    print(f"{mappings() - maps} mappings more")
stdlib.close()
stdlib.unlink()
