"""How the types are meant to be used; test_public.py lets mypy check it, strictly. It is not run."""

import marshal
import pickle
from pathlib import Path
from typing import Any, assert_type

import numpy

import shmcomm
from shmcomm import (
    BufferHeader,
    BufferStats,
    ObjectPool,
    ObjectPoolStats,
    Participant,
    RingBufferChannel,
    RingStats,
    SharedMemoryBuffer,
    SharedObject,
)


def channels() -> None:
    channel: RingBufferChannel[int] = RingBufferChannel(8, name="x", codec="native", spin=None, mode=0o640)
    channel.send(1)
    channel.send(1, timeout=0.5)
    assert_type(channel.try_send(2), bool)
    assert_type(channel.enqueue(3), bool)
    assert_type(channel.send_batch(range(5), timeout=None), int)
    assert_type(channel.receive(timeout=1, copy=False), int)
    assert_type(channel.dequeue(), int | None)
    assert_type(channel.dequeue("none"), int | str)
    assert_type(channel.try_receive(default=b""), int | bytes)
    assert_type(channel.peek(), int | None)
    assert_type(channel.receive_batch(5), list[int])
    for message in channel:
        assert_type(message, int)
    with channel.reserve(10) as room:
        room[:] = b"0123456789"
    with channel.reserve_array((2, 3), "f4") as array:
        array[:] = 1
    reservation = channel.reserve(5, timeout=1)
    reservation.commit(3)
    reservation.abort()
    channel.shutdown(immediate=True)
    channel.clear()
    assert_type(len(channel), int)
    assert_type(channel.is_full() or channel.is_empty(), bool)
    assert_type(channel.capacity + channel.buffer_size, int)
    stats = channel.stats()
    assert_type(stats, RingStats)
    assert_type(stats.participants[0], Participant)
    assert_type(stats.asdict(), dict[str, Any])


def without_annotation() -> None:
    with RingBufferChannel(2) as channel:
        assert_type(channel, RingBufferChannel[Any])
        channel.send({"any": "thing"})
        text: str = channel.receive()
        del text
    attached = RingBufferChannel.attach("x")
    attached.send(1)
    opened = RingBufferChannel.open("x", 8)
    opened.send(1)


def going_on(channel: RingBufferChannel[int], objects: list[int]) -> None:
    try:
        channel.send_batch(objects, timeout=0.1)
    except shmcomm.Full as error:
        assert_type(objects[error.sent :], list[int])


def misuse(channel: RingBufferChannel[int]) -> None:
    channel.send("text")  # type: ignore[arg-type]
    channel.receive("1")  # type: ignore[arg-type]
    channel.capacity = 5  # type: ignore[misc]
    RingBufferChannel("4")  # type: ignore[arg-type]
    SharedObject().close()


def opening() -> None:
    attached: RingBufferChannel[str] = RingBufferChannel.attach(
        "x", timeout=5, directory=Path("/dev/shm"), codec=pickle
    )
    opened: RingBufferChannel[bytes] = RingBufferChannel.open("x", 8, codec=marshal, persist=True)
    with attached as same:
        assert_type(same, RingBufferChannel[str])
    assert_type(opened.name, str)
    assert_type(opened.closed, bool)
    opened.unlink()
    opened.close()


class Coded:
    def dumps(self, obj: object) -> bytes:
        return bytes(str(obj), "ascii")

    def loads(self, data: memoryview) -> str:
        return str(data, "ascii")


class Numbers(RingBufferChannel[float]):
    def total(self) -> float:
        return sum(self)


def subclasses() -> None:
    custom: RingBufferChannel[object] = RingBufferChannel(4, codec=Coded())
    custom.send(custom)
    with Numbers(4) as numbers:
        assert_type(numbers.total(), float)
    assert_type(Numbers.attach("x"), Numbers)


def buffers() -> None:
    with SharedMemoryBuffer(100, flags=1, checksum=True) as buffer:
        assert_type(buffer, SharedMemoryBuffer)
        assert_type(buffer.write(b"abc", offset=5), int)
        assert_type(buffer.read(0, None), bytes)
        buffer.clear(5)
        buffer.set_header(flags=1, user=2)
        head = buffer.header
        assert_type(head, BufferHeader)
        assert_type(head.checksum, int)
        assert_type(buffer.stats(), BufferStats)
        assert_type(buffer.flush_checksum(), int)
        assert_type(buffer.verify_checksum() and buffer.validate_header(), bool)
        buffer.as_array((10, 10), "u1")[0] = 5
        assert_type(memoryview(buffer), memoryview)
        assert_type(bytes(buffer), bytes)
        buffer.write(buffer)
        buffer.write("text")  # type: ignore[arg-type]
        numpy.frombuffer(memoryview(buffer), "u1")
        assert_type(buffer.size + buffer.used + buffer.available + buffer.data_offset + len(buffer), int)


def pools() -> None:
    pool = ObjectPool(list[int], reset=list.clear, validate=lambda o: len(o) == 0, initial_size=1, max_size=8)
    assert_type(pool, ObjectPool[list[int]])
    obj = pool.acquire(timeout=0.5)
    assert_type(obj, list[int])
    pool.release(obj)
    assert_type(pool.try_acquire(), list[int] | None)
    assert_type(pool.try_acquire(default="none"), list[int] | str)
    with pool.borrow(timeout=1) as lent:
        assert_type(lent, list[int])
    pool.clear()
    assert_type(pool.size + pool.allocated + pool.available + pool.max_size + pool.slot_size, int)
    assert_type(pool.stats(), ObjectPoolStats)
    attached: ObjectPool[bytearray] = ObjectPool.attach("x", bytearray, timeout=5)
    opened: ObjectPool[memoryview] = ObjectPool.open("x", memoryview, slot_size=100)
    attached.release("text")  # type: ignore[arg-type]
    opened.close()


def pools_of_memory() -> None:
    with shmcomm.MemoryPool(max_size=1 << 20, cleanup_interval=None) as pool, pool.allocate(100) as block:
        assert_type(block, shmcomm.Block)
        assert_type(memoryview(block), memoryview)
        assert_type(len(block) + block.size + pool.total_allocated + pool.pool_count + pool.max_size, int)
        assert_type(shmcomm.Block.attach(block.handle), shmcomm.Block)
        assert_type(pool.get_pool(100), shmcomm.SizeClassInfo)
        assert_type(pool.stats(), shmcomm.PoolStats)
        assert_type(pool.stats().size_classes[0].cached, int)
        assert_type(pool.cleanup(parcels=True), int)
        pool.release(b"bytes")  # type: ignore[arg-type]
    buffers = shmcomm.BufferPool.open("x", 100, growth_factor=1.5)
    buffers.return_buffer(buffers.get_buffer(100))
    assert_type(buffers.pool_sizes, dict[int, int])
    assert_type(buffers.total_buffers + buffers.max_pool_size, int)


def errors() -> None:
    try:
        raise shmcomm.LaggedError("late", lost=3)
    except shmcomm.LaggedError as error:
        assert_type(error.lost, int)
    except (shmcomm.Full, shmcomm.Empty, shmcomm.ShutDown) as other:
        things: list[shmcomm.Error] = [other]
        del things
