"""Between processes: names through pickling, ends that are taken and given back, blocking and waking, stopped and
dead partners."""

import concurrent.futures
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import Peer, path_of, until

from shmcomm import BusyError, Empty, RingBufferChannel, SharedMemoryBuffer, ShutDown

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
METHODS = ["spawn", "forkserver", "fork"]


@pytest.fixture
def channel():
    with RingBufferChannel(4) as made:
        yield made


@pytest.fixture
def pair():
    """A channel and a peer that has it as x."""
    with RingBufferChannel(4) as made, Peer() as peer:
        peer("x = RingBufferChannel.attach(name)", name=made.name)
        yield made, peer


# ---- through multiprocessing ----


def echo(there, back):
    for message in there:
        back.send((os.getpid(), message))
    back.shutdown()


@pytest.mark.parametrize("method", METHODS)
def test_a_process_gets_channels_as_arguments(method):
    context = multiprocessing.get_context(method)
    with RingBufferChannel(8) as there, RingBufferChannel(8) as back:
        process = context.Process(target=echo, args=(there, back))
        process.start()
        for message in (1, "two", [3], {"four": np.arange(4)}):
            there.send(message)
            pid, answer = back.receive(timeout=30)
            assert pid == process.pid
            assert repr(answer) == repr(message)
        there.shutdown()
        with pytest.raises(ShutDown):
            back.receive(timeout=30)
        process.join()
        assert process.exitcode == 0
        assert len(there.stats().participants) == 1  # the worker's farewell


def hold_for_ever(channel, ready):
    channel.dequeue()
    ready.send(os.getpid())
    time.sleep(1000)


@pytest.mark.parametrize("method", METHODS)
def test_a_terminated_process(method):
    context = multiprocessing.get_context(method)
    with RingBufferChannel(8) as channel, RingBufferChannel(8) as ready:
        process = context.Process(target=hold_for_ever, args=(channel, ready))
        process.start()
        assert ready.receive(timeout=30) == process.pid
        with pytest.raises(BusyError):
            channel.dequeue()
        process.terminate()
        process.join()
        channel.send(1)
        assert channel.receive() == 1
        process.close()


worker_channel = None


def keep(channel):
    global worker_channel
    worker_channel = channel


def send_square(number):
    worker_channel.send((number, number**2))
    return os.getpid()


@pytest.mark.parametrize("method", METHODS)
def test_a_process_pool_gets_a_channel_by_its_initializer(method):
    context = multiprocessing.get_context(method)
    with RingBufferChannel(100) as channel:
        with concurrent.futures.ProcessPoolExecutor(1, context, keep, (channel,)) as pool:
            assert len(set(pool.map(send_square, range(20)))) == 1
        assert channel.receive_batch(100) == [(i, i**2) for i in range(20)]
        assert len(channel.stats().participants) == 1


def fill(buffer, value):
    buffer.as_array(10, "u1")[:] = value


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_gets_a_buffer_as_an_argument(method):
    with SharedMemoryBuffer(10) as buffer, multiprocessing.get_context(method).Pool(2) as pool:
        pool.apply(fill, (buffer, 7))
        assert buffer.read() == bytes([7] * 10)
        pool.close()
        pool.join()


def test_handles_travel_through_channels(channel):
    with RingBufferChannel(4) as other, Peer() as peer:
        peer("x = RingBufferChannel.attach(name)", name=channel.name)
        channel.send(other)
        peer("y = x.receive(); y.send('through the other')")
        assert other.receive() == "through the other"


# ---- blocking across processes ----


def test_a_blocked_receiver_is_woken(pair):
    channel, peer = pair
    for call in ("x.receive()", "x.receive(30)", "x.receive(copy=False)", "x.receive_batch(5)[0]", "next(x)"):
        peer.begin(call)
        until(lambda: channel.stats().waiters)
        time.sleep(0.01)
        assert peer.busy()
        channel.send("wake up")
        assert peer.result() == "wake up"


def test_a_blocked_sender_is_woken(pair):
    channel, peer = pair
    for call in ("x.send(5)", "x.send([5])", "x.send_batch([5])"):
        peer("x.send_batch(range(4))")
        peer.begin(call)
        until(lambda: channel.stats().waiters)
        time.sleep(0.01)
        assert peer.busy()
        assert channel.receive() == 0
        peer.result()
        channel.clear()


def test_shutdown_wakes_another_process(pair):
    channel, peer = pair
    peer.begin("list(x)")
    channel.send_batch([1, 2])
    channel.shutdown()
    assert peer.result() == [1, 2]


def test_ping_pong():
    with RingBufferChannel(1) as there, RingBufferChannel(1) as back, Peer() as peer:
        peer("a = RingBufferChannel.attach(n); b = RingBufferChannel.attach(m)", n=there.name, m=back.name)
        peer.begin("for m in a: b.send(m)")
        for i in range(2000):
            there.send(i)
            assert back.receive() == i
        there.shutdown()
        peer.result()


def test_a_stream_of_everything():
    """Sizes, kinds and batches mixed; the receiver checks each."""
    with RingBufferChannel(64, buffer_size=1 << 20) as channel, Peer() as peer:
        peer("import numpy as np\nx = RingBufferChannel.attach(name)", name=channel.name)
        peer.begin(
            """
n = 0
while True:
    try:
        messages = x.receive_batch(7) if n % 2 else [x.receive(copy=n % 3 == 0)]
    except ShutDown:
        break
    for m in messages:
        kind = n % 5
        if kind == 0: assert m == n, (m, n)
        elif kind == 1: assert bytes(m) == bytes([n % 256]) * (n * 37 % 5000), n
        elif kind == 2: assert m == {'n': n, 'list': [n] * 3}, (m, n)
        elif kind == 3: assert m.shape == (n % 100, 3) and (m == n).all()
        else: assert m == str(n) * (n % 50)
        n += 1
    del messages, m
"""
        )

        def message(n):
            kind = n % 5
            if kind == 0:
                return n
            if kind == 1:
                return bytes([n % 256]) * (n * 37 % 5000)
            if kind == 2:
                return {"n": n, "list": [n] * 3}
            if kind == 3:
                return np.full((n % 100, 3), n)
            return str(n) * (n % 50)

        sent = 0
        while sent < 5000:
            if sent % 4 == 0:
                channel.send(message(sent))
                sent += 1
            else:
                batch = [message(n) for n in range(sent, sent + sent % 13 + 1)]
                channel.send_batch(batch)
                sent += len(batch)
        channel.shutdown()
        peer.result()
        assert peer("n") == sent


# ---- ends ----


def test_nothing_is_taken_by_attaching(pair):
    channel, peer = pair
    assert all(p.holds == () for p in channel.stats().participants)
    peer("len(x), x.is_full(), x.is_empty(), x.stats(), x.capacity, x.shutdown")
    assert all(p.holds == () for p in channel.stats().participants)


@pytest.mark.parametrize(
    ("call", "end"),
    [
        ("x.enqueue(1)", "sending end"),
        ("x.reserve(1).abort()", "sending end"),
        ("x.dequeue()", "receiving end"),
        ("x.peek()", "receiving end"),
        ("x.clear()", "receiving end"),
    ],
)
def test_an_end_is_taken_by_use(pair, call, end):
    channel, peer = pair
    peer(call)
    (holds,) = [p.holds for p in channel.stats().participants if p.pid == peer.pid]
    assert holds == (end,)


def test_close_gives_the_ends_back(pair):
    channel, peer = pair
    peer("x.send(1); x.dequeue()")
    for call in (lambda: channel.enqueue(2), channel.dequeue):
        with pytest.raises(BusyError, match=str(peer.pid)):
            call()
    peer("x.close()")
    channel.send(2)
    assert channel.receive() == 2
    with pytest.raises(BusyError, match=str(os.getpid())):
        peer("x = RingBufferChannel.attach(name); x.dequeue()", name=channel.name)
    with pytest.raises(BusyError):
        peer("x.send(3)")


def test_the_successor_goes_on_where_the_other_stopped(pair):
    channel, peer = pair
    channel.send_batch(range(4))
    assert peer("x.receive(), x.receive()") == (0, 1)
    peer("x.close()")
    assert channel.receive() == 2
    with pytest.raises(BusyError):
        peer("x = RingBufferChannel.attach(name); x.receive()", name=channel.name)
    assert channel.receive() == 3


def test_both_handles_of_a_process_must_let_go(pair):
    channel, peer = pair
    peer("y = RingBufferChannel.attach(x.name); x.dequeue(); y.dequeue(); x.close()")
    with pytest.raises(BusyError):
        channel.dequeue()
    peer("y.close()")
    channel.dequeue()


@pytest.mark.parametrize("reap", [True, False], ids=["reaped", "zombie"])
def test_a_dead_end_is_taken_at_once(reap):
    with RingBufferChannel(4) as channel, Peer() as peer:
        peer("x = RingBufferChannel.attach(name); x.send_batch([1, 2]); x.peek()", name=channel.name)
        peer.kill(reap=reap)
        assert channel.receive(timeout=0) == 1
        channel.send(3, timeout=0)
        assert channel.receive_batch(9, timeout=0) == [2, 3]
        stats = channel.stats()
        assert (stats.sender_deaths, stats.receiver_deaths) == (1, 1)
        assert [p.holds for p in stats.participants if p.pid == os.getpid()] == [("sending end", "receiving end")]
        assert all(not p.alive and p.holds == () for p in stats.participants if p.pid != os.getpid())


def test_what_a_dead_receiver_had_taken_in_place_comes_again():
    with RingBufferChannel(8) as channel, Peer() as peer:
        channel.send_batch([np.full(10, i) for i in range(4)])
        peer("x = RingBufferChannel.attach(name); a = x.receive(copy=False); b = x.receive()", name=channel.name)
        peer.kill()
        assert [m[0] for m in channel.receive_batch(9)] == [0, 1, 2, 3]


def test_what_a_dead_sender_had_reserved_never_was():
    with RingBufferChannel(8) as channel, Peer() as peer:
        peer(
            "x = RingBufferChannel.attach(name); x.send(1); r = x.reserve(100); memoryview(r)[:5] = b'12345'",
            name=channel.name,
        )
        peer.kill()
        channel.send(2)
        assert channel.receive_batch(9) == [1, 2]


def test_who_waited_for_a_reservation_dies_with_it():
    """A successor finds nothing of either."""
    with RingBufferChannel(8) as channel, Peer() as peer:
        peer("x = RingBufferChannel.attach(name); x.send(1); r = x.reserve(100); import threading", name=channel.name)
        peer("t = threading.Thread(target=x.send, args=[2]); t.start(); t.join(0.05)")
        assert peer("t.is_alive()")
        peer.kill()
        channel.send(3, timeout=0)
        assert channel.receive_batch(9) == [1, 3]


@pytest.mark.parametrize("waits_for", ["message", "room"])
def test_a_waiter_gets_what_a_successor_brings(waits_for):
    """The partner dies while somebody waits; another process takes its place."""
    with RingBufferChannel(4) as channel, Peer() as victim, Peer() as waiter, Peer() as successor:
        for peer in (victim, waiter, successor):
            peer("x = RingBufferChannel.attach(name)", name=channel.name)
        if waits_for == "message":
            victim("x.send(1)")
            assert waiter("x.receive()") == 1
            waiter.begin("x.receive()")
        else:
            waiter("x.send_batch(range(4))")
            assert victim("x.receive()") == 0
            waiter("x.send(4)")
            waiter.begin("x.send(5)")
        until(lambda: channel.stats().waiters)
        victim.kill()
        if waits_for == "message":
            successor("x.send(2)")
            assert waiter.result() == 2
        else:
            assert successor("x.receive()") == 1
            waiter.result()


def test_a_stopped_process_is_not_dead():
    with RingBufferChannel(4) as channel, Peer() as peer:
        peer("x = RingBufferChannel.attach(name); x.send(1); x.peek(); r = x.reserve(5)", name=channel.name)
        peer.signal(signal.SIGSTOP)
        try:
            until(lambda: Path(f"/proc/{peer.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
            for _ in range(20):
                for call in (lambda: channel.send(2), channel.receive):
                    with pytest.raises(BusyError, match=str(peer.pid)):
                        call()
            RingBufferChannel(4).close()  # looks around for dead ones
            (other,) = [p for p in channel.stats().participants if p.pid == peer.pid]
            assert other.alive
            assert len(other.holds) == 2
            with pytest.raises(FileExistsError):
                RingBufferChannel(4, name=channel.name)
        finally:
            peer.signal(signal.SIGCONT)
        peer("memoryview(r)[:] = b'abcde'; r.commit(); r = None; x.close()")
        assert channel.receive_batch(9) == [1, b"abcde"]


def test_a_stopped_waiter_finishes(pair):
    channel, peer = pair
    peer.begin("x.receive()")
    until(lambda: channel.stats().waiters)
    peer.signal(signal.SIGSTOP)
    channel.send("while it was stopped")
    time.sleep(0.05)
    assert peer.busy()
    peer.signal(signal.SIGCONT)
    assert peer.result() == "while it was stopped"


def test_everybody_dies():
    with Peer() as first, Peer() as second:
        first("x = RingBufferChannel(4, name='ghost'); x.send(1)")
        second("x = RingBufferChannel.attach('ghost'); x.receive(); x.stats()")
        first.kill()
        second.kill()
        assert path_of("ghost").exists()
        with pytest.raises(FileNotFoundError):
            RingBufferChannel.attach("ghost")
        assert not path_of("ghost").exists()


def test_a_dead_process_keeps_no_slot():
    with RingBufferChannel(4, max_participants=3) as channel:
        for i in range(6):
            with Peer() as peer:
                peer("x = RingBufferChannel.attach(name); x.send(i)", name=channel.name, i=i)
                peer.kill()
            assert channel.receive() == i
        channel.send("the last one's end")
        assert channel.stats().sender_deaths == 6


def test_stats_seen_by_another(pair):
    channel, peer = pair
    channel.send_batch(range(3))
    peer("x.receive()")
    there, here = peer("x.stats().asdict()"), channel.stats().asdict()
    assert there == here
    assert (here["sent"], here["received"], here["length"], len(here["participants"])) == (3, 1, 2, 2)


def test_lengths_seen_by_another(pair):
    channel, peer = pair
    for i in range(5):
        assert (len(channel), peer("len(x)")) == (i, i) if i < 4 else channel.is_full()
        channel.enqueue(i)
    assert peer("x.is_full(), x.is_empty(), len(x)") == (True, False, 4)
    peer("x.clear()")
    assert (channel.is_empty(), len(channel)) == (True, 0)


def test_environment_of_workers():
    """A worker with another namespace or directory gets the same object by pickle, and none by name."""
    with (
        RingBufferChannel(4, name="here") as channel,
        Peer(SHMCOMM_NAMESPACE=os.environ["SHMCOMM_NAMESPACE"] + "z") as peer,
    ):
        with pytest.raises(FileNotFoundError):
            peer("RingBufferChannel.attach('here')")
        peer("x.send(1)", x=channel)
        assert channel.receive() == 1


def test_the_receiver_with_a_timeout_sees_nothing(pair):
    channel, peer = pair
    with pytest.raises(Empty):
        peer("x.receive(0.01)")
    channel.send(1)
    assert peer("x.receive(0.01)") == 1
