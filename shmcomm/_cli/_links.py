"""What carries the demo's messages between the parent and one worker: rings of ours, or multiprocessing's queues.

Both have the same few methods, so that the same workers and the same book-keeping run on either. The parent calls
``create``, ``send_task`` and ``results``; the worker, which got the link as an argument, ``attach``, ``tasks`` and
``send_result``; both end with ``close``. ``stop`` ends both iterations once they have handed out what is there.
``is_used_by`` tells whether a process would keep its memory from being given back when everybody else leaves.
"""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

from shmcomm import RingBufferChannel

_CAPACITY = 64
_BUFFER_SIZE = 2 * 1024 * 1024


class Link(Protocol):
    title: ClassVar[str]

    def create(self) -> None: ...
    def attach(self) -> None: ...
    def send_task(self, task: Any) -> None: ...
    def send_result(self, result: Any) -> None: ...
    def tasks(self) -> Iterator[Any]: ...
    def results(self) -> Iterator[Any]: ...
    def stop(self) -> None: ...
    def is_used_by(self, pid: int | None) -> bool: ...
    def close(self) -> None: ...


class RingLink:
    """A ring of tasks and a ring of results. All that a worker is given is their names."""

    title: ClassVar[str] = "shmcomm"

    def __init__(self, stem: str) -> None:
        self._names = f"{stem}.tasks", f"{stem}.results"

    def __getstate__(self) -> dict[str, Any]:
        return {"_names": self._names}

    def create(self) -> None:
        self._open(_new_ring)

    def attach(self) -> None:
        self._open(RingBufferChannel.attach)

    def _open(self, ring: Callable[[str], RingBufferChannel[Any]]) -> None:
        self._tasks = ring(self._names[0])
        try:
            self._results = ring(self._names[1])
        except BaseException:
            self._tasks.close()
            raise

    def send_task(self, task: Any) -> None:
        self._tasks.send(task)

    def send_result(self, result: Any) -> None:
        self._results.send(result)

    def tasks(self) -> Iterator[Any]:
        return iter(self._tasks)

    def results(self) -> Iterator[Any]:
        return iter(self._results)

    def stop(self) -> None:
        self._tasks.shutdown()
        self._results.shutdown()

    def is_used_by(self, pid: int | None) -> bool:
        users = (user for ring in (self._tasks, self._results) for user in ring.stats().participants)
        return any(user.pid == pid and user.alive for user in users)

    def close(self) -> None:
        self._tasks.close()
        self._results.close()


def _new_ring(name: str) -> RingBufferChannel[Any]:
    return RingBufferChannel(_CAPACITY, name=name, buffer_size=_BUFFER_SIZE)


class QueueLink:
    """The same over two ``multiprocessing.Queue``. None ends an iteration."""

    title: ClassVar[str] = "multiprocessing.Queue"

    def __init__(self, stem: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._tasks, self._results = context.Queue(), context.Queue()

    def create(self) -> None: ...

    def attach(self) -> None: ...

    def send_task(self, task: Any) -> None:
        self._tasks.put(task)

    def send_result(self, result: Any) -> None:
        self._results.put(result)

    def tasks(self) -> Iterator[Any]:
        return iter(self._tasks.get, None)

    def results(self) -> Iterator[Any]:
        return iter(self._results.get, None)

    def stop(self) -> None:
        self._tasks.put(None)
        self._results.put(None)

    def is_used_by(self, pid: int | None) -> bool:
        return False  # pipes and semaphores go with their last process, whoever that is

    def close(self) -> None:
        for queue in (self._tasks, self._results):
            queue.close()
            # Let its thread end, or semaphores seem to leak at exit; but it never ends if the peer died half-way.
            ending = threading.Thread(target=queue.join_thread, daemon=True)
            ending.start()
            ending.join(timeout=1)
            queue.cancel_join_thread()
