"""Threads of one process share a channel and its ends; close() in one of them while others wait.

With the interpreter lock these tests try what happens between two bytecodes; in a free-threaded build (PYTHON_GIL=0)
they try everything else."""

import contextlib
import functools
import gc
import itertools
import operator
import pickle
import random
import sys
import threading
import time
import weakref
from multiprocessing import shared_memory

import numpy as np
import pytest
from helpers import PATIENCE_S, Peer, path_of, run_python, until

from shmcomm import BusyError, Empty, Full, RingBufferChannel, SharedMemoryBuffer, SharedObject, ShutDown

HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


@pytest.fixture
def channel():
    with RingBufferChannel(4) as made:
        yield made


@pytest.fixture(autouse=True)
def frequent_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
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


def together(*calls):
    """Calls all of them at once, each in a thread of its own; their results, or the first exception."""
    start = threading.Barrier(len(calls))

    def begin(call):
        start.wait()
        return call()

    workers = [Worker(begin, call) for call in calls]
    for worker in workers:
        worker.finish()
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    return [worker.result for worker in workers]


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
                with contextlib.suppress(IndexError):
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


# ---- a free-threaded interpreter stays one ----


@pytest.mark.skipif(HAS_GIL, reason="this interpreter has its lock")
def test_importing_does_not_bring_the_interpreter_lock_back():
    source = "import sys, shmcomm; shmcomm.RingBufferChannel(4).close(); print(sys._is_gil_enabled())"
    assert run_python(source, flags=("-W", "error"), env={"PYTHON_GIL": ""}).stdout == "False\n"


# ---- all methods at once, on one handle and on many ----

LOOKS = [len, repr, *(operator.methodcaller(name) for name in ("stats", "is_empty", "is_full", "peek", "try_receive"))]


def deal(channel, number, count, senders_left, received):
    """Sends count messages and takes as many as come, by all the ways there are, until nobody sends any more."""
    dice = random.Random(number)
    sent = 0
    while sent < count or senders_left[0] > 0 or len(channel) > 0:
        message = (number, sent) if dice.random() < 0.5 else b"%d %d" % (number, sent)
        if sent < count and dice.random() < 0.6:
            went = dice.choice(
                [
                    lambda m: channel.enqueue(m),
                    lambda m: channel.try_send(m),
                    lambda m: channel.send_batch([m], timeout=0) == 1,
                    lambda m: channel.send(m, timeout=0) is None,
                ]
            )
            with contextlib.suppress(Full):
                sent += went(message)
            if sent == count:
                with senders_left[1]:
                    senders_left[0] -= 1
        else:
            take = dice.choice(
                [
                    lambda: channel.receive_batch(3, timeout=0),
                    lambda: [channel.receive(timeout=0)],
                    lambda: [channel.receive(timeout=0, copy=False)],
                    lambda: [m for m in [channel.dequeue()] if m is not None],
                ]
            )
            with contextlib.suppress(Empty, BufferError):
                received.extend(m if isinstance(m, tuple) else tuple(map(int, bytes(m).split())) for m in take())
        if sent % 10 == 0:
            dice.choice(LOOKS[:-1])(channel)


@pytest.mark.parametrize("shared", [True, False], ids=["one handle", "a handle each"])
def test_all_ways_at_once(shared):
    threads, count = 6, 150
    with RingBufferChannel(16) as channel:
        handles = [channel if shared else RingBufferChannel.attach(channel.name) for _ in range(threads)]
        received = [[] for _ in range(threads)]
        left = [threads, threading.Lock()]
        together(
            *(
                functools.partial(deal, handle, number, count, left, into)
                for number, (handle, into) in enumerate(zip(handles, received, strict=True))
            )
        )
        assert sorted(itertools.chain(*received)) == [(n, i) for n in range(threads) for i in range(count)]
        stats = channel.stats()
        assert (stats.sent, stats.received, stats.length) == (threads * count,) * 2 + (0,)
        assert len(stats.participants) == 1
        for handle in handles:
            handle.close()


def test_the_first_use_of_both_ends_at_once(channel):
    """What the handle has taken it also gives back: then another process can have it."""
    for i in range(50):
        handle = RingBufferChannel.attach(channel.name)
        together(functools.partial(handle.send, i), handle.receive, handle.stats)
        handle.close()
    with Peer() as peer:
        peer("channel = RingBufferChannel.attach(name)", name=channel.name)
        assert peer("channel.send(1), channel.receive()") == (None, 1)


def test_opening_at_once():
    """One creates, all have the same; the last one out removes the name."""
    for _ in range(30):
        handles = together(*[functools.partial(RingBufferChannel.open, "opened", 8)] * 5)
        together(*(functools.partial(handle.send, i) for i, handle in enumerate(handles)))
        assert sorted(handles[0].receive_batch(9)) == list(range(5))
        assert len(handles[0].stats().participants) == 1
        together(*(handle.close for handle in handles))
        assert not path_of("opened").exists()


def test_handles_dropped_by_many_threads(channel):
    """Their last references go in threads that did not make them, while weak references are asked for them."""
    for _ in range(30):
        handles = [RingBufferChannel.attach(channel.name) for _ in range(4)]
        gone = []
        known = [weakref.ref(handle, gone.append) for handle in handles]
        handles[0].send(b"x")

        def drop(handles=handles):
            with contextlib.suppress(IndexError):
                while True:
                    handles.pop()

        def look(known=known):
            for _ in range(20):
                for handle in [reference() for reference in known]:
                    if handle is not None:
                        with contextlib.suppress(Full):
                            handle.send(b"x", timeout=0)
                del handle

        together(drop, drop, look)
        gc.collect()
        assert len(gone) == 4
        channel.clear()
    assert len(channel.stats().participants) == 1


# ---- closing what others are in the middle of ----

IN_USE = {
    "send": lambda ch: ch.enqueue(b"abc"),
    "send complex": lambda ch: ch.enqueue([1, {"a": 2}]),
    "send_batch": lambda ch: ch.send_batch(range(3), timeout=0),
    "receive": lambda ch: ch.receive(timeout=0),
    "receive in place": lambda ch: ch.receive(timeout=0, copy=False),
    "receive_batch": lambda ch: ch.receive_batch(3, timeout=0),
    "peek": lambda ch: ch.peek(),
    "reserve": lambda ch: ch.reserve(3, timeout=0).abort(),
    "clear": lambda ch: ch.clear(),
    "len": len,
    "stats": lambda ch: ch.stats(),
    "properties": lambda ch: (ch.capacity, ch.buffer_size, ch.is_full(), ch.is_empty()),
    "pickle": pickle.dumps,
    "with": lambda ch: ch.__enter__(),
}


def use_until_closed(call, handle):
    """How often that went well."""
    done = 0
    while True:
        try:
            call(handle)
        except (Full, Empty, BufferError):
            pass
        except ValueError as error:
            assert "closed" in str(error), error
            return done
        done += 1


def close_soon(handle):
    time.sleep(0.0005)
    handle.close()


@pytest.mark.parametrize("call", IN_USE.values(), ids=IN_USE)
def test_close_under_use(channel, call):
    for _ in range(10):
        handle = RingBufferChannel.attach(channel.name)
        use = functools.partial(use_until_closed, call, handle)
        together(use, use, functools.partial(close_soon, handle))
        assert handle.closed
        assert repr(handle).endswith("closed>")
    channel.clear()
    channel.send("and the other handle works")
    assert channel.receive() == "and the other handle works"


def test_close_under_all_uses():
    for _ in range(10):
        channel = RingBufferChannel(8)
        uses = [functools.partial(use_until_closed, call, channel) for call in IN_USE.values()]
        together(*uses, *[functools.partial(close_soon, channel)] * 3)
        gc.collect()
        assert not path_of(channel).exists()


# ---- containers that others change while they are sent ----


def any_of(values):
    return random.randrange(len(values) or 1)


def change_list(values):
    values.append(len(values) % 7)
    values[any_of(values)] = 5
    values.insert(0, 3)
    del values[any_of(values) :]


def change_nested(values):
    values.append([1, [2]])
    values[any_of(values)] = [3, [4]]
    values[0].append(5)
    if len(values) > 20:
        del values[10:]


def change_dict(values):
    values[f"key{random.randrange(40)}"] = random.randrange(9)
    values.pop(f"key{random.randrange(40)}", None)
    if len(values) > 30:
        values.clear()


def change_dict_of_lists(values):
    values[random.randrange(20)] = [random.randrange(9)] * random.randrange(9)
    values.pop(random.randrange(20), None)


def change_set(values):
    values.add(random.randrange(50))
    values.discard(random.randrange(50))


def change_bytes(values):
    values[any_of(values)] = random.randrange(256)


def resize_bytes(values):
    values.extend(b"xyz" * random.randrange(9))
    del values[any_of(values) :]


def change_array(values):
    values[any_of(values)] += 1


CHANGING = {
    "list": (list, change_list),
    "nested list": (lambda: [[]], change_nested),
    "dict": (dict, change_dict),
    "dict of lists": (dict, change_dict_of_lists),
    "set": (set, change_set),
    "bytearray": (lambda: bytearray(100), change_bytes),
    "bytearray of changing size": (bytearray, resize_bytes),
    "array": (lambda: np.zeros((30, 20)), change_array),
    "memoryview": (lambda: memoryview(bytearray(100)), change_bytes),
}
#: CPython's own bytearray is not made for that before 3.14: it crashes without any help of ours.
BREAKS_PYTHON = {"bytearray of changing size"} if not HAS_GIL and sys.version_info < (3, 14) else set()


@pytest.mark.parametrize("what", CHANGING)
@pytest.mark.parametrize("codec", ["auto", "native"])
def test_what_is_sent_changes_meanwhile(what, codec):
    """What arrives is some state of it, or sending it is a RuntimeError; whatever happens, nothing breaks."""
    if what in BREAKS_PYTHON:
        pytest.skip("a bytearray of this Python cannot be resized by one thread while another reads it")
    make, change = CHANGING[what]
    value, stop = make(), threading.Event()

    def go_on_changing():
        while not stop.is_set():
            with contextlib.suppress(IndexError):  # they do not heed each other
                change(value)

    with RingBufferChannel(64, codec=codec, buffer_size=1 << 20) as channel:
        changers = [Worker(go_on_changing) for _ in range(2)]
        sent = 0
        end = time.monotonic() + 0.15
        while time.monotonic() < end:
            try:
                channel.send(value, timeout=0)
                sent += 1
            except RuntimeError as error:
                assert "changed size" in str(error)
            while (arrived := channel.dequeue()) is not None:
                assert type(arrived) is type(value)
                if isinstance(arrived, list):
                    assert all(isinstance(item, int | list) for item in arrived)
        stop.set()
        for worker in changers:
            assert worker.finish().error is None
        assert sent > 0
        channel.send(make())
        np.testing.assert_array_equal(channel.receive(), make())


# ---- leases and reservations go from thread to thread ----


def test_many_end_one_reservation():
    """One of them does, and the message is sent once or not at all."""
    channels = [RingBufferChannel(4) for _ in range(40)]
    for _ in range(15):
        reservations = [channel.reserve(3) for channel in channels]

        def end_all(how, reservations=reservations):
            ended = []
            for reservation in reservations:
                try:
                    getattr(reservation, how)()
                    ended.append(how)
                except ValueError as error:
                    assert "already" in str(error)
                    ended.append(None)
            return ended

        ended = together(*(functools.partial(end_all, how) for how in ("commit", "abort", "commit", "abort")))
        for channel, outcomes in zip(channels, zip(*ended, strict=True), strict=True):
            (how,) = [outcome for outcome in outcomes if outcome is not None]
            assert list(iter(channel.dequeue, None)) == [bytes(3)] * (how == "commit")
            assert channel.stats().bytes_used == 0
    for channel in channels:
        channel.close()


def test_views_of_a_reservation_come_and_go(channel):
    """commit() succeeds only when no view is alive, however many threads make some."""
    for _ in range(50):
        reservation = channel.reserve(8)

        def view(reservation=reservation):
            done = 0
            while True:
                try:
                    with memoryview(reservation) as room:
                        room[done % 8] = 1
                except BufferError as error:
                    assert "over" in str(error)
                    return done
                done += 1

        def commit(reservation=reservation):
            while True:
                with contextlib.suppress(BufferError):
                    return reservation.commit()

        together(view, view, commit)
        assert len(channel.receive()) == 8


def test_reserved_here_filled_there_committed_elsewhere():
    with RingBufferChannel(64) as channel:
        to_fill, to_commit = [], []

        def reserve():
            for i in range(200):
                to_fill.append((i, channel.reserve_array(5, "i4", timeout=PATIENCE_S)))
                until(lambda: not to_fill and not to_commit)  # one at a time

        def fill():
            for _ in range(200):
                until(lambda: to_fill)
                i, reservation = to_fill[0]
                reservation.__enter__()[:] = i
                to_commit.append(reservation)
                to_fill.clear()

        def commit():
            for _ in range(200):
                until(lambda: to_commit and not to_fill)
                to_commit[0].commit()
                to_commit.clear()

        def receive():
            return [channel.receive(timeout=PATIENCE_S).tolist() for _ in range(200)]

        assert together(reserve, fill, commit, receive)[3] == [[i] * 5 for i in range(200)]


def test_views_of_a_thread_that_sleeps(channel):
    """It made them, others drop them; it waits for the room that they take."""
    for message in (b"x" * 300, np.arange(40)):
        for _ in range(3):
            channel.send_batch([message] * 4)
            views, sleeping = [], threading.Event()

            def receive_and_send(message=message, views=views, sleeping=sleeping):
                views.extend(channel.receive(copy=False) for _ in range(4))
                sleeping.set()
                channel.send(message)

            worker = Worker(receive_and_send)
            sleeping.wait(PATIENCE_S)
            until(lambda: channel.stats().waiters)
            views.clear()
            assert worker.finish().error is None
            channel.clear()


def test_views_come_and_go_in_all_threads():
    with RingBufferChannel(64) as channel:
        stop = threading.Event()

        def send():
            for i in itertools.count():
                if stop.is_set():
                    return
                channel.try_send(np.full(20, i))

        def read(seconds):
            end = time.monotonic() + seconds
            held = []
            while time.monotonic() < end:
                with contextlib.suppress(Empty, BufferError):
                    held.append(channel.receive(copy=False, timeout=0))
                    assert (held[-1] == held[-1][0]).all()
                if len(held) > 5:
                    del held[random.randrange(len(held))]

        sender = Worker(send)
        together(*[functools.partial(read, 0.5)] * 3)
        stop.set()
        assert sender.finish().error is None
        gc.collect()
        channel.clear()
        until(lambda: channel.stats().bytes_used == 0)


# ---- buffers ----


def test_a_buffer_in_all_threads():
    with SharedMemoryBuffer(4096) as made:
        views = [lambda b: memoryview(b)[7], lambda b: b.as_array(9, "u1").sum(), lambda b: b.read(0, 9)]
        for _ in range(30):
            b = SharedMemoryBuffer.attach(made.name)
            assert together(*(functools.partial(view, b) for view in 2 * views)) == [0, 0, bytes(9)] * 2
            together(b.close, b.close, functools.partial(repr, b))
            del b
        gc.collect()
        assert len(made.stats().participants) == 1


BUFFER_USE = {
    "write": lambda b: b.write(b"abc"),
    "write much": lambda b: b.write(bytes(1 << 19)),
    "read": lambda b: b.read(),
    "view": lambda b: memoryview(b).release(),
    "checksum": lambda b: b.flush_checksum(),
    "header": lambda b: (b.header, b.set_header(user=1), b.used, b.is_full(), len(b)),
    "stats": lambda b: b.stats(),
}


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "stdlib's"])
def test_a_buffer_closed_under_use(foreign):
    for _ in range(5):
        stdlib = shared_memory.SharedMemory(create=True, size=1 << 20) if foreign else None
        b = SharedMemoryBuffer.from_shared_memory(stdlib) if foreign else SharedMemoryBuffer(1 << 20, checksum=True)
        calls = [call for name, call in BUFFER_USE.items() if name != "view"]
        uses = [functools.partial(use_until_closed, call, b) for call in calls]
        together(*uses, *[functools.partial(close_soon, b)] * 3)
        if foreign:
            stdlib.close()  # nothing of ours is left in it
            stdlib.unlink()


def test_views_of_a_stdlib_segment_in_all_threads():
    stdlib = shared_memory.SharedMemory(create=True, size=100)
    b = SharedMemoryBuffer.from_shared_memory(stdlib)
    use = functools.partial(use_until_closed, BUFFER_USE["view"], b)
    together(use, use, use, functools.partial(close_soon, b))
    del b, use
    gc.collect()
    stdlib.close()
    stdlib.unlink()


# ---- what is looked up once, by several at once ----

FIRST_USES = """
import sys, threading, time
from shmcomm import RingBufferChannel

sys.setswitchinterval(1e-6)
what, count = sys.argv[1], 8

class Opaque:
    def __init__(self, value):
        self.value = value
    def __eq__(self, other):
        return self.value == other.value

start, problems = threading.Barrier(count), []

def work(channel):
    try:
        start.wait()
        if what == "pickle":
            channel.send(Opaque([1]))
            assert channel.receive() == Opaque([1])
        else:
            import numpy as np
            for dtype in "u1", "f8", "M8[s]", [("a", "i4"), ("b", "f4")]:
                channel.send(np.zeros(3, dtype))
                assert channel.receive().dtype == np.dtype(dtype)
    except BaseException as error:
        problems.append(repr(error))

channels = [RingBufferChannel(8) for _ in range(count)]
threads = [threading.Thread(target=work, args=(channel,)) for channel in channels]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(problems)
"""


@pytest.mark.parametrize("what", ["pickle", "array"])
def test_the_first_use_in_many_threads(what):
    for _ in range(5):
        assert run_python(FIRST_USES, what).stdout == "[]\n"


# ---- with the collector at work ----


class Node(RingBufferChannel):
    pass


def test_cycles_collected_while_others_work(channel):
    stop = threading.Event()

    def make():
        for _ in range(25):
            node = Node.attach(channel.name)
            node.myself = [node, node.reserve]
            with contextlib.suppress(Full):
                node.send([1, 2], timeout=0)
            del node

    def collect():
        while not stop.is_set():
            gc.collect()

    def take():
        while not stop.is_set():
            channel.dequeue()

    others = [Worker(collect), Worker(take)]
    together(make, make)
    stop.set()
    for worker in others:
        assert worker.finish().error is None
    gc.collect()
    assert not any(isinstance(obj, Node) for obj in gc.get_objects())
    assert issubclass(Node, SharedObject)
