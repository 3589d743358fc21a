"""The wait loop with a peer that changes the watched word again and again and never helps."""

import os
import shutil
import subprocess

import pytest
from helpers import HERE, run_python

GONE_ON = 9  # the exit code of restless_clock.c when a call goes on for ever

# The ring is full with one message given back or with none, and the word that says which is never at rest. What is sent
# is larger than the room in either case. `spin` is long: a word that changes keeps the call in its spin loop.
SCRIPT = """
import ctypes, mmap, signal, sys
from helpers import path_of
from shmcomm import Full, RingBufferChannel

call, interrupt_at, clock = sys.argv[1], int(sys.argv[2]), ctypes.CDLL(sys.argv[3])
clock.start.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64]
clock.stop.restype = ctypes.c_uint64
signal.signal(signal.SIGINT, signal.default_int_handler)

with RingBufferChannel(100, buffer_size=4096, spin=1) as channel:
    while channel.try_send(bytes(200)):
        pass
    with open(path_of(channel), "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    head = ctypes.c_uint64.from_buffer(memory, len(memory) - 4096 - 640 + 128)
    before = head.value
    channel.receive()
    after = head.value
    assert before != after
    clock.start(ctypes.addressof(head), before, after, interrupt_at)
    timeout = None if interrupt_at else 5
    try:
        {
            "send": lambda: channel.send(bytes(2000), timeout),
            "send complex": lambda: channel.send([bytes(2000)], timeout),
            "send_batch": lambda: channel.send_batch([bytes(2000)], timeout),
            "iterator": lambda: channel.send_batch(iter([bytes(2000)]), timeout),
            "reserve": lambda: channel.reserve(2000, timeout),
        }[call]()
    except (Full, KeyboardInterrupt) as error:
        print(type(error).__name__, clock.stop() > 100)
    head.value = after
    channel.clear()
    channel.send(bytes(2000), timeout=0)
    assert channel.receive(timeout=0) == bytes(2000)
    del head
    memory.close()
"""


@pytest.fixture(scope="module")
def restless_clock(tmp_path_factory):
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        assert not os.environ.get("CI"), "CI must have a C compiler"
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("preload") / "restless_clock.so"
    source = HERE / "c" / "preload" / "restless_clock.c"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return library


def call_under(clock, call, interrupt_at):
    preloaded = [os.environ.get("LD_PRELOAD", ""), str(clock)]
    done = run_python(SCRIPT, call, interrupt_at, clock, check=False, env={"LD_PRELOAD": " ".join(preloaded).strip()})
    assert done.returncode != GONE_ON, "the call goes on for ever"
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("call", ["send", "send complex", "send_batch", "iterator", "reserve"])
class TestAWordThatNeverRests:
    def test_does_not_keep_a_call_from_its_deadline(self, restless_clock, call):
        assert call_under(restless_clock, call, 0) == ["Full", "True"]

    def test_does_not_keep_a_call_from_ctrl_c(self, restless_clock, call):
        assert call_under(restless_clock, call, 1000) == ["KeyboardInterrupt", "True"]
