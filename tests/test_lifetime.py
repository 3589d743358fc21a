"""How objects end: with the interpreter in all its ways, in reference cycles, in daemon threads, in other
interpreters."""

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import HERE, PATIENCE_S, Peer, path_of, until

from shmcomm import CorruptedError, RingBufferChannel, SharedMemoryBuffer, _core

ISOLATED = HERE / "isolated"


def run_script(script, *arguments, flags=("-X", "dev", "-W", "error")):
    return subprocess.run(
        [sys.executable, *flags, ISOLATED / script, *arguments],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=HERE,
    )  # fmt: skip


def left(name):
    return [path for path in (path_of(name), path_of(name + "b")) if path.exists()]


STATES = ["open", "views", "reservation", "cycles", "finaliser", "daemons", "atexit", "late cycles"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("how", "code"), [("end", 0), ("exit", 3), ("raise", 1)])
def test_an_orderly_end(how, code, state):
    done = run_script("exits.py", how, state, "orderly")
    assert done.returncode == code, done.stderr
    errors = [
        line
        for line in done.stderr.splitlines()
        if "as planned" not in line and not line.startswith(("Traceback", "  File", "    raise"))
    ]
    assert errors == []
    if state in ("finaliser", "daemons", "late cycles"):
        _core.collect_garbage()
    assert left("orderly") == []


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("how", "code"), [("_exit", 0), ("kill", -9), ("term", -15), ("abort", -6)])
def test_a_sudden_end(how, code, state):
    done = run_script("exits.py", how, state, "sudden", flags=())
    assert done.returncode == code, done.stderr
    _core.collect_garbage()
    assert left("sudden") == []


def test_daemon_threads_at_exit_often():
    """The end of the interpreter meets them in every state."""
    for _ in range(15):
        done = run_script("exits.py", "end", "daemons", "daemons", flags=())
        assert (done.returncode, done.stderr) == (0, "")
    _core.collect_garbage()
    assert left("daemons") == []


def test_subinterpreters():
    done = run_script("subinterpreters.py", flags=())
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"


def test_cycles_are_collected():
    class Node(RingBufferChannel):
        pass

    before = len(_core.list_segments())
    for _ in range(10):
        node = Node(4)
        node.myself = node
        node.handler = lambda node=node: node
        reservation = node.reserve(10)
        node.reservation = reservation
        reservation.__enter__()
        del node, reservation
    gc.collect()
    assert len(_core.list_segments()) == before


def test_a_codec_that_refers_to_its_channel():
    class Codec:
        def __init__(self):
            self.channel = None

        def dumps(self, obj):
            return bytes(obj)

        def loads(self, data):
            return bytes(data)

    codec = Codec()
    codec.channel = RingBufferChannel(4, codec=codec)
    name = codec.channel.name
    codec.channel.send(b"abc")
    assert codec.channel.receive() == b"abc"
    del codec
    gc.collect()
    assert not path_of(name).exists()


def test_views_alone_keep_no_name():
    with RingBufferChannel(4) as channel:
        channel.send(np.arange(100))
        view = channel.receive(copy=False)
    # The view holds the receiving end, so the process is still a participant ...
    assert path_of(channel).exists()
    assert view.sum() == 4950
    del view
    # ... until it is gone.
    assert not path_of(channel).exists()


def test_dropping_the_channel_before_its_views():
    channel = RingBufferChannel(4)
    name = channel.name
    channel.send([np.arange(100), b"x" * 100])
    array, view = channel.receive(copy=False)
    del channel
    gc.collect()
    assert array.sum() == 4950
    del array
    assert bytes(view) == b"x" * 100
    del view
    assert not path_of(name).exists()


def test_an_array_that_was_written_in_place_stays_readable():
    with RingBufferChannel(4) as channel:
        with channel.reserve_array(1000, "u1") as array:
            array[:] = 7
        with channel.reserve(1000) as room:
            kept = np.ndarray(1000, "u1", buffer=room)
            room[:] = bytes(1000)
            del kept
        channel.unlink()
    gc.collect()
    junk = [SharedMemoryBuffer(100_000) for _ in range(10)]  # would be mapped where it was
    assert (array == 7).all()
    for buffer in junk:
        buffer.close()


def inode_at(address):
    """Of the file that is mapped there, as a str; None if nothing is mapped."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, inode, *_ = line.split()
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= address < last:
            return inode
    return None


ENDINGS = {
    "commit": lambda reservation: reservation.commit(),
    "abort": lambda reservation: reservation.abort(),
    "exit": lambda reservation: reservation.__exit__(None, None, None),
    "drop": lambda reservation: None,
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_writing_through_a_slice_of_a_reserved_array_reaches_no_other_memory(end):
    """It is forbidden, since it may change messages; that is all it can do, however late it comes."""
    with RingBufferChannel(4, buffer_size=1 << 16) as channel:
        inode = str(path_of(channel).stat().st_ino)
        reservation = channel.reserve_array(10_000, "u1")
        array = reservation.__enter__()
        parts = [array[100:200], array[5000:].reshape(100, 50)[::7], array.view("u4")[2::3]]
        array[:] = 1
        end(reservation)
        del reservation
        received = channel.dequeue()
        assert received is None or (received == 1).all()
        for part in parts:
            part[...] = 2
    gc.collect()
    junk = [SharedMemoryBuffer(1 << 17) for _ in range(10)]  # would be mapped where it was
    for part in parts:
        part[...] = 3
        assert (part == 3).all()
        assert inode_at(part.ctypes.data) == inode
    assert all(buffer.read() == bytes(1 << 17) for buffer in junk)
    address = array.ctypes.data
    del array, parts, part
    assert inode_at(address) != inode
    for buffer in junk:
        buffer.close()


def test_writing_through_a_slice_after_the_memory_was_used_again():
    """The ring's own words are out of reach; a message that was spoilt is an exception or wrong bytes."""
    with RingBufferChannel(100, buffer_size=4096) as channel:
        for number in range(40):
            with channel.reserve_array(1000, "u1") as array:
                part = array[number % 7 :: 1 + number % 3]
            assert len(channel.receive()) == 1000
            for size in range(0, 300, 7):
                channel.try_send(bytes(size))
            part[...] = 255 - number
            with contextlib.suppress(CorruptedError):
                while channel.dequeue() is not None:
                    pass
            channel.clear()
            channel.send([number], timeout=0)
            assert channel.receive(timeout=0) == [number]
            assert channel.stats().bytes_used == 0


def test_numpy_arrays_that_hold_no_buffer_stay_valid():
    """numpy.ndarray(buffer=x) keeps x, but gives its buffer back at once."""
    with SharedMemoryBuffer(4096) as buffer:
        arrays = [
            np.ndarray(4096, "u1", buffer=buffer),
            np.ndarray(4096, "u1", buffer=memoryview(buffer)),
            buffer.as_array(4096, "u1"),
        ]
        buffer.write(b"\5" * 4096)
    gc.collect()
    assert all((array == 5).all() for array in arrays)


def test_closing_in_a_with_block():
    with RingBufferChannel(4) as channel:
        channel.close()
    with pytest.raises(ValueError, match="is closed"), channel:
        pass


def test_exceptions_pass_through_with():
    with pytest.raises(KeyError), RingBufferChannel(4) as channel:
        raise KeyError
    assert channel.closed


def test_close_all_is_for_the_end():
    with Peer() as peer:
        peer("a = RingBufferChannel(4); b = SharedMemoryBuffer(4); c = RingBufferChannel.attach(a.name)")
        names = peer("[a.name, b.name]")
        peer("shmcomm._core._close_all()")
        assert peer("[x.closed for x in (a, b, c)]") == [True] * 3
        assert not any(path_of(name).exists() for name in names)
        peer("shmcomm._core._close_all()")
        peer("a = RingBufferChannel(4); a.send(1); assert a.receive() == 1")


def test_a_worker_killed_while_it_creates():
    """Whatever is left of half-made objects is cleared."""
    source = (
        "from shmcomm import *\nprint('go', flush=True)\nwhile True: RingBufferChannel(4, buffer_size=1 << 20).close()"
    )
    for delay in range(12):
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            end = os.times().elapsed + delay / 1000
            until(lambda end=end: os.times().elapsed >= end)
            process.kill()
    _core.collect_garbage()
    namespace = os.environ["SHMCOMM_NAMESPACE"]
    assert not [p for p in Path("/dev/shm").glob("shmcomm.*") if namespace in p.name or p.name.startswith("shmcomm.~")]
