"""RingBufferChannel as one process sees it: every method, every keyword, every default."""

import contextlib
import copy
import gc
import itertools
import math
import pickle
import queue
import threading
import time
import weakref

import numpy as np
import pytest
from helpers import until
from hypothesis import given
from hypothesis import strategies as st

import shmcomm
from shmcomm import (
    BusyError,
    Empty,
    Error,
    Full,
    MessageTooLargeError,
    NotEncodableError,
    RingBufferChannel,
    RingStats,
    SharedObject,
    ShutDown,
)


@pytest.fixture
def channel():
    with RingBufferChannel(4) as made:
        yield made


@pytest.fixture
def limited():
    """All its memory is there from the beginning, and no more."""
    with RingBufferChannel(4, buffer_size=65536) as made:
        yield made


class Opaque:
    """Travels by pickle only."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Opaque and other.value == self.value

    __hash__ = None


# ---- construction ----


def test_defaults(channel):
    assert channel.capacity == 4
    assert channel.buffer_size == 64 * 1024
    assert len(channel) == 0
    assert channel.is_empty() is True
    assert channel.is_full() is False
    assert channel.closed is False
    assert isinstance(channel, SharedObject)
    assert channel.name in repr(channel)


@pytest.mark.parametrize(
    ("capacity", "buffer_size", "expected"),
    [
        (1, None, 65536),
        (1024, None, 131072),
        (1000, None, 131072),
        (1, 1, 4096),
        (1, 4096, 4096),
        (1, 4097, 8192),
        (8, 10**6, 2**20),
    ],
)
def test_buffer_size_is_rounded_up(capacity, buffer_size, expected):
    with RingBufferChannel(capacity, buffer_size=buffer_size) as channel:
        assert (channel.capacity, channel.buffer_size) == (capacity, expected)


@pytest.mark.parametrize("capacity", [0, -1, 2**23, 2**64, -(2**70)])
def test_bad_capacity(capacity):
    with pytest.raises(ValueError, match="capacity must be between 1 and 8388607"):
        RingBufferChannel(capacity)


@pytest.mark.parametrize("capacity", ["4", 4.0, None, [4]])
def test_capacity_of_the_wrong_type(capacity):
    with pytest.raises(TypeError, match="capacity must be an integer, not"):
        RingBufferChannel(capacity)


class Indexable:
    def __index__(self):
        return 3


def test_capacity_may_be_any_integer():
    with RingBufferChannel(Indexable()) as channel, RingBufferChannel(np.int32(5)) as other:
        assert (channel.capacity, other.capacity) == (3, 5)
    with RingBufferChannel(capacity=2) as channel:
        assert channel.capacity == 2


@pytest.mark.parametrize("size", [0, -1, 2**40 + 1, 2**64])
def test_bad_buffer_size(size):
    with pytest.raises(ValueError, match="buffer_size must be between 1 and"):
        RingBufferChannel(4, buffer_size=size)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((), {}, "missing required argument 'capacity'"),
        ((4, 5), {}, "takes at most 1 positional argument"),
        ((4,), {"size": 3}, "unexpected keyword argument 'size'"),
        ((4,), {"capacity": 3}, "multiple values for argument 'capacity'"),
        ((4,), {"buffer_size": "big"}, "buffer_size must be an integer"),
        ((4,), {"codec": 3}, "codec"),
        ((4,), {"spin": "long"}, None),
        ((4,), {"name": 3}, "a name must be a str, not int"),
        ((4,), {"mode": "rw"}, "mode must be an integer"),
        ((4,), {"max_participants": 1.5}, "max_participants must be an integer"),
        ((4,), {"directory": 7}, None),
    ],
)
def test_wrong_arguments(arguments, keywords, message):
    with pytest.raises(TypeError, match=message):
        RingBufferChannel(*arguments, **keywords)


@pytest.mark.parametrize("spin", [-1, 1.5, math.nan, math.inf])
def test_bad_spin(spin):
    with pytest.raises(ValueError, match="spin must be seconds from 0 to 1"):
        RingBufferChannel(4, spin=spin)


@pytest.mark.parametrize("spin", [None, 0, 1e-5, 1])
def test_spin_changes_nothing_but_time(spin):
    with RingBufferChannel(4, spin=spin) as channel:
        threading.Timer(0.01, channel.send, ["late"]).start()
        assert channel.receive(timeout=30) == "late"
        with RingBufferChannel.attach(channel.name, spin=spin) as other:
            other.send(1)
            assert channel.receive() == 1


@pytest.mark.parametrize("codec", ["", "json", "AUTO"])
def test_unknown_codec(codec):
    with pytest.raises(ValueError, match="codec"):
        RingBufferChannel(4, codec=codec)


@pytest.mark.parametrize("participants", [0, -1, 10**6])
def test_bad_max_participants(participants):
    with pytest.raises(ValueError, match="max_participants must be between 1 and"):
        RingBufferChannel(4, max_participants=participants)


# ---- one at a time ----


def test_capacity_is_exact():
    for capacity in (1, 2, 3, 7, 64, 1000):
        with RingBufferChannel(capacity) as channel:
            assert [channel.enqueue(i) for i in range(capacity)] == [True] * capacity
            assert channel.enqueue("more") is False
            assert channel.is_full() is True
            assert len(channel) == capacity
            assert [channel.dequeue() for _ in range(capacity)] == list(range(capacity))
            assert channel.dequeue() is None
            assert channel.is_empty() is True


def test_full_is_false_and_one_less_is_not():
    with RingBufferChannel(2) as channel:
        channel.enqueue(1)
        assert (channel.is_full(), channel.is_empty(), len(channel)) == (False, False, 1)
        channel.enqueue(2)
        assert (channel.is_full(), channel.try_send(3)) == (True, False)
        assert channel.dequeue() == 1
        assert (channel.is_full(), channel.enqueue(3)) == (False, True)


def test_full_of_bytes_before_messages():
    with RingBufferChannel(1000, buffer_size=4096) as channel:
        sent = 0
        while channel.enqueue(bytes(100)):
            sent += 1
        assert 30 <= sent < 1000
        assert channel.is_full() or channel.enqueue(b"")
        assert len(list(itertools.takewhile(lambda m: m is not None, iter(channel.dequeue, "never")))) >= sent


def test_defaults_of_the_queue_methods(channel):
    sentinel = object()
    assert channel.dequeue() is None
    assert channel.try_receive() is None
    assert channel.peek() is None
    assert channel.dequeue(sentinel) is sentinel
    assert channel.dequeue(default=sentinel) is sentinel
    assert channel.try_receive(default=sentinel) is sentinel
    assert channel.peek(default=sentinel) is sentinel
    channel.send(None)
    assert channel.peek(sentinel) is None
    assert channel.dequeue(sentinel) is None


def test_peek_leaves_the_message(channel):
    channel.send({"a": [1, 2]})
    channel.send("second")
    first, again = channel.peek(), channel.peek()
    assert first == again == {"a": [1, 2]}
    assert first is not again
    assert len(channel) == 2
    assert channel.receive() == {"a": [1, 2]}
    assert channel.peek() == "second"


def test_peek_of_an_array_is_a_copy(channel):
    channel.send(np.arange(5))
    peeked = channel.peek()
    channel.clear()
    channel.send(np.zeros(5))
    assert peeked.tolist() == [0, 1, 2, 3, 4]


def test_clear(channel):
    channel.send_batch(range(4))
    assert channel.clear() is None
    assert len(channel) == 0
    assert channel.is_empty()
    channel.clear()
    assert channel.send_batch("abcd") == 4
    assert channel.receive_batch(9) == ["a", "b", "c", "d"]
    assert channel.stats().received == 8


def test_order_over_many_wraps():
    with RingBufferChannel(16, buffer_size=4096) as channel:
        for i in range(3000):
            channel.send((i, bytes(i % 400)))
            if i % 3 == 0:
                continue
            while len(channel) > 2:
                channel.receive()
        last = list(iter(channel.dequeue, None))
        assert last[-1] == (2999, bytes(2999 % 400))


@given(st.lists(st.one_of(st.integers(0, 1500), st.just("take")), max_size=60))
def test_like_a_deque(moves):
    """Sizes around the wrap: the channel holds what a list would hold."""
    model, number = [], 0
    with RingBufferChannel(8, buffer_size=4096) as channel:
        for move in moves:
            if move == "take":
                assert channel.dequeue() == (model.pop(0) if model else None)
                continue
            message = number.to_bytes(4, "little") + bytes(move)
            number += 1
            if channel.enqueue(message):
                model.append(message)
            else:
                sizes = [
                    len(m) + 16 for m in model
                ]  # at most one gap at the end of the ring, smaller than what follows
                assert len(model) == 8 or sum(sizes) + max(sizes) + 2 * (len(message) + 16) > 4096
            assert len(channel) == len(model)
            assert channel.peek() == (model[0] if model else None)
        assert channel.receive_batch(100, timeout=0) == model if model else channel.is_empty()


VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    10**50,
    0.5,
    -0.0,
    math.inf,
    2 + 3j,
    "",
    "text",
    "\u00e9\u4e2d\U0001f600",
    b"",
    b"bytes",
    bytearray(b"ba"),
    (),
    (1, "2", 3.0),
    [],
    [[1], [2]],
    {},
    {"k": {"n": (1, 2)}},
    {1, 2},
    frozenset({3}),
    Opaque([1]),
    range(5),
    ...,
    np.float32(1.5),
    "x" * 5000,
    b"y" * 5000,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:20])
def test_what_is_sent_is_received(channel, value):
    channel.send(value)
    assert channel.enqueue(value)
    received, again = channel.receive(), channel.dequeue()
    assert received == again == value
    assert type(received) is type(value)


def test_arrays(channel):
    for dtype in ("u1", "<i4", ">f8", "c16", "?", "S5", "U3", "M8[s]", [("a", "i2"), ("b", "f4", (2,))]):
        array = np.zeros((3, 4), dtype)
        channel.send(array)
        received = channel.receive()
        assert received.dtype == array.dtype
        assert received.shape == array.shape
        assert received.flags.writeable
        assert np.array_equal(received, array)


# ---- waiting ----

NUMBERS_AS_TIMEOUT = [0, 0.0, -0.0, 0.005, 1e-9, 0, np.float64(0.005)]


@pytest.mark.parametrize("timeout", NUMBERS_AS_TIMEOUT)
def test_timeouts_end(channel, timeout):
    with pytest.raises(Empty, match="empty"):
        channel.receive(timeout)
    with pytest.raises(Empty):
        channel.receive(timeout=timeout)
    with pytest.raises(Empty):
        channel.receive(timeout=timeout, copy=False)
    with pytest.raises(Empty):
        channel.receive_batch(3, timeout)
    channel.send_batch(range(4))
    with pytest.raises(Full, match="full"):
        channel.send(5, timeout)
    with pytest.raises(Full):
        channel.send(obj=(5, 6), timeout=timeout)
    with pytest.raises(Full, match="the channel is full after 0 of 2 messages"):
        channel.send_batch([5, 6], timeout)
    with pytest.raises(Full):
        channel.reserve(3, timeout)
    with pytest.raises(Full):
        channel.reserve_array(3, "u1", timeout=timeout)
    assert channel.receive_batch(9) == [0, 1, 2, 3]


def test_a_timeout_is_waited_for(channel):
    start = time.monotonic()
    with pytest.raises(Empty):
        channel.receive(0.08)
    assert time.monotonic() - start >= 0.08


def test_the_exceptions_are_those_of_queue(channel):
    with pytest.raises(queue.Empty):
        channel.receive(0)
    with pytest.raises(Error):
        channel.receive(0)
    channel.send_batch(range(4))
    with pytest.raises(queue.Full):
        channel.send(0, 0)


BLOCKING = {
    "send": lambda ch, t: ch.send(1, timeout=t),
    "send complex": lambda ch, t: ch.send({1: 2}, timeout=t),
    "receive": lambda ch, t: ch.receive(timeout=t),
    "receive in place": lambda ch, t: ch.receive(timeout=t, copy=False),
    "send_batch": lambda ch, t: ch.send_batch([1], timeout=t),
    "receive_batch": lambda ch, t: ch.receive_batch(1, timeout=t),
    "reserve": lambda ch, t: ch.reserve(1, timeout=t).abort(),
    "reserve_array": lambda ch, t: ch.reserve_array(1, "u1", timeout=t).abort(),
    "attach": lambda ch, t: RingBufferChannel.attach(ch.name, timeout=t).close(),
}


HUGE = 10**400  # beyond all floats


def brief(value):
    return repr(value)[:20]


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING)
class TestTimeoutArguments:
    @pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, math.nan, -HUGE, np.float64("nan")], ids=brief)
    def test_not_a_time(self, channel, call, timeout):
        channel.send("something")
        with pytest.raises(ValueError, match="timeout must be a non-negative number of seconds or None"):
            call(channel, timeout)
        assert len(channel) == 1

    @pytest.mark.parametrize("timeout", ["1", b"1", [1], 1j, object()])
    def test_not_a_number(self, channel, call, timeout):
        channel.send("something")
        with pytest.raises(TypeError, match="timeout must be seconds"):
            call(channel, timeout)
        assert len(channel) == 1

    @pytest.mark.parametrize("timeout", [None, math.inf, 1e300, HUGE, 5, np.int64(5)], ids=brief)
    def test_long_ones_do_not_wait_when_there_is_no_need(self, channel, call, timeout):
        channel.send("something")
        call(channel, timeout)


def test_a_blocked_receive_gets_what_comes(channel):
    threading.Timer(0.02, channel.send, ["late"]).start()
    assert channel.receive() == "late"
    threading.Timer(0.02, channel.send, [["late", 2]]).start()
    assert channel.receive(math.inf) == ["late", 2]
    threading.Timer(0.02, channel.send_batch, [[1, 2]]).start()
    assert channel.receive_batch(5) in ([1], [1, 2])


def test_a_blocked_send_gets_room(channel):
    channel.send_batch(range(4))
    threading.Timer(0.02, channel.receive).start()
    channel.send("fifth")
    threading.Timer(0.02, channel.clear).start()
    assert channel.send_batch("abcd") == 4


def test_a_blocked_large_send_waits_until_all_its_room_is_there():
    with RingBufferChannel(100, buffer_size=4096) as channel:
        while channel.enqueue(bytes(200)):
            pass
        timer = threading.Timer(0.02, lambda: [channel.receive() for _ in range(12)])
        timer.start()
        channel.send(bytes(2000))
        timer.join()
        *_, last = iter(channel.dequeue, None)
        assert last == bytes(2000)


# ---- batches ----


def test_batches(channel):
    assert channel.send_batch([]) == 0
    assert channel.send_batch([1, "a", None]) == 3
    assert channel.receive_batch(2) == [1, "a"]
    assert channel.receive_batch(count=5, timeout=0) == [None]
    with pytest.raises(Empty):
        channel.receive_batch(5, 0)


@pytest.mark.parametrize("make", [list, tuple, iter, lambda x: (i for i in x), lambda x: dict.fromkeys(x)], ids=str)
def test_any_iterable(channel, make):
    assert channel.send_batch(make(["a", "b", "c"])) == 3
    assert channel.receive_batch(9) == ["a", "b", "c"]


def test_mixed_batch():
    messages = [1, [1], Opaque(2), "x", {"k": Opaque(3)}, b"z", (), 5.5, np.float64(2), Opaque(4), 6]
    with RingBufferChannel(64) as channel:
        assert channel.send_batch(messages) == len(messages)
        assert channel.receive_batch(100) == messages
        assert channel.send_batch(messages) == len(messages)
        assert channel.receive_batch(3) == messages[:3]
        assert channel.receive_batch(100) == messages[3:]


def test_a_batch_larger_than_the_channel(channel):
    taken = []
    thread = threading.Thread(target=lambda: [taken.append(channel.receive()) for _ in range(1000)])
    thread.start()
    assert channel.send_batch([i if i % 5 else [i] for i in range(1000)]) == 1000
    thread.join()
    assert taken == [i if i % 5 else [i] for i in range(1000)]


def test_a_batch_into_a_partly_full_channel(channel):
    channel.send("first")
    with pytest.raises(Full, match="3 of 5 messages"):
        channel.send_batch(range(5), timeout=0)
    assert channel.receive_batch(9) == ["first", 0, 1, 2]
    channel.send(["first"])
    with pytest.raises(Full, match="3 of 5 messages"):
        channel.send_batch([[i] for i in range(5)], timeout=0.01)
    assert channel.receive_batch(9) == [["first"], [0], [1], [2]]


def test_a_batch_with_something_that_cannot_be_sent(limited):
    channel = limited
    with pytest.raises(NotEncodableError):
        channel.send_batch([1, [2], lambda: None, 4])
    assert channel.receive_batch(9) == [1, [2]]
    with pytest.raises(MessageTooLargeError):
        channel.send_batch([1, bytes(10**6), 2])
    assert channel.receive_batch(9) == [1]


def test_a_generator_that_raises(channel):
    def numbers():
        yield 1
        yield 2
        raise KeyError("three")

    with pytest.raises(KeyError, match="three") as caught:
        channel.send_batch(numbers())
    assert caught.value.sent == 2
    assert channel.receive_batch(9) == [1, 2]
    channel.send("fine")
    assert channel.receive() == "fine"


def test_what_a_generator_yielded_is_sent_before_it_goes_on(channel):
    def numbers():
        for i in range(200):
            yield i if i % 2 else [i]
            assert channel.receive(timeout=0) == (i if i % 2 else [i])

    assert channel.send_batch(numbers()) == 200
    assert channel.is_empty()


def test_a_generator_that_uses_the_channel(channel):
    def numbers():
        for i in range(3):
            channel.send(("inner", i))
            with channel.reserve(1) as room:
                room[0] = i
            assert channel.send_batch([]) == 0
            assert channel.receive_batch(2) == [("inner", i), bytes([i])]
            yield i
            assert channel.dequeue() == i

    assert channel.send_batch(numbers()) == 3


def test_a_generator_that_leaves_a_reservation(channel):
    def numbers():
        yield 1
        kept.append(channel.reserve(1))
        yield 2

    kept = []
    with pytest.raises(BufferError, match="made by this thread") as caught:
        channel.send_batch(numbers())
    assert caught.value.sent == 1
    kept.pop().abort()
    assert channel.receive_batch(9) == [1]


ENDLESS = {
    "C": lambda: itertools.repeat(b"x"),
    "generator": lambda: (b"x" for _ in itertools.count()),
    "complex": lambda: ([b"x"] for _ in itertools.count()),
}


@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
class TestAnEndlessIterator:
    def test_that_fills_the_channel(self, channel, endless):
        with pytest.raises(Full, match="the channel is full after 4 messages") as caught:
            channel.send_batch(endless(), timeout=0)
        assert caught.value.sent == 4
        assert len(channel.receive_batch(9)) == 4

    def test_that_waits_for_room(self, channel, endless):
        with pytest.raises(Full, match=r"(the time was over|the channel is full) after \d messages") as caught:
            channel.send_batch(endless(), timeout=0.01)
        assert caught.value.sent == len(channel.receive_batch(9))

    def test_ends_with_its_time_however_fast_the_consumer_is(self, channel, endless):
        taken = []
        thread = threading.Thread(target=lambda: taken.extend(channel))
        thread.start()
        with pytest.raises(Full, match=r"(the time was over|the channel is full) after \d+ messages") as caught:
            channel.send_batch(endless(), timeout=0.1)
        channel.shutdown()
        thread.join()
        assert caught.value.sent == len(taken) > 0

    def test_ends_with_shutdown(self, channel, endless):
        taken = []

        def take():
            taken.extend(channel.receive() for _ in range(100))
            channel.shutdown()
            taken.extend(channel)

        thread = threading.Thread(target=take)
        thread.start()
        with pytest.raises(ShutDown) as caught:
            channel.send_batch(endless())
        thread.join()
        assert caught.value.sent == len(taken) >= 100

    def test_ends_with_close(self, endless):
        with RingBufferChannel(4) as channel, RingBufferChannel.attach(channel.name) as other:

            def take():
                for _ in range(100):
                    other.receive()
                channel.close()
                while not done.is_set():
                    other.dequeue()

            done = threading.Event()
            thread = threading.Thread(target=take)
            thread.start()
            with pytest.raises(ValueError, match="is closed: it was closed while this call waited") as caught:
                channel.send_batch(endless())
            done.set()
            thread.join()
            assert caught.value.sent >= 96


def test_the_time_is_over_though_the_channel_is_never_full(channel):
    def numbers():
        for i in itertools.count():
            yield i
            assert channel.dequeue() == i

    with pytest.raises(Full, match=r"the time was over after \d+ messages") as caught:
        channel.send_batch(numbers(), timeout=0.02)
    assert caught.value.sent > 0
    assert channel.receive() == caught.value.sent - 1


def test_the_time_is_over_for_a_long_range():
    class Draining:
        loads = staticmethod(bytes)

        @staticmethod
        def dumps(obj):
            channel.clear()
            return b"%d" % obj

    with RingBufferChannel(4, codec=Draining) as channel:
        with pytest.raises(Full, match=r"the time was over after \d+ of 1000000000 messages") as caught:
            channel.send_batch(range(10**9), timeout=0.02)
        assert caught.value.sent % 64 == 0
        assert channel.receive_batch(9) == [b"%d" % (caught.value.sent - 1)]
        assert channel.send_batch(range(200), timeout=0) == 200


def test_one_deadline_for_the_whole_batch(channel):
    """A consumer that makes room again and again does not put it off."""
    done = threading.Event()

    def take():
        while not done.wait(0.005):
            channel.dequeue()

    thread = threading.Thread(target=take)
    thread.start()
    for objects in ([7] * 100_000, [[7]] * 100_000, range(100_000), iter([7] * 100_000)):
        with pytest.raises(Full) as caught:
            channel.send_batch(objects, timeout=0.1)
        assert 1 <= caught.value.sent < 100_000
        channel.clear()
    done.set()
    thread.join()


@pytest.mark.parametrize(
    "objects",
    [
        range(300),
        dict.fromkeys(range(300)),
        dict(enumerate("ab" * 150)).values(),
        {i: (i,) for i in range(300)}.items(),
        set(range(300)),
        frozenset(map(str, range(300))),
        "text" * 75,
        bytes(range(256)),
        bytearray(range(256)),
        [b"x" * 1000] * 300,
        [None, [None]] * 150,
        tuple(range(64)),
        range(128),
    ],
    ids=lambda o: type(o).__name__,
)
def test_batches_of_all_sizes(objects):
    with RingBufferChannel(300, buffer_size=1 << 20) as channel:
        assert channel.send_batch(objects) == len(objects)
        assert channel.receive_batch(400) == list(objects)
    with RingBufferChannel(50, buffer_size=1 << 20) as channel:
        with pytest.raises(Full, match=f"the channel is full after 50 of {len(objects)} messages") as caught:
            channel.send_batch(objects, timeout=0)
        assert caught.value.sent == 50
        assert channel.receive_batch(400) == list(objects)[:50]


class Meddling:
    """Changes the list that it is sent from while it is pickled."""

    def __init__(self, meddle):
        self.meddle = meddle

    def __reduce__(self):
        self.meddle()
        return (str, ("meddled",))


def test_a_list_that_changes_while_it_is_sent():
    with RingBufferChannel(100) as channel:
        objects = [1, Meddling(lambda: objects.clear()), 3]
        assert channel.send_batch(objects) == 2
        assert channel.receive_batch(9) == [1, "meddled"]
        objects = [1, Meddling(lambda: objects.extend([4, [5]])), 3]
        assert channel.send_batch(objects) == 5
        assert channel.receive_batch(9) == [1, "meddled", 3, 4, [5]]
        objects = [1, Meddling(lambda: objects.__setitem__(slice(0, 3), [0, 0, 0, 0])), 3, 4]
        assert channel.send_batch(objects) == 5
        assert channel.receive_batch(9) == [1, "meddled", 0, 0, 4]
        table = {"a": 1, "b": Meddling(lambda: table.clear()), "c": 3}
        with pytest.raises(RuntimeError, match="changed size") as caught:
            channel.send_batch(iter(table.values()))
        assert caught.value.sent == 2
        assert channel.receive_batch(9) == [1, "meddled"]


class Reversed(list):
    def __iter__(self):
        return reversed(self.copy())


def test_a_list_that_iterates_in_its_own_way(channel):
    assert channel.send_batch(Reversed([1, 2, 3])) == 3
    assert channel.receive_batch(9) == [3, 2, 1]


SPOILT = {
    "not encodable": ([1, [2], lambda: 3, 4], NotEncodableError, 2),
    "too large": ([1, bytes(10**6), 2], MessageTooLargeError, 1),
    "full": ([1, 2, 3, 4, 5], Full, 4),
    "nothing": (None, TypeError, 0),
}


@pytest.mark.parametrize(("objects", "error", "sent"), SPOILT.values(), ids=SPOILT)
def test_the_exception_says_how_many_were_sent(limited, objects, error, sent):
    channel = limited
    for make in (lambda x: x, lambda x: x and tuple(x), lambda x: x and iter(x), lambda x: x and (i for i in x)):
        with pytest.raises(error) as caught:
            channel.send_batch(make(objects), timeout=0)
        assert caught.value.sent == sent == len(channel)
        channel.clear()


def test_nothing_was_sent_through_what_is_over(channel):
    other = RingBufferChannel.attach(channel.name)
    other.close()
    with pytest.raises(ValueError, match="is closed") as caught:
        other.send_batch([1])
    assert caught.value.sent == 0
    channel.shutdown()
    for objects in ([1], [[1]], iter([1]), range(3)):
        with pytest.raises(ShutDown) as caught:
            channel.send_batch(objects)
        assert caught.value.sent == 0


def test_going_on_after_an_exception(channel):
    objects, taken = [i if i % 5 else [i] for i in range(100)], []
    while objects:
        try:
            objects = objects[channel.send_batch(objects, timeout=0) :]
        except Full as error:
            objects = objects[error.sent :]
            taken += channel.receive_batch(3)
    assert taken + channel.receive_batch(9) == [i if i % 5 else [i] for i in range(100)]


class Stubborn(Exception):
    def __setattr__(self, name, value):
        raise AttributeError(name)


def test_an_exception_that_takes_no_attribute(channel):
    def numbers():
        yield 1
        raise Stubborn("mine")

    with pytest.raises(Stubborn, match="mine"):
        channel.send_batch(numbers())
    assert channel.receive_batch(9) == [1]


@pytest.mark.parametrize("objects", [None, 3, object()])
def test_a_batch_of_nothing_iterable(channel, objects):
    with pytest.raises(TypeError, match="iterable"):
        channel.send_batch(objects)


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-1, ValueError), (2**70, ValueError), ("3", TypeError), (1.0, TypeError)]
)
def test_bad_counts(channel, count, error):
    with pytest.raises(error, match="count must be"):
        channel.receive_batch(count)


class Grudging:
    """Unpickling fails."""

    def __reduce__(self):
        return (int, ("not a number",))


def test_a_batch_keeps_what_came_before_a_message_that_cannot_be_read(channel):
    """Nothing that could be read is lost because of what could not."""
    channel.send_batch([1, [2], Grudging(), 4])
    got = []
    for _ in range(4):
        try:
            got += channel.receive_batch(9, timeout=0)
        except (ValueError, Empty) as error:
            got += getattr(error, "received", [])
    assert got == [1, [2], 4]


# ---- in place: writing ----


def test_reserve(channel):
    with channel.reserve(10) as room:
        assert isinstance(room, memoryview)
        assert (room.nbytes, room.readonly, room.format) == (10, False, "B")
        room[:] = b"0123456789"
        assert len(channel) == 0
    assert channel.receive() == b"0123456789"
    with pytest.raises(ValueError, match="released"):
        room[0]


def test_reserve_nothing(channel):
    with channel.reserve(0):
        pass
    assert channel.receive() == b""


def test_reserve_then_commit_a_part(channel):
    reservation = channel.reserve(nbytes=100)
    with reservation as room:
        room[:3] = b"abc"
        del room
        reservation.commit(3)
    assert channel.receive() == b"abc"
    assert len(channel) == 0
    with channel.reserve(100) as room:
        room[:] = b"x" * 100
    assert channel.receive() == b"x" * 100


def test_commit_and_abort_by_hand(channel):
    reservation = channel.reserve(3)
    memoryview(reservation)[:] = b"abc"
    gc.collect()
    reservation.commit()
    assert channel.receive() == b"abc"
    reservation = channel.reserve(3)
    reservation.abort()
    assert channel.is_empty()
    for call in (reservation.commit, reservation.abort, reservation.__enter__):
        with pytest.raises(ValueError, match="already"):
            call()
    with pytest.raises(BufferError, match="over"):
        memoryview(reservation)


@pytest.mark.parametrize(("nbytes", "error"), [(4, ValueError), (-1, ValueError), ("2", TypeError), (1.5, TypeError)])
def test_commit_of_a_wrong_length(channel, nbytes, error):
    reservation = channel.reserve(3)
    with pytest.raises(error, match="nbytes must be"):
        reservation.commit(nbytes)
    reservation.commit(nbytes=None)
    assert len(channel.receive()) == 3


def test_an_exception_aborts(channel):
    with pytest.raises(KeyError), channel.reserve(10) as room:
        room[:] = b"0123456789"
        raise KeyError
    assert channel.is_empty()
    channel.send("next")
    assert channel.receive() == "next"


def test_an_exception_with_a_view_alive_aborts(channel):
    kept = []
    with pytest.raises(KeyError), channel.reserve(10) as room:
        kept.append(memoryview(room)[2:4])
        raise KeyError
    assert channel.is_empty()
    channel.send("next")
    assert channel.receive() == "next"


def test_a_view_that_is_still_in_use_prevents_sending(channel):
    with pytest.raises(BufferError, match="not sent"), channel.reserve(10) as room:
        kept = np.frombuffer(room, "u1")
    assert channel.is_empty()
    kept[:] = 1  # harmless
    reservation = channel.reserve(10)
    view = memoryview(reservation)
    with pytest.raises(BufferError, match="in use"):
        reservation.commit()
    view.release()
    reservation.commit()
    assert len(channel.receive()) == 10


def test_dropping_a_reservation_aborts(channel):
    channel.reserve(10)
    gc.collect()
    channel.send("next")
    assert channel.receive() == "next"
    reservation = channel.reserve(10)
    view = memoryview(reservation)
    del reservation
    with pytest.raises(BufferError, match="open reservation"):
        channel.send("while a view keeps it")
    del view
    channel.send("next")
    assert channel.receive() == "next"


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


RESERVE = {"reserve": lambda ch: ch.reserve(10), "reserve_array": lambda ch: ch.reserve_array(10, "u1")}


@pytest.mark.parametrize("reserve", RESERVE.values(), ids=RESERVE)
class TestAReservationThatIsDropped:
    """It is over at once: no reference cycle waits for the collector."""

    def test_after_it_was_entered(self, channel, no_collector, reserve):
        reserve(channel).__enter__()
        assert channel.try_send("next")
        reservation = reserve(channel)
        view = reservation.__enter__()
        del view, reservation
        assert channel.try_send("after that")
        assert channel.receive_batch(9) == ["next", "after that"]

    def test_while_its_view_is_alive(self, channel, no_collector, reserve):
        reservation = reserve(channel)
        view = reservation.__enter__()
        del reservation
        view[:] = 7 if isinstance(view, np.ndarray) else b"x" * 10
        with pytest.raises(BufferError, match="open reservation"):
            channel.try_send("the view holds it")
        del view
        assert channel.try_send("next")
        assert channel.receive() == "next"

    def test_with_the_generator_that_made_it(self, channel, no_collector, reserve):
        def produce():
            with reserve(channel) as view:
                yield view
                raise AssertionError("it goes on")

        producing = produce()
        view = next(producing)
        del producing
        assert channel.try_send("next")
        assert channel.receive_batch(9) == ["next"]
        with pytest.raises(ValueError, match="released|read-only"):
            view[0] = 1

    def test_in_an_exception(self, channel, no_collector, reserve):
        def fail():
            reservation = reserve(channel)
            view = reservation.__enter__()
            raise KeyError(len(view))

        with pytest.raises(KeyError) as caught:
            fail()
        with pytest.raises(BufferError, match="open reservation"):
            channel.try_send("the traceback holds it")
        caught.value.__traceback__ = None
        del caught
        assert channel.try_send("next")


def test_a_reservation_that_is_entered_again(channel):
    reservation = channel.reserve(3)
    with reservation as room, reservation as same:
        assert same is room
        room[:] = b"abc"
    assert channel.receive() == b"abc"
    reservation = channel.reserve_array(3, "u1")
    with reservation as array, reservation as same:
        assert same is array
        array[:] = 7
    assert not array.flags.writeable
    assert channel.receive().tolist() == [7, 7, 7]
    reservation = channel.reserve(3)
    reservation.__enter__()
    with reservation as room:  # the first one is gone
        room[:] = b"abc"
    assert channel.receive() == b"abc"


def test_a_view_of_a_reserved_array_prevents_sending(channel):
    reservation = channel.reserve_array(3, "u1")
    view = memoryview(reservation)
    with pytest.raises(BufferError, match="in use"):
        reservation.commit()
    view[:] = b"abc"
    view.release()
    reservation.commit()
    assert bytes(channel.receive()) == b"abc"


def test_one_reservation_at_a_time(channel):
    with channel.reserve(3) as room:
        for call in (
            channel.enqueue,
            channel.send,
            channel.try_send,
            channel.reserve,
            lambda n: channel.send_batch([n]),
        ):
            with pytest.raises(BufferError, match="open reservation"):
                call(3)
        with pytest.raises(BufferError, match="open reservation"):
            channel.send([3])
        with pytest.raises(BufferError, match="open reservation"):
            channel.reserve_array(3, "u1")
        room[:] = b"abc"
    assert channel.receive_batch(9) == [b"abc"]


def test_receiving_while_a_reservation_is_open(channel):
    channel.send(1)
    with channel.reserve(1) as room:
        assert channel.receive() == 1
        room[0] = 2
    assert channel.receive() == b"\2"


def test_reserve_array(channel):
    with channel.reserve_array((2, 3), "f4") as array:
        assert (array.shape, array.dtype, array.flags.writeable) == ((2, 3), np.float32, True)
        assert array.ctypes.data % 64 == 0
        array[:] = [[1, 2, 3], [4, 5, 6]]
    received = channel.receive()
    assert received.dtype == np.float32
    assert received.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 9


@pytest.mark.parametrize("shape", [(), 0, 5, (0, 3), [2, 2], np.int64(4)], ids=str)
@pytest.mark.parametrize("dtype", ["u1", np.int16, float, np.dtype([("a", "i4"), ("b", "S3")])], ids=str)
def test_reserve_any_array(channel, shape, dtype):
    with channel.reserve_array(shape=shape, dtype=dtype) as array:
        array[...] = np.zeros((), dtype)
    received = channel.receive()
    assert received.dtype == np.dtype(dtype)
    assert received.shape == np.zeros(shape).shape


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((-1,), "u1"),
        ("a", "u1"),
        ((2,), object),
        ((2,), "no such type"),
        ((2**40, 2**40), "u1"),
        ((1,) * 100, "u1"),
        ((2.5,), "u1"),
    ],
    ids=str,
)
def test_reserve_no_array(channel, shape, dtype):
    with pytest.raises((ValueError, TypeError)):
        channel.reserve_array(shape, dtype)
    channel.send("next")
    assert channel.receive() == "next"


def test_an_array_is_sent_whole(channel):
    reservation = channel.reserve_array(4, "u1")
    with pytest.raises(TypeError, match="sent whole"):
        reservation.commit(2)
    reservation.abort()


@pytest.mark.parametrize(
    ("nbytes", "error"), [(-1, ValueError), (2**63, ValueError), ("3", TypeError), (2.0, TypeError)]
)
def test_bad_reservations(channel, nbytes, error):
    with pytest.raises(error, match="nbytes must be"):
        channel.reserve(nbytes)


def test_too_large_at_once(limited):
    """Never a wait for room that cannot come."""
    channel = limited
    largest = channel.buffer_size // 2 - 8
    for size in (largest + 1, channel.buffer_size, 10**9):
        with pytest.raises(MessageTooLargeError, match="larger than .* can ever hold"):
            channel.reserve(size)
    for message in (
        bytes(largest + 1),
        "x" * (largest + 1),
        [bytes(largest)],
        np.zeros(largest, "u1"),
        Opaque(bytes(largest)),
    ):
        with pytest.raises(MessageTooLargeError):
            channel.send(message)
        with pytest.raises(ValueError, match="can ever hold"):
            channel.try_send(message)
    with pytest.raises(MessageTooLargeError):
        channel.reserve_array(largest + 1, "u1")
    for _ in range(5):
        channel.send(bytes(largest))
        assert channel.receive() == bytes(largest)
        with channel.reserve(largest) as room:
            assert room.nbytes == largest
        channel.receive()
        channel.send(1)
        channel.receive()


# ---- in place: reading ----


def test_receive_without_copy(channel):
    channel.send(np.arange(6).reshape(2, 3))
    array = channel.receive(copy=False)
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not array.flags.writeable
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_bytes_like_without_copy(channel):
    channel.send(b"x" * 1000)
    view = channel.receive(copy=False)
    assert isinstance(view, memoryview)
    assert view.readonly
    assert view == b"x" * 1000


@pytest.mark.parametrize("value", [1, "text", None, [1, "2"], {"a": 1}], ids=repr)
def test_without_copy_small_things_hold_nothing(channel, value):
    for _ in range(200):
        channel.send(value)
        assert channel.receive(copy=False) == value


def test_views_keep_their_content_while_the_ring_goes_round():
    with RingBufferChannel(64, buffer_size=16384) as channel:
        channel.send(np.full(1000, 7, "u1"))
        held = channel.receive(copy=False)
        sent = 0
        for i in range(200):  # behind the held one there is room for a few only
            sent += channel.enqueue(bytes([i]) * 500)
        assert 0 < sent < 64
        assert (held == 7).all()
        while channel.dequeue() is not None:
            pass
        assert not channel.enqueue(bytes(8000)) or len(channel) == 1
        assert (held == 7).all()
        del held
        for i in range(200):
            channel.send(bytes([i]) * 500)
            assert channel.receive() == bytes([i]) * 500


def test_views_released_out_of_order():
    with RingBufferChannel(64, buffer_size=65536) as channel:
        for order in itertools.permutations(range(4)):
            for i in range(4):
                channel.send(np.full(2000, i, "u1"))
            held = {i: channel.receive(copy=False) for i in range(4)}
            for i in order:
                assert all((array == k).all() for k, array in held.items())
                del held[i]
            assert len(channel) == 0
            assert channel.stats().bytes_used == 0


def test_an_older_view_holds_back_the_space_of_newer_messages():
    with RingBufferChannel(8) as channel:
        channel.send(np.zeros(10))
        held = channel.receive(copy=False)
        for _ in range(7):
            channel.send(1)
            channel.receive()
        assert len(channel) == 0
        assert channel.enqueue("no room: the oldest is still in use") is False
        del held
        assert channel.enqueue("room") is True


def test_at_most_64_views():
    with RingBufferChannel(200) as channel:
        for i in range(70):
            channel.send(np.full(3, i))
        held = [channel.receive(copy=False) for _ in range(64)]
        with pytest.raises(BufferError, match="too many zero-copy messages"):
            channel.receive(copy=False)
        assert channel.receive()[0] == 64  # nothing was lost, and copies still work
        channel.send("last")
        del held[40]
        with pytest.raises(BufferError):
            channel.receive(copy=False)  # the oldest counts
        del held[0]
        assert channel.receive(copy=False)[0] == 65
        held.clear()
        gc.collect()
        assert [channel.receive(copy=False)[0] for _ in range(4)] == [66, 67, 68, 69]
        assert channel.receive(copy=False) == "last"
        assert channel.stats().bytes_used == 0


def test_views_outlive_close(channel):
    channel.send(np.arange(100))
    array = channel.receive(copy=False)
    part = array[10:20]
    channel.close()
    assert array.sum() == 4950
    del array
    gc.collect()
    assert part.tolist() == list(range(10, 20))


def test_views_keep_the_end(channel):
    """The receiving end is given back with the last view, so that nobody else starts behind it."""
    channel.send(np.arange(100))
    array = channel.receive(copy=False)
    with RingBufferChannel.attach(channel.name) as other:
        channel.close()
        assert other.stats().participants[0].holds == ("receiving end",)
        del array
        gc.collect()
        assert other.stats().participants[0].holds == ()


def test_several_views_of_one_message(channel):
    channel.send([np.arange(10), {"b": np.ones(5)}, b"x" * 300])
    first, second, third = channel.receive(copy=False)
    channel.send(1)
    assert channel.receive() == 1
    del first
    assert channel.stats().bytes_used > 0
    assert second["b"].sum() == 5
    assert bytes(third) == b"x" * 300
    del second, third
    assert channel.stats().bytes_used == 0


def test_a_pickled_message_without_copy(channel):
    channel.send(Opaque(np.arange(1000)))
    received = channel.receive(copy=False)
    assert received.value.sum() == 499500
    del received
    gc.collect()
    assert channel.stats().bytes_used == 0


# ---- shutdown and iteration ----


def test_graceful_shutdown(channel):
    channel.send_batch([1, 2])
    assert channel.shutdown() is None
    for call in (channel.send, channel.enqueue, channel.try_send, channel.reserve, lambda n: channel.send_batch([n])):
        with pytest.raises(ShutDown, match="shut down"):
            call(3)
    with pytest.raises(ShutDown):
        channel.send([3])
    assert channel.peek() == 1
    assert channel.receive() == 1
    assert channel.receive_batch(9) == [2]
    for call in (channel.receive, channel.dequeue, channel.try_receive, channel.peek, lambda: channel.receive_batch(3)):
        with pytest.raises(ShutDown):
            call()
    assert channel.stats().is_shutdown
    channel.shutdown()


def test_immediate_shutdown(channel):
    channel.send_batch([1, 2])
    channel.shutdown(immediate=True)
    for call in (channel.receive, channel.dequeue, channel.try_receive, channel.peek, lambda: channel.receive_batch(3)):
        with pytest.raises(ShutDown):
            call()
    with pytest.raises(ShutDown):
        channel.send(3)
    assert list(channel) == []


def test_what_an_immediate_shutdown_leaves_does_not_count(channel):
    channel.send_batch([1, 2, 3])
    channel.shutdown(immediate=True)
    assert len(channel) == channel.stats().length == 0
    assert channel.is_empty()
    channel.clear()
    assert len(channel) == 0


@pytest.mark.parametrize("call", ["receive", "receive_batch", "send", "send_batch", "reserve"])
def test_a_timeout_is_no_bool(channel, call):
    """queue.Queue.get() takes `block` where receive() takes `timeout`."""
    argument = {"receive": (), "send_batch": ([1],)}.get(call, (1,))
    for flag in (True, False):
        with pytest.raises(TypeError, match=r"^timeout must be seconds \(a number\) or None, not bool"):
            getattr(channel, call)(*argument, flag)
    assert len(channel) == 0
    with pytest.raises(TypeError):
        channel.receive(1, False)  # copy= is a keyword
    channel.send(1)
    assert channel.receive() == 1


def test_first_graceful_then_immediate(channel):
    channel.send_batch([1, 2])
    channel.shutdown()
    assert channel.receive() == 1
    channel.shutdown(True)
    with pytest.raises(ShutDown):
        channel.receive()


def test_shutdown_is_that_of_queue_where_there_is_one(channel):
    channel.shutdown()
    kinds = (ShutDown, Error, getattr(queue, "ShutDown", ShutDown))
    for kind in kinds:
        with pytest.raises(kind):
            channel.receive()


def test_iteration_ends_with_shutdown(channel):
    channel.send_batch([1, [2], "3"])
    channel.shutdown()
    assert iter(channel) is channel
    assert list(channel) == [1, [2], "3"]
    assert list(channel) == []


def test_iteration_waits(channel):
    def produce():
        for i in range(50):
            channel.send(i if i % 2 else [i])
        channel.shutdown()

    thread = threading.Thread(target=produce)
    thread.start()
    assert list(channel) == [i if i % 2 else [i] for i in range(50)]
    thread.join()


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_wakes(channel, immediate):
    threading.Timer(0.02, channel.shutdown, [immediate]).start()
    with pytest.raises(ShutDown):
        channel.receive()


def test_shutdown_wakes_a_sender(channel):
    channel.send_batch(range(4))
    threading.Timer(0.02, channel.shutdown).start()
    with pytest.raises(ShutDown):
        channel.send(5)
    assert channel.receive_batch(9) == [0, 1, 2, 3]


def test_a_reservation_that_shutdown_overtook(channel):
    """Receivers may have been told that nothing comes any more."""
    reservation = channel.reserve(3)
    channel.shutdown()
    with pytest.raises(ShutDown):
        channel.receive()
    with pytest.raises(ShutDown):
        reservation.commit()
    with pytest.raises(ShutDown):
        channel.receive()


# ---- numbers ----


def test_stats(channel):
    before = channel.stats()
    assert isinstance(before, RingStats)
    assert (before.bytes_total, before.bytes_used, before.capacity, before.length) == (65536, 0, 4, 0)
    assert (before.sent, before.received, before.lost, before.peak_length, before.waiters) == (0, 0, 0, 0, 0)
    assert (before.sender_deaths, before.receiver_deaths, before.is_shutdown) == (0, 0, False)
    (me,) = before.participants
    assert me.alive
    assert abs(me.since - time.time()) < 3600
    assert me.holds == ()
    channel.send_batch(range(3))
    channel.receive()
    after = channel.stats()
    assert (after.sent, after.received, after.length, after.peak_length) == (3, 1, 2, 3)
    assert after.bytes_used == 32
    assert after.participants[0].holds == ("sending end", "receiving end")


def test_stats_are_frozen_and_plain(channel):
    stats = channel.stats()
    with pytest.raises(AttributeError):
        stats.sent = 5
    table = stats.asdict()
    assert table["participants"][0]["pid"] == stats.participants[0].pid
    assert set(table) == set(RingStats.__annotations__) | {"participants"}
    assert pickle.loads(pickle.dumps(stats)) == stats


@pytest.fixture
def waiting():
    """Starts threads that call something; in the end all must have returned."""
    threads = []

    def start(call, number=1):
        for _ in range(number):
            threads.append(threading.Thread(target=call))
            threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


def suppressing(error, call, *arguments):
    def run():
        with contextlib.suppress(error):
            call(*arguments)

    return run


def test_stats_count_every_waiting_thread(channel, waiting):
    assert channel.stats().waiters == 0
    for n in range(1, 6):
        waiting(channel.receive)
        until(lambda n=n: channel.stats().waiters == n)
    for n in range(4, -1, -1):
        channel.send(n)
        until(lambda n=n: channel.stats().waiters == n)


def test_stats_count_who_waits_in_any_call(waiting):
    with RingBufferChannel(1) as full, RingBufferChannel(1) as empty:
        full.send(0)
        for call in (full.send, full.send, lambda _: full.send_batch([1]), full.reserve):
            waiting(suppressing(ShutDown, call, 1))
        for call in (empty.receive_batch, empty.receive_batch, lambda _: list(empty)):
            waiting(suppressing(ShutDown, call, 1))
        until(lambda: (full.stats().waiters, empty.stats().waiters) == (4, 3))
        for _ in range(50):  # also while they look again after each slice of their sleep
            assert (full.stats().waiters, empty.stats().waiters) == (4, 3)
            time.sleep(0.005)
        full.shutdown(immediate=True)
        empty.shutdown()
        until(lambda: full.stats().waiters + empty.stats().waiters == 0)


WAITS_THAT_END = {
    "at the deadline": lambda ch: ch.receive(0.06),
    "at once": lambda ch: ch.receive(0),
    "without a wait": lambda ch: ch.try_receive(),
    "a sender's, at the deadline": lambda ch: (ch.send_batch(range(4)), ch.send(1, timeout=0.06)),
}


@pytest.mark.parametrize("call", WAITS_THAT_END.values(), ids=WAITS_THAT_END)
def test_stats_do_not_count_a_wait_that_has_ended(channel, call):
    with contextlib.suppress(Empty, Full):
        call(channel)
    assert channel.stats().waiters == 0


def test_stats_do_not_count_a_wait_that_was_closed(channel, waiting):
    other = RingBufferChannel.attach(channel.name)

    def wait():
        with pytest.raises(ValueError, match="closed"):
            other.receive()

    waiting(wait, 3)
    until(lambda: channel.stats().waiters == 3)
    other.close()
    until(lambda: channel.stats().waiters == 0)


def test_length_counts_what_waits(channel):
    channel.send(np.zeros(3))
    channel.send(2)
    held = channel.receive(copy=False)
    assert len(channel) == 1
    assert not channel.is_empty()
    assert channel.receive() == 2
    assert len(channel) == 0
    assert channel.is_empty()
    assert channel.stats().length == 0
    del held


# ---- being a Python object ----


def test_generic_alias():
    alias = RingBufferChannel[int]
    assert alias.__origin__ is RingBufferChannel
    with alias(3) as channel:
        assert type(channel) is RingBufferChannel


def test_weakref():
    channel = RingBufferChannel(3)
    gone = []
    reference = weakref.ref(channel, gone.append)
    assert reference() is channel
    del channel
    assert reference() is None
    assert gone == [reference]


def test_subclass():
    class Numbered(RingBufferChannel):
        def __init__(self, capacity, *, label="none", name=None):
            self.label = label

        def __new__(cls, capacity, *, label="none", name=None):
            return super().__new__(cls, capacity, name=name)

        def send(self, obj, timeout=None):
            super().send((self.label, obj), timeout)

    with Numbered(3, label="x") as channel:
        channel.send(1)
        assert channel.receive() == ("x", 1)
        assert repr(channel).startswith("<Numbered '")
        with Numbered.attach(channel.name) as other:
            assert type(other) is Numbered
            assert weakref.ref(other)() is other
        cycle = Numbered(2)
        cycle.self = cycle
        reference = weakref.ref(cycle)
        del cycle
        gc.collect()
        assert reference() is None


def test_the_base_and_the_leases_are_not_made_by_hand():
    for kind in (SharedObject, shmcomm._core.Lease, shmcomm._core.Reservation):
        with pytest.raises(TypeError, match="cannot create"):
            kind()


def test_copies_are_handles_to_the_same(channel):
    with copy.copy(channel) as shallow, copy.deepcopy(channel) as deep:
        shallow.send(1)
        deep.send(2)
        assert channel.receive_batch(5) == [1, 2]


def test_truth_is_about_length_as_for_containers(channel):
    assert not channel
    channel.send(1)
    assert channel


def test_hash_and_equality_are_by_identity(channel):
    with RingBufferChannel.attach(channel.name) as other:
        assert channel == channel
        assert channel != other
        assert len({channel, other}) == 2


def test_two_handles_of_one_process_share_the_ends(channel):
    with RingBufferChannel.attach(channel.name) as other:
        channel.send(1)
        other.send(2)
        assert channel.receive() == 1
        assert other.receive() == 2
        channel.close()
        other.send(3)
        assert other.receive() == 3
        assert len(other.stats().participants) == 1


def test_exception_classes():
    assert issubclass(Full, (Error,))
    assert issubclass(Full, queue.Full)
    assert issubclass(MessageTooLargeError, ValueError)
    assert issubclass(NotEncodableError, TypeError)
    assert issubclass(BusyError, Error)
    lagged = shmcomm.LaggedError("late", lost=3)
    again = pickle.loads(pickle.dumps(lagged))
    assert (str(again), again.lost, type(again)) == ("late", 3, shmcomm.LaggedError)


def test_docstrings_and_signatures():
    import inspect

    for kind in (RingBufferChannel, shmcomm.SharedMemoryBuffer):
        for name in dir(kind):
            if not name.startswith("_"):
                assert getattr(kind, name).__doc__, f"{kind.__name__}.{name}"
                if callable(getattr(kind, name)):
                    assert inspect.signature(getattr(kind, name)) is not None
    assert "timeout" in inspect.signature(RingBufferChannel.receive).parameters
