"""The demo's pipeline: a parent that keeps a crew of workers busy and puts their answers together.

Every worker has a *lane* in the parent: the link to it and a thread that sends it jobs and takes its answers. What is
still to be done stands on the *board*, which all lanes share. When a worker dies, its unanswered jobs go back to the
board for whoever is next, and a new process goes on with the very same rings: it takes the ends that the dead one
held. An answer that comes twice is counted once.
"""

import collections
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, NamedTuple, Self

from shmcomm import ShutDown
from shmcomm._cli import _corpus, _workers
from shmcomm._cli._links import Link
from shmcomm._cli._progress import Progress

#: Jobs that a worker has before it at any time.
WINDOW = 4

#: ``(file number, text)`` of every message; its place in the list is the job's number.
Jobs = list[tuple[int, str]]


class Result(NamedTuple):
    answer: _corpus.Index
    seconds: float
    messages: int
    killed: dict[str, Any] | None


class Board:
    """What is to be done, what came back, and the alarm that rings when a third of it is there."""

    def __init__(self, jobs: Jobs, on_third: Callable[[], object]) -> None:
        self._jobs = jobs
        self._waiting = collections.deque(range(len(jobs)))
        self._answered: set[int] = set()
        self._on_third = on_third
        self._third = max(1, len(jobs) // 3)
        self._lock = threading.Lock()
        self.woken, self._wake = _workers.CONTEXT.Pipe(duplex=False)
        self.index = _corpus.Index()
        self.messages = 0
        self.error: BaseException | None = None
        self.started: float | None = None
        self.seconds: float | None = None

    @property
    def done(self) -> int:
        return len(self._answered)

    @property
    def finished(self) -> bool:
        return self.error is not None or self.seconds is not None

    def start_clock(self) -> None:
        self.started = time.perf_counter()

    def take(self, pending: set[int]) -> tuple[int, str] | None:
        """Return ``(job, text)`` and note the job in ``pending``; None if there is nothing to do."""
        with self._lock:
            if not self._waiting:
                return None
            job = self._waiting.popleft()
            pending.add(job)
            self.messages += 1
            return job, self._jobs[job][1]

    def give_back(self, pending: set[int]) -> int:
        """Put the jobs of a dead worker in front of all others; return how many there were."""
        with self._lock:
            lost = sorted(pending)
            self._waiting.extendleft(reversed(lost))
            pending.clear()
            return len(lost)

    def answer(self, job: int, counts: _corpus.Counts, pending: set[int]) -> None:
        with self._lock:
            pending.discard(job)
            self.messages += 1
            if job in self._answered:
                return
            self._answered.add(job)
            self.index.add(self._jobs[job][0], counts)
            done = self.done
        if done == self._third:
            self._on_third()
        if done == len(self._jobs):
            self.seconds = time.perf_counter() - (self.started or 0)
            self._wake.send_bytes(b".")

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._wake.send_bytes(b".")


class Lane(threading.Thread):
    """One worker, the link to it, and the thread that keeps it busy."""

    def __init__(self, link: Link, board: Board, ready: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self.link = link
        self._board = board
        self._ready = ready
        self._pending: set[int] = set()
        link.create()
        try:
            self.process = _workers.start(_workers.index, link)
        except BaseException:
            link.close()
            raise

    def run(self) -> None:
        try:
            for job, content in self.link.results():
                if job != _workers.HELLO:
                    self._board.answer(job, content, self._pending)
                elif self._board.started is None:
                    self._ready.wait()  # until all workers are there: the clock does not count Python's own start
                self._feed()
        except (ShutDown, threading.BrokenBarrierError):
            pass  # the run is over
        except BaseException as error:
            self._board.fail(error)

    def _feed(self) -> None:
        while len(self._pending) < WINDOW and (task := self._board.take(self._pending)):
            self.link.send_task(task)

    def replace_worker(self) -> int:
        """Let a new process go on where a dead one stopped; return how many jobs have to be done again."""
        self.process.join()
        lost = self._board.give_back(self._pending)
        self.process = _workers.start(_workers.index, self.link)
        return lost


class Crew:
    """All lanes of one run."""

    def __init__(self, jobs: Jobs, make_link: Callable[[], Link], workers: int, *, kill: bool) -> None:
        self.killed: dict[str, Any] | None = None
        self._replacements = 4 * workers
        self.board = Board(jobs, self._kill if kill else lambda: None)
        self._ready = threading.Barrier(workers, action=self.board.start_clock)
        self._lanes: list[Lane] = []
        try:
            for _ in range(workers):
                self._lanes.append(Lane(make_link(), self.board, self._ready))
            for lane in self._lanes:
                lane.start()
        except BaseException:
            self.close()
            raise

    def _kill(self) -> None:
        victim = self._lanes[-1].process
        self.killed = {"pid": victim.pid, "after": self.board.done, "sent_again": 0, "exit_code": None}
        victim.kill()

    def wait(self, progress: Progress) -> None:
        """Return when all jobs are answered; meanwhile look after the workers."""
        while not self.board.finished:
            sentinels = [lane.process.sentinel for lane in self._lanes]
            connection.wait([self.board.woken, *sentinels], progress.interval)
            progress.update(self.board.done)
            self._look_after_workers()
        if self.board.error is not None:
            raise self.board.error

    def _look_after_workers(self) -> None:
        for lane in self._lanes:
            dead = lane.process
            if self.board.finished or dead.is_alive():
                continue
            if not self._replacements or not self.killed:
                raise RuntimeError(f"worker {dead.pid} ended with exit code {dead.exitcode} in mid-run")
            self._replacements -= 1
            self._note_end(dead, lane.replace_worker())

    def _note_end(self, process: SpawnProcess, lost: int = 0) -> None:
        if self.killed and self.killed["pid"] == process.pid:
            self.killed |= {"sent_again": lost, "exit_code": process.exitcode}

    def close(self) -> None:
        """End threads and processes and give the shared memory back."""
        self._ready.abort()
        for lane in self._lanes:
            lane.link.stop()
        for lane in self._lanes:
            _join(lane.process)
            self._note_end(lane.process)
            if lane.ident is not None:
                lane.join()
            lane.link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _join(process: SpawnProcess) -> None:
    """Wait for a process that was told to stop; one that does not is stopped."""
    process.join(timeout=10)
    if process.is_alive():
        process.kill()
        process.join()


def build_index(
    jobs: Jobs, make_link: Callable[[], Link], workers: int, progress: Progress, *, kill: bool = False
) -> Result:
    """Have ``workers`` processes index the jobs, each over a link of its own."""
    with Crew(jobs, make_link, workers, kill=kill) as crew:
        crew.wait(progress)
    board = crew.board
    return Result(board.index, board.seconds or 0, board.messages, crew.killed)


def measure_transport(jobs: Jobs, link: Link, rounds: int, on_round: Callable[[int], None]) -> float:
    """Send all jobs to one process that only takes them, several times; return the median time of a round."""
    link.create()
    process = _workers.start(_workers.sink, link)
    watcher = threading.Thread(target=_stop_when_dead, args=(process, link), daemon=True)
    watcher.start()
    try:
        return _rounds(jobs, link, rounds, on_round)
    finally:
        link.stop()
        _join(process)
        watcher.join()
        link.close()


def _stop_when_dead(process: SpawnProcess, link: Link) -> None:
    connection.wait([process.sentinel])
    link.stop()


def _rounds(jobs: Jobs, link: Link, rounds: int, on_round: Callable[[int], None]) -> float:
    expected = (len(jobs), sum(len(text) for _, text in jobs))
    results = link.results()
    next(results, None)
    seconds = []
    for done in range(rounds):
        begin = time.perf_counter()
        for message in jobs:
            link.send_task(message)
        link.send_task((_workers.END, ""))
        arrived = next(results, None)
        seconds.append(time.perf_counter() - begin)
        if arrived != expected:
            raise RuntimeError(f"{link.title}: sent {expected} (messages, characters), {arrived} arrived")
        on_round(done + 1)
    return statistics.median(seconds)
