"""RingBufferChannel: streams, batches, round trips, large arrays; beside rivals and floors."""

import alone
import floors
import pairs
import pytest
import rivals

from shmcomm import RingBufferChannel

BYTES = pairs.payloads(64)
MIB = 1 << 20

#: what S2 sends, a lap of each
VALUES = {
    "int": [i * 1_000_003 for i in range(pairs.LAP)],
    "float": [i * 1.25 for i in range(pairs.LAP)],
    "str": [f"{i:064d}" for i in range(pairs.LAP)],
    "tuple of 3": [(i, f"name {i}", i * 0.5) for i in range(pairs.LAP)],
    "dict of 5": [
        {"id": i, "name": f"item {i}", "price": i * 0.5, "tags": None, "ok": i % 2 == 0} for i in range(pairs.LAP)
    ],
}


def laps(quick, count):
    return 2 if quick else count


def laps_of(link, quick):
    return laps(quick, 1500 if link.group == "ours" else 100)


# ---- two processes ----


def test_stream(link, pair, sample, quick):
    running = pair(link)
    sample("S1 stream of 64 B", link.group, lambda: running.stream(BYTES, laps_of(link, quick)))


def test_stream_floor(sample, quick):
    sample("S1 stream of 64 B", "floor", lambda: floors.call(BYTES, laps(quick, 1500)))


@pytest.mark.parametrize("kind", VALUES)
def test_stream_of(kind, link, pair, sample, quick):
    running = pair(link)
    sample(f"S2 stream of {kind}", link.group, lambda: running.stream(VALUES[kind], laps_of(link, quick) // 2 + 1))


test_stream_of.links = [rivals.Ring, rivals.MpQueue, rivals.SimpleQueue, rivals.Pipe, rivals.FasterFifo]


def test_batches(link, pair, sample, quick):
    running = pair(link)
    sample("S3 batches of 64, 64 B", link.group, lambda: running.stream(BYTES, laps_of(link, quick), "batch"))


test_batches.links = [link for link in rivals.ALL if link.batches]


def test_round_trip(link, pair, sample, quick):
    running = pair(link)
    n = laps(quick, 40 if link.group == "ours" else 4)
    sample("S7 round trip of 64 B, awake", link.group, lambda: pairs.quantile(running.trips(BYTES, n), 0.5))


def test_round_trip_floor(sample, quick):
    if floors.compiler() is None:
        pytest.skip("no C compiler for the floor")
    sample("S7 round trip of 64 B, awake", "floor", lambda: floors.two_processes("line", 640 if quick else 640_000))


def test_round_trip_asleep(pair, sample, quick):
    running = pair(rivals.Ring, spin=0)
    n = laps(quick, 10)
    sample("S8 round trip of 64 B, asleep", "ours", lambda: pairs.quantile(running.trips(BYTES, n), 0.5))


def test_round_trip_asleep_floor(sample, quick):
    if floors.compiler() is None:
        pytest.skip("no C compiler for the floor")
    sample("S8 round trip of 64 B, asleep", "floor", lambda: floors.two_processes("futex", 64 if quick else 2560))


# ---- one process ----


@pytest.mark.parametrize("kind", ["bytes", *VALUES])
def test_put_get(kind, sample, quick):
    messages = VALUES.get(kind, BYTES)
    with RingBufferChannel(rivals.CAPACITY) as channel:
        sample("S4 put and get in one process", "ours", lambda: alone.put_get(channel, messages, laps(quick, 500)))


def test_put_get_floor(sample, quick):
    sample("S4 put and get in one process", "floor", lambda: 2 * floors.call(BYTES, laps(quick, 500)))


@pytest.mark.parametrize("length", [10, 1_000_000])
def test_backlog(length, sample, quick):
    length = min(length, 1000) if quick else length
    with RingBufferChannel(length + 16) as channel:
        sample(
            "growth: put and get behind a backlog", "ours", lambda: alone.backlog(channel, BYTES[0], length, 200_000)
        )


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_tables(library, link, pair, sample, quick):
    pytest.importorskip(library)
    running = pair(link)
    sample(f"S12 table of 10 MiB, {library}", link.group, lambda: running.tables(library, laps(quick, 10)))


test_tables.links = [rivals.Ring, rivals.MpQueue, rivals.Pipe]


def test_array_copy(sample, quick):
    numpy = pytest.importorskip("numpy")
    with RingBufferChannel(16) as channel:
        array = numpy.arange(MIB, dtype="u1")
        sample(
            "S10 array of 1 MiB, copied in and out", "ours", lambda: alone.array_copy(channel, array, laps(quick, 500))
        )


def test_array_copy_floor(sample, quick):
    pytest.importorskip("numpy")
    sample("S10 array of 1 MiB, copied in and out", "floor", lambda: 2 * floors.memcpy(MIB, laps(quick, 1000)))


@pytest.mark.parametrize("size", [64 * 1024, MIB, 256 * MIB], ids=["64KiB", "1MiB", "256MiB"])
def test_array_in_place(size, sample, quick):
    pytest.importorskip("numpy")
    size = min(size, MIB) if quick else size
    with RingBufferChannel(16) as channel:
        sample(
            "S11 array written and read in place",
            "ours",
            lambda: alone.array_in_place(channel, size, laps(quick, 3000)),
        )
