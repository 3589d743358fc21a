"""What stats() and header return: small frozen objects. Imported when first asked for."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Participant:
    """A process that has the object open."""

    pid: int
    #: when it opened the object, seconds since 1970
    since: float
    alive: bool
    #: what it holds, in words
    holds: tuple[str, ...]


class _Stats:
    participants: tuple[Participant, ...]

    def __post_init__(self) -> None:
        rows: Any = self.participants
        object.__setattr__(self, "participants", tuple(Participant(**row) for row in rows))

    def asdict(self) -> dict[str, Any]:
        """All fields, participants as dicts."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class BufferStats(_Stats):
    """A SharedMemoryBuffer at about one moment."""

    bytes_total: int
    #: highest end of any write() since the last clear()
    bytes_used: int
    participants: tuple[Participant, ...]


@dataclass(frozen=True)
class RingStats(_Stats):
    """A RingBufferChannel at about one moment. Counts are since its creation."""

    bytes_total: int
    bytes_used: int
    capacity: int
    length: int
    sent: int
    received: int
    #: always 0: what a killed sender had not published never was a message, and a killed receiver's is delivered again
    lost: int
    peak_length: int
    #: threads that are blocked in a call on the channel, of all living processes
    waiters: int
    #: times an end was taken over from a dead process
    sender_deaths: int
    receiver_deaths: int
    #: memory for messages that do not fit in the ring: at most, reserved by now, and in use
    bytes_large_total: int
    bytes_large_reserved: int
    bytes_large_used: int
    #: such messages that are on their way or held by a receiver
    large_messages: int
    #: percent of what is not in use that does not lie in one piece
    large_fragmentation: int
    is_shutdown: bool
    #: 'lz4', 'zstd', 'zlib' or None
    compression: str | None
    encrypted: bool
    participants: tuple[Participant, ...]


@dataclass(frozen=True)
class ObjectPoolStats(_Stats):
    """An ObjectPool at about one moment, in all processes."""

    #: shared memory of all slots
    bytes_total: int
    #: shared memory of those in use
    bytes_used: int
    max_size: int
    #: places that have been used so far
    size: int
    #: objects in use
    allocated: int
    #: objects that can be acquired without waiting
    available: int
    #: free places that are reset before their next use
    dirty: int
    #: bytes of shared memory for each object
    slot_size: int
    #: threads that are blocked in acquire(), of all living processes
    waiters: int
    #: places that came back from killed processes
    deaths: int
    participants: tuple[Participant, ...]


@dataclass(frozen=True)
class SizeClassInfo:
    """The blocks of one size in a pool, in all processes."""

    block_size: int
    total: int
    used: int
    free: int
    #: of the free ones, those that a process keeps for its own next use
    cached: int


@dataclass(frozen=True)
class PoolStats(_Stats):
    """A MemoryPool or BufferPool at about one moment."""

    #: at most
    bytes_total: int
    #: that the system has given
    bytes_backed: int
    #: of blocks in use, whole blocks
    bytes_used: int
    #: of free pages that the system has given; free small blocks do not count
    bytes_free: int
    #: of the largest block that could be allocated, from free memory or by growing
    bytes_largest: int
    #: that went back to the system since creation
    bytes_given_back: int
    #: percent of what is not in use that does not lie in the largest piece
    fragmentation: int
    #: in use
    blocks: int
    #: of those: buffers that lie in a BufferPool
    shelved: int
    #: holds of blocks that several processes may hold, parcels included
    records: int
    #: blocks that were sent and not opened yet, as often as they were sent
    parcels: int
    #: of those blocks of which there are some; blocks of whole pages are none of them
    size_classes: tuple[SizeClassInfo, ...]
    participants: tuple[Participant, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        rows: Any = self.size_classes
        object.__setattr__(self, "size_classes", tuple(SizeClassInfo(**row) for row in rows))


class BufferHeader(NamedTuple):
    """The head of a SharedMemoryBuffer."""

    magic: int
    version: int
    #: bytes of data
    size: int
    #: 32 bits for the user
    flags: int
    #: CRC-32C of all data when flush_checksum() last ran
    checksum: int
    #: 64 bits for the user
    user: int


# Pickles and reprs of types name them as users import them.
for _type in (Participant, BufferStats, RingStats, ObjectPoolStats, SizeClassInfo, PoolStats, BufferHeader):
    _type.__module__ = "shmcomm"
