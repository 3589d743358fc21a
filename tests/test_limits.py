"""When the system has no more to give, or will not be quiet: full file systems, descriptors, address space, a storm of
signals, a full table of participants, everybody at once. Always a documented exception, everything else goes on, and
nothing is left behind."""

import contextlib
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
from helpers import HERE, PATIENCE_S, RESERVES_IN_PIECES, Peer, forked, path_of, run_python, until

from shmcomm import Full, MessageTooLargeError, RingBufferChannel, SharedMemoryBuffer, _core

SEED = int(os.environ.get("SHC_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def folder(folder, monkeypatch):
    """The same, where all objects go; it has to be empty in the end."""
    monkeypatch.setenv("SHMCOMM_DIR", str(folder))
    yield folder
    assert os.listdir(folder) == []


def assert_usable(channel):
    channel.clear()
    for message in (1, "two", [3], b"4"):
        channel.send(message, timeout=0)
    assert channel.receive_batch(9, timeout=0) == [1, "two", [3], b"4"]


# ---- a full file system ----


@pytest.fixture
def mounted(tmp_path):
    """Mounts a memory file system with these options."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "shmcomm-test", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode != 0:
            pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def fill(path):
    """A plain file that takes all the memory that is left."""
    with open(path, "wb", buffering=0) as file:
        for size in (65536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_objects_until_the_file_system_is_full(mounted):
    folder = mounted("size=2m")
    for kind in (lambda: RingBufferChannel(4, directory=folder), lambda: SharedMemoryBuffer(50_000, directory=folder)):
        for _ in range(3):
            made = []
            with pytest.raises(OSError, match=r"needs \d+ bytes of shared memory and .*small has \d+ free") as caught:
                while True:
                    made.append(kind())
            assert caught.value.errno == errno.ENOSPC
            assert len(made) >= 15
            assert len(list(folder.iterdir())) == len(made)
            made.pop().close()
            kind().close()
            for one in made:
                one.close()
            assert list(folder.iterdir()) == []


@pytest.mark.skipif(RESERVES_IN_PIECES, reason="here it can")
def test_no_large_messages_where_memory_cannot_be_reserved_in_pieces():
    with RingBufferChannel(4) as channel:
        assert channel.stats().bytes_large_total == 0
        with pytest.raises(MessageTooLargeError, match="create it with buffer_size="):
            channel.send(bytes(100_000))
        assert_usable(channel)


@pytest.mark.skipif(not RESERVES_IN_PIECES, reason="this system body has no large messages")
def test_a_large_message_for_which_there_is_no_memory(mounted):
    """Nothing is on its way: the system's error, in words. Something is: there will be room when it has been received,
    as in a channel that is full."""
    folder = mounted("size=8m")
    with RingBufferChannel(4, directory=folder) as channel:
        for call in (
            channel.send,
            channel.try_send,
            lambda m: channel.send_batch([1, m]),
            lambda m: channel.reserve(len(m)),
        ):
            with pytest.raises(
                OSError, match=r"cannot grow for a message of \d+ bytes: .*small has \d+ free; .*gc"
            ) as caught:
                call(bytes(20_000_000))
            assert caught.value.errno == errno.ENOSPC
            assert_usable(channel)
        for _ in range(3):
            channel.send(bytes(5_000_000))
            assert not channel.try_send(bytes(5_000_000))
            with pytest.raises(Full):
                channel.send(bytes(5_000_000), timeout=0.01)
            view = channel.receive(copy=False)
            with pytest.raises(Full):
                channel.reserve_array(5_000_000, "u1", timeout=0.01)
            assert len(view) == 5_000_000
            del view
        fill(folder / "full")
        channel.send(bytes(5_000_000))  # its memory is there already
        assert channel.receive() == bytes(5_000_000)
        assert_usable(channel)


def test_what_was_promised_is_there_when_the_file_system_is_full(mounted):
    """In a process of its own: memory that is not there would end it with SIGBUS."""
    folder = mounted("size=2m")
    source = """
import sys
from shmcomm import RingBufferChannel, SharedMemoryBuffer
sys.path.insert(0, sys.argv[1])
from test_limits import fill
folder = sys.argv[2]
with (
    RingBufferChannel(64, buffer_size=1 << 19, directory=folder) as channel,
    SharedMemoryBuffer(500_000, directory=folder) as buffer,
):
    fill(folder + "/full")
    try:
        SharedMemoryBuffer(10, directory=folder)
    except OSError as error:
        assert error.errno == 28, error
    buffer.write(b"x" * 500_000)
    for size in (100, 1000, 250_000, 9999):
        for i in range(50):
            message = bytes([i]) * (size + i)
            channel.send(message)
            assert channel.receive() == message
    assert len(channel.stats().participants) == 1
    with RingBufferChannel.attach(channel.name, directory=folder) as same:  # takes no memory
        assert same.is_empty()
"""
    run_python(source, HERE, folder)
    assert [path.name for path in folder.iterdir()] == ["full"]


def test_a_file_system_without_inodes(mounted):
    spare = 0 if _core._os_body == "linux" else 1  # a file that is born with a private name has two for a moment
    folder = mounted(f"size=2m,nr_inodes={3 + spare}")
    with RingBufferChannel(4, directory=folder) as first, RingBufferChannel(4, directory=folder):
        with pytest.raises(OSError, match="no room for another file") as caught:
            RingBufferChannel(4, directory=folder)
        assert caught.value.errno == errno.ENOSPC
        assert_usable(first)
    RingBufferChannel(4, directory=folder).close()
    assert list(folder.iterdir()) == []


# ---- descriptors ----


@contextlib.contextmanager
def descriptors_left(number):
    """At most so many more can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for fd in taken[:number]:
            os.close(fd)
        del taken[:number]
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


CALLS = {
    "create a ring": lambda channel: RingBufferChannel(4, name="new").close(),
    "create a buffer": lambda channel: SharedMemoryBuffer(100, name="new").close(),
    "attach": lambda channel: RingBufferChannel.attach("there").close(),
    "attach to what another has": lambda channel: RingBufferChannel.attach("others").close(),
    "attach to nothing": lambda channel: RingBufferChannel.attach("nothing", timeout=0.002),
    "open": lambda channel: RingBufferChannel.open("there").close(),
    "open and create": lambda channel: RingBufferChannel.open("new", 4).close(),
    "a taken name": lambda channel: RingBufferChannel(4, name="there"),
    "list": lambda channel: _core.list_segments(),
    "remove": lambda channel: _core.remove_segment("there"),
    "collect": lambda channel: _core.collect_garbage(),
    "stats": lambda channel: channel.stats(),
}
EXPECTED = {
    "attach to nothing": FileNotFoundError,
    "a taken name": FileExistsError,
    "remove": Exception,  # BusyError
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("number", range(5))
def test_few_descriptors(folder, name, number):
    """However few are left, a call does what it should or says that it needs more."""
    with RingBufferChannel(4, name="there") as channel, Peer() as peer:
        peer("x = RingBufferChannel(4, name='others')")
        before = len(os.listdir("/proc/self/fd"))
        with descriptors_left(number):
            try:
                CALLS[name](channel)
            except OSError as error:
                assert error.errno == errno.EMFILE or isinstance(error, EXPECTED.get(name, ())), error
                assert error.errno != errno.EMFILE or "Too many open files" in str(error)
            except Exception as error:
                assert isinstance(error, EXPECTED.get(name, ())), error
            assert_usable(channel)
        assert len(os.listdir("/proc/self/fd")) == before
        assert sorted(path.name.rpartition("+")[2] for path in folder.iterdir()) == ["others", "there"]
        peer("x.close()")


def test_a_close_without_descriptors_leaves_the_name_to_the_next_who_looks(folder):
    channel = RingBufferChannel(4, name="late")
    with descriptors_left(0):
        channel.close()
    assert channel.closed
    assert path_of("late").exists()
    with pytest.raises(FileNotFoundError):
        RingBufferChannel.attach("late")
    channel = RingBufferChannel(4, name="late")
    with descriptors_left(0):
        channel.close()
    with RingBufferChannel(4, name="another"):  # clears it away
        assert not path_of("late").exists()


def test_an_unlink_without_descriptors(folder):
    with RingBufferChannel(4, name="kept") as channel:
        with descriptors_left(0), pytest.raises(OSError, match=r"cannot unlink .*'kept'.*Too many open") as caught:
            channel.unlink()
        assert caught.value.errno == errno.EMFILE
        assert path_of("kept").exists()
        channel.unlink()
        assert not path_of("kept").exists()


def test_a_forked_child_without_descriptors(folder):
    """It needs one to learn who it is, where that is asked of a pidfd; with one it goes on."""
    refusal = pytest.raises(OSError, match=r"cannot be used in this forked process: Too many")
    with RingBufferChannel(4) as channel:

        def child():
            with descriptors_left(0), refusal if _core._os_body == "linux" else contextlib.nullcontext():
                channel.send(1)
            channel.send(2)

        assert forked(child) == 0
        assert channel.receive_batch(2)[-1] == 2


def send_and_receive_large(channel):
    """More than the channel has memory for until then."""
    for kib in (1, 8 << 10, 20 << 10):
        message = os.urandom(1 << 10) * kib
        channel.send(message)
        assert channel.receive() == message


@pytest.mark.skipif(not RESERVES_IN_PIECES, reason="this system body has no large messages")
def test_a_channel_grows_without_descriptors(folder):
    with RingBufferChannel(4) as channel:
        with descriptors_left(0):
            send_and_receive_large(channel)
        channel.unlink()
        with descriptors_left(0):
            send_and_receive_large(channel)


@pytest.mark.skipif(not RESERVES_IN_PIECES, reason="this system body has no large messages")
def test_a_channel_grows_after_all_descriptors_were_closed(folder):
    """As programs do that become daemons."""
    with RingBufferChannel(4) as channel:

        def child():
            os.closerange(3, 4096)
            send_and_receive_large(channel)
            with open(os.devnull) as stranger:
                assert stranger.fileno() == 3
                send_and_receive_large(channel)
            channel.close()

        assert forked(child) == 0
        send_and_receive_large(channel)


# ---- address space ----

runs_under_asan = "asan" in os.environ.get("LD_PRELOAD", "")


@pytest.mark.skipif(runs_under_asan, reason="AddressSanitizer reserves terabytes of address space")
def test_a_limit_of_the_address_space(folder):
    source = """
import errno, resource, sys
from pathlib import Path
from shmcomm import *
from shmcomm import _core
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20), used + (48 << 20)))
big = 64 << 20
for call, words in (
    (lambda: SharedMemoryBuffer(big, name="new"), "cannot create SharedMemoryBuffer 'new' of"),
    (lambda: RingBufferChannel(4, buffer_size=big, name="new"), "cannot create RingBufferChannel 'new' of"),
    (lambda: SharedMemoryBuffer.open("new", big), "cannot create SharedMemoryBuffer 'new' of"),
    (lambda: SharedMemoryBuffer.attach("large"), "cannot attach to SharedMemoryBuffer 'large' in"),
    (lambda: SharedMemoryBuffer.open("large"), "cannot attach to SharedMemoryBuffer 'large' in"),
):
    try:
        call()
    except OSError as error:
        assert error.errno == errno.ENOMEM, error
        assert words in str(error), error
        assert str(error).endswith("this process may not map so much memory (ulimit -v)"), error
    else:
        raise SystemExit("it did not raise")
    with RingBufferChannel(4) as channel, SharedMemoryBuffer(1000) as buffer:
        channel.send([1])
        assert channel.receive() == [1]
(row,) = _core.list_segments()
assert (row["name"], row["state"]) == ("large", "unknown"), row
assert "annot allocate memory" in row["error"], row
"""
    with SharedMemoryBuffer(64 << 20, name="large") as large:
        run_python(source)
        assert [path.name for path in folder.iterdir()] == [path_of(large).name]


# ---- signals ----

# A program that gets a signal a thousand times a second, with a handler in Python; it has to stop that before it ends.
STORM = """
import contextlib, signal, sys, time
from shmcomm import *
seen = 0

def count(*_):
    global seen
    seen += 1

signal.signal(signal.SIGALRM, count)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
"""


def in_a_storm(source, *arguments):
    """Runs such a program; it prints how many signals it has seen."""
    return run_python(STORM + source + "\nsignal.setitimer(signal.ITIMER_REAL, 0)\nprint(seen)", *arguments)


def test_messages_in_a_storm_of_signals():
    source = """
there, back = RingBufferChannel.attach(sys.argv[1], timeout=20), RingBufferChannel.attach(sys.argv[2], timeout=20)
for i, message in enumerate(there):
    assert message == [i], message
    back.send(message)
there.close()
back.close()
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    with RingBufferChannel(2) as there, RingBufferChannel(2) as back:
        command = [sys.executable, "-c", STORM + source, there.name, back.name]
        with subprocess.Popen(command, cwd=HERE, stderr=subprocess.PIPE, text=True) as process:
            for i in range(300):
                there.send([i], timeout=PATIENCE_S)
                assert back.receive(timeout=PATIENCE_S) == [i]
                if i % 30 == 0:
                    time.sleep(0.01)  # many signals while it sleeps
            there.shutdown()
            assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert process.returncode == 0


def test_timeouts_in_a_storm_of_signals():
    """Each wait ends when its time is over, not before and not never."""
    source = """
with RingBufferChannel(1) as channel:
    for timeout in (0.0, 0.001, 0.02, 0.15):
        begun = time.monotonic()
        with contextlib.suppress(Empty):
            channel.receive(timeout=timeout)
            raise SystemExit("there was nothing")
        assert time.monotonic() - begun >= timeout
    channel.send(1)
    for call in (channel.send, lambda m, timeout: channel.reserve(5, timeout=timeout)):
        begun = time.monotonic()
        with contextlib.suppress(Full):
            call(2, timeout=0.1)
            raise SystemExit("there was no room")
        assert time.monotonic() - begun >= 0.1
    begun = time.monotonic()
    with contextlib.suppress(FileNotFoundError):
        RingBufferChannel.attach("nothing", timeout=0.1)
    assert time.monotonic() - begun >= 0.1
    assert channel.receive() == 1
    assert channel.stats().waiters == 0
"""
    assert int(in_a_storm(source).stdout) > 50


def test_creation_in_a_storm_of_signals(folder):
    """Reserving memory is interrupted again and again, and comes to its end."""
    source = """
sums = set()
for i in range(5):
    with SharedMemoryBuffer(100_000_000, name="large") as buffer, RingBufferChannel(4) as channel:
        channel.send(i)
        with SharedMemoryBuffer.attach("large") as same, RingBufferChannel.attach(channel.name) as again:
            same.write(b"x", 99_999_999)
            assert again.receive() == i
        assert buffer.read(99_999_999) == b"x"
        sums.add(buffer.flush_checksum())
assert len(sums) == 1
"""
    assert int(in_a_storm(source).stdout) > 5


# ---- participants ----


MANY = """
import errno, os, signal, sys
from shmcomm import *
count = int(sys.argv[1])
channel = RingBufferChannel(4, name="many", max_participants=count)
go_read, go_write = os.pipe()
ready_read, ready_write = os.pipe()

def child():
    os.close(go_write)
    channel.is_empty()  # joins
    os.write(ready_write, b"x")
    os.read(go_read, 1)

pids = []
for i in range(count - 1):
    pids.append(os.fork())
    if pids[-1] == 0:
        try:
            child()
        finally:
            os._exit(0)
ready = 0
while ready < count - 1:
    ready += len(os.read(ready_read, 65536))
participants = channel.stats().participants
assert len({p.pid for p in participants if p.alive}) == count, len(participants)

def one_too_many():
    try:
        channel.is_empty()
    except OSError as error:
        assert error.errno == errno.EUSERS, error
        assert "all participant slots are taken by living processes" in str(error), error
        os._exit(7)

def in_a_child(act):
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert in_a_child(one_too_many) == 7
channel.send("still works")
assert channel.receive() == "still works"
for pid in pids[::2]:
    os.kill(pid, signal.SIGKILL)
for pid in pids[::2]:
    os.waitpid(pid, 0)
assert sum(p.alive for p in channel.stats().participants) == 1 + len(pids[1::2])
assert in_a_child(channel.is_full) == 0  # takes a dead one's slot
os.close(go_write)
for pid in pids[1::2]:
    os.waitpid(pid, 0)
channel.close()
"""


@pytest.mark.parametrize("count", [2, 1024])
def test_a_full_table_of_participants(folder, count):
    """With as many processes as a segment may have, none is lost, the next one is refused, and the dead make room."""
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit not in (-1, resource.RLIM_INFINITY) and limit < 2 * count:
        pytest.skip(f"this user may have {limit} processes only")
    run_python(MANY, count)


# ---- everybody at once ----

CROWD = """
import json, os, random, sys, time
from shmcomm import *
from shmcomm import _core
rng, seconds = random.Random(int(sys.argv[1])), float(sys.argv[2])
names = ["a", "b", "c"]
kept, counts = [], {}

def create(name):
    kind = rng.choice([lambda **k: RingBufferChannel(4, **k), lambda **k: SharedMemoryBuffer(999, **k)])
    return kind(name=name, persist=rng.random() < 0.2, max_participants=rng.choice([16, 128]))

def attach(name):
    return rng.choice([RingBufferChannel, SharedMemoryBuffer]).attach(name, timeout=rng.choice([0, 0, 0.002]))

def open_(name):
    if rng.random() < 0.5:
        return RingBufferChannel.open(name, rng.choice([4, 5]), **rng.choice([{}, {"persist": True}, {"codec": "raw"}]))
    return SharedMemoryBuffer.open(name, rng.choice([999, 1000]))

def unlink(name):
    if kept:
        kept[-1].unlink()

def use(name):
    for one in kept:
        if isinstance(one, SharedMemoryBuffer):
            one.write(b"x" * 999)
            assert one.read(0, 5) == b"xxxxx"
        else:
            one.try_send(b"y")
            assert one.try_receive() in (None, b"y")

def remove(name):
    _core.remove_segment(name, force=rng.random() < 0.3)

def look(name):
    for row in _core.list_segments():
        assert row["state"] in ("live", "idle", "dead", "removed"), row

def collect(name):
    _core.collect_garbage()

def let_go(name):
    while kept and rng.random() < 0.8:
        kept.pop(rng.randrange(len(kept))).close()

actions = [create, attach, open_, attach, open_, use, use, unlink, remove, look, collect, let_go, let_go]
expected = {
    create: (FileExistsError,),
    attach: (FileNotFoundError, LayoutError),
    open_: (LayoutError,),
    unlink: (FileNotFoundError,),
    use: (BusyError,),
    remove: (FileNotFoundError, BusyError),
}
end = time.monotonic() + seconds
while time.monotonic() < end:
    action = rng.choice(actions)
    try:
        made = action(rng.choice(names))
        outcome = "done"
    except expected.get(action, ()) as error:
        made, outcome = None, type(error).__name__
    if made is not None:
        kept.append(made)
    if len(kept) > 4:
        kept.pop(0).close()
    key = f"{action.__name__}: {outcome}"
    counts[key] = counts.get(key, 0) + 1
print(json.dumps(counts), flush=True)
sys.stdin.readline()
"""
CROWD_SECONDS = 2


@pytest.mark.parametrize("killed", [0, 3])
def test_a_crowd_that_creates_attaches_opens_unlinks_and_removes(folder, killed):
    """Nobody sees an exception that is not documented, and nothing is left when all have gone."""
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, str(SEED + i), str(CROWD_SECONDS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(8)
    ]  # fmt: skip
    try:
        for victim in crowd[:killed]:
            time.sleep(CROWD_SECONDS / (killed + 2))
            victim.kill()
        answers = [process.communicate("\n", timeout=PATIENCE_S) for process in crowd]
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    assert [errors for _, errors in answers] == [""] * 8, f"seed {SEED}"
    assert [process.returncode for process in crowd] == [-signal.SIGKILL] * killed + [0] * (8 - killed)
    total = {}
    for out, _ in answers[killed:]:
        for key, number in json.loads(out).items():
            total[key] = total.get(key, 0) + number
    for action in ("create", "attach", "open_", "unlink", "remove"):
        assert total[f"{action}: done"] > 0, total
    until(lambda: not [row for row in _core.list_segments() if row["state"] == "live"])
    _core.collect_garbage()
    for row in _core.list_segments():
        assert (row["state"], row["persist"]) == ("idle", True), row
        _core.remove_segment(row["name"])
