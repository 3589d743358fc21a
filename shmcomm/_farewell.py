"""Closing what is open when a worker of multiprocessing ends."""

import threading
from types import ModuleType

from . import _core

#: After the finalisers of the user's own objects.
_PRIORITY = -100

_follows_forks = False


def arrange(util: ModuleType) -> None:
    """Have multiprocessing.util close everything at the end of this process."""
    global _follows_forks
    util.Finalize(None, _farewell, exitpriority=_PRIORITY)
    if not _follows_forks:
        # A worker forgets all finalisers when it begins to work, which is after it has unpickled its arguments.
        util.register_after_fork(arrange, lambda _: arrange(util))
        _follows_forks = True


def _farewell() -> None:
    # Some versions of multiprocessing come here before the worker's own threads have ended, and they may still send.
    for thread in threading.enumerate():
        if thread not in (threading.current_thread(), threading.main_thread()) and not thread.daemon:
            thread.join()
    _core._close_all()
