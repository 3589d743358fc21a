"""Coming and going: creating, attaching, importing; what a handle and an idle consumer cost."""

import alone
import pytest

from shmcomm import RingBufferChannel, SharedMemoryBuffer

MAKERS = {
    "RingBufferChannel": lambda name=None: RingBufferChannel(1024, name=name),
    "SharedMemoryBuffer": lambda name=None: SharedMemoryBuffer(64, name=name),
}
by_class = pytest.mark.parametrize("cls", MAKERS)


@by_class
def test_create_and_close(cls, sample, quick):
    sample("create and close", "ours", lambda: alone.create_close(MAKERS[cls], 2 if quick else 200))


def test_create_and_close_stdlib(sample, quick):
    sample("create and close", "rival", lambda: alone.create_close_stdlib(128 * 1024, 2 if quick else 200))


@by_class
def test_attach(cls, sample):
    with MAKERS[cls](alone.fresh_name()) as thing:
        sample("attach in another process", "ours", lambda: alone.attach(cls, thing.name)[1])


@pytest.mark.parametrize("module", ["shmcomm", "queue"])
def test_import(module, sample):
    sample("S23 import", "ours" if module == "shmcomm" else "floor", lambda: alone.import_time(module))


def test_idle_consumers(sample, quick):
    seconds = 0.5 if quick else 10

    def share():
        return alone.idle_cpu(8, seconds) * 1e9

    sample("S22 share of one core burnt by 8 blocked consumers (1 s = all of it)", "ours", share, rounds=1)


@by_class
def test_private_memory_of_a_handle(cls, benchmark):
    """Reported, not timed."""
    with MAKERS[cls](alone.fresh_name()) as thing:
        found = benchmark.pedantic(alone.handle_memory, (cls, thing.name), rounds=1)
        benchmark.group = "memory"
        benchmark.extra_info.update(segment_bytes=alone.segment_bytes(thing), private_bytes=found)
