"""MemoryPool and BufferPool: taking memory, giving it back, sending a block; beside multiprocessing's SharedMemory."""

import alone
import floors
import pytest

from shmcomm import BufferPool, MemoryPool, RingBufferChannel

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16384, "1MiB": 1 << 20}
by_size = pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))


def times(quick):
    return 10 if quick else 200_000


@by_size
def test_allocate_release(size, sample, quick):
    with MemoryPool(cleanup_interval=None) as pool:
        sample(f"memory of {size}", "ours", lambda: alone.allocate_release(pool, size, times(quick)))


@by_size
def test_get_return(size, sample, quick):
    with BufferPool(cleanup_interval=None) as pool:
        sample(f"memory of {size}", "ours", lambda: alone.get_return(pool, size, times(quick)))


@by_size
def test_allocate_release_stdlib(size, sample, quick):
    sample(f"memory of {size}", "rival", lambda: alone.create_close_stdlib(size, 10 if quick else 1000))


def test_allocate_release_floor(sample, quick):
    sample("memory of 64", "floor", lambda: floors.call([64] * 64, 10 if quick else 2000))


@by_size
def test_send_a_block(size, sample, quick):
    with MemoryPool(cleanup_interval=None) as pool, RingBufferChannel(4) as channel:
        sample("a block sent and received", "ours", lambda: alone.send_block(pool, channel, size, times(quick) // 10))
