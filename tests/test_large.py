"""Messages that do not fit in the ring: they lie in memory of their own, which is reserved when it is needed, goes to
and fro between sender and receiver, and comes back when its last user lets go or dies."""

import contextlib
import gc
import os
import pickle
import threading

import numpy as np
import pytest
from helpers import RESERVES_IN_PIECES, Peer, fork_worker, path_of, run_python, until

from shmcomm import CorruptedError, Empty, MessageTooLargeError, RingBufferChannel, SharedMemoryBuffer, ShutDown

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    pytest.mark.skipif(not RESERVES_IN_PIECES, reason="this system body has no large messages"),
]
KIB, MIB = 1 << 10, 1 << 20
RING_HEAD = 640


@pytest.fixture
def channel():
    with RingBufferChannel(16) as made:
        yield made
        gc.collect()
        if not made.closed and not made.stats().is_shutdown:
            made.clear()
            assert in_use(made) == (0, 0)


@pytest.fixture
def pair(channel):
    """A channel and a peer that has it as x."""
    with Peer() as peer:
        peer("x = RingBufferChannel.attach(name)", name=channel.name)
        yield channel, peer


def in_use(channel):
    stats = channel.stats()
    return stats.large_messages, stats.bytes_large_used


def reserved(channel):
    return channel.stats().bytes_large_reserved


def content(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, dtype="u1").tobytes()


class Opaque:
    """Travels by pickle, with its buffer out of band."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Opaque, (pickle.PickleBuffer(self.data) if protocol >= 5 else bytes(self.data),)

    def __eq__(self, other):
        return bytes(self.data) == bytes(other.data)

    __hash__ = None


LARGE = {
    "bytes": content(MIB),
    "bytearray": bytearray(content(MIB, 1)),
    "ascii": "x" * MIB,
    "text": "ü" * MIB,
    "list": [content(300, i) for i in range(1000)],
    "dict": {f"key {i}": content(400, i) for i in range(300)},
    "int": 7 ** (10**5),
    "pickled": Opaque(content(MIB, 2)),
    "just too long": content(64 * KIB),
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
def test_values_of_every_kind(channel, value):
    for send in (channel.send, channel.try_send, channel.enqueue, lambda v: channel.send_batch([v])):
        assert send(value) in (None, True, 1)
        assert in_use(channel)[0] == 1
        assert channel.peek() == value
        assert type(received := channel.receive()) is type(value)
        assert received == value
        assert in_use(channel) == (0, 0)


@pytest.mark.parametrize("dtype", ["u1", "<f8", "<U5", [("x", "<i4"), ("y", "<f8")]], ids=str)
def test_arrays(channel, dtype):
    array = np.zeros((100, 1000), dtype)
    array.view("u1")[:] = np.arange(array.nbytes, dtype="u1").reshape(array.view("u1").shape) % 100
    for copy in (True, False):
        channel.send({"a": array, "n": 1})
        received = channel.receive(copy=copy)["a"]
        assert received.dtype == array.dtype
        assert received.tobytes() == array.tobytes()
        assert received.flags.writeable == copy
        assert received.ctypes.data % 64 == 0 or copy


@pytest.mark.parametrize("size", [33 * KIB, 64 * KIB, MIB, 100 * MIB])
def test_any_size_is_written_and_read_in_place(channel, size):
    for i in range(3):
        with channel.reserve_array(size, "u1") as array:
            array[:] = i
        view = channel.receive(copy=False)
        assert view.shape == (size,)
        assert not view.flags.writeable
        assert (view == i).all()
        assert in_use(channel) == (1, -(-size // (64 * KIB)) * 64 * KIB + (64 * KIB if size % (64 * KIB) == 0 else 0))
        del view
    assert in_use(channel) == (0, 0)


def test_the_steady_path_reserves_nothing(channel):
    """What comes back is used again: a thousand messages take the memory of one."""
    for i in range(1000):
        with channel.reserve_array(MIB, "u1") as array:
            array[0] = i & 0xFF
        assert channel.receive(copy=False)[0] == i & 0xFF
    assert reserved(channel) <= 2 * MIB


def test_reservations_of_bytes(channel):
    reservation = channel.reserve(MIB)
    with reservation as room:
        room[:5] = b"hello"
        room = None
        reservation.commit(5)
    assert channel.receive() == b"hello"
    channel.reserve(MIB).abort()
    with contextlib.suppress(ZeroDivisionError), channel.reserve(MIB):
        raise ZeroDivisionError
    channel.reserve(MIB)  # dropped
    gc.collect()
    assert in_use(channel) == (0, 0)
    assert len(channel) == 0
    channel.send("fine")
    assert channel.receive() == "fine"


def test_many_are_held_at_once_and_let_go_in_any_order(channel):
    """More than 64, the limit of those that lie in the ring: these do not keep the ring from being used."""
    held = []
    for i in range(100):
        channel.send(np.full(40 * KIB, i, "u1"))
        held.append(channel.receive(copy=False))
    assert in_use(channel)[0] == 100
    assert channel.stats().bytes_used == 0
    for i in (*range(0, 100, 2), *range(99, 0, -2)):
        assert (held[i] == i).all()
        held[i] = None
    assert in_use(channel) == (0, 0)


def test_small_and_large_keep_their_order(channel):
    messages = [content(size, size) for size in (10, 100 * KIB, 0, 40 * KIB, 1, MIB, 30 * KIB, 2)]
    assert channel.send_batch(messages) == len(messages)
    assert channel.receive_batch(3) == messages[:3]
    channel.send(messages[1])
    assert channel.receive_batch(99) == [*messages[3:], messages[1]]


def test_clear_gives_the_memory_back(channel):
    for _ in range(3):
        channel.send_batch([content(MIB), "small", content(100 * KIB)])
    assert in_use(channel)[0] == 6
    channel.clear()
    assert (len(channel), in_use(channel)) == (0, (0, 0))
    channel.send(LARGE["dict"])
    assert channel.receive() == LARGE["dict"]


def test_a_view_outlives_the_channel():
    with RingBufferChannel(4) as channel:
        channel.send(np.arange(100_000))
        view = channel.receive(copy=False)
        path = path_of(channel.name)
    assert (view == np.arange(100_000)).all()
    assert path.exists()
    del view
    assert not path.exists()


def test_a_view_does_not_keep_the_end(pair):
    channel, peer = pair
    with RingBufferChannel.attach(channel.name) as receiver:
        channel.send(content(MIB))
        view = receiver.receive(copy=False)
    channel.send("next")
    assert peer("x.receive(timeout=30)") == "next"
    assert view == content(MIB)
    peer("x.close()")


def test_after_shutdown(channel):
    channel.send(content(MIB))
    reservation = channel.reserve(MIB)
    channel.shutdown()
    with pytest.raises(ShutDown):
        reservation.commit()
    with pytest.raises(ShutDown):
        channel.send(content(MIB))
    assert channel.receive() == content(MIB)
    with pytest.raises(ShutDown):
        channel.receive()
    assert in_use(channel) == (0, 0)


def test_clear_forgets_what_would_not_be_delivered_any_more(channel):
    channel.send_batch([1, content(MIB), 2, content(100 * KIB)])
    channel.shutdown(immediate=True)
    channel.clear()
    assert (len(channel), in_use(channel)) == (0, (0, 0))


# ---- limits ----


def test_larger_than_there_can_ever_be(channel):
    total = channel.stats().bytes_large_total
    assert total == 4 << 30
    for size in (total + 1, 10**12):
        with pytest.raises(MessageTooLargeError, match=f"the message of {size} bytes is larger than .* ever hold"):
            channel.reserve(size)
    with pytest.raises(MessageTooLargeError, match="send it in parts"):
        channel.reserve_array(10**11, "u1")
    channel.send("fine")
    assert channel.receive() == "fine"


def test_a_stated_buffer_size_is_the_limit():
    with RingBufferChannel(4, buffer_size=1 << 16) as channel:
        assert channel.stats().bytes_large_total == 0
        with pytest.raises(MessageTooLargeError, match="create it with buffer_size=131072"):
            channel.reserve(40_000)
        with channel.reserve(30_000) as room:
            room[:] = content(30_000)
        assert channel.receive() == content(30_000)


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_FSIZE"])
def test_less_address_space_gives_smaller_messages(limit):
    """Where not so much may be mapped or written, the largest message is smaller; nothing else changes."""
    if limit == "RLIMIT_AS" and "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer reserves terabytes of address space")
    source = """
import resource, sys
from shmcomm import MessageTooLargeError, RingBufferChannel
resource.setrlimit(getattr(resource, sys.argv[1]), (2 << 30, 2 << 30))
with RingBufferChannel(4) as channel:
    total = channel.stats().bytes_large_total
    assert 64 << 20 <= total <= 1 << 30, total
    channel.send(bytes(10_000_000))
    assert channel.receive() == bytes(10_000_000)
    try:
        channel.reserve(total + 1)
    except MessageTooLargeError as error:
        assert f"({total} bytes)" in str(error), error
    else:
        raise AssertionError("no limit")
"""
    run_python(source, limit)


def test_whoever_waits_for_memory_gets_what_is_let_go():
    """Of memory for one such message: it waits until the receiver has let go of the last."""
    source = """
import resource, threading, time
from shmcomm import Full, RingBufferChannel
resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 20, 100 << 20))
with RingBufferChannel(4) as channel:
    large = bytes(40 << 20)
    assert channel.stats().bytes_large_total == 64 << 20
    channel.send(large)
    for where in ("on its way", "in hand"):
        assert not channel.try_send(large)
        for call in (channel.send, lambda m, timeout: channel.reserve(len(m), timeout=timeout)):
            try:
                call(large, timeout=0.01)
            except Full:
                continue
            raise AssertionError("there was room")
        if where == "on its way":
            view = channel.receive(copy=False)
    channel.send("small ones pass")

    def let_go():
        global view
        time.sleep(0.2)
        view = None

    threading.Thread(target=let_go).start()
    channel.send(large, timeout=60)
    assert channel.receive() == "small ones pass"
    assert channel.receive() == large
    with channel.reserve(64 << 20):
        pass
"""
    run_python(source)


def test_a_thread_that_waits_for_memory_lets_those_work_that_will_free_some():
    """It is woken by what they free, and does not look for it all the time."""
    source = """
import resource, threading
from helpers import until
from shmcomm import RingBufferChannel
resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 20, 100 << 20))
with RingBufferChannel(64) as channel:
    for i in range(100):  # the receiving end has moved since the sending one looked at it
        channel.send(i)
        assert channel.receive() == i
    large = 20 << 20
    sender = threading.Thread(target=lambda: [channel.send(bytes([n]) * large) for n in range(9)])
    sender.start()
    until(lambda: channel.stats().large_messages == 3)
    for n in range(9):
        assert channel.receive()[:: large - 1] == bytes([n]) * 2
    sender.join()
"""
    run_python(source)


# ---- between processes ----


def test_to_another_process_and_back(pair):
    channel, peer = pair
    with RingBufferChannel(16) as back:
        peer("y = RingBufferChannel.attach(name)", name=back.name)
        for value in LARGE.values():
            if not isinstance(value, Opaque):
                channel.send(value)
                peer("y.send(x.receive())")
                assert back.receive() == value
        peer("y.close()")


def test_what_a_sender_had_sent_stays_when_it_leaves(channel):
    for kill in (False, True):
        with Peer() as peer:
            peer("x = RingBufferChannel.attach(name)", name=channel.name)
            peer("x.send_batch([bytes([i]) * 100_000 for i in range(5)])")
            assert peer("(r := x.reserve(1 << 20)) and None") is None
            if kill:
                peer.kill()
            else:
                peer("r.abort(); x.close()")
        for i in range(5):
            assert channel.receive() == bytes([i]) * 100_000
        with RingBufferChannel.attach(channel.name) as successor:
            successor.send(content(MIB))  # takes the end from the dead, and what it had reserved
        assert in_use(channel)[0] == 1
        channel.clear()


def test_what_a_dead_receiver_held_comes_back(pair):
    channel, peer = pair
    for i in range(4):
        channel.send(bytes([i]) * MIB)
    peer("held = [x.receive(copy=False) for _ in range(2)]")
    assert in_use(channel)[0] == 4
    peer.kill()
    assert channel.receive() == bytes([2]) * MIB
    assert in_use(channel)[0] == 1
    channel.clear()


def test_what_a_dead_receiver_was_about_to_take_comes_again(channel):
    """A hold in the ring keeps its successor where it was; large messages behind it come again, unless they were let
    go."""
    with Peer() as peer:
        peer("x = RingBufferChannel.attach(name)", name=channel.name)
        channel.send_batch([b"in the ring", bytes([1]) * MIB, bytes([2]) * MIB, bytes([3]) * MIB])
        peer("small, large, kept = (x.receive(copy=False) for _ in range(3))")
        peer("del large")
        peer.kill()
    assert channel.receive() == b"in the ring"
    assert channel.receive() == bytes([2]) * MIB
    assert channel.receive() == bytes([3]) * MIB
    with pytest.raises(Empty):
        channel.receive(timeout=0)


@pytest.mark.parametrize("how", ["batch", "peek", "iteration"])
def test_what_a_dead_receiver_was_done_with_is_gone_past_whoever_looks(channel, how):
    with Peer() as peer:
        peer("x = RingBufferChannel.attach(name)", name=channel.name)
        channel.send_batch([b"in the ring", bytes([1]) * MIB, bytes([2]) * MIB, "and on"])
        peer("held = x.receive(copy=False)")
        assert peer("[x.receive()[0] for _ in range(2)]") == [1, 2]
        peer.kill()
    assert channel.receive() == b"in the ring"
    if how == "batch":
        assert channel.receive_batch(9) == ["and on"]
    elif how == "peek":
        assert channel.peek() == channel.receive() == "and on"
    else:
        assert next(channel) == "and on"
    assert (len(channel), in_use(channel)) == (0, (0, 0))


def child_drops_what_is_its_parents(view, reservation):
    del view, reservation
    gc.collect()


def test_a_forked_child_lets_go_of_nothing(channel):
    channel.send(content(MIB))
    view, reservation = channel.receive(copy=False), channel.reserve(MIB)
    pid = fork_worker(child_drops_what_is_its_parents, view, reservation)
    assert os.waitpid(pid, 0)[1] == 0
    assert in_use(channel)[0] == 2
    assert view == content(MIB)
    reservation.commit()
    del reservation
    assert len(channel.receive()) == MIB


def child_sends(channel):
    channel.send(content(MIB, 7))
    channel.close()


def test_a_forked_child_is_a_sender_of_its_own(channel):
    channel.send("the parent has met none yet")
    assert channel.receive() == "the parent has met none yet"
    with RingBufferChannel(4) as fresh:
        pid = fork_worker(child_sends, fresh)
        assert fresh.receive(timeout=30) == content(MIB, 7)
        os.waitpid(pid, 0)
        assert in_use(fresh) == (0, 0)


def test_threads_send_receive_and_let_go(channel):
    """Views are dropped by whoever has them, while both ends are busy with others."""
    n, got = 300, []

    def receive():
        for _ in range(n):
            got.append(channel.receive(timeout=60, copy=False))

    def let_go():
        done = 0
        while done < n:
            if got:
                view = got.pop(0)
                assert (view == view[0]).all()
                assert view[0] == done % 256
                done += 1

    threads = [threading.Thread(target=target) for target in (receive, let_go)]
    for thread in threads:
        thread.start()
    for i in range(n):
        channel.send(np.full(50_000, i % 256, "u1"), timeout=60)
    for thread in threads:
        thread.join()


def test_memory_is_given_back_when_nothing_comes(channel):
    """A receiver that has waited for a second gives most of what is free to the system."""
    views = []
    for _ in range(16):
        channel.send(content(2 * MIB))
        views.append(channel.receive(copy=False))
    views.clear()
    assert reserved(channel) >= 32 * MIB
    waiting = threading.Thread(target=channel.receive)
    waiting.start()
    try:
        until(lambda: reserved(channel) <= 4 * MIB)
        assert path_of(channel.name).stat().st_blocks * 512 < 6 * MIB
    finally:
        channel.send("over")
        waiting.join()


def test_memory_of_one_very_large_message_is_given_back_too(channel):
    channel.send(content(32 * MIB))
    channel.receive()
    assert reserved(channel) >= 32 * MIB
    waiting = threading.Thread(target=channel.receive)
    waiting.start()
    try:
        until(lambda: reserved(channel) <= 4 * MIB)
    finally:
        channel.send("over")
        waiting.join()


@pytest.mark.parametrize("reference", [0, 1, (1 << 64) - 1, 1 << 53, 1 << 20])
def test_a_descriptor_that_was_scribbled_over(reference):
    """The message is gone past, and the next one comes. Its memory stays with its sender."""
    with RingBufferChannel(16) as channel:
        channel.send("the end is taken")
        assert channel.receive() == "the end is taken"
        channel.send_batch([content(MIB), "next"])
        with open(path_of(channel.name), "r+b") as file:
            body = int.from_bytes(file.read(40)[32:], "little")
            file.seek(body + RING_HEAD + 24 + 8)  # behind the first record and the head of the second
            assert int.from_bytes(file.read(16), "little") >> 64 == MIB
            file.seek(-16, os.SEEK_CUR)
            file.write(reference.to_bytes(8, "little"))
        with pytest.raises(CorruptedError):
            channel.peek()
        with pytest.raises(CorruptedError):
            channel.receive()
        assert channel.receive() == "next"
        assert in_use(channel)[0] == 1


def test_figures(channel):
    stats = channel.stats()
    assert (stats.large_messages, stats.bytes_large_used, stats.bytes_large_reserved) == (0, 0, 0)
    channel.send(content(MIB))
    stats = channel.stats()
    assert stats.large_messages == 1
    assert MIB <= stats.bytes_large_used <= stats.bytes_large_reserved <= 2 * MIB
    assert stats.large_fragmentation == 0
    channel.receive()


def test_an_unused_channel_stays_small():
    with RingBufferChannel(1024) as channel, SharedMemoryBuffer(10) as buffer:
        assert path_of(channel.name).stat().st_blocks * 512 <= 256 * KIB
        assert path_of(buffer.name).stat().st_blocks * 512 <= 16 * KIB
