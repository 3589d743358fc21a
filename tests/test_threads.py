"""Threads of one process share a channel and its ends; close() in one of them while others wait."""

import functools
import gc
import operator
import sys
import threading
import time

import numpy as np
import pytest
from helpers import until

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


def test_a_reservation_in_one_thread_and_sends_in_another(channel):
    with channel.reserve(3) as room:
        worker = Worker(channel.send, "meanwhile").finish()
        assert isinstance(worker.error, BufferError)
        room[:] = b"abc"
    assert channel.receive() == b"abc"


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
