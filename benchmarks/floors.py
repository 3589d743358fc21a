"""The least that anything could cost: what the targets are compared with. Each function returns nanoseconds per
operation, unless
it says otherwise, and does its work anew on every call."""

import functools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "c" / "floors" / "floor_futex.c"


def call(messages, laps):
    """A method of our extension that does nothing, called in a loop over the same messages."""
    from shmcomm._core import _noop

    start = time.perf_counter_ns()
    for _ in range(laps):
        for message in messages:
            _noop(message)
    return (time.perf_counter_ns() - start) / (laps * len(messages))


@functools.cache
def arrays(size):
    import numpy

    return numpy.full(size, 7, "u1"), numpy.zeros(size, "u1")


def memcpy(size, n):
    """One warm copy of `size` bytes between two arrays that exist."""
    import numpy

    source, target = arrays(size)
    numpy.copyto(target, source)
    start = time.perf_counter_ns()
    for _ in range(n):
        numpy.copyto(target, source)
    return (time.perf_counter_ns() - start) / n


@functools.cache
def compiler():
    name = os.environ.get("CC", "cc")
    return shutil.which(name)


@functools.cache
def two_processes_program():
    """The bare C program, compiled when first asked for; None without a compiler."""
    if compiler() is None:
        return None
    folder = tempfile.TemporaryDirectory(prefix="shmcomm-bench.")
    program = Path(folder.name) / "floor"
    subprocess.run([compiler(), "-O2", "-o", program, SOURCE], check=True)
    two_processes_program.folder = folder  # until this process ends
    return program


def two_processes(how, trips):
    """p50 of a round trip between two bare C processes: `futex`, both asleep; `line`, both spinning."""
    output = subprocess.run(
        [two_processes_program(), how, str(trips)], check=True, capture_output=True, text=True
    ).stdout
    return float(output.split()[0])
