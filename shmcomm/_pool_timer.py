"""Tending pools: one thread per process that gives idle memory back, from the first allocation on."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from queue import Empty, SimpleQueue

TYPE_CHECKING = False  # typing takes longer to import than all the rest
if TYPE_CHECKING:
    from typing import Protocol

    class _Pool(Protocol):
        def _tend(self) -> bool: ...


class _Watched:
    """A pool that is looked at every `period` seconds."""

    def __init__(self, reference: weakref.ref[_Pool], period: float) -> None:
        self.reference = reference
        self.period = period
        self.due = time.monotonic() + period

    def look(self) -> bool:
        """False: there is nothing to look at any more."""
        pool = self.reference()
        self.due = time.monotonic() + self.period
        try:
            return pool is not None and pool._tend()
        except (OSError, ValueError):  # it was just closed, or cannot be used here: who allocates from it is told
            return False


class _Timer:
    """Pools and what runs them. A forked child begins with a new one."""

    def __init__(self) -> None:
        # Callbacks of weak references come at any time, also inside watch(): they only put something here, which is
        # safe (a Condition would not be), and a lock that one thread may take again guards the rest.
        self._messages: SimpleQueue[_Watched | None] = SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ends = False
        self._watched: list[_Watched] = []  # the thread's

    def watch(self, pool: _Pool, period: float) -> None:
        with self._lock:
            if self._ends:
                return
            messages = self._messages
            messages.put(_Watched(weakref.ref(pool, lambda _: messages.put(None)), period))
            if self._thread is None:
                try:
                    thread = threading.Thread(target=self._run, name="shmcomm pools", daemon=True)
                    thread.start()
                except RuntimeError:  # the interpreter is ending, or has no (more) threads: cleanup() does it by hand
                    return
                self._thread = thread

    def stop(self) -> None:
        """At the end of the process. A look that has begun comes to its end."""
        with self._lock:
            self._ends = True
            thread = self._thread
        self._messages.put(None)
        if thread is not None:
            thread.join(1)

    def _run(self) -> None:
        while self._goes_on():
            self._receive()
            now = time.monotonic()
            self._watched = [w for w in self._watched if self._ends or now < w.due or w.look()]

    def _goes_on(self) -> bool:
        """False: there is nothing to do any more, and the next watch() starts a thread of its own."""
        with self._lock:
            self._watched = [w for w in self._watched if w.reference() is not None]
            if not self._ends and (self._watched or not self._messages.empty()):
                return True
            self._thread = None
            return False

    def _receive(self) -> None:
        """Waits until a pool is due or something comes."""
        wait = None
        if self._watched:
            wait = max(0.0, min(w.due for w in self._watched) - time.monotonic())
        try:
            message = self._messages.get(timeout=wait)
        except Empty:
            return
        if message is not None:
            self._watched.append(message)


_timer = _Timer()


def watch(pool: _Pool, period: float) -> None:
    """Calls pool._tend() every `period` seconds, until that is false or the pool is gone."""
    _timer.watch(pool, period)


def _begin_anew() -> None:
    global _timer
    _timer = _Timer()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(lambda: _timer.stop())
