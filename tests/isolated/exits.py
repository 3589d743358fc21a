"""Ends in the way that its first argument says, with objects in the state that the second one says."""

import atexit
import gc
import os
import signal
import sys
import threading
import time

import shmcomm

how, state, name = sys.argv[1:]
kept = {}


def make_late():
    """After everything was closed: in cycles with all there is."""
    for late in (Subclass(4, name=name), SubBuffer(4, name=name + "b")):
        late.myself, late.module, late.core, late.kind, late.others = late, shmcomm, shmcomm._core, type(late), kept
        kept[late] = late
    shmcomm.kept = shmcomm._core.kept = kept


class Subclass(shmcomm.RingBufferChannel):
    pass


class SubBuffer(shmcomm.SharedMemoryBuffer):
    pass


def prepare():
    channel = kept["channel"] = Subclass(8, name=name)
    buffer = kept["buffer"] = SubBuffer(100, name=name + "b")
    channel.send_batch([1, [2], b"x" * 1000, b"y" * 1000])
    channel.receive()
    if state == "views":
        channel.receive()
        kept["view"] = channel.receive(copy=False)
        kept["memory"] = memoryview(buffer)
    elif state == "reservation":
        kept["reservation"] = channel.reserve(10)
        kept["room"] = memoryview(kept["reservation"])
    elif state == "cycles":
        channel.myself, channel.module, channel.others = channel, shmcomm, kept
        buffer.myself, buffer.core, buffer.others = buffer, shmcomm._core, kept
        shmcomm.kept = kept
    elif state == "finaliser":
        kept["later"] = Finalised()
    elif state == "daemons":
        channel.clear()
        for call in (channel.receive, wait_often, wait_and_spin, channel.receive, use_all):
            threading.Thread(target=until_closed, args=(call,), daemon=True).start()
        time.sleep(0.02)


def until_closed(call):
    while True:
        try:
            call()
        except (shmcomm.Empty, shmcomm.Full, BufferError):
            pass
        except ValueError as error:
            assert "closed" in str(error), error
            return


def wait_often():
    kept["channel"].receive(timeout=0.0001)


def wait_and_spin():
    with shmcomm.RingBufferChannel(2, spin=1) as other:
        other.receive()


def use_all():
    channel = kept["channel"]
    channel.send([1, 2], timeout=0)
    channel.receive_batch(5, timeout=0)
    with channel.reserve(10) as room:
        room[0] = 1
    channel.clear()
    channel.stats()


class Finalised:
    """Uses everything when it is too late."""

    def __del__(self):
        for call in (
            lambda: kept["channel"].send(1),
            lambda: kept["channel"].close(),
            lambda: kept["buffer"].read(),
            lambda: shmcomm.RingBufferChannel(4).send(1),
            lambda: shmcomm.SharedMemoryBuffer(4).write(b"x"),
        ):
            try:
                call()
            except ValueError as error:
                assert "closed" in str(error), error


if state == "late cycles":
    atexit.unregister(shmcomm._core._close_all)
    atexit.register(make_late)
    atexit.register(shmcomm._core._close_all)
if state == "atexit":
    atexit.register(lambda: kept["channel"].send(3))
    atexit.register(lambda: kept["buffer"].write(b"at exit"))
prepare()
gc.collect()
if how == "end":
    pass
elif how == "exit":
    sys.exit(3)
elif how == "raise":
    raise RuntimeError("as planned")
elif how == "_exit":
    os._exit(0)
elif how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif how == "term":
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
elif how == "abort":
    os.abort()
