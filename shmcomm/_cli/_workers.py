"""The worker processes of the demo: what runs in them, and how they are started."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any

from shmcomm import ShutDown
from shmcomm._cli import _corpus
from shmcomm._cli._links import Link

CONTEXT = multiprocessing.get_context("spawn")

#: Job numbers that stand for something else: a worker's first message, and the end of a round of ``sink``.
HELLO = -1
END = -2

#: For a worker to end by itself after its parent was killed.
_GRACE_S = 2.0


def start(target: Callable[[Link], None], link: Link) -> SpawnProcess:
    """Start a process that runs ``target(link)``."""
    process = CONTEXT.Process(target=target, args=(link,), daemon=True)
    try:
        with _interrupts_held():
            process.start()
    except BaseException:
        if process.pid is not None:
            process.kill()
            process.join()
        raise
    return process


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal's group, but only the parent is to act on it: what is blocked here
    stays blocked in a process started meanwhile. Here it is heard afterwards."""
    resource_tracker.ensure_running()  # process.start() would do so, and unblock signals
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def index(link: Link) -> None:
    """Answer each ``(job, text)`` with ``(job, {word: count})``."""
    _serve(link, lambda job, text: (job, _corpus.count_words(text)))


def sink(link: Link) -> None:
    """Only take what comes; answer END with how many messages and characters that were."""
    messages = characters = 0

    def take(job: int, text: str) -> tuple[int, int] | None:
        nonlocal messages, characters
        if job == END:
            answer, messages, characters = (messages, characters), 0, 0
            return answer
        messages += 1
        characters += len(text)
        return None

    _serve(link, take)


def _serve(link: Link, handle: Callable[[int, str], Any]) -> None:
    try:
        link.attach()
    except FileNotFoundError:
        raise SystemExit(1) from None  # the parent has ended meanwhile, and nobody wants to read about it here
    threading.Thread(target=_leave_with_parent, args=(link,), daemon=True).start()
    try:
        link.send_result((HELLO, os.getpid()))
        for job, text in link.tasks():
            answer = handle(job, text)
            if answer is not None:
                link.send_result(answer)
    except ShutDown:
        pass  # the parent needs no more answers
    finally:
        link.close()


def _leave_with_parent(link: Link) -> None:
    """A parent that was killed says no goodbye: stop when it is gone, so that its segments go too."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    connection.wait([parent.sentinel])
    with contextlib.suppress(ValueError):  # the main thread was faster and has closed the link
        _await_end_of(parent.pid, link)
        link.stop()
    time.sleep(_GRACE_S)
    os._exit(1)  # a queue whose writer was killed half-way through a message keeps its reader for ever


def _await_end_of(pid: int | None, link: Link) -> None:
    """A process whose files are closed is not gone yet, and who leaves before it is not the last one out. Where the
    system tells nobody but its parent of a zombie, it counts until that one has buried it: not for ever."""
    deadline = time.monotonic() + _GRACE_S
    while link.is_used_by(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
