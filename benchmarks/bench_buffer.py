"""SharedMemoryBuffer: writing, reading, looking at it; beside multiprocessing.shared_memory and plain copies."""

from multiprocessing.shared_memory import SharedMemory

import alone
import floors
import pytest

from shmcomm import SharedMemoryBuffer

SIZES = {"64B": 64, "4KiB": 4096, "1MiB": 1 << 20}
by_size = pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))


def times(size, quick):
    return 10 if quick else max(2000, 20_000_000 // (size + 200))


@by_size
def test_write(size, sample, quick):
    data = bytes(range(256)) * (size // 256) or bytes(size)
    with SharedMemoryBuffer(size) as buffer:
        sample(f"buffer write of {size}", "ours", lambda: alone.buffer_write(buffer, data, times(size, quick)))


@by_size
def test_write_stdlib(size, sample, quick):
    memory = SharedMemory(create=True, size=size)
    try:
        sample(f"buffer write of {size}", "rival", lambda: alone.stdlib_write(memory, bytes(size), times(size, quick)))
    finally:
        memory.close()
        memory.unlink()


def test_write_floor(sample, quick):
    """Only where the copy outweighs the call of NumPy."""
    pytest.importorskip("numpy")
    size = SIZES["1MiB"]
    sample(f"buffer write of {size}", "floor", lambda: floors.memcpy(size, times(size, quick)))


@by_size
def test_read(size, sample, quick):
    with SharedMemoryBuffer(size) as buffer:
        buffer.write(bytes(size))
        sample(f"buffer read of {size}", "ours", lambda: alone.buffer_read(buffer, size, times(size, quick)))


def test_view(sample, quick):
    with SharedMemoryBuffer(4096) as buffer:
        sample("buffer: taking a memoryview", "ours", lambda: alone.buffer_view(buffer, 10 if quick else 50_000))
