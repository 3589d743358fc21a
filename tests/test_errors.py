"""Bad input and bad luck: each gives the documented exception and leaves the channel usable."""

import ctypes
import errno
import functools
import gc
import operator
import os
import pickle
import queue
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy
import pytest
from helpers import Peer, path_of, run_python, until

from shmcomm import (
    BusyError,
    CorruptedError,
    Empty,
    Full,
    LayoutError,
    MessageTooLargeError,
    NotEncodableError,
    RingBufferChannel,
    SharedMemoryBuffer,
    _core,
)

TYPES = {"ring": RingBufferChannel, "buffer": SharedMemoryBuffer}


@pytest.fixture
def channel():
    with RingBufferChannel(4) as made:
        yield made
        if not made.closed:
            assert_usable(made)


def assert_usable(channel):
    channel.clear()
    for message in (1, "two", [3], b"4"):
        channel.send(message, timeout=0)
    assert channel.receive_batch(9, timeout=0) == [1, "two", [3], b"4"]
    with channel.reserve(3, timeout=0) as room:
        room[:] = b"abc"
    assert channel.receive(timeout=0) == b"abc"


# ---- closed ----

CALLS = {
    "send": lambda ch: ch.send(1),
    "send complex": lambda ch: ch.send([1]),
    "enqueue": lambda ch: ch.enqueue(1),
    "try_send": lambda ch: ch.try_send(1),
    "send_batch": lambda ch: ch.send_batch([1]),
    "receive": lambda ch: ch.receive(),
    "receive in place": lambda ch: ch.receive(copy=False),
    "dequeue": lambda ch: ch.dequeue(),
    "try_receive": lambda ch: ch.try_receive(),
    "peek": lambda ch: ch.peek(),
    "receive_batch": lambda ch: ch.receive_batch(3),
    "reserve": lambda ch: ch.reserve(3),
    "reserve_array": lambda ch: ch.reserve_array(3, "u1"),
    "clear": lambda ch: ch.clear(),
    "shutdown": lambda ch: ch.shutdown(),
    "len": len,
    "bool": bool,
    "iter": lambda ch: next(iter(ch)),
    "is_full": lambda ch: ch.is_full(),
    "is_empty": lambda ch: ch.is_empty(),
    "capacity": lambda ch: ch.capacity,
    "buffer_size": lambda ch: ch.buffer_size,
    "stats": lambda ch: ch.stats(),
    "with": lambda ch: ch.__enter__(),
    "pickle": pickle.dumps,
    "unlink": lambda ch: ch.unlink(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_closed(channel, call):
    channel.send("something")
    channel.close()
    channel.close()
    with pytest.raises(ValueError, match=re.escape(f"RingBufferChannel {channel.name!r} is closed")):
        call(channel)
    assert channel.closed
    assert repr(channel) == f"<RingBufferChannel {channel.name!r} closed>"


def test_repr_tells_what_is_in_it(channel):
    assert repr(channel) == f"<RingBufferChannel {channel.name!r}, 0 of 4 messages>"
    with RingBufferChannel(3) as other:
        other.send_batch([1, 2])
        assert repr(other) == f"<RingBufferChannel {other.name!r}, 2 of 3 messages>"
        with pytest.raises(Full, match=f"{other.name}', 3 of 3 messages>: "):
            other.send_batch([3, 4], timeout=0)
        other.shutdown()
        assert repr(other) == f"<RingBufferChannel {other.name!r}, 3 of 3 messages, shut down>"


def test_repr_in_a_forked_child_joins_nothing(channel):
    pid = os.fork()
    if pid == 0:
        os._exit(repr(channel) != f"<RingBufferChannel {channel.name!r}>")
    assert os.waitpid(pid, 0)[1] == 0
    assert len(channel.stats().participants) == 1
    assert channel.name


def test_a_reservation_outlives_its_channel(channel):
    reservation = channel.reserve(3)
    with RingBufferChannel.attach(channel.name) as other:
        channel.close()
        with reservation as room:
            room[:] = b"abc"
        assert other.receive() == b"abc"


# ---- what cannot be encoded, and codecs that fail ----


def test_not_encodable(channel):
    channel.send("before")
    for thing in (lambda: None, threading.Lock(), (i for i in ()), [1, {2: lambda: 3}]):
        for call in (channel.send, channel.try_send, channel.enqueue):
            with pytest.raises(NotEncodableError):
                call(thing)
        with pytest.raises(TypeError):
            channel.send(thing)
    assert len(channel) == 1


@pytest.mark.parametrize(
    ("codec", "good", "bad"), [("native", [1, {2: "3"}], object()), ("raw", b"bytes", [1]), ("raw", b"x", "text")]
)
def test_codecs_that_refuse(codec, good, bad):
    with RingBufferChannel(4, codec=codec) as channel:
        with pytest.raises(NotEncodableError):
            channel.send(bad)
        channel.send(good)
        assert channel.receive() == good


def test_native_never_unpickles(channel):
    with (
        RingBufferChannel.attach(channel.name, codec="native") as careful,
        RingBufferChannel.attach(channel.name, codec="raw") as raw,
    ):
        for reader in (careful, raw):
            channel.send(PicklesToCall())
            channel.send(b"next")
            with pytest.raises(CorruptedError):
                reader.receive()
            assert reader.receive() == b"next"
            channel.send(PicklesToCall())
            with pytest.raises(CorruptedError):
                reader.peek()
            with pytest.raises(CorruptedError):
                reader.receive(copy=False)
    assert CALLED == []


CALLED = []


class PicklesToCall:
    def __reduce__(self):
        return (CALLED.append, ("by unpickling",))


class Codec:
    """Its behaviour is set by the test."""

    def __init__(self):
        self.restore()

    def restore(self):
        self.on_dumps, self.on_loads = pickle.dumps, pickle.loads

    def dumps(self, obj):
        return self.on_dumps(obj)

    def loads(self, data):
        return self.on_loads(data)


@pytest.fixture
def codec():
    return Codec()


@pytest.fixture
def coded(codec):
    with RingBufferChannel(4, codec=codec) as made:
        yield made
        codec.restore()
        if not made.closed:
            assert_usable_with_codec(made)


def assert_usable_with_codec(channel):
    channel.clear()
    channel.send([1, 2], timeout=0)
    assert channel.receive(timeout=0) == [1, 2]


def raising(error):
    def fail(_):
        raise error

    return fail


def test_dumps_that_raises(codec, coded):
    coded.send("before")
    codec.on_dumps = raising(KeyError("mine"))
    for call in (coded.send, coded.try_send, lambda x: coded.send_batch([x, x])):
        with pytest.raises(KeyError, match="mine"):
            call({"a": 1})
    assert len(coded) == 1
    assert coded.receive() == "before"


@pytest.mark.parametrize("nonsense", [None, "text", 5, [b"x"]])
def test_dumps_that_returns_nonsense(codec, coded, nonsense):
    codec.on_dumps = lambda obj: nonsense
    with pytest.raises(TypeError):
        coded.send(1)
    assert coded.is_empty()


def test_loads_that_raises(codec, coded):
    coded.send_batch([1, 2])
    codec.on_loads = raising(KeyError("mine"))
    with pytest.raises(KeyError, match="mine"):
        coded.receive()
    codec.on_loads = pickle.loads
    assert coded.receive() == 2
    coded.send(3)
    codec.on_loads = raising(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        coded.peek()
    codec.on_loads = pickle.loads
    assert coded.receive() == 3


def test_dumps_that_uses_the_channel(codec, coded):
    def dumps(obj):
        if obj == "outer":
            coded.send("inner")
            assert coded.receive() == "inner"
            with coded.reserve(3) as room:
                room[:] = pickle.dumps(1)[:3]
            coded.clear()
        return pickle.dumps(obj)

    codec.on_dumps = dumps
    coded.send("outer")
    assert coded.receive() == "outer"


def test_iterators_that_close_the_channel(coded):
    def numbers(kind):
        yield 1
        coded.close()
        if kind == "more":
            yield 2

    with pytest.raises(ValueError, match="is closed: it was closed while this call waited") as caught:
        coded.send_batch(numbers("more"))
    assert caught.value.sent == 1
    assert coded.closed
    with RingBufferChannel(4) as coded:
        assert coded.send_batch(numbers("no more")) == 1
    assert coded.closed


def test_dumps_that_closes_the_channel_in_a_batch(codec, coded):
    def dumps(obj):
        if obj == 2:
            coded.close()
        return pickle.dumps(obj)

    codec.on_dumps = dumps
    with RingBufferChannel.attach(coded.name, codec=pickle) as other:
        with pytest.raises(ValueError, match="is closed: it was closed while this call waited") as caught:
            coded.send_batch([1, 2, 3])
        assert caught.value.sent == 1
        assert other.receive_batch(9) == [1]


def test_loads_that_uses_the_channel(codec, coded):
    def loads(data):
        value = pickle.loads(data)
        if value == "outer":
            coded.send("from inside")
            return (value, coded.receive())
        return value

    codec.on_loads = loads
    coded.send_batch(["outer", "second"])
    assert coded.receive() == ("outer", "second")
    assert coded.receive() == "from inside"


def test_dumps_that_closes_the_channel(codec, coded):
    def dumps(obj):
        coded.close()
        return pickle.dumps(obj)

    codec.on_dumps = dumps
    try:
        coded.send(1)
    except ValueError as error:
        assert "closed" in str(error)
    assert coded.closed
    assert not path_of(coded).exists()


def test_loads_that_closes_the_channel(codec, coded):
    def loads(data):
        coded.close()
        return "read"

    coded.send(1)
    codec.on_loads = loads
    assert coded.receive() == "read"
    with pytest.raises(ValueError, match="closed"):
        coded.receive()


def test_loads_that_keeps_the_memory(codec, coded):
    """What loads() was given stays as it was."""
    codec.on_loads = lambda data: memoryview(data)
    coded.send("kept")
    kept = coded.receive()
    for i in range(20):
        coded.send(i)
        coded.receive()
    assert pickle.loads(kept) == "kept"
    coded.send("kept")
    held = coded.receive(copy=False)
    for i in range(3):
        coded.send(i)
        coded.receive()
    assert pickle.loads(held) == "kept"


@pytest.mark.parametrize("thing", [object(), 3, b"auto", str])
def test_no_codec(thing):
    with pytest.raises(TypeError, match="codec must be"):
        RingBufferChannel(4, codec=thing)


def test_a_codec_object_must_be_passed_again(coded):
    with pytest.raises(ValueError, match="codec"):
        RingBufferChannel.attach(coded.name)
    with pytest.raises(ValueError, match="codec"):
        RingBufferChannel.open(coded.name)
    with RingBufferChannel.attach(coded.name, codec=pickle) as other:
        coded.send([1])
        assert other.receive() == [1]


def test_pickling_that_raises(channel):
    class Sulking:
        def __reduce__(self):
            raise OSError(5, "not today")

    with pytest.raises((NotEncodableError, OSError)):
        channel.send(Sulking())
    assert channel.is_empty()


# ---- finalisers that come back to the channel ----


class Returning:
    def __init__(self, act):
        self.act = act

    def __del__(self):
        self.act()


def test_finalisers_use_the_channel(channel):
    seen = []

    def act():
        try:
            channel.enqueue("from a finaliser")
            seen.append(channel.dequeue())
        except RuntimeError as error:
            seen.append(str(error))

    for _ in range(300):
        cycle = [Returning(act)]
        cycle.append(cycle)
        del cycle
        channel.send([[[i] for i in range(200)]])
        channel.receive()
        channel.clear()
    gc.collect()
    assert len(seen) == 300
    assert all("reentrant" in one for one in seen if isinstance(one, str) and one != "from a finaliser")


# ---- interrupts ----


class Interrupted(Exception):
    pass


def interrupt(number, frame):
    raise Interrupted


@pytest.fixture
def alarm():
    """Once: raises Interrupted in the main thread after so many seconds. The thread that sends the signal waits
    already: starting it takes its time on a busy machine, and must not be what is interrupted."""
    handler, order, main = signal.getsignal(signal.SIGUSR1), queue.SimpleQueue(), threading.main_thread().ident

    def send():
        if (seconds := order.get()) is not None:
            time.sleep(seconds)
            signal.pthread_kill(main, signal.SIGUSR1)

    def start(seconds, how=interrupt):
        signal.signal(signal.SIGUSR1, how)
        order.put(seconds)

    sender = threading.Thread(target=send)
    sender.start()
    yield start
    order.put(None)
    sender.join()
    signal.signal(signal.SIGUSR1, handler)


BLOCKED = {
    "receive": lambda ch: ch.receive(),
    "receive with a timeout": lambda ch: ch.receive(100),
    "receive in place": lambda ch: ch.receive(copy=False),
    "receive_batch": lambda ch: ch.receive_batch(5),
    "iteration": lambda ch: next(iter(ch)),
    "send": lambda ch: (ch.send_batch(range(4)), ch.send(5)),
    "send complex": lambda ch: (ch.send_batch(range(4)), ch.send([5])),
    "send_batch": lambda ch: ch.send_batch(range(5)),
    "reserve": lambda ch: (ch.send_batch(range(4)), ch.reserve(5)),
    "attach": lambda ch: RingBufferChannel.attach("never-there", timeout=None),
}


@pytest.mark.parametrize("call", BLOCKED.values(), ids=BLOCKED)
@pytest.mark.parametrize("spin", [None, 0.05])
def test_a_signal_handler_may_raise(alarm, call, spin):
    with RingBufferChannel(4, spin=spin) as channel:
        alarm(0.03)
        with pytest.raises(Interrupted):
            call(channel)
        assert_usable(channel)


@pytest.mark.parametrize("spin", [None, 0.05])
def test_a_signal_handler_may_raise_while_another_thread_has_a_reservation(alarm, spin):
    with RingBufferChannel(4, spin=spin) as channel:
        made = []
        thread = threading.Thread(target=lambda: made.append(channel.reserve(3)))
        thread.start()
        thread.join()
        with pytest.raises(Interrupted):
            alarm(0.03)
            channel.send("has to wait")
        made.pop().abort()
        assert_usable(channel)


LONG = {
    "list": [b"plain"] * 1000,
    "list of complex": [[b"complex"]] * 1000,
    "tuple": (1, [2]) * 500,
    "range": range(1000),
    "iterator": iter([b"plain"] * 1000),
}


@pytest.mark.parametrize("objects", LONG.values(), ids=LONG)
def test_a_signal_handler_may_raise_in_a_batch_that_never_waits(objects):
    """No bytecode is run between the signal and the batch, nor within it."""
    send_signal = functools.partial(ctypes.CDLL(None)["raise"], signal.SIGUSR1)
    handler = signal.signal(signal.SIGUSR1, interrupt)
    with RingBufferChannel(2000) as channel:
        with pytest.raises(Interrupted) as caught:
            list(map(operator.call, [send_signal, functools.partial(channel.send_batch, objects)]))
        assert caught.value.sent == len(channel) == 64
        channel.clear()
        assert_usable(channel)
    signal.signal(signal.SIGUSR1, handler)


def test_the_exception_of_a_signal_handler_says_how_many_were_sent(channel):
    def interrupt_when_full():
        until(channel.is_full)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    handler = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=interrupt_when_full)
    thread.start()
    with pytest.raises(Interrupted) as caught:
        channel.send_batch(range(9))
    thread.join()
    signal.signal(signal.SIGUSR1, handler)
    assert caught.value.sent == 4
    assert channel.receive_batch(9) == [0, 1, 2, 3]


def test_keyboard_interrupt(channel, alarm):
    alarm(0.03, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        channel.receive()


def test_a_signal_handler_that_returns(channel, alarm):
    seen = []
    alarm(0.02, lambda *_: seen.append(1))
    start = time.monotonic()
    with pytest.raises(Empty):
        channel.receive(0.15)
    assert seen == [1]
    assert time.monotonic() - start >= 0.15


def test_a_signal_handler_that_feeds_the_waiter(channel, alarm):
    alarm(0.02, lambda *_: channel.send("by the handler"))
    assert channel.receive() == "by the handler"


def test_a_signal_handler_that_closes(channel, alarm):
    alarm(0.02, lambda *_: channel.close())
    with pytest.raises(ValueError, match="is closed: it was closed while this call waited"):
        channel.receive()


def test_ctrl_c_ends_a_program():
    source = "from shmcomm import *; ch = RingBufferChannel(4); print('ready', flush=True); ch.receive()"
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors


# ---- something else has the name ----


@pytest.fixture(params=TYPES)
def kind(request):
    return TYPES[request.param]


@pytest.fixture
def name():
    name = "occupied"
    yield name
    path = path_of(name)
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def make_like(kind, name, change):
    """The file of a real object, changed."""
    is_ring = kind is RingBufferChannel
    make, options = (RingBufferChannel, {"buffer_size": 65536}) if is_ring else (SharedMemoryBuffer, {})
    with make(1000, name=name, persist=True, **options) as made:
        content = bytearray(path_of(made).read_bytes())
        made.unlink()
    path_of(name).write_bytes(change(content))


def put(content, at, value):
    content[at : at + len(value)] = value
    return content


NO_SEGMENT = "the file is not a shmcomm segment; choose another name, or remove it with `shmcomm rm --force "
OTHER_VERSION = "another format version; use the same shmcomm on both sides, or remove it with `shmcomm rm --force "
OTHER_LAYOUT = "another memory layout; use the same shmcomm on both sides, or remove it with `shmcomm rm --force "
FILES = {
    "empty": (lambda c: b"", "empty", NO_SEGMENT),
    "one byte": (lambda c: b"S", "short", NO_SEGMENT),
    "text": (lambda c: b"hello world\n" * 1000, "alien", NO_SEGMENT),
    "random": (lambda c: os.urandom(65536), "alien", NO_SEGMENT),
    "zeros": (lambda c: bytes(65536), "alien", NO_SEGMENT),
    "truncated head": (lambda c: c[:100], "short", NO_SEGMENT),
    "magic only": (lambda c: c[:8], "short", NO_SEGMENT),
    "another version": (lambda c: put(c, 8, b"\x02"), "version", OTHER_VERSION),
    "another layout": (lambda c: put(c, 16, b"12345678"), "layout", OTHER_LAYOUT),
}


@pytest.mark.parametrize(("change", "state", "message"), FILES.values(), ids=FILES)
def test_attach_to_another_file(kind, name, change, state, message):
    make_like(kind, name, change)
    content = path_of(name).read_bytes()
    message += qualified(name)
    for call in (kind.attach, lambda n: kind.open(n, 1000), lambda n: kind.attach(n, timeout=5)):
        with pytest.raises(LayoutError, match=re.escape(message)):
            call(name)
    with pytest.raises(FileExistsError, match=f"{name}.*`shmcomm rm ") as caught:
        kind(1000, name=name)
    assert path_of(name).read_bytes() == content
    row = next(row for row in _core.list_segments() if row["name"] == name)
    assert row["error"]
    assert row["state"] == state
    _core.collect_garbage()
    assert path_of(name).exists()
    follow(str(caught.value), name)


def qualified(name):
    return f"{os.environ['SHMCOMM_NAMESPACE']}+{name}"


def follow(advice, name):
    """What an error says about `shmcomm rm` does what it says."""
    command = re.search("`shmcomm ([^`]*)`", advice)[1].split()
    done = subprocess.run([sys.executable, "-m", "shmcomm", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not os.path.lexists(path_of(name))


SIZES = {
    "truncated by one": lambda c: c[:-1],
    "truncated to the head": lambda c: c[:4096],
    "longer": lambda c: c + bytes(100),
    "size wrong": lambda c: put(c, 24, (len(c) + 1).to_bytes(8, "little")),
    "body beyond the end": lambda c: put(c, 32, b"\xff" * 6),
    "no participants": lambda c: put(c, 52, bytes(4)),
    "too many participants": lambda c: put(c, 52, b"\xff" * 4),
    "unknown flags": lambda c: put(c, 56, b"\xff" * 4),
    "config": lambda c: put(c, 88, b"\xff" * 8),
}


@pytest.mark.parametrize("change", SIZES.values(), ids=SIZES)
def test_attach_to_a_spoilt_file(kind, name, change):
    make_like(kind, name, change)
    for call in (kind.attach, lambda n: kind.open(n, 1000)):
        with pytest.raises((CorruptedError, LayoutError)) as caught:
            call(name)
    assert caught.type is LayoutError or "it is damaged: choose another name, or remove" in str(caught.value)
    with pytest.raises(FileExistsError):
        kind(1000, name=name)
    assert path_of(name).exists()
    follow(str(caught.value), name)


def assert_refused(kind, name):
    sentence = "it is no file, but a symbolic link, a directory, a pipe, a socket or a device; choose another name, or"
    for call in (kind.attach, lambda n: kind.open(n, 4)):
        with pytest.raises(LayoutError, match=f"{sentence} remove what is there"):
            call(name)
    with pytest.raises(FileExistsError, match=sentence):
        kind(4, name=name)
    assert [row["state"] for row in _core.list_segments() if row["name"] == name] == ["alien"]
    _core.collect_garbage()
    assert os.path.lexists(path_of(name))
    if path_of(name).is_dir():
        with pytest.raises(IsADirectoryError, match=f"cannot remove '{name}': .* is a directory; rmdir removes it"):
            _core.remove_segment(name, force=True)
    else:
        with pytest.raises(LayoutError, match=f"cannot remove '{name}' in /dev/shm: it is no file"):
            _core.remove_segment(name)
        _core.remove_segment(name, force=True)
        assert not os.path.lexists(path_of(name))


def test_a_symbolic_link(kind, name):
    with kind(4) as target:
        path_of(name).symlink_to(path_of(target))
        assert_refused(kind, name)
        assert path_of(target).exists()


def test_a_dangling_link(kind, name):
    path_of(name).symlink_to("/no/such/file")
    assert_refused(kind, name)


def test_a_fifo(kind, name):
    os.mkfifo(path_of(name))
    assert_refused(kind, name)


def test_a_directory(kind, name):
    path_of(name).mkdir()
    assert_refused(kind, name)


def test_a_socket(kind, name):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path_of(name)))
        assert_refused(kind, name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file(kind):
    with kind(100, name="foreign", mode=0o666) as made:
        os.chown(path_of(made), 12345, 12345)
        with pytest.raises(
            PermissionError,
            match=rf"'foreign' in /dev/shm belongs to another user \(uid 12345\); "
            rf"pass foreign=True to {kind.__name__}.attach\(\) to trust it",
        ) as caught:
            kind.attach("foreign")
        assert caught.value.errno == errno.EACCES
        with pytest.raises(PermissionError):
            kind.open("foreign", 100)
        with pytest.raises(FileExistsError, match=r"belongs to another user \(uid 12345\); choose another name"):
            kind(100, name="foreign")
        with kind.attach("foreign", foreign=True) as trusted:
            assert trusted.name == "foreign"
        with Peer() as peer:
            with pytest.raises(PermissionError):
                peer("kind.attach('foreign')", kind=kind)
            peer("kind.attach('foreign', foreign=True).close()")
        os.chown(path_of(made), 0, 0)


AS_NOBODY = """
import os, sys
os.setgid(65534); os.setuid(65534)
from shmcomm import *
try:
    RingBufferChannel.attach("roots")
except PermissionError as error:
    print(error)
from shmcomm import _core
print([row["error"] for row in _core.list_segments() if row["name"] == "roots"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_that_may_not_be_opened():
    with RingBufferChannel(4, name="roots"):
        # The interpreter must be readable for that user: it is imported before the change.
        source = AS_NOBODY.replace("import os, sys\n", "import os, sys, shmcomm._stats\n")
        assert "ermission denied" in run_python(source).stdout


def test_another_pid_namespace():
    """There, the death of our processes could not be seen."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    try:
        able = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no unshare command")
    if able.returncode != 0:
        pytest.skip(f"cannot make a PID namespace: {able.stderr.strip()}")
    source = """
import sys
from shmcomm import RingBufferChannel, _core
for use in (RingBufferChannel.attach, _core.remove_segment, lambda name: RingBufferChannel(4, name=name)):
    try:
        use("outside")
    except OSError as error:
        print(type(error).__name__, error)
print(_core.collect_garbage(), [found["state"] for found in _core.list_segments()])
RingBufferChannel(4).close()
"""
    with RingBufferChannel(4, name="outside") as channel:
        with open(path_of(channel), "rb") as file:
            head = file.read(80)
        if not any(head[72:]):
            pytest.skip("this build knows no PID namespaces")
        done = subprocess.run(
            [*unshare, sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, "")
        attached, removed, created, others = done.stdout.splitlines()
        assert re.search(r"^PermissionError .* another PID namespace", attached)
        assert re.search(r"^PermissionError .* another PID namespace", removed)
        assert created.startswith("FileExistsError ")
        assert others == "[] ['pidns']"
        assert path_of(channel).exists()
        assert_usable(channel)


# ---- the system has no more ----


@pytest.fixture
def small_file_system(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "shmcomm-test", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_file_system(small_file_system):
    with RingBufferChannel(4, directory=small_file_system) as channel:
        pattern = r"needs (\d+) bytes of shared memory and .*small has (\d+) free: .*shm-size.*SHMCOMM_DIR"
        with pytest.raises(OSError, match=pattern) as caught:
            SharedMemoryBuffer(2 << 20, directory=small_file_system)
        assert caught.value.errno == errno.ENOSPC
        needed, free = map(int, re.search(pattern, str(caught.value)).groups())
        assert needed >= 2 << 20
        assert 0 < free < 1 << 20
        with pytest.raises(OSError, match="needs"):
            RingBufferChannel(4, buffer_size=1 << 20, directory=small_file_system)
        with pytest.raises(OSError, match="needs"):
            RingBufferChannel.open("x", 4, buffer_size=1 << 20, directory=small_file_system)
        assert [path.name for path in small_file_system.iterdir()] == [path_of(channel).name]
        assert_usable(channel)
        for _i in range(200):  # all that was promised is there
            channel.send(os.urandom(30000))
            channel.receive()


def test_more_than_there_is():
    with pytest.raises(OSError, match="needs 70368744") as caught:
        SharedMemoryBuffer(2**46)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)


def test_no_descriptors_left(channel):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    try:
        with pytest.raises(OSError, match="[Tt]oo many open files"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        for call in (
            lambda: RingBufferChannel(4),
            lambda: RingBufferChannel.attach(channel.name),
            lambda: SharedMemoryBuffer(4),
        ):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EMFILE
        assert_usable(channel)
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    RingBufferChannel.attach(channel.name).close()


def test_handles_need_no_descriptors():
    before = len(os.listdir("/proc/self/fd"))
    channels = [RingBufferChannel(4) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    for channel in channels:
        channel.close()


def test_a_limit_of_the_file_size():
    source = """
import errno, resource, signal
from shmcomm import *
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    SharedMemoryBuffer(1_000_000)
except OSError as error:
    assert error.errno == errno.EFBIG, error
    print(error)
SharedMemoryBuffer(1000).close()
"""
    assert "too large" in run_python(source).stdout


# ---- messages that cannot be sent ----


class Opaque:
    def __init__(self, content):
        self.content = content


TOO_LARGE = {
    "bytes": (bytes(100_000), "the message of 100000 bytes"),
    "str": ("x" * 40_000, "the message of 40000 bytes"),
    "list": ([bytes(100_000)], r"the message of up to 1000\d\d bytes"),
    "pickled": (Opaque(bytes(100_000)), r"the message of up to 1000\d\d bytes"),
}


@pytest.fixture
def limited():
    with RingBufferChannel(4, buffer_size=65536) as channel:
        yield channel


@pytest.mark.parametrize(("message", "words"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_message_that_is_too_large_is_measured(limited, message, words):
    channel = limited
    for call in (
        channel.send,
        channel.try_send,
        lambda m: channel.send_batch([1, m]),
        lambda m: channel.send_batch(iter([m])),
    ):
        with pytest.raises(MessageTooLargeError, match=f"^{words} is larger than .* ever hold") as caught:
            call(message)
        advised = int(re.search(r": create it with buffer_size=(\d+)$", str(caught.value))[1])
        with RingBufferChannel(4, buffer_size=advised) as larger:
            larger.send(message)


def test_a_codecs_own_message_that_is_too_large_is_measured():
    with RingBufferChannel(4, codec=pickle, buffer_size=65536) as channel:
        size = len(pickle.dumps(bytes(100_000)))
        with pytest.raises(MessageTooLargeError, match=f"the message of {size} bytes"):
            channel.send(bytes(100_000))
        channel.send("fits")
        assert channel.receive() == "fits"


def test_a_reservation_that_is_too_large_is_measured(limited):
    channel = limited
    with pytest.raises(MessageTooLargeError, match="the message of 50000 bytes .*: create it with buffer_size=131072$"):
        channel.reserve(50_000)
    with pytest.raises(MessageTooLargeError, match=r"the message of 10{12} bytes .*: send it in parts$"):
        channel.reserve(10**12)
    with pytest.raises(MessageTooLargeError, match=r"the message of up to 500\d\d bytes"):
        channel.reserve_array(50_000, "u1")


def test_who_is_to_blame_for_a_message_that_cannot_be_encoded(channel):
    with pytest.raises(NotEncodableError, match="^cannot send function: only .* natively; and pickle says: Can't"):
        channel.send(lambda: 1)
    with pytest.raises(NotEncodableError, match="^cannot send list, because of function in it: only .*; and pickle"):
        channel.send([1, {"key": lambda: 1}])
    with RingBufferChannel(4, codec="native") as native:
        with pytest.raises(NotEncodableError, match="^codec='native' cannot send dict, because of range in it: only"):
            native.send({"key": range(3)})
        with pytest.raises(NotEncodableError, match="^codec='native' cannot send range: only exact built-in types"):
            native.send(range(3))


def test_arrays_of_items_without_bytes(channel):
    with pytest.raises(ValueError, match="items of dtype .* have no size: say how many bytes each has"):
        channel.reserve_array(3, "S")
    with RingBufferChannel(4, codec="native") as native:
        for items in (numpy.zeros(3, [("a", "S0")]), numpy.zeros(3, [("a", "S0")])[0]):
            with pytest.raises(NotEncodableError, match="its items have no bytes"):
                native.send(items)
    with SharedMemoryBuffer(64) as buffer, pytest.raises(ValueError, match="have no size"):
        buffer.as_array(3, "S")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RingBufferChannel(4, 5), r"takes at most 1 positional argument \(2 given\)"),
        (lambda: RingBufferChannel.open("x", 1, 2), r"takes at most 2 positional arguments \(3 given\)"),
        (lambda: SharedMemoryBuffer(4).set_header(1), r"takes no positional arguments \(1 given\)"),
    ],
)
def test_too_many_positional_arguments(call, words):
    with pytest.raises(TypeError, match=words):
        call()


# ---- ends that are taken ----


def test_busy(channel):
    with Peer() as peer:
        peer("x = RingBufferChannel.attach(name)", name=channel.name)
        channel.send(1)
        for call in ("x.send(2)", "x.try_send(2)", "x.enqueue([2])", "x.send_batch([2])", "x.reserve(2)"):
            with pytest.raises(
                BusyError, match=f"the sending end of .* belongs to process {os.getpid()}, which is alive"
            ):
                peer(call)
        assert peer("x.receive()") == 1
        for call in (channel.receive, channel.dequeue, channel.peek, channel.clear, lambda: channel.receive_batch(2)):
            with pytest.raises(
                BusyError,
                match=f"the receiving end of .* belongs to process {peer.pid}.*a second channel for the other",
            ):
                call()
        peer("len(x), x.is_full(), x.is_empty(), x.stats()")
        peer("x.close()")
        until(lambda: channel.try_receive("none") == "none")
