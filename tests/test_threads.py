"""Threads of one process share a channel and its ends; close() in one of them while others wait."""

import contextlib
import functools
import gc
import operator
import sys
import threading
import time

import numpy as np
import pytest
from helpers import Peer, until

from shmcomm import BusyError, Empty, Full, RingBufferChannel, ShutDown


@pytest.fixture
def channel():
    with RingBufferChannel(4) as made:
        yield made


@pytest.fixture(autouse=True)
def frequent_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Worker(threading.Thread):
    """A thread whose exception or result can be asked for."""

    def __init__(self, function, *arguments):
        super().__init__()
        self.call, self.result, self.error = (function, arguments), None, None
        self.start()

    def run(self):
        try:
            self.result = self.call[0](*self.call[1])
        except Exception as error:
            self.error = error

    def finish(self):
        self.join(30)
        assert not self.is_alive(), "the thread still waits"
        return self


BLOCKED = {
    "receive": lambda ch: ch.receive(),
    "receive with a timeout": lambda ch: ch.receive(1000),
    "receive in place": lambda ch: ch.receive(copy=False),
    "receive_batch": lambda ch: ch.receive_batch(5),
    "iteration": lambda ch: next(iter(ch)),
    "send": lambda ch: (ch.send_batch(range(4)), ch.send(5)),
    "send complex": lambda ch: (ch.send_batch(range(4)), ch.send([5])),
    "send_batch": lambda ch: ch.send_batch(range(5)),
    "reserve": lambda ch: (ch.send_batch(range(4)), ch.reserve(5)),
}


@pytest.mark.parametrize("call", BLOCKED.values(), ids=BLOCKED)
@pytest.mark.parametrize("spin", [0, None, 0.2])
def test_close_ends_a_waiting_call(call, spin):
    channel = RingBufferChannel(4, spin=spin)
    worker = Worker(call, channel)
    if spin == 0.2:
        time.sleep(0.02)
    else:
        until(lambda: channel.stats().waiters)
    channel.close()
    worker.finish()
    assert isinstance(worker.error, ValueError), worker.error
    assert "closed" in str(worker.error)
    with pytest.raises(FileNotFoundError):
        RingBufferChannel.attach(channel.name)


def test_close_ends_only_calls_of_that_handle(channel):
    other = RingBufferChannel.attach(channel.name)
    closing, staying = Worker(other.receive), Worker(channel.receive)
    until(lambda: channel.stats().waiters)
    time.sleep(0.02)
    other.close()
    assert isinstance(closing.finish().error, ValueError)
    assert staying.is_alive()
    channel.send("for the other")
    assert staying.finish().result == "for the other"


def test_close_wakes_all(channel):
    workers = [Worker(channel.receive) for _ in range(8)]
    until(lambda: channel.stats().waiters)
    time.sleep(0.02)
    channel.close()
    assert [type(worker.finish().error) for worker in workers] == [ValueError] * 8


def test_shutdown_wakes_all(channel):
    workers = [Worker(channel.receive) for _ in range(8)]
    until(lambda: channel.stats().waiters)
    time.sleep(0.02)
    channel.shutdown()
    assert [type(worker.finish().error) for worker in workers] == [ShutDown] * 8


def test_every_waiter_gets_its_message(channel):
    """Wake-ups are passed on: three messages wake three sleepers."""
    for _ in range(30):
        workers = [Worker(channel.receive) for _ in range(4)]
        until(lambda: channel.stats().waiters)
        channel.send_batch(range(4))
        assert sorted(worker.finish().result for worker in workers) == [0, 1, 2, 3]


def test_room_for_every_waiting_sender(channel):
    for _ in range(30):
        channel.send_batch(range(4))
        workers = [Worker(channel.send, [i]) for i in range(4)]
        until(lambda: channel.stats().waiters)
        channel.clear()
        for worker in workers:
            assert worker.finish().error is None
        assert sorted(channel.receive_batch(9)) == [[0], [1], [2], [3]]


def test_many_threads_share_both_ends():
    """Several senders and receivers in one process: each message arrives once, those of one sender in order."""
    count, senders, receivers = 400, 4, 3
    with RingBufferChannel(16) as channel:
        received = [[] for _ in range(receivers)]

        def send(number):
            for i in range(count):
                message = (number, i) if i % 3 else b"%d %d" % (number, i)
                if i % 7 == 0:
                    channel.send_batch([message])
                elif i % 11 == 0:
                    while not channel.enqueue(message):
                        time.sleep(0)
                else:
                    channel.send(message)

        def receive(into):
            for message in channel:
                into.append(message if isinstance(message, tuple) else tuple(map(int, message.split())))

        sending = [Worker(send, number) for number in range(senders)]
        receiving = [Worker(receive, into) for into in received]
        for worker in sending:
            assert worker.finish().error is None
        channel.shutdown()
        for worker in receiving:
            assert worker.finish().error is None
        assert sorted(functools.reduce(operator.iadd, received, [])) == sorted(
            (s, i) for s in range(senders) for i in range(count)
        )
        for into in received:
            for number in range(senders):
                mine = [i for s, i in into if s == number]
                assert mine == sorted(mine)
        stats = channel.stats()
        assert (stats.sent, stats.received, stats.length) == (senders * count,) * 2 + (0,)


def test_arrays_in_threads():
    """Large copies let other threads run: the end is not let go meanwhile."""
    with RingBufferChannel(8, buffer_size=8 << 20) as channel:
        arrays = [np.full(300_000, i, "u1") for i in range(8)]

        def send(offset):
            for i in range(40):
                channel.send(arrays[(i + offset) % 8])

        sending = [Worker(send, offset) for offset in range(3)]
        for i in range(120):
            array = channel.receive(copy=i % 2 == 0)
            assert (array == array[0]).all()
            del array
        for worker in sending:
            assert worker.finish().error is None


def test_views_released_by_other_threads():
    with RingBufferChannel(64) as channel:
        held, stop = [], threading.Event()

        def drop():
            while not stop.is_set() or held:
                if held:
                    held.pop()
                time.sleep(0)

        droppers = [Worker(drop) for _ in range(3)]
        for i in range(500):
            channel.send(np.full(50, i))
            while True:
                try:
                    array = channel.receive(copy=False)
                    break
                except BufferError:
                    time.sleep(0)
            assert (array == i).all()
            held.append(array)
            del array
        stop.set()
        for worker in droppers:
            assert worker.finish().error is None
        gc.collect()
        assert channel.stats().bytes_used == 0


def test_handles_opened_and_closed_by_threads(channel):
    def churn():
        for i in range(100):
            with RingBufferChannel.attach(channel.name) as handle:
                handle.enqueue(i)
                handle.dequeue()
                handle.stats()
            RingBufferChannel(4).close()

    for worker in [Worker(churn) for _ in range(6)]:
        assert worker.finish().error is None
    assert len(channel.stats().participants) == 1


def test_close_by_many_at_once():
    for _ in range(100):
        channel = RingBufferChannel(4)
        start = threading.Barrier(4)

        def close(channel=channel, start=start):
            start.wait()
            channel.close()

        for worker in [Worker(close) for _ in range(4)]:
            assert worker.finish().error is None


def test_close_while_others_work():
    for _ in range(60):
        channel = RingBufferChannel(8)

        def work(channel=channel):
            i = 0
            while True:
                channel.enqueue([i])
                channel.receive(0)
                i += 1

        workers = [Worker(work) for _ in range(2)]
        time.sleep(0.001)
        channel.close()
        for worker in workers:
            error = worker.finish().error
            while isinstance(error, Empty):  # the other thread was faster
                worker = Worker(work)
                error = worker.finish().error
            assert isinstance(error, ValueError)
            assert "closed" in str(error)


# ---- batches ----


def test_a_generator_that_takes_its_time_keeps_nobody(channel):
    """What it yielded is there, and the end is free, while it thinks."""
    asked, answered = threading.Event(), threading.Event()

    def numbers():
        yield "first"
        asked.set()
        answered.wait(30)
        yield "last"

    worker = Worker(channel.send_batch, numbers())
    assert asked.wait(30)
    assert channel.receive(timeout=0) == "first"
    channel.send("in between", timeout=0)
    with channel.reserve(1, timeout=0) as room:
        room[0] = 1
    answered.set()
    assert worker.finish().result == 2
    assert channel.receive_batch(9) == ["in between", b"\1", "last"]


def test_a_generator_may_wait_for_the_answer_to_what_it_yielded(channel):
    with RingBufferChannel(4) as back:

        def questions():
            for i in range(50):
                yield i
                assert back.receive(timeout=30) == -i

        worker = Worker(channel.send_batch, questions())
        for _ in range(50):
            back.send(-channel.receive(timeout=30))
        assert worker.finish().result == 50


@pytest.mark.parametrize("make", [list, tuple, iter, lambda x: (i for i in x)], ids=["list", "tuple", "iter", "gen"])
def test_batches_of_several_threads(channel, make):
    count, senders = 1000, 3
    batches = [make([(n, i) if i % 10 == 0 else b"%d %d" % (n, i) for i in range(count)]) for n in range(senders)]
    workers = [Worker(channel.send_batch, batch) for batch in batches]
    received = [channel.receive(timeout=30) for _ in range(count * senders)]
    received = [m if isinstance(m, tuple) else tuple(map(int, m.split())) for m in received]
    assert [worker.finish().result for worker in workers] == [count] * senders
    for number in range(senders):
        assert [i for n, i in received if n == number] == list(range(count))


def test_lists_that_other_threads_change(channel):
    """Whatever is sent was in it at some moment, and the number returned is right."""
    objects, done = [1, [2]] * 50, threading.Event()

    def change():
        while not done.is_set():
            del objects[20:]
            objects.extend([3, [4]] * 40)
            objects.reverse()

    def take():
        while not done.is_set() or not channel.is_empty():
            with contextlib.suppress(Empty):
                taken.append(channel.receive(timeout=0.001))

    taken = []
    workers = [Worker(change), Worker(take)]
    sent = sum(channel.send_batch(objects) for _ in range(30))
    done.set()
    assert [worker.finish().error for worker in workers] == [None, None]
    assert len(taken) == sent
    assert all(message in (1, [2], 3, [4]) for message in taken)


# ---- one thread has a reservation, others want the sending end ----


def reserve_and_fill(ch, timeout=None):
    with ch.reserve(4, timeout) as room:
        room[:] = b"more"


def reserve_array_and_fill(ch, timeout=None):
    with ch.reserve_array(4, "S1", timeout) as array:
        array[:] = [b"m", b"o", b"r", b"e"]


SENDING = {
    "send": lambda ch, t=None: ch.send(b"more", t),
    "send complex": lambda ch, t=None: ch.send([b"more"], t),
    "send_batch": lambda ch, t=None: ch.send_batch([b"more"], t),
    "send_batch of an iterator": lambda ch, t=None: ch.send_batch(iter([b"more"]), t),
    "reserve": reserve_and_fill,
    "reserve_array": reserve_array_and_fill,
}
SPINS = [None, 0, 0.2]


def content(message):
    return message[0] if isinstance(message, list) else bytes(message)


@pytest.fixture(params=SPINS, ids=lambda spin: f"spin {spin}")
def spinning(request):
    with RingBufferChannel(4, spin=request.param) as made:
        yield made


def begin_to_wait(call, *arguments):
    """A worker that waits for a reservation: nothing shows it but that it does not end."""
    worker = Worker(call, *arguments)
    worker.join(0.03)
    assert worker.is_alive(), worker.error
    return worker


@pytest.mark.parametrize("call", SENDING.values(), ids=SENDING)
class TestAnotherThreadHasAReservation:
    def test_that_is_committed(self, spinning, call):
        with spinning.reserve(5) as room:
            worker = begin_to_wait(call, spinning)
            assert len(spinning) == 0
            room[:] = b"first"
        assert worker.finish().error is None
        assert list(map(content, spinning.receive_batch(9))) == [b"first", b"more"]

    def test_that_is_aborted(self, spinning, call):
        reservation = spinning.reserve(5)
        worker = begin_to_wait(call, spinning)
        reservation.abort()
        assert worker.finish().error is None
        assert content(spinning.receive()) == b"more"

    def test_that_is_dropped(self, spinning, call):
        reservation = spinning.reserve(5)
        worker = begin_to_wait(call, spinning)
        del reservation
        assert worker.finish().error is None
        assert content(spinning.receive()) == b"more"

    @pytest.mark.parametrize("timeout", [0, 0.001, 0.06])
    def test_for_too_long(self, spinning, call, timeout):
        with spinning.reserve(5) as room:
            worker = Worker(call, spinning, timeout).finish()
            assert isinstance(worker.error, Full), worker.error
            assert "another thread" in str(worker.error)
            room[:] = b"first"
        assert spinning.receive_batch(9) == [b"first"]
        call(spinning, 0)
        assert content(spinning.receive()) == b"more"

    def test_and_the_handle_is_closed(self, spinning, call):
        other = RingBufferChannel.attach(spinning.name, spin=0)
        with spinning.reserve(5) as room:
            worker = begin_to_wait(call, other)
            other.close()
            assert isinstance(worker.finish().error, ValueError)
            assert "closed" in str(worker.error)
            room[:] = b"first"
        assert spinning.receive() == b"first"

    def test_and_the_channel_is_shut_down(self, spinning, call):
        with pytest.raises(ShutDown), spinning.reserve(5):
            worker = begin_to_wait(call, spinning)
            spinning.shutdown()
            assert isinstance(worker.finish().error, ShutDown)
            assert isinstance(Worker(call, spinning, 0).finish().error, ShutDown)

    def test_until_the_channel_is_full(self, spinning, call):
        """It waits for the one, and then for the other."""
        spinning.send_batch(range(3))
        with spinning.reserve(5) as room:
            worker = begin_to_wait(call, spinning)
            room[:] = b"first"
        until(lambda: spinning.stats().waiters)
        assert spinning.receive() == 0
        assert worker.finish().error is None
        assert list(map(content, spinning.receive_batch(9)[2:])) == [b"first", b"more"]


def test_another_process_shuts_down_while_a_thread_waits_for_a_reservation(spinning):
    with Peer() as peer, pytest.raises(ShutDown), spinning.reserve(5):
        worker = begin_to_wait(spinning.send, "more")
        peer("RingBufferChannel.attach(name).shutdown()", name=spinning.name)
        assert isinstance(worker.finish().error, ShutDown)


@pytest.mark.parametrize("call", [RingBufferChannel.try_send, RingBufferChannel.enqueue])
@pytest.mark.parametrize("message", [1, [1]])
def test_trying_does_not_wait_for_a_reservation(channel, call, message):
    reservation = channel.reserve(5)
    assert Worker(call, channel, message).finish().result is False
    with pytest.raises(BufferError, match="made by this thread, which would wait for itself"):
        call(channel, message)
    channel.shutdown()
    assert isinstance(Worker(call, channel, message).finish().error, ShutDown)
    reservation.abort()


def test_all_who_wait_for_a_reservation_go_on(spinning):
    for _ in range(5):
        with spinning.reserve(1):
            workers = [Worker(spinning.send, number) for number in range(3)]
            workers[-1].join(0.01)
        assert spinning.receive() == b"\0"
        assert sorted(spinning.receive() for _ in workers) == [0, 1, 2]
        assert [worker.finish().error for worker in workers] == [None] * 3


def test_a_reservation_that_another_thread_commits(channel):
    reservation = channel.reserve(3)
    memoryview(reservation)[:] = b"abc"
    waiting = begin_to_wait(channel.send, "waited")
    with pytest.raises(BufferError, match="made by this thread"):
        channel.send("by who made it")
    assert Worker(reservation.commit).finish().error is None
    assert waiting.finish().error is None
    assert channel.receive_batch(9) == [b"abc", "waited"]
    channel.send("by who made it")
    assert channel.receive() == "by who made it"


def test_a_reservation_of_a_thread_that_has_ended(channel):
    """Nobody is it any more, not even who gets its number from the system."""
    reservation = Worker(channel.reserve, 3).finish().result
    for _ in range(20):
        assert Worker(channel.try_send, "refused").finish().result is False
    with pytest.raises(Full, match="another thread"):
        channel.send("refused", timeout=0.01)
    waiting = begin_to_wait(channel.send, "waited")
    reservation.commit(0)
    assert waiting.finish().error is None
    assert channel.receive_batch(9) == [b"", "waited"]


def test_a_reservation_ends_once(channel):
    """However many threads want to end it."""
    for _ in range(200):
        reservation, start, ended = channel.reserve(8), threading.Barrier(4), []

        def end(call, reservation=reservation, start=start, ended=ended):
            start.wait()
            with contextlib.suppress(ValueError, BufferError):
                call(reservation)
                ended.append(call)

        calls = [lambda r: r.commit(), lambda r: r.commit(3), lambda r: r.abort()]
        workers = [Worker(end, call) for call in calls]
        start.wait()
        with contextlib.suppress(BufferError):
            memoryview(reservation).release()
        for worker in workers:
            assert worker.finish().error is None
        assert len(ended) <= 1  # none, if the view was there whenever one of them looked
        assert len(channel) == (ended != [] and ended[0] is not calls[2])
        if not ended:
            reservation.abort()
        channel.clear()
    assert channel.try_send("next")


def test_threads_that_reserve_and_send():
    """Each message arrives once, and those of one thread in order, whoever has to wait for whom."""
    count = 150

    def produce(channel, number):
        for i in range(count):
            message = b"%d %d" % (number, i)
            if i % 3 == 0:
                with channel.reserve(len(message)) as room:
                    time.sleep(0)
                    room[:] = message
            elif i % 3 == 1:
                channel.send_batch([message])
            else:
                channel.send([message])
            if i % 10 == 0:
                channel.reserve(5).abort()

    with RingBufferChannel(3) as channel:
        workers = [Worker(produce, channel, number) for number in range(4)]
        received = [content(channel.receive(timeout=30)) for _ in range(4 * count)]
        assert [worker.finish().error for worker in workers] == [None] * 4
        for number in range(4):
            mine = [message for message in received if message.startswith(b"%d " % number)]
            assert mine == [b"%d %d" % (number, i) for i in range(count)]
        assert channel.is_empty()


def test_timeouts_under_contention(channel):
    def wait():
        outcomes = []
        for _ in range(30):
            try:
                outcomes.append(channel.receive(0.001))
            except Empty:
                outcomes.append(None)
        return outcomes

    def feed():
        sent = 0
        for i in range(60):
            try:
                channel.send(i, timeout=0.001)
                sent += 1
            except Full:
                pass
        return sent

    waiters, feeder = [Worker(wait) for _ in range(3)], Worker(feed)
    received = [m for worker in waiters for m in worker.finish().result if m is not None]
    sent = feeder.finish().result
    rest = list(iter(channel.dequeue, None))
    assert len(received) + len(rest) == sent
    assert len(set(received + rest)) == sent


def test_ends_are_the_process_not_the_thread(channel):
    Worker(channel.send, 1).finish()
    Worker(channel.send, 2).finish()
    channel.send(3)
    assert Worker(channel.receive_batch, 9).finish().result == [1, 2, 3]
    assert not issubclass(BusyError, OSError)
