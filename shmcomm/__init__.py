"""Shared memory between the processes of one machine: fast, zero-copy, and safe against any process being killed."""

import atexit as _atexit

from . import _core
from ._core import (
    Block,
    BufferPool,
    Lease,
    MemoryPool,
    ObjectPool,
    Reservation,
    RingBufferChannel,
    SharedMemoryBuffer,
    SharedObject,
)
from ._errors import (
    BusyError,
    CorruptedError,
    DecryptionError,
    Empty,
    Error,
    Full,
    LaggedError,
    LayoutError,
    MessageTooLargeError,
    NotEncodableError,
    ShutDown,
)

TYPE_CHECKING = False  # type checkers know the name; importing typing would take longer than all the rest
if TYPE_CHECKING:
    from ._stats import (
        BufferHeader,
        BufferStats,
        ObjectPoolStats,
        Participant,
        PoolStats,
        RingStats,
        SizeClassInfo,
    )
del TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Block",
    "BufferHeader",
    "BufferPool",
    "BufferStats",
    "BusyError",
    "CorruptedError",
    "DecryptionError",
    "Empty",
    "Error",
    "Full",
    "LaggedError",
    "LayoutError",
    "Lease",
    "MemoryPool",
    "MessageTooLargeError",
    "NotEncodableError",
    "ObjectPool",
    "ObjectPoolStats",
    "Participant",
    "PoolStats",
    "Reservation",
    "RingBufferChannel",
    "RingStats",
    "SharedMemoryBuffer",
    "SharedObject",
    "ShutDown",
    "SizeClassInfo",
]

_atexit.register(_core._close_all)


def __getattr__(name: str) -> object:
    # Seldom needed, and dataclasses are slow to import.
    if name in ("BufferHeader", "Participant", "SizeClassInfo") or (name in __all__ and name.endswith("Stats")):
        from . import _stats

        return getattr(_stats, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
