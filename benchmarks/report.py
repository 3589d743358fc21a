"""`python benchmarks/report.py`: each target beside its floors and rivals, measured in one run, turn and turn about.

    python benchmarks/report.py [--only S1,S4] [--repeat 5] [--quick] [--json | --markdown] [--no-rivals]

Every subject of a target is measured once, then every one again, and so on: what disturbs the machine disturbs all.
The table shows
medians over the repetitions and, behind ±, half of (largest - smallest) relative to the median. It judges no times
by themselves, only
ratios within this run, and its exit status does not depend on them; a lost or damaged message ends it with status 1.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import secrets
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("SHMCOMM_NAMESPACE", f"b{os.getpid()}{secrets.token_hex(3)}")

import alone
import bench_ring
import floors
import pairs
import rivals

KIB, MIB = 1 << 10, 1 << 20
BYTES = bench_ring.BYTES


@dataclass
class Claim:
    """subject <= limit x against, or against >= limit x subject: a ratio that the target sets, or one only told."""

    subject: str
    against: str
    relation: str  # "<=": subject / against; ">=": against / subject
    limit: float | None = None


@dataclass
class Target:
    id: str
    what: str
    claims: list
    unit: str = "ns"
    samples: dict = field(default_factory=dict)  # name -> function that returns one sample
    absent: dict = field(default_factory=dict)  # name -> why it cannot be measured
    results: dict = field(default_factory=dict)  # name -> samples


class Report:
    """Builds targets; the processes behind them live until close()."""

    def __init__(self, options):
        self.options = options
        self.stack = contextlib.ExitStack()
        self.pairs = {}

    def n(self, count):
        return max(count // 20, 1) if self.options.quick else count

    def ring(self, *args, **kwargs):
        from shmcomm import RingBufferChannel

        return self.stack.enter_context(RingBufferChannel(*args, **kwargs))

    def pair(self, link, **kwargs):
        key = link, tuple(kwargs.items())
        if key not in self.pairs:
            self.pairs[key] = self.stack.enter_context(pairs.Pair(link(**kwargs)))
        return self.pairs[key]

    def add_links(self, target, links, make):
        """make(pair, link) is one sample."""
        for link in links:
            reason = "left out" if self.options.no_rivals and link.group == "rival" else rivals.missing(link)
            if reason is None:
                try:
                    pair = self.pair(link)
                except (pairs.Broken, OSError) as error:
                    if link.group == "ours":
                        raise
                    reason = f"does not work here: {str(error).strip().splitlines()[-1]}"
            if reason is None:
                target.samples[link.name] = lambda pair=pair, link=link: make(pair, link)
            else:
                target.absent[link.name] = reason

    def laps(self, link, ours=2000, others=120):
        return self.n(ours if link.group == "ours" else others)

    # ---- the targets ----

    def streams(self):
        """S1"""
        t = Target(
            "S1",
            "stream of 64 B, 1 producer, 1 consumer",
            [
                Claim("shmcomm", "call", "<=", 4),
                Claim("shmcomm", "multiprocessing.Queue", ">=", 40),
                Claim("shmcomm", "kickmsg", ">=", 4),
                *(
                    Claim("shmcomm", link.name, ">=")
                    for link in rivals.ALL
                    if link.name not in ("shmcomm", "multiprocessing.Queue", "kickmsg")
                ),
            ],
        )
        self.add_links(t, rivals.ALL, lambda pair, link: pair.stream(BYTES, self.laps(link)))
        t.samples["call"] = lambda: floors.call(BYTES, self.n(2000))
        yield t

    def values(self):
        """S2"""
        for kind, limit in {"int": 40, "float": 40, "str": 40, "tuple of 3": None, "dict of 5": 15}.items():
            messages = bench_ring.VALUES[kind]
            t = Target("S2", f"stream of {kind}", [Claim("shmcomm", "multiprocessing.Queue", ">=", limit)])
            if limit == 40:
                t.claims.append(Claim("shmcomm", "call", "<=", 4))
                t.samples["call"] = lambda messages=messages: floors.call(messages, self.n(2000))
            self.add_links(
                t,
                [rivals.Ring, rivals.MpQueue],
                lambda pair, link, m=messages: pair.stream(m, self.laps(link, 1000, 60)),
            )
            yield t

    def batches(self):
        """S3"""
        t = Target(
            "S3",
            "batches of 64, 64 B",
            [
                Claim("shmcomm, batches", "shmcomm, single", ">=", 2),
                Claim("shmcomm, batches", "faster-fifo", ">="),
            ],
        )
        pair = self.pair(rivals.Ring)
        t.samples["shmcomm, batches"] = lambda: pair.stream(BYTES, self.n(3000), "batch")
        t.samples["shmcomm, single"] = lambda: pair.stream(BYTES, self.n(2000))
        self.add_links(t, [rivals.FasterFifo], lambda pair, link: pair.stream(BYTES, self.laps(link), "batch"))
        yield t

    def one_process(self):
        """S4"""
        t = Target("S4", "put and get in one process, 64 B", [Claim("shmcomm", "two calls", "<=", 3)])
        channel = self.ring(rivals.CAPACITY)
        t.samples["shmcomm"] = lambda: alone.put_get(channel, BYTES, self.n(2000))
        t.samples["two calls"] = lambda: 2 * floors.call(BYTES, self.n(2000))
        yield t

    def trips(self):
        """S7, S8"""
        awake = Target(
            "S7",
            "round trip of 64 B, both awake, p50",
            [
                Claim("shmcomm", "cache line", "<=", 10),
                *(Claim("shmcomm", link.name, ">=") for link in rivals.ALL if link.name != "shmcomm"),
            ],
        )
        self.add_links(
            awake, rivals.ALL, lambda pair, link: pairs.quantile(pair.trips(BYTES, self.laps(link, 80, 8)), 0.5)
        )
        asleep = Target("S8", "round trip of 64 B, both asleep, p50", [Claim("shmcomm", "futex", "<=", 1.15)])
        pair = self.pair(rivals.Ring, spin=0)
        asleep.samples["shmcomm"] = lambda: pairs.quantile(pair.trips(BYTES, self.n(20)), 0.5)
        for target, name, how, trips in ((awake, "cache line", "line", 640_000), (asleep, "futex", "futex", 5120)):
            if floors.compiler() is None:
                target.absent[name] = "no C compiler"
            else:
                target.samples[name] = lambda how=how, trips=trips: floors.two_processes(how, max(self.n(trips), 64))
            yield target

    def tables(self):
        """S12"""
        for library in ("pandas", "pyarrow"):
            t = Target(
                "S12", f"table of 10 MiB, {library}", [Claim("shmcomm", "multiprocessing.Queue", ">=", 5)], unit="us"
            )
            if importlib.util.find_spec(library) is None:
                t.absent["shmcomm"] = f"{library} is not installed"
            else:
                self.add_links(
                    t,
                    [rivals.Ring, rivals.MpQueue],
                    lambda pair, link, library=library: pair.tables(library, self.n(20)) / 1e3,
                )
            yield t

    def arrays(self):
        """S10, S11"""
        try:
            import numpy
        except ImportError:
            yield Target("S10", "arrays", [], absent={"shmcomm": "NumPy is not installed"})
            return
        t = Target("S10", "array of 1 MiB, copied in and out", [Claim("shmcomm", "two copies", "<=", 1.4)])
        channel, array = self.ring(16), numpy.arange(MIB, dtype="u1")
        t.samples["shmcomm"] = lambda: alone.array_copy(channel, array, self.n(500))
        t.samples["two copies"] = lambda: 2 * floors.memcpy(MIB, self.n(1000))
        yield t
        t = Target("S11", "array written and read in place", [])
        for name, size in {"64 KiB": 64 * KIB, "1 MiB": MIB, "256 MiB": 256 * MIB}.items():
            channel = self.ring(16)
            t.samples[name] = lambda channel=channel, size=size: alone.array_in_place(channel, size, self.n(3000))
            t.claims.append(Claim(name, "2 us", "<=", 1))
        t.samples["2 us"] = lambda: 2000.0
        yield t

    def objects(self):
        """the pool of objects; no target"""
        from shmcomm import ObjectPool

        t = Target(
            "objects",
            "object acquired and released",
            [Claim("shmcomm", "two calls", "<="), Claim("shmcomm", "Semaphore and list", ">=")],
        )
        pool = self.stack.enter_context(ObjectPool(object))
        t.samples["shmcomm"] = lambda: alone.pool_use(pool, self.n(400_000))
        t.samples["two calls"] = lambda: 2 * floors.call(BYTES, self.n(2000))
        t.samples["Semaphore and list"] = lambda: alone.semaphore_use(64, self.n(200_000))
        yield t

    def idle(self):
        """S22"""
        t = Target("S22", "8 blocked consumers", [Claim("share of one core", "0.1 %", "<=", 1)], unit="ppm")
        seconds = 1 if self.options.quick else 10
        once = []  # ten seconds are long enough to repeat nothing
        t.samples["share of one core"] = lambda: (once or once.append(1e6 * alone.idle_cpu(8, seconds)) or once)[0]
        t.samples["0.1 %"] = lambda: 1000.0
        yield t

    def life(self):
        """S23, attaching, memory"""
        t = Target("S23", "import shmcomm", [Claim("shmcomm", "1.5 x queue + 5 ms", "<=", 1)], unit="us")
        t.samples["shmcomm"] = lambda: alone.import_time("shmcomm") / 1e3
        t.samples["queue"] = lambda: alone.import_time("queue") / 1e3
        t.samples["1.5 x queue + 5 ms"] = lambda: 1.5 * t.results["queue"][-1] + 5000
        yield t
        for cls, what in (("RingBufferChannel", "a channel"), ("SharedMemoryBuffer", "a buffer")):
            import shmcomm

            make = getattr(shmcomm, cls)
            thing = self.stack.enter_context(make(1024 if cls == "RingBufferChannel" else 64, name=alone.fresh_name()))
            t = Target("attach", f"{what}, in another process", [Claim("shmcomm", "100 us", "<=", 1)], unit="us")
            t.samples["shmcomm"] = lambda cls=cls, thing=thing: alone.attach(cls, thing.name)[1] / 1e3
            t.samples["100 us"] = lambda: 100.0
            yield t
            size, limit = alone.segment_bytes(thing), 256 * KIB if cls == "RingBufferChannel" else 16 * KIB
            t = Target("size", f"segment of {what} of default size", [Claim("shmcomm", "limit", "<=", 1)], unit="B")
            t.samples.update({"shmcomm": lambda size=size: size, "limit": lambda limit=limit: limit})
            yield t
            found = alone.handle_memory(cls, thing.name)
            t = Target(
                "size",
                f"private memory of a handle of {what}",
                [Claim("first", "4 KiB", "<=", 1), Claim("one more", "4 KiB", "<=", 1)],
                unit="B",
            )
            if found is None:
                t.absent["first"] = t.absent["one more"] = "this C library does not tell"
            else:
                t.samples.update({"first": lambda found=found: found[0], "one more": lambda found=found: found[1]})
            t.samples["4 KiB"] = lambda: 4096
            yield t

    def growth(self):
        """from 10 to 1,000,000 items; from 64 KiB to 4 GiB of segment"""
        t = Target("growth", "put and get behind a backlog", [Claim("1,000,000", "10", "<=", 1.3)])
        for name, length in {"10": 10, "1,000,000": 1_000_000}.items():
            channel = self.ring(length + 16)
            t.samples[name] = lambda channel=channel, length=length: alone.backlog(
                channel, BYTES[0], length, self.n(400_000)
            )
        yield t
        t = Target(
            "growth",
            "put and get, by size of the segment",
            [Claim("4 GiB", "64 KiB", "<=", 1.3), Claim("1 GiB, all ring", "64 KiB", "<=", 1.3)],
        )
        for name, size in {"64 KiB": 64 * KIB, "4 GiB": None, "1 GiB, all ring": 1024 * MIB}.items():
            try:
                channel = self.ring(100, buffer_size=size)
            except OSError as error:
                t.absent[name] = str(error)
                continue
            t.samples[name] = lambda channel=channel: alone.put_get(channel, BYTES[:64], self.n(4000))
        yield t

    GROUPS = [streams, values, batches, one_process, trips, arrays, tables, objects, idle, life, growth]

    def run(self, say):
        targets = []
        for group in self.GROUPS:
            for target in group(self):
                if self.options.only and target.id not in self.options.only:
                    continue
                say(f"{target.id} {target.what}")
                for _ in range(1 if self.options.quick else self.options.repeat):
                    for name, sample in target.samples.items():
                        target.results.setdefault(name, []).append(sample())
                targets.append(target)
        return targets


# ---- judging and printing ----


def judge(target):
    """A row per claim."""
    rows = []
    for claim in target.claims:
        row = {
            "target": target.id,
            "what": target.what,
            "subject": claim.subject,
            "against": claim.against,
            "unit": target.unit,
        }
        absent = [f"{name}: {target.absent[name]}" for name in (claim.subject, claim.against) if name in target.absent]
        if absent:
            rows.append({**row, "absent": "; ".join(absent)})
            continue
        mine, other = target.results[claim.subject], target.results[claim.against]
        row["value"], row["spread"] = pairs.spread(mine)
        row["against_value"], row["against_spread"] = pairs.spread(other)
        # Turn and turn about: the ratio of neighbours is steadier than the ratio of medians.
        ratios = [a / b if claim.relation == "<=" else b / a for a, b in zip(mine, other, strict=True)]
        row["ratio"] = statistics.median(ratios)
        row["relation"], row["limit"] = claim.relation, claim.limit
        if claim.limit is not None:
            row["reached"] = row["ratio"] <= claim.limit if claim.relation == "<=" else row["ratio"] >= claim.limit
        rows.append(row)
    return rows


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


HEAD = ["target", "what", "subject", "", "against", "", "ratio", "wanted", "reached"]


def table_of(rows):
    table = [HEAD]
    for row in rows:
        if "absent" in row:
            table.append([row["target"], row["what"], row["subject"], "", row["against"], "", "", "", row["absent"]])
            continue
        mine = f"{number(row['value'])} {row['unit']} ±{50 * row['spread']:.0f}%"
        other = f"{number(row['against_value'])} {row['unit']} ±{50 * row['against_spread']:.0f}%"
        wanted = f"{row['relation']} {row['limit']:g}" if row["limit"] is not None else "-"
        reached = {True: "yes", False: "NO", None: "-"}[row.get("reached")]
        table.append(
            [
                row["target"],
                row["what"],
                row["subject"],
                mine,
                row["against"],
                other,
                number(row["ratio"]),
                wanted,
                reached,
            ]
        )
    return table


def print_table(rows):
    table = table_of(rows)
    widths = [max(len(line[i]) for line in table) for i in range(len(HEAD) - 1)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)).rstrip())


def print_markdown(rows):
    head, *table = table_of(rows)
    for line in [[title or "took" for title in head], ["---"] * len(head), *table]:
        print("|", " | ".join(line), "|")


def machine():
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "pinned": pairs.PIN,
    }


def main():
    parser = argparse.ArgumentParser(description="Measure what the targets name, beside floors and rivals, in one run.")
    parser.add_argument("--only", type=lambda text: text.split(","), help="targets, as S1,S4,attach,size,growth")
    parser.add_argument("--repeat", type=int, default=5, help="how often each subject has its turn (default: 5)")
    parser.add_argument("--quick", action="store_true", help="once and little of it: shows that it works, not how fast")
    parser.add_argument("--no-rivals", action="store_true", help="ours and the floors only")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all samples, for programs")
    form.add_argument("--markdown", action="store_true", help="the table for a document")
    options = parser.parse_args()
    report = Report(options)

    def say(text):
        print(text, file=sys.stderr, flush=True)

    try:
        with report.stack:
            targets = report.run(say)
    except pairs.Broken as error:
        say(f"FAILED: {error}")
        return 1
    rows = [row for target in targets for row in judge(target)]
    if options.json:
        samples = [
            {
                "target": t.id,
                "what": t.what,
                "unit": t.unit,
                "results": t.results,
                "absent": t.absent,
                "claims": [asdict(c) for c in t.claims],
            }
            for t in targets
        ]
        json.dump({"machine": machine(), "rows": rows, "samples": samples}, sys.stdout, indent=1)
        print()
    else:
        print("  ".join(f"{key} {value}" for key, value in machine().items()))
        (print_markdown if options.markdown else print_table)(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
