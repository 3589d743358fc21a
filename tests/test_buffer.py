"""SharedMemoryBuffer: bytes, views, the head, checksums, and the standard library's SharedMemory."""

import gc
import math
import mmap
import pickle
import threading
import weakref
import zlib
from multiprocessing import shared_memory

import numpy as np
import pytest
from helpers import Peer, path_of
from hypothesis import given
from hypothesis import strategies as st

from shmcomm import BufferHeader, BufferStats, LayoutError, SharedMemoryBuffer, SharedObject


@pytest.fixture
def buffer():
    with SharedMemoryBuffer(100) as made:
        yield made


def crc32c(data):
    """The slow way, as the standard says: reflected polynomial 0x82f63b78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# ---- construction ----


def test_defaults(buffer):
    assert buffer.size == len(buffer) == 100
    assert (buffer.used, buffer.available) == (0, 100)
    assert buffer.is_empty() is True
    assert buffer.is_full() is False
    assert buffer.read() == bytes(100)
    assert isinstance(buffer, SharedObject)
    assert repr(buffer) == f"<SharedMemoryBuffer {buffer.name!r}>"


@pytest.mark.parametrize("size", [1, 2, 63, 64, 4095, 4096, 4097, 1_000_003])
def test_size_is_exact(size):
    with SharedMemoryBuffer(size) as buffer:
        assert buffer.size == len(memoryview(buffer)) == size
        assert buffer.write(b"x" * size) == size
        assert buffer.is_full()


@pytest.mark.parametrize("size", [0, -1, 2**46 + 1, 2**64])
def test_bad_size(size):
    with pytest.raises(ValueError, match="size must be between 1 and"):
        SharedMemoryBuffer(size)


@pytest.mark.parametrize("size", [None, "5", 5.0, b"5"])
def test_size_of_the_wrong_type(size):
    with pytest.raises(TypeError, match="size must be an integer"):
        SharedMemoryBuffer(size)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((), {}, TypeError, "missing required argument 'size'"),
        ((1, 2), {}, TypeError, "at most 1 positional"),
        ((1,), {"colour": 1}, TypeError, "unexpected keyword argument 'colour'"),
        ((1,), {"flags": -1}, ValueError, "flags must be between 0 and 4294967295"),
        ((1,), {"flags": 2**32}, ValueError, "flags must be between"),
        ((1,), {"flags": "x"}, TypeError, "flags must be an integer"),
        ((1,), {"name": b"bytes"}, TypeError, "a name must be a str"),
        ((1,), {"mode": 0o1000}, ValueError, "mode must be between"),
        ((1,), {"mode": 0o400}, ValueError, "mode must let its owner read and write"),
    ],
)
def test_wrong_arguments(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        SharedMemoryBuffer(*arguments, **keywords)


# ---- bytes ----


def test_write_and_read(buffer):
    assert buffer.write(b"hello") == 5
    assert buffer.read(0, 5) == b"hello"
    assert buffer.write(data=b"world", offset=95) == 5
    assert buffer.read(offset=95) == b"world"
    assert buffer.read(95, None) == b"world"
    assert buffer.read(length=5) == b"hello"
    assert buffer.read(100) == b""
    assert buffer.read(50, 0) == b""
    assert buffer.write(b"") == 0
    assert buffer.write(b"", 100) == 0


@pytest.mark.parametrize(
    "data",
    [b"abcd", bytearray(b"abcd"), memoryview(b"abcd"), np.frombuffer(b"abcd", "u1"), np.frombuffer(b"abcd", "<u4")],
    ids=lambda d: type(d).__name__,
)
def test_write_any_bytes(buffer, data):
    assert buffer.write(data, 3) == 4
    assert buffer.read(0, 10) == b"\0\0\0abcd\0\0\0"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b: b.write("text"), TypeError, "bytes-like"),
        (lambda b: b.write(5), TypeError, "bytes-like"),
        (lambda b: b.write(b"x", 100), ValueError, "1 bytes at offset 100 do not fit into .* of 100 bytes"),
        (lambda b: b.write(b"x", 101), ValueError, "offset must be between 0 and 100, not 101"),
        (lambda b: b.write(b"x", -1), ValueError, "offset must be between"),
        (lambda b: b.write(b"x", 2**64), ValueError, "offset must be between"),
        (lambda b: b.write(b"x", 1.0), TypeError, "offset must be an integer"),
        (lambda b: b.write(bytes(101)), ValueError, "101 bytes at offset 0 do not fit"),
        (lambda b: b.write(), TypeError, "missing required argument 'data'"),
        (lambda b: b.write(np.zeros((4, 4), "u1")[:, ::2]), (BufferError, ValueError), "contiguous"),
        (lambda b: b.read(-1), ValueError, "offset must be between"),
        (lambda b: b.read(101), ValueError, "offset must be between"),
        (lambda b: b.read(50, 51), ValueError, "length must be between 0 and 50"),
        (lambda b: b.read(0, -1), ValueError, "length must be between"),
        (lambda b: b.read(0, "1"), TypeError, "length must be an integer"),
        (lambda b: b.read("1"), TypeError, "offset must be an integer"),
        (lambda b: b.clear(101), ValueError, "offset must be between"),
        (lambda b: b.clear(99, 2), ValueError, "length must be between"),
    ],
)
def test_ranges(buffer, call, error, message):
    buffer.write(b"kept")
    with pytest.raises(error, match=message):
        call(buffer)
    assert buffer.read(0, 4) == b"kept"


def test_used_is_the_highest_end(buffer):
    buffer.write(b"abc", 10)
    assert (buffer.used, buffer.available) == (13, 87)
    buffer.write(b"abc")
    assert buffer.used == 13
    buffer.write(b"z", 99)
    assert (buffer.used, buffer.available, buffer.is_full()) == (100, 0, True)
    assert not buffer.is_empty()


def test_clear(buffer):
    buffer.write(b"x" * 100)
    buffer.clear(90)
    assert buffer.used == 90
    buffer.clear(10, 5)
    assert buffer.used == 90
    assert buffer.read(8, 9) == b"xx\0\0\0\0\0xx"
    buffer.clear(offset=80, length=10)
    assert buffer.used == 80
    buffer.clear()
    assert (buffer.used, buffer.is_empty(), buffer.read()) == (0, True, bytes(100))


@given(st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=300)), max_size=20))
def test_like_a_bytearray(writes):
    model = bytearray(300)
    with SharedMemoryBuffer(300) as buffer:
        for offset, data in writes:
            if offset + len(data) > 300:
                with pytest.raises(ValueError, match="do not fit"):
                    buffer.write(data, offset)
                continue
            model[offset : offset + len(data)] = data
            buffer.write(data, offset)
        assert buffer.read() == model
        assert buffer.verify_checksum() == (buffer.header.checksum == crc32c(model))


def test_large_copies_let_others_run():
    with SharedMemoryBuffer(8 << 20) as buffer:
        data = bytes(range(256)) * (8 << 12)
        threads = [threading.Thread(target=lambda: (buffer.write(data), buffer.read())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert buffer.read() == data


# ---- views ----


def test_buffer_protocol(buffer):
    view = memoryview(buffer)
    assert (view.nbytes, view.format, view.readonly, view.c_contiguous) == (100, "B", False, True)
    view[3:6] = b"abc"
    assert buffer.read(3, 3) == b"abc"
    assert bytes(buffer) == buffer.read()
    assert zlib.crc32(buffer) == zlib.crc32(buffer.read())
    array = np.frombuffer(buffer, "u1")
    array[0] = 7
    assert view[0] == 7


def test_views_outlive_close_and_the_object(buffer):
    view, array = memoryview(buffer), np.frombuffer(buffer, "u1")
    buffer.write(b"abc")
    buffer.close()
    assert bytes(view[:3]) == b"abc"
    view[0] = 65
    assert array[0] == 65
    view.release()
    assert array[:3].tobytes() == b"Abc"


def test_a_view_does_not_keep_the_name(buffer):
    view = memoryview(buffer)
    buffer.close()
    assert not path_of(buffer).exists()
    with SharedMemoryBuffer(5, name=buffer.name) as other:
        other.write(b"other")
        assert bytes(view[:5]) == bytes(5)


def test_as_array(buffer):
    array = buffer.as_array((2, 3), "<u2", offset=10)
    array[1, 2] = 0x4142
    assert buffer.read(20, 2) == b"BA"
    assert array.flags.writeable
    assert not array.flags.owndata
    assert buffer.as_array(4, "u1").shape == (4,)
    assert buffer.as_array(shape=(), dtype="f8").shape == ()
    record = buffer.as_array(3, [("a", "i4"), ("b", "S4")])
    record["a"][2] = 5
    assert buffer.read(16, 1) == b"\5"
    buffer.close()
    assert array[1, 2] == 0x4142


@pytest.mark.parametrize(
    ("shape", "dtype", "offset"),
    [
        ((101,), "u1", 0),
        ((1,), "u1", 100),
        ((-1,), "u1", 0),
        ((2,), object, 0),
        ((2**62, 2), "u1", 0),
        ((1,), "u1", -1),
        ((1,), "u1", "0"),
        ("x", "u1", 0),
        (1, "unknown", 0),
        ((1,), "u1", 2**70),
    ],
    ids=str,
)
def test_no_array(buffer, shape, dtype, offset):
    with pytest.raises((ValueError, TypeError, OverflowError)):
        buffer.as_array(shape, dtype, offset)


def test_data_begin_where_the_property_says(buffer):
    buffer.write(b"found")
    with open(path_of(buffer), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        offset = buffer.data_offset
        assert memory[offset : offset + 5] == b"found"
        assert offset % 64 == 0
        memory[offset] = ord("F")
    assert buffer.read(0, 5) == b"Found"


# ---- the head ----


def test_header(buffer):
    head = buffer.header
    assert isinstance(head, BufferHeader)
    assert (head.version, head.size, head.flags, head.checksum, head.user) == (1, 100, 0, 0, 0)
    assert head.magic.to_bytes(4, "little") == b"SHCB"
    assert buffer.validate_header() is True


def test_set_header(buffer):
    assert buffer.set_header(flags=0xFFFFFFFF) is None
    assert (buffer.header.flags, buffer.header.user) == (0xFFFFFFFF, 0)
    buffer.set_header(user=2**64 - 1)
    assert (buffer.header.flags, buffer.header.user) == (0xFFFFFFFF, 2**64 - 1)
    buffer.set_header(flags=1, user=2)
    buffer.set_header()
    buffer.set_header(flags=None, user=None)
    assert (buffer.header.flags, buffer.header.user) == (1, 2)
    assert buffer.validate_header()
    with SharedMemoryBuffer(1, flags=77) as other:
        assert other.header.flags == 77


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"flags": -1}, ValueError),
        ({"flags": 2**32}, ValueError),
        ({"user": 2**64}, ValueError),
        ({"user": -1}, ValueError),
        ({"flags": "1"}, TypeError),
        ({"size": 5}, TypeError),
    ],
)
def test_bad_header(buffer, keywords, error):
    with pytest.raises(error):
        buffer.set_header(**keywords)
    with pytest.raises(TypeError, match="positional"):
        buffer.set_header(1)


def test_a_spoilt_head_is_seen(buffer):
    offset = buffer.data_offset - 128
    with open(path_of(buffer), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        for position in (0, 4, 8):
            memory[offset + position] ^= 1
            assert buffer.validate_header() is False
            assert len(buffer) == 100  # what counts was copied
            memory[offset + position] ^= 1
        assert buffer.validate_header() is True


# ---- checksums ----


def test_checksum(buffer):
    buffer.write(b"123456789")
    assert buffer.flush_checksum() == crc32c(buffer.read()) == buffer.header.checksum
    assert buffer.verify_checksum() is True
    buffer.write(b"!", 50)
    assert buffer.verify_checksum() is False
    memoryview(buffer)[50] = 0
    assert buffer.verify_checksum() is True
    with SharedMemoryBuffer(9) as other:
        other.write(b"123456789")
        assert other.flush_checksum() == 0xE3069283  # the check value of CRC-32C


def test_checksum_is_kept_for_the_next_one():
    """checksum=True: whoever closes the buffer as its creator leaves a valid checksum."""
    with SharedMemoryBuffer(64, checksum=True) as buffer, Peer() as peer:
        peer("b = SharedMemoryBuffer.attach(name)", name=buffer.name)
        buffer.write(b"precious")
        buffer.close()
        assert peer("b.verify_checksum()") is True
        peer("b.close()")


# ---- numbers ----


def test_stats(buffer):
    buffer.write(b"abc")
    stats = buffer.stats()
    assert isinstance(stats, BufferStats)
    assert (stats.bytes_total, stats.bytes_used) == (100, 3)
    (me,) = stats.participants
    assert (me.alive, me.holds) == (True, ())
    assert stats.asdict()["participants"][0]["alive"] is True
    with pytest.raises(AttributeError):
        stats.bytes_total = 1


# ---- several processes and handles ----


def test_attach_and_open(buffer):
    with SharedMemoryBuffer.attach(buffer.name) as same, SharedMemoryBuffer.open(buffer.name) as again:
        same.write(b"abc")
        assert again.read(0, 3) == buffer.read(0, 3) == b"abc"
        assert again.size == 100
    with SharedMemoryBuffer.open(buffer.name, 100) as again:
        assert again.size == 100
    with pytest.raises(LayoutError, match="exists with size 100, not 99"):
        SharedMemoryBuffer.open(buffer.name, 99)
    with pytest.raises(ValueError, match="creating it needs a size"):
        SharedMemoryBuffer.open("buffer-not-there")
    with SharedMemoryBuffer.open("buffer-to-make", size=7, flags=3, mode=0o640, persist=False) as made:
        assert (made.size, made.header.flags) == (7, 3)


def test_another_process_sees_it(buffer):
    with Peer() as peer:
        peer("b = SharedMemoryBuffer.attach(name)", name=buffer.name)
        buffer.write(b"abc", 50)
        assert peer("b.read(50, 3), b.used, b.size") == (b"abc", 53, 100)
        peer("memoryview(b)[0] = 9")
        assert buffer.read(0, 1) == b"\x09"
        assert {p.pid for p in buffer.stats().participants} == {
            peer.pid,
            *[p.pid for p in buffer.stats().participants[:1]],
        }


def test_pickle(buffer):
    with pickle.loads(pickle.dumps(buffer)) as same:
        same.write(b"abc")
        assert buffer.read(0, 3) == b"abc"


def test_weakref_subclass_and_cycle():
    class Named(SharedMemoryBuffer):
        pass

    buffer = Named(10)
    assert repr(buffer).startswith("<Named ")
    buffer.view = memoryview(buffer)
    buffer.myself = buffer
    reference = weakref.ref(buffer)
    del buffer
    gc.collect()
    assert reference() is None


# ---- after close ----

CALLS = {
    "read": lambda b: b.read(),
    "write": lambda b: b.write(b"x"),
    "clear": lambda b: b.clear(),
    "as_array": lambda b: b.as_array(1, "u1"),
    "header": lambda b: b.header,
    "set_header": lambda b: b.set_header(flags=1),
    "validate_header": lambda b: b.validate_header(),
    "flush_checksum": lambda b: b.flush_checksum(),
    "verify_checksum": lambda b: b.verify_checksum(),
    "size": lambda b: b.size,
    "used": lambda b: b.used,
    "available": lambda b: b.available,
    "data_offset": lambda b: b.data_offset,
    "is_full": lambda b: b.is_full(),
    "is_empty": lambda b: b.is_empty(),
    "len": len,
    "stats": lambda b: b.stats(),
    "memoryview": memoryview,
    "with": lambda b: b.__enter__(),
    "pickle": pickle.dumps,
    "unlink": lambda b: b.unlink(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_closed(buffer, call):
    buffer.close()
    buffer.close()
    assert buffer.closed is True
    assert repr(buffer) == f"<SharedMemoryBuffer {buffer.name!r} closed>"
    with pytest.raises(ValueError, match="is closed"):
        call(buffer)


# ---- the standard library's ----


@pytest.fixture
def stdlib():
    memory = shared_memory.SharedMemory(create=True, size=200)
    try:
        yield memory
    finally:
        gc.collect()
        memory.close()
        memory.unlink()


def test_from_shared_memory(stdlib):
    with SharedMemoryBuffer.from_shared_memory(stdlib) as buffer:
        assert buffer.name == stdlib.name
        assert buffer.size == stdlib.size >= 200
        assert buffer.write(b"abc", 10) == 3
        assert bytes(stdlib.buf[10:13]) == b"abc"
        stdlib.buf[0] = 5
        assert buffer.read(0, 1) == b"\5"
        assert buffer.used == 13
        buffer.set_header(flags=4, user=5)
        assert (buffer.header.flags, buffer.header.user, buffer.validate_header()) == (4, 5, True)
        assert buffer.flush_checksum() == crc32c(buffer.read())
        assert buffer.verify_checksum()
        assert buffer.as_array(10, "u1")[0] == 5
        assert memoryview(buffer)[0] == 5
        assert buffer.data_offset == 0
        assert (buffer.stats().bytes_total, buffer.stats().participants) == (stdlib.size, ())
    assert buffer.closed


@pytest.mark.parametrize("name", [n for n in CALLS if n != "unlink"])
def test_from_shared_memory_closed(stdlib, name):
    buffer = SharedMemoryBuffer.from_shared_memory(stdlib)
    buffer.close()
    buffer.close()
    with pytest.raises(ValueError, match="is closed"):
        CALLS[name](buffer)


def test_from_shared_memory_views_outlive_close(stdlib):
    buffer = SharedMemoryBuffer.from_shared_memory(stdlib)
    buffer.write(b"abc")
    view = memoryview(buffer)
    buffer.close()
    with pytest.raises(BufferError, match="export"):
        stdlib.close()
    assert bytes(view[:3]) == b"abc"
    view.release()


def test_from_shared_memory_without_close(stdlib):
    buffer = SharedMemoryBuffer.from_shared_memory(stdlib)
    view = memoryview(buffer)
    del buffer
    view[0] = 1
    del view


def test_from_shared_memory_unlink():
    memory = shared_memory.SharedMemory(create=True, size=10)
    with SharedMemoryBuffer.from_shared_memory(memory) as buffer:
        buffer.unlink()
        buffer.write(b"abc")
    memory.close()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(memory.name)


def test_from_shared_memory_pickles(stdlib):
    with SharedMemoryBuffer.from_shared_memory(stdlib) as buffer, Peer() as peer:
        peer("b = pickled; b.write(b'there')", pickled=buffer)
        assert buffer.read(0, 5) == b"there"
        peer(
            "from multiprocessing import resource_tracker as r; r.unregister('/' + b.name, 'shared_memory'); b.close()"
        )


@pytest.mark.parametrize("thing", [None, 5, "name", b"bytes", math])
def test_from_something_else(thing):
    with pytest.raises(TypeError, match="needs a SharedMemory"):
        SharedMemoryBuffer.from_shared_memory(thing)


def test_from_a_closed_shared_memory():
    memory = shared_memory.SharedMemory(create=True, size=10)
    memory.close()
    memory.unlink()
    with pytest.raises((ValueError, TypeError), match="closed"):
        SharedMemoryBuffer.from_shared_memory(memory)


def test_ours_opens_as_a_shared_memory(buffer):
    """multiprocessing finds our file by its name; the data begin at data_offset."""
    buffer.write(b"abc")
    with Peer() as peer:
        peer(
            "from multiprocessing import shared_memory, resource_tracker as r\n"
            "memory = shared_memory.SharedMemory(name)\n"
            "r.unregister(memory._name, 'shared_memory')",
            name=path_of(buffer).name,
        )
        assert peer("bytes(memory.buf[at:at + 3])", at=buffer.data_offset) == b"abc"
        peer("memory.buf[at] = 65; memory.close()", at=buffer.data_offset)
    assert buffer.read(0, 3) == b"Abc"
