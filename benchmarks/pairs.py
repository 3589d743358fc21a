"""Two processes and a link between them: streams and round trips, in rounds that can be repeated and interleaved.

A link (see rivals.py) is made in the parent and pickled to two workers, which are spawned: nothing is inherited.
Each worker opens
its own side and then waits for orders, so that the rounds of several subjects can take turns without starting processes
anew. What arrives is compared with what was sent: a lost, doubled, reordered or damaged message fails the benchmark.
"""

import contextlib
import functools
import importlib
import multiprocessing
import os
import statistics
import time
import traceback

LAP = 256  #: messages between two checks; all messages of a lap differ
BATCH = 64
CALM_S = 0.02  #: between two rounds, so that the partners of the last one are asleep
PATIENCE_S = 60

PIN = os.environ.get("SHMCOMM_BENCH_PIN") == "1"


class Broken(Exception):
    """A subject lost, reordered or damaged messages, or did not answer."""


def payloads(size):
    """LAP messages of `size` bytes, all different, no byte of them constant."""
    return [
        bytes((i * 7 + j * 31 + (i >> 3)) & 0xFF for j in range(size - 2)) + i.to_bytes(2, "little") for i in range(LAP)
    ]


# ---- inside the workers ----


def pin(cpu):
    """One CPU for this process, where there is one for each. The library spins only where it may run on two, so this is
    for comparisons at low level and off by default."""
    cpus = sorted(os.sched_getaffinity(0))
    if PIN and len(cpus) > 1:
        os.sched_setaffinity(0, {cpus[cpu % len(cpus)]})


def must_be(got, expected, at, thorough):
    """`got` is what stands in `expected`, a lap that repeats, from `at` on.

    Comparing 64 bytes costs a third of receiving them. So most times the first and the last are compared, which a lost
    or doubled one anywhere before would have moved, and each 16th time all of them.
    """
    if thorough:
        same = got == (expected + expected)[at : at + len(got)]
    else:
        same = got[0] == expected[at] and got[-1] == expected[(at + len(got) - 1) % len(expected)]
    if not same:
        raise Broken("what arrived is not what was sent")


def send_laps(side, messages, laps):
    put, gate = side.put, side.before_lap
    start = time.perf_counter_ns()
    for lap in range(laps):
        gate(lap * len(messages))
        for message in messages:
            put(message)
    side.flush()
    return start, time.perf_counter_ns()


def receive_laps(side, messages, laps):
    get, done = side.get, side.after_lap
    start = time.perf_counter_ns()
    for lap in range(laps):
        got = [get() for _ in messages]
        must_be(got, messages, 0, lap % 16 == 0)
        done((lap + 1) * len(messages))
    return start, time.perf_counter_ns()


def send_batches(side, messages, laps):
    put_many = side.put_many
    batches = [messages[i : i + BATCH] for i in range(0, len(messages), BATCH)]
    start = time.perf_counter_ns()
    for _ in range(laps):
        for batch in batches:
            put_many(batch)
    return start, time.perf_counter_ns()


def receive_batches(side, messages, laps):
    """How many a call returns is its own business; what they are is not: every fourth batch is looked at, about one a
    lap, as in receive_laps."""
    get_many, size = side.get_many, len(messages)
    start = time.perf_counter_ns()
    calls, left = 0, laps * size
    while left > 0:
        got = get_many(BATCH)
        left -= len(got)
        calls += 1
        if calls % 4 == 0 or left == 0:
            must_be(got, messages, -(left + len(got)) % size, calls % 64 == 0)
    return start, time.perf_counter_ns()


@functools.cache
def tables(library):
    """Four tables of 10 MiB, of numbers: pandas frames or Arrow tables."""
    import numpy

    rows, columns = 262_144, "abcde"
    contents = [
        {name: numpy.arange(rows, dtype="f8") + number * 1000 + i for i, name in enumerate(columns)}
        for number in range(4)
    ]
    module = importlib.import_module(library)
    return [(module.DataFrame if library == "pandas" else module.table)(content) for content in contents]


def send_tables(side, library, laps):
    return send_laps(side, tables(library), laps)


def receive_tables(side, library, laps):
    """The first value of each says which it is; those of the first lap are compared whole, before the clock stops."""
    get, expected = side.get, tables(library)
    start = time.perf_counter_ns()
    for lap in range(laps):
        for table in expected:
            got = get()
            if got["a"][0] != table["a"][0] or (lap == 0 and not got.equals(table)):
                raise Broken("what arrived is not what was sent")
    return start, time.perf_counter_ns()


def call_and_wait(side, messages, laps):
    """Nanoseconds of each round trip."""
    put, get = side.put, side.get
    now = time.perf_counter_ns
    trips = []
    for _ in range(laps):
        for message in messages:
            start = now()
            put(message)
            answer = get()
            trips.append(now() - start)
            if answer != message:
                raise Broken("the answer is not what was sent")
    return trips


def echo(side, messages, laps):
    put, get = side.put, side.get
    for _ in range(laps * len(messages)):
        put(get())


ORDERS = {
    "stream": (send_laps, receive_laps),
    "batch": (send_batches, receive_batches),
    "table": (send_tables, receive_tables),
    "trip": (call_and_wait, echo),
}


def worker(link, role, control):
    try:
        pin(role)
        side = link.open(role)
        control.send(("ready", None))
        while (order := control.recv()) is not None:
            name, messages, laps = order
            cpu = time.process_time_ns()
            result = ORDERS[name][role](side, messages, laps)
            control.send(("done", (result, time.process_time_ns() - cpu)))
        side.close()
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception:
        control.send(("failed", traceback.format_exc()))


# ---- in the parent ----


class Pair:
    """A link with its two workers. `with Pair(link) as pair: pair.stream(payloads(64), 1000)`"""

    def __init__(self, link):
        self.link = link
        self.workers = []

    def __enter__(self):
        context = multiprocessing.get_context(self.link.start_method)
        try:
            for role in (1, 0):  # receivers first: some links need it
                here, there = context.Pipe()
                process = context.Process(target=worker, args=(self.link, role, there), daemon=True)
                process.start()
                there.close()
                self.workers.insert(0, (process, here))
                if self.link.receiver_first:
                    self.answer(process, here)
            if not self.link.receiver_first:
                for process, control in self.workers:
                    self.answer(process, control)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused):
        for _, control in self.workers:
            with contextlib.suppress(OSError):
                control.send(None)
        for process, control in self.workers:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
            control.close()
        self.link.close()

    def answer(self, process, control):
        if not control.poll(PATIENCE_S):
            raise Broken(
                f"{self.link.name}: a worker has said nothing for {PATIENCE_S} s: a message is lost, or it hangs"
            )
        try:
            kind, value = control.recv()
        except EOFError:
            raise Broken(f"{self.link.name}: a worker died with exit code {process.exitcode}") from None
        if kind == "failed":
            raise Broken(f"{self.link.name}: {value}")
        return value

    def round(self, order, messages, laps):
        """What each of the two measured, and the nanoseconds of CPU that each burnt."""
        time.sleep(CALM_S)
        for _, control in reversed(self.workers):
            control.send((order, messages, laps))
        return [self.answer(process, control) for process, control in self.workers]

    def stream(self, messages, laps, order="stream"):
        """Nanoseconds per message, from the first send to the last receive."""
        ((start, _), _), ((_, end), _) = self.round(order, messages, laps)
        return (end - start) / (laps * len(messages))

    def tables(self, library, laps):
        """Nanoseconds per table."""
        tables(library)  # or the library is missing here
        ((start, _), _), ((_, end), _) = self.round("table", library, laps)
        return (end - start) / (laps * len(tables(library)))

    def trips(self, messages, laps):
        """Nanoseconds of each round trip, in ascending order."""
        (trips, _), _ = self.round("trip", messages, laps)
        return sorted(trips)


def quantile(ascending, q):
    return ascending[min(int(len(ascending) * q), len(ascending) - 1)]


def spread(values):
    """(median, (max - min) / median)"""
    middle = statistics.median(values)
    return middle, (max(values) - min(values)) / middle if middle else 0.0
