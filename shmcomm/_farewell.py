"""Closing what is open when a worker of multiprocessing ends."""

from types import ModuleType

from . import _core

#: After the finalisers of the user's own objects.
_PRIORITY = -100

_follows_forks = False


def arrange(util: ModuleType) -> None:
    """Have multiprocessing.util call _close_all at the end of this process."""
    global _follows_forks
    util.Finalize(None, _core._close_all, exitpriority=_PRIORITY)
    if not _follows_forks:
        # A worker forgets all finalisers when it begins to work, which is after it has unpickled its arguments.
        util.register_after_fork(arrange, lambda _: arrange(util))
        _follows_forks = True
