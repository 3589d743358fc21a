"""Nothing that stands in shared memory is trusted: spoilt memory gives a result or a documented exception, and never
a crash,
an endless loop or undocumented exception."""

import mmap
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from helpers import HERE, directory, path_of

from shmcomm import CorruptedError, Full, RingBufferChannel, SharedMemoryBuffer

SEED = int(os.environ.get("SHC_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


@pytest.mark.time_limit(200)
@pytest.mark.parametrize("kind", ["ring", "buffer", "objects", "pool", "scribble"])
def test_spoilt_memory(kind):
    """In a process of its own, so that a crash is seen as one."""
    script = HERE / "isolated" / "hostile.py"
    with tempfile.TemporaryDirectory(prefix="shmcomm-hostile.", dir=directory()) as folder:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-W", "ignore", script, folder, kind, str(SEED)],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
    assert done.returncode == 0, f"seed {SEED}, exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "CorruptedError" in done.stdout or kind == "buffer", done.stdout
    print(done.stdout)


@pytest.fixture
def spoilt():
    """A channel with one message, and its memory: (channel, memory, offset of the ring's head)."""
    with RingBufferChannel(8, buffer_size=4096) as channel:
        channel.send(b"a message")
        with open(path_of(channel), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            yield channel, memory, len(memory) - 4096 - 640


RECORD = {
    "length beyond the ring": (0, (1 << 31).to_bytes(4, "little")),
    "length beyond the tail": (0, (100).to_bytes(4, "little")),
    "skip to the start": (0, b"\xff" * 4),
    "check": (5, b"\0\0\0"),
    "unknown kind of message": (4, b"\xee"),
}


@pytest.mark.parametrize(("at", "value"), RECORD.values(), ids=RECORD)
def test_spoilt_records(spoilt, at, value):
    channel, memory, ring = spoilt
    start = ring + 640 + at
    memory[start : start + len(value)] = value
    for call in (channel.peek, channel.receive):
        with pytest.raises(CorruptedError):
            call()
    channel.clear()  # what cannot be read is not in the way for ever
    channel.send("next")
    assert channel.receive() == "next"


def test_a_message_that_cannot_be_read_is_gone_past(spoilt):
    channel, memory, ring = spoilt
    for copy in (True, False):
        channel.clear()
        memory[ring + 640 : ring + 640 + 4096] = bytes(4096)
        channel.send_batch([b"spoilt", "next"])
        at = memory.find(b"spoilt")
        memory[at - 4] = 0xEE
        with pytest.raises(CorruptedError):
            channel.peek()
        with pytest.raises(CorruptedError):
            channel.receive(copy=copy)
        assert channel.receive(timeout=0) == "next"


@pytest.mark.parametrize(("name", "at"), [("tail", 0), ("head", 128)])
@pytest.mark.parametrize(
    "value",
    [b"\xff" * 8, b"\x01" * 8, (5000).to_bytes(8, "little"), (1 << 40).to_bytes(8, "little")],
    ids=["all", "ones", "position", "count"],
)
def test_spoilt_cursors(spoilt, name, at, value):
    channel, memory, ring = spoilt
    if name == "head":
        channel.peek()
    memory[ring + at : ring + at + 8] = value
    assert 0 <= len(channel) <= 8
    with pytest.raises((CorruptedError, Full)):  # a count that might be is believed
        for _ in range(20):
            channel.receive(timeout=0) if name == "tail" else channel.send(b"x" * 500, timeout=0)


def test_spoilt_array(spoilt):
    """The shape of an array is bounded by its message."""
    channel, memory, ring = spoilt
    channel.clear()
    array = np.arange(16, dtype="<i4").reshape(4, 4)
    for at in range(200):
        channel.clear()
        channel.send(array)
        where = memory.find(array.tobytes()) - 1 - at
        if where < ring + 640 + 8:
            break
        memory[where] ^= 0xFF
        try:
            received = channel.receive(timeout=0)
        except CorruptedError:
            continue
        assert not isinstance(received, np.ndarray) or received.nbytes <= 4096
    else:
        pytest.fail("the head of the array was not found")


def test_a_buffer_says_no_more_than_it_has():
    with SharedMemoryBuffer(100) as buffer:
        with open(path_of(buffer), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            head = buffer.data_offset - 128
            memory[head + 8 : head + 16] = b"\xff" * 8
            memory[head + 64 : head + 72] = b"\xff" * 8
            assert (buffer.size, len(buffer), buffer.used, buffer.available) == (100, 100, 100, 0)
            assert len(buffer.read()) == len(memoryview(buffer)) == 100
            assert buffer.validate_header() is False
