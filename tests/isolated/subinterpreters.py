"""Interpreters of one process: each imports shmcomm, and a channel joins them."""

import sys

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


def run(own_gil, end):
    if own_gil and hasattr(interpreters, "new_config"):
        interpreter = interpreters.create(interpreters.new_config("isolated"))
    else:
        try:
            interpreter = interpreters.create(isolated=own_gil)
        except TypeError:
            interpreter = interpreters.create()
    try:
        with shmcomm.RingBufferChannel(4) as channel, shmcomm.RingBufferChannel(4) as back:
            channel.send([1, "two"])
            source = INSIDE.format(path=sys.path, name=channel.name, back=back.name, end=end)
            failed = interpreters.run_string(interpreter, source)
            assert failed is None, failed
            assert back.receive_batch(9) == [([1, "two"], "from inside"), "empty"]
    finally:
        interpreters.destroy(interpreter)


for own_gil in (False, True):
    for end in ("channel.close(); back.close()", "", "kept = [channel, back]; kept.append(kept)"):
        run(own_gil, end)
print("fine")
