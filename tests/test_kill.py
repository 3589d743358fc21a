"""SIGKILL at random moments: nobody hangs, nothing is corrupted, and what is documented to arrive arrives.

Each round, a victim works on one end of a channel (or both) and is killed 0 to 5 ms after it began; the survivor goes on with
the other end, then takes the victim's. Messages carry a number and a checksum. A sender's number n stays n until its channel
has taken it, so that the receiver must see every number at least once and in order; a successor of a dead receiver may see
again what the dead one had not given back, and nothing else.
"""

import os
import random
import signal
import time
import zlib

import numpy as np
import pytest
from helpers import fork_worker, until

from shmcomm import Empty, Full, RingBufferChannel, SharedMemoryBuffer, _core

pytestmark = [pytest.mark.chaos, pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")]
DEFAULT_KILLS = 500
SEED = int(os.environ.get("SHC_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


def message(n):
    """Number n: its size and kind vary with it, and a checksum stands in it."""
    body = bytes([n % 251]) * (n * 97 % 900)
    if n % 4 == 0:
        return {"n": n, "sum": zlib.crc32(body), "body": body}
    if n % 4 == 1:
        return np.frombuffer(n.to_bytes(8, "little") + zlib.crc32(body).to_bytes(8, "little") + body, "u1")
    return n.to_bytes(8, "little") + zlib.crc32(body).to_bytes(8, "little") + body


def number_of(received):
    """The number of a message, after checking the rest of it."""
    if isinstance(received, dict):
        n, total, body = received["n"], received["sum"], bytes(received["body"])
    else:
        data = bytes(received)
        n, total, body = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little"), data[16:]
    assert zlib.crc32(body) == total, f"message {n} is spoilt"
    assert body == bytes([n % 251]) * (n * 97 % 900)
    return n


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


def reserves(channel, start):
    for n in range(start, 1 << 40):
        data = bytes(message(n | 2 if n % 4 < 2 else n)) if n % 4 >= 2 else plain(n)
        with channel.reserve(len(data)) as room:
            room[:] = data


def plain(n):
    body = bytes([n % 251]) * (n * 97 % 900)
    return n.to_bytes(8, "little") + zlib.crc32(body).to_bytes(8, "little") + body


def receives(channel, _):
    while True:
        number_of(channel.receive())


def receives_batches(channel, _):
    while True:
        for received in channel.receive_batch(7):
            number_of(received)


def peeks_and_takes(channel, _):
    while True:
        if channel.peek() is not None:
            channel.dequeue()


def holds_views(channel, _):
    held = []
    while True:
        received = channel.receive(copy=False)
        number_of(received)
        held.append(received)
        if len(held) > 20:
            del held[random.randrange(20)]


SENDERS = {f.__name__: f for f in (sends, sends_now_and_then, sends_batches, reserves)}
RECEIVERS = {f.__name__: f for f in (receives, receives_batches, peeks_and_takes, holds_views)}
MORE = ["opens_and_closes", "both_ends", "buffers"]


@pytest.fixture
def kills(request):
    total = request.config.getoption("kills") or int(os.environ.get("SHMCOMM_KILLS", "0")) or DEFAULT_KILLS
    return max(1, total // (len(SENDERS) + len(RECEIVERS) + len(MORE)))


@pytest.fixture
def chance(request):
    print(f"seed {SEED}")
    return random.Random(f"{SEED} {request.node.name}")


def begin(function, *arguments):
    """A forked victim: it is quick to make, and inherits what it works on."""
    return fork_worker(function, *arguments)


def kill_soon(pid, chance):
    time.sleep(chance.random() * 0.005)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status), f"the victim ended by itself: {status}"


@pytest.mark.time_limit(36000)
@pytest.mark.parametrize("victim", SENDERS.values(), ids=SENDERS)
@pytest.mark.parametrize("codec", ["auto"])
def test_a_sender_is_killed(victim, codec, kills, chance):
    """The survivor is blocked or busy receiving; the next sender goes on with the first number that has not come."""
    with RingBufferChannel(64, buffer_size=1 << 16, codec=codec) as channel:
        expected = 0
        for _ in range(kills):
            pid = begin(victim, channel, expected)
            deadline = time.monotonic() + chance.random() * 0.004
            while time.monotonic() < deadline:
                try:
                    assert number_of(channel.receive(timeout=0.002)) == expected
                    expected += 1
                except Empty:
                    pass
            kill_soon(pid, chance)
            while (received := channel.try_receive()) is not None:
                assert number_of(received) == expected
                expected += 1
            channel.send(message(expected), timeout=0)  # its end is free at once
            assert number_of(channel.receive(timeout=0)) == expected
            expected += 1
            give_back_the_sending_end(channel)
        assert channel.stats().bytes_used == 0
        assert expected > kills


def give_back_the_sending_end(channel):
    """By a child that takes it from nobody: ends are given back by close() only, so the survivor's lease is dropped so."""
    name = channel.name
    handle = HANDLES.pop(name, None)
    if handle is not None:
        handle.close()


HANDLES = {}
