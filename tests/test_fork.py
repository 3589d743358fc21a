"""fork: the child becomes a participant of its own; what the parent holds is the parent's."""

import gc
import os
import signal
import threading

import numpy as np
import pytest
from helpers import fork_worker, forked, path_of, until

from shmcomm import BusyError, RingBufferChannel, SharedMemoryBuffer

# The guard of the tests has a thread, and so have some of these tests.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def channel():
    with RingBufferChannel(8) as made:
        yield made


def test_an_inherited_handle(channel):
    def child():
        channel.send(("from", os.getpid()))
        assert sorted(p.pid for p in channel.stats().participants) == sorted([os.getpid(), os.getppid()])
        channel.close()

    assert forked(child) == 0
    word, pid = channel.receive()
    assert (word, pid != os.getpid()) == ("from", True)
    assert len(channel.stats().participants) == 1
    channel.send("mine again")
    assert channel.receive() == "mine again"


def test_the_parents_ends_are_the_parents(channel):
    channel.send(1)
    channel.receive()

    def child():
        with pytest.raises(BusyError, match=str(os.getppid())):
            channel.send(2)
        with pytest.raises(BusyError, match=str(os.getppid())):
            channel.dequeue()
        other = RingBufferChannel.attach(channel.name)
        with pytest.raises(BusyError):
            other.send(2)
        channel.close()
        other.close()

    assert forked(child) == 0
    channel.send(3)
    assert channel.receive() == 3


def test_a_child_that_does_nothing(channel):
    channel.send(1)
    assert forked(lambda: None) == 0
    assert forked(channel.close) == 0
    assert channel.receive() == 1
    assert path_of(channel).exists()
    assert [p.pid for p in channel.stats().participants] == [os.getpid()]


def test_a_child_drops_an_unused_handle(channel):
    handles = [RingBufferChannel.attach(channel.name)]
    channel.send(1)

    def child():
        handles.clear()
        gc.collect()
        assert path_of(channel).exists()

    assert forked(child) == 0
    assert handles[0].receive() == 1
    handles[0].close()


def test_producer_and_consumer_by_fork():
    with RingBufferChannel(8) as channel:
        pid = fork_worker(lambda: [channel.send((i, bytes(i % 300))) for i in range(3000)])
        for i in range(3000):
            assert channel.receive(timeout=30) == (i, bytes(i % 300))
        os.waitpid(pid, 0)


def test_the_child_outlives_the_parents_handle(channel):
    with RingBufferChannel(8) as ready:

        def child():
            channel.send("I am here")
            ready.send("ready")
            until(lambda: os.path.exists(f"/proc/{os.getpid()}") and len(channel.stats().participants) == 1)
            assert path_of(channel).exists()
            assert channel.receive() == "I am here"
            channel.close()
            assert not path_of(channel).exists()

        pid = fork_worker(child)
        assert ready.receive(timeout=30) == "ready"
        channel.close()
        assert os.waitpid(pid, 0)[1] == 0
        assert not path_of(channel).exists()


def test_grandchildren(channel):
    def child():
        channel.enqueue("child")

        def grandchild():
            with pytest.raises(BusyError, match=str(os.getppid())):
                channel.enqueue("grandchild")
            assert channel.receive() == "child"
            assert len(channel.stats().participants) == 3
            channel.close()

        assert forked(grandchild) == 0
        channel.close()

    assert forked(child) == 0
    assert len(channel.stats().participants) == 1


def test_inherited_views_are_inert(channel):
    for i in range(3):
        channel.send(np.full(100, i))
    held = [channel.receive(copy=False) for _ in range(2)]

    def child():
        assert held[1][0] == 1
        held.clear()
        gc.collect()
        assert channel.stats().received == 0
        channel.close()

    assert forked(child) == 0
    assert channel.stats().bytes_used > 0
    assert (held[0][0], held[1][0], channel.receive()[0]) == (0, 1, 2)
    held.clear()
    assert channel.stats().bytes_used == 0


def test_inherited_views_stay_readable_after_close(channel):
    channel.send(np.full(100, 5))
    held = channel.receive(copy=False)

    def child():
        channel.close()
        assert (held == 5).all()

    assert forked(child) == 0
    assert (held == 5).all()


def test_an_inherited_reservation_is_inert(channel):
    reservation = channel.reserve(5)

    def child():
        for call in (reservation.commit, reservation.abort, reservation.__enter__):
            with pytest.raises(ValueError, match="fork|already"):
                call()
        with pytest.raises(BusyError):
            channel.send(1)

    assert forked(child) == 0
    memoryview(reservation)[:] = b"12345"
    gc.collect()
    reservation.commit()
    assert channel.receive() == b"12345"


def test_a_fork_inside_a_reservation(channel):
    with channel.reserve(5) as room:
        room[:] = b"12345"
        assert forked(lambda: channel.close()) == 0
    assert channel.receive() == b"12345"


def test_a_fork_while_a_thread_waits_for_a_reservation(channel):
    """In the child there is neither: the end is the parent's, and then the child's own."""
    reservation = channel.reserve(5)
    thread = threading.Thread(target=channel.send, args=["waited"])
    thread.start()
    thread.join(0.05)

    def child():
        with pytest.raises(BusyError, match=str(os.getppid())):
            channel.send("not mine")
        channel.clear()
        channel.close()

    assert forked(child) == 0
    assert thread.is_alive()
    reservation.commit()
    thread.join()
    assert channel.receive_batch(9) == [bytes(5), "waited"]


def test_a_child_takes_the_end_of_a_parent_that_had_reserved():
    """What the parent's threads had reserved is not kept in the child's memory."""

    def parent(channel):
        reservation = channel.reserve(5)

        def child():
            until(lambda: not any(p.holds for p in channel.stats().participants if p.alive))
            channel.send("by the child", timeout=0)

        pid = fork_worker(child)
        del reservation
        channel.close()
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with RingBufferChannel(8) as channel:
        assert forked(parent, channel) == 0
        assert channel.receive(timeout=0) == "by the child"


def test_the_ends_of_a_child_that_was_killed(channel):
    def child():
        channel.send_batch([1, 2, 3])
        channel.receive()
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(child) == -signal.SIGKILL
    assert channel.receive_batch(9, timeout=0) == [2, 3]
    channel.send(4)
    assert (channel.stats().sender_deaths, channel.stats().receiver_deaths) == (1, 1)


def test_two_handles_in_the_child(channel):
    other = RingBufferChannel.attach(channel.name)

    def child():
        channel.send(1)
        other.send(2)
        assert len(channel.stats().participants) == 2
        channel.close()
        other.send(3)
        other.close()

    assert forked(child) == 0
    assert channel.receive_batch(9) == [1, 2, 3]
    assert len(channel.stats().participants) == 1
    other.close()


def test_a_fork_while_another_thread_waits(channel):
    """The child has only the forking thread: what the other one was doing there does not exist."""
    results = []
    thread = threading.Thread(target=lambda: results.append(channel.receive()))
    thread.start()
    until(lambda: channel.stats().waiters)

    def child():
        with pytest.raises(BusyError):
            channel.receive(0)
        channel.send("from the child")
        channel.close()
        assert channel.closed
        assert [p.pid for p in RingBufferChannel.attach(channel.name).stats().participants if p.pid == os.getpid()]

    assert forked(child) == 0
    thread.join()
    assert results == ["from the child"]


def test_forks_while_other_threads_work():
    """No lock of ours is held in the child by a thread that is not there."""
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            with RingBufferChannel(4) as mine:
                mine.send([1])
                mine.receive()
                RingBufferChannel.attach(mine.name).close()

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child():
        with RingBufferChannel(4) as mine:
            mine.send([1])
            assert mine.receive() == [1]

    try:
        assert [forked(child) for _ in range(25)] == [0] * 25
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_buffer_in_a_child():
    with SharedMemoryBuffer(100) as buffer:
        view, array = memoryview(buffer), buffer.as_array(100, "u1")

        def child():
            view[0] = 1
            array[1] = 2
            buffer.write(b"\3", 2)
            assert len(buffer.stats().participants) == 2
            buffer.close()
            array[3] = 4

        assert forked(child) == 0
        assert buffer.read(0, 4) == bytes([1, 2, 3, 4])
        assert len(buffer.stats().participants) == 1


def test_unlink_by_a_child(channel):
    assert forked(channel.unlink) == 0
    assert not path_of(channel).exists()
    channel.send(1)
    assert channel.receive() == 1
    with pytest.raises(FileNotFoundError):
        channel.unlink()


def test_a_fork_by_a_codec():
    """The child does not go on with the parent's end."""

    class Forking:
        loads = staticmethod(lambda data: bytes(data))

        @staticmethod
        def dumps(obj):
            if obj == "fork":
                pids.append(os.fork())
                return b"by %d" % (pids[-1] != 0)
            return obj

    pids = []
    with RingBufferChannel(8, codec=Forking) as channel:
        try:
            channel.send("fork")
        except RuntimeError as error:
            os._exit(77 if "forked inside a call" in str(error) else 1)
        finally:
            if pids == [0]:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 77
        assert channel.receive_batch(9, timeout=0) == [b"by 1"]
        channel.send(b"next")
        assert channel.receive() == b"next"


@pytest.mark.parametrize("more", [False, True])
def test_a_fork_by_an_iterator(channel, more):
    """The child does not send what the parent was sending."""

    def numbers():
        yield 1
        pids.append(os.fork())
        if more or pids[-1] != 0:
            yield 2

    pids = []
    try:
        sent = channel.send_batch(numbers())
    except RuntimeError as error:
        os._exit(77 if "forked inside a call" in str(error) and error.sent == 1 else 1)
    finally:
        if pids == [0]:
            os._exit(1 if more else 77)
    assert sent == 2
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 77
    assert channel.receive_batch(9, timeout=0) == [1, 2]


def test_hundreds_of_children(channel):
    for i in range(150):
        assert forked(lambda i=i: channel.send(i)) == 0
        assert channel.receive() == i
    assert len([p for p in channel.stats().participants if p.alive]) == 1
