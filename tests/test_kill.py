"""SIGKILL at random moments: nobody hangs, nothing is corrupted, and what is documented to arrive arrives.

Each round, a victim works on one end of a channel (or both) and is killed 0 to 5 ms after it began; the survivor
goes on with
the other end, then takes the victim's. Messages carry a number and a checksum. A sender's number n stays n until its
channel
has taken it, so that the receiver must see every number at least once and in order; a successor of a dead receiver
may see
again what the dead one had not given back, and nothing else.
"""

import contextlib
import itertools
import os
import random
import signal
import sys
import time
import zlib

import numpy as np
import pytest
from helpers import RESERVES_IN_PIECES, Peer, fork_worker, path_of

from shmcomm import BusyError, Empty, Full, LayoutError, ObjectPool, RingBufferChannel, SharedMemoryBuffer, _core

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.time_limit(36000),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
DEFAULT_KILLS = 500
BATCH = 7
SEED = int(os.environ.get("SHC_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


#: bytes of a body's unit, and what the channel is made with: small messages that lie in the ring, or most of them large
MEMORY = {"in the ring": (1, {"buffer_size": 1 << 16})}
if RESERVES_IN_PIECES:
    MEMORY["extents"] = (200, {})
unit = 1


def body_of(n):
    return bytes([n % 251]) * (n * 97 % 900 * unit)


def packed(n):
    body = body_of(n)
    return n.to_bytes(8, "little") + zlib.crc32(body).to_bytes(8, "little") + body


def message(n):
    """Number n: its size and kind vary with it, and a checksum stands in it."""
    if n % 4 == 0:
        return {"n": n, "sum": zlib.crc32(body_of(n)), "body": body_of(n)}
    return np.frombuffer(packed(n), "u1") if n % 4 == 1 else packed(n)


def number_of(received):
    """The number of a message, after checking the rest of it."""
    if isinstance(received, dict):
        n, total, body = received["n"], received["sum"], bytes(received["body"])
    else:
        data = bytes(received)
        n, total, body = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little"), data[16:]
    assert zlib.crc32(body) == total, f"message {n} is spoilt"
    assert body == body_of(n)
    return n


def drain(channel):
    numbers = []
    while (received := channel.try_receive()) is not None:
        numbers.append(number_of(received))
    return numbers


# ---- what a victim does, for ever ----


def sends(channel, start):
    for n in range(start, 1 << 40):
        channel.send(message(n))


def sends_now_and_then(channel, start):
    n = start
    while True:
        n += channel.try_send(message(n))


def sends_batches(channel, start):
    n = start
    while True:
        channel.send_batch([message(k) for k in range(n, n + 20)])
        n += 20


def sends_endlessly(channel, start):
    channel.send_batch(map(message, itertools.count(start)))


def reserves(channel, start):
    for n in range(start, 1 << 40):
        data = packed(n)
        with channel.reserve(len(data)) as room:
            room[:] = data


def receives(channel, progress):
    while True:
        progress[0] = number_of(channel.receive()) + 1


def receives_batches(channel, progress):
    while True:
        for received in channel.receive_batch(BATCH):
            progress[0] = number_of(received) + 1


def peeks_and_takes(channel, progress):
    while True:
        received = channel.peek()
        if received is not None:
            assert number_of(received) == number_of(channel.dequeue())
            progress[0] = number_of(received) + 1


def holds_views(channel, progress):
    held = []
    while True:
        received = channel.receive(copy=False)
        progress[0] = number_of(received) + 1
        held.append(received)
        if len(held) > 20:
            del held[random.randrange(20)]


SENDERS = {f.__name__: f for f in (sends, sends_now_and_then, sends_batches, sends_endlessly, reserves)}
#: how many messages a victim may have got without having noted them, and how many of those noted may come again
RECEIVERS = {receives: (1, 0), receives_batches: (BATCH, 0), peeks_and_takes: (1, 0), holds_views: (1, 64)}


# ---- the survivor ----


@pytest.fixture
def kills(request):
    scenarios = len(MEMORY) * (len(SENDERS) + len(RECEIVERS)) + 5
    total = request.config.getoption("kills") or int(os.environ.get("SHMCOMM_KILLS", "0")) or DEFAULT_KILLS
    return max(1, total // scenarios)


@pytest.fixture
def chance(request):
    print(f"repeat with SHC_TEST_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(params=MEMORY)
def channel(request, monkeypatch):
    size, options = MEMORY[request.param]
    monkeypatch.setattr(sys.modules[__name__], "unit", size)
    with RingBufferChannel(64, **options) as made:
        yield made
        stats = made.stats()
        assert (stats.bytes_used, stats.bytes_large_used, stats.received) == (0, 0, stats.sent)
        assert (stats.bytes_large_reserved > 0) == (request.param == "extents")


def kill_soon(pid, chance):
    time.sleep(chance.random() * 0.005)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status), f"the victim ended by itself: {os.waitstatus_to_exitcode(status)}"


@pytest.mark.parametrize("victim", SENDERS.values(), ids=SENDERS)
def test_a_sender_is_killed(victim, channel, kills, chance):
    """The survivor receives, blocked most of the time; the next sender goes on with the first number that has not
    come.
    """
    expected = 0
    for _ in range(kills):
        pid = fork_worker(victim, channel, expected)
        end = time.monotonic() + chance.random() * 0.005
        while time.monotonic() < end:
            try:
                assert number_of(channel.receive(timeout=0.002)) == expected
                expected += 1
            except Empty:
                pass
        kill_soon(pid, chance)
        rest = drain(channel)
        assert rest == list(range(expected, expected + len(rest)))
        expected += len(rest)
        with RingBufferChannel.attach(channel.name) as successor:  # another handle: its close() gives the end back
            successor.send(message(expected), timeout=0)
        assert number_of(channel.receive(timeout=0)) == expected
        expected += 1
        assert len(channel) == 0
    assert expected > kills


@pytest.mark.parametrize(("victim", "slack"), RECEIVERS.items(), ids=[f.__name__ for f in RECEIVERS])
def test_a_receiver_is_killed(victim, slack, channel, kills, chance):
    """The survivor sends, blocked now and then; the successor gets all that the victim had not given back, in order."""
    unnoted, again = slack
    with SharedMemoryBuffer(8) as noted:
        progress = noted.as_array(1, "u8")
        sent, repeated = 0, 0
        for _ in range(kills):
            progress[0] = sent
            pid = fork_worker(victim, channel, progress)
            end = time.monotonic() + chance.random() * 0.005
            while time.monotonic() < end:
                try:
                    channel.send(message(sent), timeout=0.002)
                    sent += 1
                except Full:
                    pass
            kill_soon(pid, chance)
            while channel.try_send(message(sent)):
                sent += 1
            with RingBufferChannel.attach(channel.name) as successor:
                rest = drain(successor)
            first, seen = rest[0] if rest else sent, int(progress[0])
            missing = sorted(set(range(first, sent)) - set(rest))
            assert rest == sorted(set(rest)), "something came twice or out of order"
            assert first <= seen + unnoted, f"{first - seen} messages are lost"
            # large ones that it had let go of, behind one in the ring that it had not
            assert not missing or (again and missing[-1] < seen + unnoted), f"{missing} are lost"
            assert first >= seen - again, f"{seen - first} messages came again"
            repeated += first < seen
            assert len(channel) == 0
        assert channel.stats().sent == sent
        assert repeated == 0 or again


def sends_to_itself(channel, start):
    n = start
    while True:
        for _ in range(n % 5 + 1):
            n += channel.try_send(message(n))
        received = channel.try_receive()
        if received is not None:
            number_of(received)


def test_both_ends_are_killed_at_once(kills, chance):
    with RingBufferChannel(16, buffer_size=1 << 14) as channel:
        start = 0
        for _ in range(kills):
            kill_soon(fork_worker(sends_to_itself, channel, start), chance)
            with RingBufferChannel.attach(channel.name) as successor:
                rest = drain(successor)
                assert rest == list(range(rest[0], rest[0] + len(rest))) if rest else True
                start = rest[-1] + 1 if rest else start
                successor.send(message(start), timeout=0)
                assert number_of(successor.receive(timeout=0)) == start
        stats = channel.stats()
        assert (stats.length, stats.bytes_used, stats.sent) == (0, 0, stats.received)


def answers(there, back):
    for received in there:
        back.send(number_of(received))


def test_a_pipeline_whose_middle_is_killed(kills, chance):
    """A worker between two channels dies again and again; what it had not answered is sent again."""
    with RingBufferChannel(8) as there, RingBufferChannel(8) as back:
        answered = set()
        pid, killed = fork_worker(answers, there, back), 0
        waiting = list(range(40 * kills))
        unanswered = []
        while waiting or unanswered:
            while waiting and len(unanswered) < 8 and there.try_send(message(waiting[-1])):
                unanswered.append(waiting.pop())
            try:
                number = back.receive(timeout=0.002)
                answered.add(number)
                if number in unanswered:
                    unanswered.remove(number)
            except Empty:
                pass
            if killed < kills and chance.random() < 0.05:
                kill_soon(pid, chance)
                killed += 1
                with RingBufferChannel.attach(there.name) as successor:
                    successor.clear()
                waiting += unanswered
                unanswered.clear()
                pid = fork_worker(answers, there, back)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert answered == set(range(40 * kills))


def opens_and_closes(name, chance):
    while True:
        try:
            with RingBufferChannel.open(name, 8, buffer_size=chance.choice([1, 5000, 100_000])) as channel:
                channel.try_send(1)
                with SharedMemoryBuffer.open(name + "-buffer", 1000, persist=False) as buffer:
                    buffer.write(b"abc")
                    buffer.unlink()
                if chance.random() < 0.3:
                    channel.unlink()
        except (LayoutError, FileNotFoundError, BusyError):
            pass


def test_killed_while_creating_attaching_and_unlinking(own_folder, kills, chance):
    name = "killed-often"
    for _ in range(kills):
        pids = [fork_worker(opens_and_closes, name, random.Random(chance.random())) for _ in range(2)]
        for pid in pids:
            kill_soon(pid, chance)
        with contextlib.suppress(FileNotFoundError):
            RingBufferChannel.attach(name).close()
        with RingBufferChannel(4, name=name) as channel:
            channel.send([1], timeout=0)
            assert channel.receive(timeout=0) == [1]
        assert not path_of(name).exists()
    _core.collect_garbage()
    assert list(own_folder.iterdir()) == []


def writes(buffer, _):
    while True:
        with SharedMemoryBuffer.attach(buffer.name) as same:
            same.write(os.urandom(1000), random.randrange(9000))
            same.flush_checksum()
            same.clear(5000)
        buffer.set_header(user=random.randrange(1 << 64))


def test_a_writer_of_a_buffer_is_killed(kills, chance):
    with SharedMemoryBuffer(10_000) as buffer:
        for _ in range(kills):
            kill_soon(fork_worker(writes, buffer, None), chance)
            assert buffer.validate_header()
            assert buffer.used <= buffer.size
            buffer.flush_checksum()
            assert buffer.verify_checksum()
        buffer.clear()
        assert buffer.read() == bytes(10_000)


NOTHING = bytes(64)


def clean(view):
    view[:] = NOTHING


def works_in_slots(pool, number):
    while True:
        with pool.borrow() as view:
            assert bytes(view) == NOTHING
            for i in range(64):
                view[i] = number


def test_users_of_a_pool_are_killed(kills, chance):
    """Three slots, two victims and the survivor: nobody sees what another left half done, and no slot is lost."""
    with ObjectPool(memoryview, reset=clean, slot_size=64, max_size=3) as pool:
        for round_ in range(kills):
            victims = [fork_worker(works_in_slots, pool, number) for number in (1, 2)]
            end = time.monotonic() + chance.random() * 0.005
            while time.monotonic() < end:
                with pool.borrow(timeout=30) as view:
                    assert bytes(view) == NOTHING
                    view[0] = 3
            for pid in victims:
                kill_soon(pid, chance)
            views = [pool.acquire(timeout=0) for _ in range(3)]
            assert [bytes(view) for view in views] == [NOTHING] * 3
            for view in views:
                pool.release(view)
            assert pool.allocated == 0
            assert pool.stats().deaths <= 2 * (round_ + 1)


@pytest.mark.parametrize("role", ["sends", "receives"])
def test_fresh_processes_are_killed(role, chance):
    """Not forked, but started: what they import and how they attach is their own."""
    with RingBufferChannel(16) as channel:
        for i in range(4):
            with Peer() as peer:
                peer("x = RingBufferChannel.attach(name)", name=channel.name)
                peer.begin("while True: x.send(b'z' * 100)" if role == "sends" else "while True: x.receive()")
                for _ in range(200):
                    if role == "sends":
                        assert channel.receive(timeout=30) == b"z" * 100
                    else:
                        channel.send(i, timeout=30)
                time.sleep(chance.random() * 0.005)
                peer.kill()
            with RingBufferChannel.attach(channel.name) as successor:
                sender, receiver = (successor, channel) if role == "sends" else (channel, successor)
                receiver.clear()
                sender.send("next", timeout=0)
                assert receiver.receive(timeout=0) == "next"
        deaths = channel.stats()
        assert deaths.sender_deaths + deaths.receiver_deaths >= 4


def test_a_sender_is_stopped_and_goes_on(chance):
    """SIGSTOP and SIGCONT at random: its end stays its own, nothing is lost and nothing comes twice."""
    with RingBufferChannel(16) as channel, RingBufferChannel.attach(channel.name) as rival:
        pid = fork_worker(sends, channel, 0)
        expected = 0
        try:
            for _ in range(60):
                for _ in range(chance.randrange(1, 50)):
                    assert number_of(channel.receive(timeout=30)) == expected
                    expected += 1
                os.kill(pid, signal.SIGSTOP)
                with pytest.raises(BusyError):
                    rival.try_send("not mine")
                rest = drain(channel)
                assert rest == list(range(expected, expected + len(rest)))
                expected += len(rest)
                os.kill(pid, signal.SIGCONT)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert channel.stats().sender_deaths == 0
