"""How the types are meant to be used; test_public.py lets mypy check it, strictly. It is not run."""

import marshal
import pickle
from pathlib import Path
from typing import Any, assert_type

import shmcomm
from shmcomm import (
    BufferHeader,
    BufferStats,
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
        assert_type(buffer.size + buffer.used + buffer.available + buffer.data_offset + len(buffer), int)


def errors() -> None:
    try:
        raise shmcomm.LaggedError("late", lost=3)
    except shmcomm.LaggedError as error:
        assert_type(error.lost, int)
    except (shmcomm.Full, shmcomm.Empty, shmcomm.ShutDown) as other:
        things: list[shmcomm.Error] = [other]
        del things
