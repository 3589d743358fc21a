"""Interpreters of one process: each imports shmcomm, and channels join them.

subinterpreters.py shared|own: whether they have one interpreter lock or one each."""

import sys
import threading
import time

try:
    import _interpreters as interpreters
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        print("this Python offers no subinterpreters")
        sys.exit(77)

import shmcomm

INSIDE = """
import sys
sys.path[:] = {path!r}
import shmcomm
channel = shmcomm.RingBufferChannel.attach({name!r})
back = shmcomm.RingBufferChannel.attach({back!r})
back.send((channel.receive(), "from inside"))
try:
    channel.receive(timeout=0.01)
except shmcomm.Empty:
    back.send("empty")
own = shmcomm.RingBufferChannel(4)
own.send({{"k": [1, 2]}})
assert own.receive() == {{"k": [1, 2]}}
view = memoryview(shmcomm.SharedMemoryBuffer(10))
{end}
"""


SENDER = """
import sys
sys.path[:] = {path!r}
import shmcomm
channel = shmcomm.RingBufferChannel.attach({name!r})
for i in range({count}):
    channel.send((i, "from", b"inside"))
"""

RECEIVER = """
import sys
sys.path[:] = {path!r}
import shmcomm
channel = shmcomm.RingBufferChannel.attach({name!r})
for i in range({count}):
    assert channel.receive(timeout=60) == (i, "from", b"inside"), i
"""

PASSING = """
import sys
sys.path[:] = {path!r}
import shmcomm
channel = shmcomm.RingBufferChannel.attach({name!r})
own = shmcomm.RingBufferChannel(4, name="own" + channel.name)
own.send([1])
assert own.receive() == [1]
own.send_batch(range(3))
kept = own, memoryview(shmcomm.SharedMemoryBuffer(10)), own.reserve(3)
assert len(channel.stats().participants) >= 2
"""


def create(own_gil):
    if hasattr(interpreters, "new_config"):
        return interpreters.create(interpreters.new_config("isolated" if own_gil else "legacy"))
    try:
        return interpreters.create(isolated=own_gil)
    except TypeError:
        return interpreters.create()


def call(interpreter, source, **values):
    failed = interpreters.run_string(interpreter, source.format(path=sys.path, **values))
    assert failed is None, failed


def run(own_gil, end):
    interpreter = create(own_gil)
    try:
        with shmcomm.RingBufferChannel(4) as channel, shmcomm.RingBufferChannel(4) as back:
            channel.send([1, "two"])
            call(interpreter, INSIDE, name=channel.name, back=back.name, end=end)
            assert back.receive_batch(9) == [([1, "two"], "from inside"), "empty"]
    finally:
        interpreters.destroy(interpreter)


class Thread(threading.Thread):
    """Makes an interpreter, runs something in it and ends it. (Before 3.13 only the thread that imported `threading`
    in an interpreter can end it.)"""

    def __init__(self, own_gil, source, **values):
        super().__init__()
        self.job, self.error = (own_gil, source, values), None
        self.start()

    def run(self):
        own_gil, source, values = self.job
        interpreter = create(own_gil)
        try:
            call(interpreter, source, **values)
        except BaseException as error:
            self.error = error
        finally:
            interpreters.destroy(interpreter)

    def finish(self):
        self.join(60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


def run_at_once(own_gil, count):
    """One sends to the other, each with a thread and, if it may, a lock of its own, while others come and go."""
    with shmcomm.RingBufferChannel(16) as channel:
        sender = Thread(own_gil, SENDER, name=channel.name, count=count)
        while not channel.stats().sent:
            time.sleep(0.001)  # up to 3.12 an interpreter that shares its lock does not heed that others want it
        receiver = Thread(own_gil, RECEIVER, name=channel.name, count=count)
        passed = 0
        while channel.stats().sent < count:
            interpreter = create(own_gil)
            call(interpreter, PASSING, name=channel.name)
            interpreters.destroy(interpreter)
            passed += 1
            time.sleep(0.001)
        sender.finish()
        receiver.finish()
        stats = channel.stats()
        assert (stats.sent, stats.received, len(stats.participants)) == (count, count, 1), stats
        assert passed > 0


own_gil = sys.argv[1] == "own"
for end in ("channel.close(); back.close()", "", "kept = [channel, back]; kept.append(kept)"):
    run(own_gil, end)
run_at_once(own_gil, 20_000 if own_gil else 2_000)
assert shmcomm._core.list_segments() == []
print("fine")
