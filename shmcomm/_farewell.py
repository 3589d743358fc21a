"""Closing what is open when a worker of multiprocessing ends."""

from types import ModuleType

from . import _core

#: After the finalisers of the user's own objects.
_PRIORITY = -100


def arrange(util: ModuleType) -> None:
    """Have multiprocessing.util call _close_all at the end of this process."""
    util.Finalize(None, _core._close_all, exitpriority=_PRIORITY)
