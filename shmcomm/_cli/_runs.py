"""The runs of the demo, one after the other, and the report about them."""

import os
import platform
import secrets
import time
from typing import Any

from shmcomm import __version__, _core
from shmcomm._cli import _corpus, _pipeline
from shmcomm._cli._links import QueueLink, RingLink
from shmcomm._cli._progress import Progress

_ROUNDS = 5

#: Runs of each way to index, of which the median counts: what else the machine does weighs more than what is compared.
_REPEATS = 3

#: A first pair of runs that took longer is not repeated.
_PATIENCE_S = 6.0

_Links = type[RingLink] | type[QueueLink]

Facts = dict[str, Any]


class Demo:
    """Everything that is done with one input."""

    def __init__(self, corpus: _corpus.Corpus, workers: int) -> None:
        self._corpus = corpus
        self._jobs = corpus.messages
        self._workers = workers
        self._stem = f"demo.{os.getpid()}.{secrets.token_hex(3)}"
        self._links = 0

    def run(self, *, kill: bool) -> Facts:
        """Do it all and return the report, which fits into JSON."""
        begin = time.perf_counter()
        self._expected, alone = self._reference()
        runs = [alone, *self._compare((RingLink, QueueLink))]
        if kill:
            runs.append(self._index(RingLink, f"{RingLink.title}, 1 of {self._workers} killed", kill=True))
        transport = [self._transport(link) for link in (RingLink, QueueLink)]
        left_behind = self._left_behind()
        return {
            "version": __version__,
            "python": platform.python_version(),
            "workers": self._workers,
            "input": self._input(),
            "index": {"words": len(self._expected), "entries": self._expected.entries},
            "runs": runs,
            "transport": transport,
            "left_behind": left_behind,
            "seconds": time.perf_counter() - begin,
            "ok": all(run["correct"] for run in runs) and not left_behind,
        }

    def _input(self) -> Facts:
        corpus = self._corpus
        facts = {"path": corpus.root, "files": len(corpus.texts), "bytes": corpus.nbytes, "messages": len(self._jobs)}
        return facts | {"left_out": corpus.left_out}

    def _reference(self) -> tuple[_corpus.Index, Facts]:
        begin = time.perf_counter()
        with Progress("one process", len(self._corpus.texts)) as progress:
            index = _corpus.index_here(self._corpus.texts, progress.update)
        return index, self._figures("one process", time.perf_counter() - begin, 0, correct=True)

    def _compare(self, ways: tuple[_Links, ...]) -> list[Facts]:
        """Index each way several times, taking turns, so that a busy moment of the machine does not decide."""
        found: dict[_Links, list[Facts]] = {way: [] for way in ways}
        begin = time.perf_counter()
        for repeat in range(_REPEATS):
            for way in ways if repeat % 2 == 0 else reversed(ways):
                found[way].append(self._index(way, way.title))
            if repeat == 0 and time.perf_counter() - begin > _PATIENCE_S:
                break
        return [_median(runs) for runs in found.values()]

    def _index(self, make_link: _Links, label: str, *, kill: bool = False) -> Facts:
        with Progress(label, len(self._jobs)) as progress:
            result = _pipeline.build_index(
                self._jobs, lambda: make_link(self._new_stem()), self._workers, progress, kill=kill
            )
        figures = self._figures(label, result.seconds, result.messages, correct=result.answer == self._expected)
        return figures | {"killed": result.killed} if kill else figures

    def _figures(self, label: str, seconds: float, messages: int, *, correct: bool) -> Facts:
        return {
            "label": label,
            "files": len(self._corpus.texts),
            "bytes": self._corpus.nbytes,
            "seconds": seconds,
            "messages": messages,
            "messages_per_second": messages / seconds,
            "correct": correct,
            "repeats": 1,
        }

    def _transport(self, make_link: _Links) -> Facts:
        with Progress(f"{make_link.title}, no indexing", _ROUNDS) as progress:
            seconds = _pipeline.measure_transport(self._jobs, make_link(self._new_stem()), _ROUNDS, progress.update)
        return {
            "label": make_link.title,
            "messages": len(self._jobs),
            "seconds": seconds,
            "messages_per_second": len(self._jobs) / seconds,
            "bytes_per_second": self._corpus.nbytes / seconds,
        }

    def _new_stem(self) -> str:
        self._links += 1
        return f"{self._stem}.{self._links}"

    def _left_behind(self) -> list[str]:
        return [found["name"] for found in _core.list_segments() if found["name"].startswith(self._stem)]


def _median(runs: list[Facts]) -> Facts:
    """Return the run of median time; it is correct if all of them are."""
    middle = sorted(runs, key=lambda run: float(run["seconds"]))[len(runs) // 2]
    return middle | {"correct": all(run["correct"] for run in runs), "repeats": len(runs)}
