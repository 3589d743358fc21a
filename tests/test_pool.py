"""MemoryPool, Block and BufferPool: memory that processes allocate, hand to each other and give back."""

import contextlib
import copy
import dataclasses
import errno
import gc
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from helpers import PATIENCE_S, Peer, forked, path_of, run_python, until
from hypothesis import given, settings
from hypothesis import strategies as st

from shmcomm import (
    Block,
    BufferPool,
    CorruptedError,
    Full,
    LayoutError,
    MemoryPool,
    MessageTooLargeError,
    NotEncodableError,
    PoolStats,
    RingBufferChannel,
    SharedObject,
    ShutDown,
    SizeClassInfo,
    _core,
)

PAGE = 65536
GIVES_BACK = _core._os_body == "linux"  # the plain body cannot take memory back from a file

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def pool():
    with MemoryPool(cleanup_interval=None) as made:
        yield made


@pytest.fixture
def buffers():
    with BufferPool(3, cleanup_interval=None) as made:
        yield made


def fill(block, text=b"hello"):
    memoryview(block)[: len(text)] = text
    return block


def text_of(block, length=5):
    return bytes(memoryview(block)[:length])


# ---- making and opening ----


def test_defaults(pool):
    assert isinstance(pool, SharedObject)
    assert pool.max_size == 100 << 20
    assert (pool.total_allocated, pool.pool_count) == (0, 0)
    stats = pool.stats()
    assert (stats.bytes_total, stats.bytes_backed, stats.bytes_used) == (100 << 20, 1 << 20, 0)
    assert repr(pool) == f"<MemoryPool {pool.name!r}>"
    with BufferPool(cleanup_interval=None) as buffers:
        assert buffers.max_pool_size == 1000
        assert (buffers.total_buffers, buffers.pool_sizes) == (0, {})


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"initial_size": 0}, ValueError, "initial_size must be between 1 and"),
        ({"initial_size": -1}, ValueError, "initial_size must be between"),
        ({"initial_size": "x"}, TypeError, "initial_size must be an integer, not str"),
        ({"initial_size": 2 << 20, "max_size": 1 << 20}, ValueError, "initial_size .2097152. is larger than max_size"),
        ({"max_size": 0}, ValueError, "max_size must be between 1 and"),
        ({"max_size": 2**63}, ValueError, "max_size must be between"),
        ({"max_size": 1.5}, TypeError, "max_size must be an integer, not float"),
        ({"growth_factor": 0.5}, ValueError, "growth_factor .* cannot be 0.5"),
        ({"growth_factor": float("nan")}, ValueError, "growth_factor .* cannot be nan"),
        ({"growth_factor": 101}, ValueError, "growth_factor .* cannot be 101"),
        ({"growth_factor": "2"}, TypeError, "growth_factor .* must be a number, not str"),
        ({"cleanup_interval": 0}, ValueError, "cleanup_interval .* cannot be 0"),
        ({"cleanup_interval": -1}, ValueError, "cleanup_interval .* cannot be -1"),
        ({"cleanup_interval": float("nan")}, ValueError, "cleanup_interval .* cannot be nan"),
        ({"cleanup_interval": "x"}, TypeError, "cleanup_interval .* must be a number"),
        ({"colour": 1}, TypeError, "unexpected keyword argument 'colour'"),
        ({"name": "a/b"}, ValueError, "a name is"),
    ],
)
@pytest.mark.parametrize("kind", [MemoryPool, BufferPool])
def test_wrong_options(kind, keywords, error, message):
    with pytest.raises(error, match=message):
        kind(**keywords)


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (10**6 + 1, ValueError), ("x", TypeError)]
)
def test_wrong_max_pool_size(size, error):
    with pytest.raises(error, match="max_pool_size must be"):
        BufferPool(size)


def test_sizes_are_rounded_up_to_pages():
    with MemoryPool(initial_size=1, max_size=PAGE + 1, cleanup_interval=None) as pool:
        assert pool.max_size == 2 * PAGE
        with pool.allocate(2 * PAGE) as block:
            assert len(block) == 2 * PAGE
    with MemoryPool(max_size=100, cleanup_interval=None) as pool:  # the default of initial_size gives way
        assert pool.max_size == PAGE


def test_attach_and_open(pool):
    block = fill(pool.allocate(100))
    with MemoryPool.attach(pool.name) as same, MemoryPool.open(pool.name) as again:
        assert same.max_size == again.max_size == pool.max_size
        assert same.total_allocated == 112
        same.release(block)  # two handles of one process are one
        assert again.total_allocated == 0
    with pytest.raises(FileExistsError):
        MemoryPool(name=pool.name)
    with pytest.raises(FileNotFoundError):
        MemoryPool.attach("nobody.has.it")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_size", 5 << 20, "exists with max_size 104857600, not 5242880"),
        ("initial_size", 2 << 20, "exists with initial_size 1048576, not 2097152"),
        ("growth_factor", 1.5, "exists with growth_factor 2.0, not 1.5"),
        ("cleanup_interval", 5, "exists with cleanup_interval None, not 5.0"),
        ("mode", 0o660, "exists with mode 0o600, not 0o660"),
        ("persist", True, "exists with persist False, not True"),
        ("max_participants", 4, "exists with max_participants 128, not 4"),
    ],
)
def test_open_with_other_options(pool, option, value, message):
    with pytest.raises(LayoutError, match=message):
        MemoryPool.open(pool.name, **{option: value})
    with pool.allocate(5):
        pass


def test_open_with_the_same_options(pool):
    same = {"max_size": 100 << 20, "initial_size": (1 << 20) - 5, "growth_factor": 2, "cleanup_interval": None}
    with MemoryPool.open(pool.name, **same, mode=0o600, persist=False, max_participants=128):
        pass
    with BufferPool.open("open.makes.it", 7, cleanup_interval=None) as made:
        assert made.max_pool_size == 7
        with BufferPool.open("open.makes.it") as again, pytest.raises(LayoutError, match="max_pool_size 7, not 8"):
            BufferPool.open(again.name, 8)


def test_a_name_of_something_else(pool, buffers):
    with pytest.raises(LayoutError, match="is a MemoryPool"):
        BufferPool.attach(pool.name)
    with pytest.raises(LayoutError, match="is a BufferPool"):
        MemoryPool.open(buffers.name)
    with pytest.raises(LayoutError, match="another kind"):
        RingBufferChannel.attach(pool.name)
    with RingBufferChannel(1) as ring, pytest.raises(LayoutError, match="another kind"):
        MemoryPool.attach(ring.name)


@pytest.mark.parametrize("kind", [MemoryPool, BufferPool])
def test_a_pool_pickles_as_its_name(kind):
    class Own(kind):
        pass

    with kind(cleanup_interval=None) as made, pickle.loads(pickle.dumps(made)) as same:
        assert (type(same), same.name) == (kind, made.name)
    with pytest.raises(ValueError, match="is closed"):
        pickle.dumps(made)
    with Own(cleanup_interval=None) as made:
        assert repr(made) == f"<Own {made.name!r}>"


def test_persist_and_unlink():
    with MemoryPool(name="stays", persist=True, cleanup_interval=None):
        pass
    with MemoryPool.attach("stays") as again:
        block = fill(again.allocate(10))
        again.unlink()
        with pytest.raises(FileNotFoundError):
            again.unlink()
        assert text_of(again.allocate(PAGE * 20)) == bytes(5)  # it grows without its name
        assert text_of(block) == b"hello"
        block.release()


def test_after_close():
    pool = MemoryPool(cleanup_interval=None)
    pool.close()
    for call in (
        lambda: pool.allocate(1),
        lambda: pool.get_pool(1),
        lambda: pool.total_allocated,
        lambda: pool.pool_count,
        pool.cleanup,
        pool.stats,
        pool.unlink,
    ):
        with pytest.raises(ValueError, match=r"MemoryPool '.*' is closed"):
            call()
    pool.close()
    assert pool._tend() is False


# ---- blocks ----


@pytest.mark.parametrize("size", [1, 15, 16, 17, 64, 100, 1000, 4096, 28672, 28673, PAGE, 1 << 20, (1 << 20) + 1])
def test_a_block(pool, size):
    block = pool.allocate(size)
    assert block.size == len(block) == len(memoryview(block)) == size
    assert repr(block) == f"<Block of {size} bytes of {pool!r}>"
    view = memoryview(block)
    assert not view.readonly
    view[0] = view[-1] = 7
    del view
    assert size <= pool.total_allocated
    assert block.released is False
    block.release()
    assert pool.total_allocated == 0
    assert block.released is True
    assert repr(block) == f"<Block of {size} bytes, released>"


@pytest.mark.parametrize("size", [0, -1, (100 << 20) + 1, 2**64, -(2**70)])
def test_sizes_that_cannot_be(pool, size):
    for call in (pool.allocate, pool.get_pool):
        with pytest.raises(ValueError, match=r"size must be between 1 and 104857600, not -?\d+"):
            call(size)
    with (
        pool.allocate(1),
        BufferPool(cleanup_interval=None) as buffers,
        pytest.raises(ValueError, match="size must be"),
    ):
        buffers.get_buffer(size)
    assert pool.total_allocated == 0


@pytest.mark.parametrize("size", [None, "5", 5.0, b"5", [5]])
def test_sizes_of_the_wrong_type(pool, size):
    for call in (pool.allocate, pool.get_pool):
        with pytest.raises(TypeError, match="size must be an integer, not"):
            call(size)
    assert pool.total_allocated == 0


def test_sizes_by_index(pool):
    class Five:
        def __index__(self):
            return 5

    assert len(pool.allocate(Five())) == 5
    assert len(pool.allocate(np.int64(7))) == 7
    assert len(pool.allocate(True)) == 1


def test_alignment(pool):
    for size in (64, 128, 4096, PAGE):
        assert np.frombuffer(pool.allocate(size), "u1").ctypes.data % 64 == 0


def test_a_block_is_dropped(pool):
    block = pool.allocate(1000)
    gone = weakref.ref(block)
    del block
    assert gone() is None
    assert pool.total_allocated == 0


def test_a_view_keeps_its_memory(pool):
    block = fill(pool.allocate(1000))
    view = memoryview(block)
    with pytest.raises(BufferError, match=r"still in use by 1 view \("):
        block.release()
    array = np.frombuffer(block, "u1")
    with pytest.raises(BufferError, match="still in use by 2 views"):
        pool.release(block)
    assert block.released is False
    del block
    gc.collect()
    assert pool.total_allocated == 1024
    view.release()
    assert array[:5].tobytes() == b"hello"
    part = array[1:3]
    del array
    assert pool.total_allocated == 1024
    del part
    assert pool.total_allocated == 0


def test_a_view_in_use_at_the_end_of_the_block(pool):
    with pytest.raises(BufferError, match="still in use"), pool.allocate(100) as block:
        view = memoryview(block)
    view.release()
    assert pool.total_allocated == 112
    block.release()
    assert pool.total_allocated == 0


def test_with(pool):
    with pool.allocate(100) as block:
        assert pool.total_allocated == 112
    assert block.released
    with pool.allocate(100) as block:
        block.release()
    with pytest.raises(ZeroDivisionError), pool.allocate(100):
        1 / 0  # noqa: B018
    assert pool.total_allocated == 0
    with pytest.raises(ValueError, match="released"), block:
        pass


def test_released_is_released(pool):
    block = pool.allocate(100)
    block.release()
    other = pool.allocate(100)  # the same memory
    for call in (
        block.release,
        lambda: pool.release(block),
        lambda: memoryview(block),
        lambda: len(block),
        lambda: block.handle,
        lambda: pickle.dumps(block),
        block.__enter__,
    ):
        with pytest.raises(ValueError, match="the block was released"):
            call()
    assert block.size == 100
    assert pool.total_allocated == 112
    other.release()
    assert pool.total_allocated == 0


def test_a_block_of_another_pool(pool):
    with MemoryPool(cleanup_interval=None) as other, other.allocate(10) as block:
        with pytest.raises(ValueError, match=rf"the block is of <MemoryPool '{other.name}'>, not of <MemoryPool"):
            pool.release(block)
        assert other.total_allocated == 16
        assert not block.released


@pytest.mark.parametrize("what", [None, b"bytes", 5, memoryview(b"x"), Block])
def test_what_is_no_block(pool, buffers, what):
    with pytest.raises(TypeError, match="takes back a Block, not"):
        pool.release(what)
    with pytest.raises(TypeError, match="takes back a Block, not"):
        buffers.return_buffer(what)


def test_blocks_are_made_by_pools_only(pool):
    with pytest.raises(TypeError, match="cannot create 'shmcomm.Block' instances"):
        Block()
    block = pool.allocate(1)
    with pytest.raises(AttributeError):
        block.size = 5
    with pytest.raises(AttributeError):
        block.nonsense = 5


def test_blocks_outlive_the_pools_close():
    pool = MemoryPool(cleanup_interval=None)
    file, block = path_of(pool), fill(pool.allocate(100))
    pool.close()
    assert pool.closed
    assert file.exists()  # the process is a participant until its last block has gone
    assert text_of(block) == b"hello"
    with MemoryPool.attach(pool.name) as again:
        assert again.total_allocated == 112
        again.release(block)
        assert again.total_allocated == 0
    assert not file.exists()


def test_a_pool_is_dropped_before_its_block():
    block = fill(MemoryPool(cleanup_interval=None).allocate(100))
    gc.collect()
    assert text_of(block) == b"hello"
    file = path_of(block.handle[0])
    assert file.exists()
    block.release()
    gc.collect()
    assert not file.exists()


def test_a_cycle_of_pool_and_block():
    class Own(MemoryPool):
        pass

    pool = Own(cleanup_interval=None)
    file = path_of(pool)
    pool.block = pool.allocate(10)
    del pool
    gc.collect()
    assert not file.exists()


def test_a_full_pool():
    with MemoryPool(max_size=4 * PAGE, cleanup_interval=None) as pool:
        blocks = [pool.allocate(PAGE) for _ in range(4)]
        with pytest.raises(MemoryError) as caught:
            pool.allocate(PAGE)
        assert str(caught.value) == (
            f"{pool!r} is full: 65536 bytes asked, max_size is 262144, 262144 are in use and the largest free piece "
            "has 0; release blocks, or create the pool with a larger max_size"
        )
        with pytest.raises(MemoryError):
            pool.allocate(1)
        blocks.pop(1).release()
        with pytest.raises(MemoryError, match="largest free piece has 65536"):
            pool.allocate(PAGE + 1)
        pool.allocate(PAGE).release()
        for block in blocks:
            block.release()
        pool.allocate(4 * PAGE).release()


@pytest.mark.skipif(not GIVES_BACK, reason="the plain body reserves all memory at once")
def test_the_system_has_no_more(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "shmcomm-test", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a small file system")
    try:
        with MemoryPool(directory=tmp_path, cleanup_interval=None) as pool:
            kept = fill(pool.allocate(100))
            for size in (4 << 20, 90 << 20):
                with pytest.raises(
                    OSError, match=f"cannot grow for a block of {size} bytes: .* has [0-9]+ free"
                ) as caught:
                    pool.allocate(size)
                assert caught.value.errno == errno.ENOSPC
                assert "remove what is left over (shmcomm gc), or enlarge" in str(caught.value)
            assert pool.total_allocated == 112
            assert text_of(kept) == b"hello"
            pool.allocate(1 << 19).release()
            kept.release()
            del kept  # as long as it is there, so is the mapping
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# ---- looking ----


def test_size_classes(pool):
    kept = [pool.allocate(1000) for _ in range(3)]
    info = pool.get_pool(900)
    assert isinstance(info, SizeClassInfo)
    assert (info.block_size, info.used) == (1024, 3)
    assert info.total == info.used + info.free
    assert 0 <= info.cached <= info.free
    assert pool.get_pool(1025) == SizeClassInfo(1280, 0, 0, 0, 0)
    assert pool.pool_count == 1
    kept.append(pool.allocate(2 * PAGE))
    assert pool.pool_count == 2
    assert pool.get_pool(PAGE + 1).used == 1
    assert pool.get_pool(PAGE + 1).block_size == 2 * PAGE
    assert pool.total_allocated == 3 * 1024 + 2 * PAGE
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.used = 5


def test_stats(pool):
    own, shared, large = pool.allocate(100), pool.allocate(200), pool.allocate(5 * PAGE)
    pickle.dumps(shared)
    stats = pool.stats()
    assert isinstance(stats, PoolStats)
    assert (stats.blocks, stats.records, stats.parcels) == (3, 2, 1)
    assert stats.bytes_used == pool.total_allocated == 112 + 224 + 5 * PAGE
    assert stats.bytes_largest <= stats.bytes_total
    assert stats.bytes_backed >= stats.bytes_used
    assert 0 <= stats.fragmentation <= 100
    assert [c.used for c in stats.size_classes] == [1, 1]
    (me,) = stats.participants
    assert me.pid == os.getpid()
    assert me.holds == (f"2 of its own, {112 + 5 * PAGE} bytes", "1 shared", "1 on their way")
    assert stats.asdict()["participants"][0]["holds"] == me.holds
    for block in (own, shared, large):
        block.release()
    assert pool.stats().blocks == 1  # what was pickled is still on its way


# ---- giving memory back ----


def test_cleanup(pool):
    kept = pool.allocate(100)
    pool.allocate(32 << 20).release()
    before = pool.stats().bytes_backed
    given = pool.cleanup()
    after = pool.stats()
    assert after.bytes_backed == before - given
    assert after.bytes_given_back == given
    if GIVES_BACK:
        assert given >= 30 << 20
        assert after.bytes_backed == 1 << 20
    assert pool.cleanup() == 0
    assert text_of(fill(kept)) == b"hello"
    with pytest.raises(TypeError, match="takes no positional arguments"):
        pool.cleanup(True)


def test_cleanup_takes_parcels_back_when_told(pool):
    with pool.allocate(100) as block:
        handle, pickled = block.handle, pickle.dumps(block)
    pool.cleanup()
    assert pool.stats().parcels == 2
    pool.cleanup(parcels=True)
    assert (pool.stats().parcels, pool.total_allocated) == (0, 0)
    for opening in (lambda: Block.attach(handle), lambda: pickle.loads(pickled)):
        with pytest.raises(ValueError, match="the block of .* is gone: whoever sent it has taken it back or ended"):
            opening()


def test_peeking_at_a_block_leaves_it_where_it_is(pool):
    with RingBufferChannel(4) as channel:
        block = pool.allocate(1000)
        memoryview(block)[:5] = b"hello"
        channel.send([block])
        block.release()
        for _ in range(2):
            (seen,) = channel.peek()
            assert bytes(memoryview(seen)[:5]) == b"hello"
            seen.release()
        (taken,) = channel.receive()
        assert bytes(memoryview(taken)[:5]) == b"hello"
        taken.release()
    assert pool.total_allocated == 0
    assert pool.stats().parcels == 0


def test_what_could_not_be_sent_keeps_no_block(pool):
    with RingBufferChannel(2, buffer_size=4096) as channel, pool.allocate(1000) as block:
        for message in ([block, lambda: 0], [block, bytes(10_000)], {"a": block, "b": block, "c": lambda: 0}):
            for send in (channel.send, channel.try_send, lambda m: channel.send_batch([m])):
                with pytest.raises((NotEncodableError, MessageTooLargeError)):
                    send(message)
        channel.send(1)
        channel.send([block])
        assert pool.stats().parcels == 1
        for _ in range(3):
            assert not channel.try_send([block])
            with pytest.raises(Full):
                channel.send([block], timeout=0)
        assert pool.stats().parcels == 1
        channel.receive()
        channel.receive()[0].release()
        channel.shutdown()
        with pytest.raises(ShutDown):
            channel.send([block])
        assert pool.stats().parcels == 0


def test_the_shelf_gives_way_when_memory_is_short():
    """Buffers of many sizes, none of them in use, keep nobody from getting one of another size."""
    with BufferPool(1000, max_size=4 << 20, cleanup_interval=None) as buffers:
        for i in range(100):
            buffers.get_buffer(200_000 + i).release()
        assert 1 <= buffers.total_buffers < 100
        kept = buffers.get_buffer(3 << 20)
        with pytest.raises(MemoryError, match="is full"):
            buffers.get_buffer(2 << 20)
        kept.release()


def pool_threads():
    return [t for t in threading.enumerate() if t.name == "shmcomm pools"]


@pytest.mark.skipif(not GIVES_BACK, reason="the plain body cannot give memory back")
def test_idle_memory_goes_back_by_itself():
    with MemoryPool(cleanup_interval=0.04) as pool:
        assert pool_threads() == []  # it comes with the first allocation
        keeps = pool.allocate(100)
        assert len(pool_threads()) == 1
        pool.allocate(32 << 20).release()
        assert pool.stats().bytes_backed >= 32 << 20
        until(lambda: pool.stats().bytes_backed == 1 << 20)
        with MemoryPool(cleanup_interval=0.04) as other, other.allocate(5):
            assert len(pool_threads()) == 1  # one for all
        keeps.release()
    until(lambda: not pool_threads())


@pytest.mark.skipif(not GIVES_BACK, reason="the plain body cannot give memory back")
def test_an_idle_size_class_is_returned_by_the_timer():
    with MemoryPool(initial_size=PAGE, cleanup_interval=0.04) as pool:
        held = [pool.allocate(10_000) for _ in range(60)]
        busy = [pool.allocate(500) for _ in range(3)]
        assert pool.stats().bytes_backed > 8 * PAGE
        assert [c.block_size for c in pool.stats().size_classes] == [512, 10240]
        held.clear()  # some of them stay in the magazine of this process
        until(lambda: [c.block_size for c in pool.stats().size_classes] == [512])
        until(lambda: pool.stats().bytes_backed == PAGE)
        assert pool.get_pool(10_000) == SizeClassInfo(10240, 0, 0, 0, 0)
        busy.clear()


@pytest.mark.skipif(not GIVES_BACK, reason="the plain body cannot give memory back")
def test_who_only_receives_gives_idle_memory_back_too():
    with MemoryPool(initial_size=PAGE, cleanup_interval=0.04) as pool, Peer() as peer:
        peer("import threading; pool = MemoryPool.attach(name)", name=pool.name)
        blocks = [pool.allocate(10_000) for _ in range(8)]
        handles = [block.handle for block in blocks]
        blocks.clear()
        peer("blocks = [Block.attach(handle) for handle in handles]", handles=handles)
        assert "shmcomm pools" in peer("[thread.name for thread in threading.enumerate()]")
        assert pool.get_pool(10_000).used == 8
        peer("del blocks")  # into the peer's magazine
        until(lambda: pool.get_pool(10_000).total == 0)


@pytest.mark.parametrize(("factor", "steps"), [(1, [1, 2, 3]), (2, [1, 3, 7])])
def test_a_size_class_that_keeps_running_dry_is_refilled_in_larger_steps(factor, steps):
    with MemoryPool(initial_size=32 * PAGE, growth_factor=factor, cleanup_interval=None) as pool:
        held, totals = [], []
        for _ in range(30):
            held.append(pool.allocate(16_000))
            if pool.get_pool(16_000).total not in totals:
                totals.append(pool.get_pool(16_000).total)
        assert [n // totals[0] for n in totals[:3]] == steps
        held.clear()
        pool.cleanup()  # it begins anew
        held.append(pool.allocate(16_000))
        assert pool.get_pool(16_000).total == totals[0]
        held.clear()


def test_growth_factor():
    """So many times what is there, where there is room for it."""
    for factor, least in ((1, 1), (3, 16)):
        with MemoryPool(initial_size=8 * PAGE, growth_factor=factor, cleanup_interval=None) as made:
            before = made.stats().bytes_backed
            held = [made.allocate(PAGE) for _ in range(9)]
            if GIVES_BACK:
                assert (made.stats().bytes_backed - before) // PAGE == least
            held.clear()


def test_the_timer_sweeps_the_dead():
    with MemoryPool(cleanup_interval=0.04) as pool, Peer() as peer:
        pool.allocate(5).release()
        peer("pool = MemoryPool.attach(name); kept = pool.allocate(100)", name=pool.name)
        assert pool.total_allocated == 112
        peer.kill()
        until(lambda: pool.total_allocated == 0)
        assert len(pool.stats().participants) == 1


def test_no_timer_where_none_is_wanted(pool):
    pool.allocate(5).release()
    assert pool_threads() == []


def test_the_timers_thread_ends_with_its_pools():
    pool = MemoryPool(cleanup_interval=600)
    pool.allocate(5).release()
    assert len(pool_threads()) == 1
    pool.close()
    del pool
    gc.collect()
    until(lambda: not pool_threads())
    with MemoryPool(cleanup_interval=600) as again:
        again.allocate(5).release()
        assert len(pool_threads()) == 1
    del again


def test_a_forked_child_has_a_timer_of_its_own():
    with MemoryPool(cleanup_interval=0.04) as pool:
        pool.allocate(5).release()

        def child():
            assert pool_threads() == []
            pool.allocate(5).release()
            assert len(pool_threads()) == 1
            pool.allocate(32 << 20).release()
            if GIVES_BACK:
                until(lambda: pool.stats().bytes_backed == 1 << 20)
            pool.close()

        assert forked(child) == 0
        assert len(pool_threads()) == 1


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "raise SystemExit"])
def test_the_timer_keeps_no_process_from_ending(end):
    done = run_python(
        "import sys, time\nfrom shmcomm import MemoryPool\n"
        "pool = MemoryPool(cleanup_interval=0.001)\nkept = [pool.allocate(100), pool.allocate(1 << 20)]\n"
        f"time.sleep(0.02)\nprint(pool.name)\n{end}"
    )
    assert done.stderr == ""
    assert not path_of(done.stdout.strip()).exists()


def test_blocks_that_go_after_their_module():
    done = run_python(
        "import gc, shmcomm\ngc.disable()\npool = shmcomm.MemoryPool(cleanup_interval=None)\nprint(pool.name)\n"
        "loop = [pool.allocate(100), pool.allocate(100)]\nloop[0].release()\nloop.append(loop)\ndel pool, loop"
    )
    assert done.stderr == ""
    assert not path_of(done.stdout.strip()).exists()


# ---- from process to process ----


def send_in_a_with(pool, send):
    with pool.allocate(1000) as block:
        fill(block)
        send(block)


def test_through_a_channel(pool):
    with RingBufferChannel(8) as channel, Peer() as peer:
        send_in_a_with(pool, channel.send)
        assert pool.stats().parcels == 1
        peer("channel = RingBufferChannel.attach(name)", name=channel.name)
        peer("block = channel.receive()")
        assert peer("bytes(memoryview(block)[:5])") == b"hello"
        assert peer("len(block)") == 1000
        assert (pool.stats().parcels, pool.stats().records) == (0, 1)
        mine = Block.attach(peer("block.handle"))
        peer("memoryview(block)[:5] = b'HELLO'")
        assert text_of(mine) == b"HELLO"  # one memory
        peer("block.release()")
        assert text_of(mine) == b"HELLO"
        mine.release()
        assert (pool.total_allocated, pool.stats().records) == (0, 0)


def test_through_a_pipe(pool):
    here, there = multiprocessing.Pipe()
    send_in_a_with(pool, here.send)
    with there.recv() as block:
        assert text_of(block) == b"hello"
    assert pool.total_allocated == 0
    here.close()
    there.close()


def worker(tasks, results):
    for block in iter(tasks.get, None):
        with block:
            results.put(bytes(memoryview(block)[:5]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_through_queues_of_multiprocessing(pool, method):
    context = multiprocessing.get_context(method)
    tasks, results = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=worker, args=(tasks, results))
    process.start()
    for text in (b"first", b"other"):
        with pool.allocate(5) as block:
            tasks.put(fill(block, text))
        assert results.get() == text
    tasks.put(None)
    process.join()
    assert process.exitcode == 0
    assert pool.total_allocated == 0
    tasks.close()
    results.close()


def test_a_handle_goes_where_no_pickle_goes(pool):
    with RingBufferChannel(4, codec="native") as channel:
        with pool.allocate(1000) as block:
            with pytest.raises(NotEncodableError):
                channel.send(block)
            assert block.handle == block.handle
            channel.send(fill(block).handle)
            assert pool.stats().parcels == 1
        with Block.attach(channel.receive()) as same:
            assert text_of(same) == b"hello"
    assert pool.total_allocated == 0


def test_a_parcel_is_opened_more_than_once(pool):
    with pool.allocate(100) as block:
        pickled = pickle.dumps(fill(block))
    first = pickle.loads(pickled)
    second = pickle.loads(pickled)
    first.release()
    assert text_of(second) == b"hello"
    third = pickle.loads(pickled)
    second.release()
    assert text_of(third) == b"hello"
    third.release()
    assert pool.total_allocated == 0
    with pytest.raises(ValueError, match="is gone"):
        pickle.loads(pickled)


def test_copies_are_the_same_memory(pool):
    block = pool.allocate(100)
    for same in (copy.copy(block), copy.deepcopy(block)):
        fill(same)
        assert text_of(block) == b"hello"
        same.release()
    assert pool.stats().parcels == 0


def test_the_receiver_has_the_pool_open_only_as_long_as_blocks(pool):
    with Peer() as peer:
        with pool.allocate(100) as block:
            handle = fill(block).handle
        peer("block = Block.attach(handle)", handle=handle)
        assert len(pool.stats().participants) == 2
        peer("block.release()")
        assert len(pool.stats().participants) == 1


def test_the_sender_ends(pool):
    with Peer() as peer:
        peer("pool = MemoryPool.attach(name); block = pool.allocate(100)", name=pool.name)
        opened, unopened = peer("block.handle"), peer("__import__('pickle').dumps(block)")
        mine = Block.attach(opened)
        peer("block.release()")
        assert pool.stats().parcels == 1
    assert pool.stats().parcels == 0  # what nobody opened went with its sender
    assert text_of(pickle.loads(unopened)) == text_of(mine)  # as long as somebody holds it
    mine.release()
    assert pool.total_allocated == 0


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_one_of_them_is_killed(pool, who):
    with Peer() as peer:
        if who == "sender":
            peer("pool = MemoryPool.attach(name); block = pool.allocate(100)", name=pool.name)
            peer("kept = pool.allocate(1000); handle = block.handle; block.release()")
            mine = Block.attach(peer("handle"))
        else:
            mine = pool.allocate(100)
            peer("block = Block.attach(handle)", handle=mine.handle)
        fill(mine)
        peer.kill()
        pool.cleanup()
        assert text_of(mine) == b"hello"
        assert (pool.total_allocated, pool.stats().records) == (112, 1)
        mine.release()
        assert pool.total_allocated == 0


def test_memory_of_the_dead_is_found_before_full_is_said():
    with MemoryPool(max_size=8 * PAGE, cleanup_interval=None) as pool, Peer() as peer:
        peer("pool = MemoryPool.attach(name); kept = pool.allocate(8 * 65536)", name=pool.name)
        with pytest.raises(MemoryError):
            pool.allocate(5)
        peer.kill()
        pool.allocate(8 * PAGE).release()


def test_a_pool_that_is_gone():
    with MemoryPool(name="goes", cleanup_interval=None) as pool, pool.allocate(10) as block:
        handle, pickled = block.handle, pickle.dumps(block)
    for opening in (lambda: Block.attach(handle), lambda: pickle.loads(pickled)):
        with pytest.raises(FileNotFoundError, match="goes"):
            opening()
    with MemoryPool(name="goes", cleanup_interval=None) as other:
        with pytest.raises(
            FileNotFoundError, match="the pool 'goes' that the block is of is gone: another one has its"
        ):
            Block.attach(handle)
        assert other.total_allocated == 0


@pytest.mark.parametrize("handle", [None, (), 5, ("a",) * 8, ("a", "b", "c", 0, 1, 2, 3, "x"), b"bytes"])
def test_what_is_no_handle(handle):
    with pytest.raises(TypeError, match=r"attach\(\) takes the handle of a Block"):
        Block.attach(handle)


def test_handles_that_lie(pool):
    mine = fill(pool.allocate(100))
    name, namespace, directory, shelf, key, ref, ticket, size = mine.handle
    for wrong in (0, 1, ref + 1, ref ^ 1 << 36, ref ^ 1 << 53, ref ^ 1 << 62, 2**64 - 1):
        with pytest.raises(ValueError, match="is gone"):
            Block.attach((name, namespace, directory, shelf, key, wrong, ticket, size))
    for wrong in (0, 113, 2**64 - 1):
        with pytest.raises(CorruptedError):
            Block.attach((name, namespace, directory, shelf, key, ref, ticket, wrong))
    with pytest.raises(FileNotFoundError):
        Block.attach((name, namespace, directory, shelf, key ^ 1, ref, ticket, size))
    with pytest.raises(FileNotFoundError):
        Block.attach(("nobody", namespace, directory, shelf, key ^ 1, ref, ticket, size))
    with pytest.raises(ValueError, match="a name is"):
        Block.attach(("../x", namespace, directory, shelf, key ^ 1, ref, ticket, size))
    assert text_of(mine) == b"hello"
    mine.release()
    pool.cleanup(parcels=True)
    assert (pool.total_allocated, pool.stats().records) == (0, 0)


@pytest.mark.parametrize("wrong", [0, 1, 1 << 9, 1 << 25, 2**64 - 1])
def test_a_handle_with_another_ticket_takes_nothing_over(pool, wrong):
    """It is a mere hold, as the second opening of a handle is."""
    mine = fill(pool.allocate(100))
    *where, ticket, size = mine.handle
    with Block.attach((*where, ticket ^ wrong if wrong else ticket ^ 3, size)) as same:
        assert text_of(same) == b"hello"
        assert pool.stats().parcels == 1
    mine.release()
    with Block.attach((*where, ticket, size)) as same:
        assert text_of(same) == b"hello"
    assert (pool.total_allocated, pool.stats().records) == (0, 0)


def test_a_block_that_is_not_sent_cannot_be_opened(pool):
    """A handle made up from nothing gives no private block."""
    sent, private = pool.allocate(64), pool.allocate(64)
    handle = list(sent.handle)
    place = np.frombuffer(private, "u1").ctypes.data - np.frombuffer(sent, "u1").ctypes.data
    handle[5] += place // 16
    with pytest.raises(ValueError, match="is gone"):
        Block.attach(tuple(handle))


def test_many_parcels(pool):
    blocks = [pool.allocate(64) for _ in range(2000)]
    handles = [block.handle for block in blocks]
    for i, block in enumerate(blocks):
        fill(block, b"%05d" % i)
        block.release()
    assert pool.stats().parcels == 2000
    for i, handle in enumerate(handles):
        with Block.attach(handle) as block:
            assert text_of(block) == b"%05d" % i
    assert (pool.total_allocated, pool.stats().records) == (0, 0)


def test_too_many_parcels(pool):
    block = pool.allocate(64)
    pickled = [pickle.dumps(block) for _ in range(16383)]  # and one hold of its own
    with pytest.raises(BufferError, match="shares 16384 blocks of .* already"):
        pickle.dumps(block)
    with pytest.raises(BufferError, match="shares 16384 blocks of .* already"):
        pickle.loads(pickled[0])
    pool.cleanup(parcels=True)
    pickle.loads(pickle.dumps(block)).release()
    block.release()
    assert pool.total_allocated == 0


# ---- fork ----


def test_blocks_of_the_parent(pool):
    block = fill(pool.allocate(1000))
    shared = fill(pool.allocate(1000))
    handle = shared.handle

    def child():
        assert text_of(block) == b"hello"  # before the child uses the pool, and after
        own = fill(pool.allocate(1000), b"child")
        assert text_of(block) == b"hello"
        with pytest.raises(ValueError, match="held by the process that this one was forked from"):
            pickle.dumps(block)
        fill(block, b"bytes")
        block.release()
        assert block.released
        assert pool.total_allocated == 3 * 1024
        own.release()
        with Block.attach(handle) as same:
            assert text_of(same) == b"hello"
        shared.release()
        pool.close()

    assert forked(child) == 0
    assert text_of(block) == b"bytes"
    assert text_of(shared) == b"hello"
    pool.cleanup()
    assert pool.total_allocated == 2 * 1024
    block.release()
    shared.release()
    assert pool.total_allocated == 0


def test_an_inherited_block_in_a_child_that_closed_the_pool(pool):
    block = pool.allocate(1000)

    def child():
        view = memoryview(block)
        pool.close()
        view[:5] = b"still"
        view.release()
        assert text_of(block) == b"still"

    def child_without_view():
        pool.close()
        with pytest.raises(ValueError, match="the block is gone"):
            memoryview(block)
        block.release()

    assert forked(child) == 0
    assert forked(child_without_view) == 0
    assert text_of(block) == b"still"


def test_a_child_that_drops_everything(pool):
    kept = [pool.allocate(100) for _ in range(10)]

    def child():
        kept.clear()
        gc.collect()

    assert forked(child) == 0
    assert pool.total_allocated == 10 * 112


def test_fork_while_others_allocate():
    with MemoryPool(cleanup_interval=0.002) as pool:
        # What another thread of the parent was just using, a module that it imports or (without an interpreter lock) a
        # cell, no child gets hold of: so the first is there before, and of the second they share none.
        pool.allocate(5).release()
        stop = threading.Event()

        def churn(allocate, is_over):
            while not is_over():
                allocate(1 << 20).release()
                allocate(100).release()

        threads = [threading.Thread(target=churn, args=(pool.allocate, stop.is_set)) for _ in range(2)]
        for thread in threads:
            thread.start()

        def child():
            pool.allocate(1 << 20).release()
            pool.allocate(100).release()
            pool.close()

        try:
            for _ in range(20):
                assert forked(child) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        pool.cleanup()
        assert pool.total_allocated == 0


# ---- threads ----


def test_threads_share_a_pool(pool):
    errors = []

    def work(number):
        mark = bytes([number]) * 16
        try:
            for i in range(3000):
                with pool.allocate(16 + i % 500) as block:
                    memoryview(block)[:16] = mark
                    if i % 50 == 0:
                        pool.stats()
                    if i % 100 == 0:
                        with pickle.loads(pickle.dumps(block)) as same:
                            assert text_of(same, 16) == mark
                    assert text_of(block, 16) == mark
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert pool.total_allocated == 0


def in_threads(work, count=4):
    """What work() returned in each of the threads that begin at once."""
    barrier, results = threading.Barrier(count), []

    def run():
        barrier.wait()
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


@pytest.mark.parametrize("kind", [MemoryPool, BufferPool])
def test_one_of_several_threads_releases_a_block(kind):
    with kind(cleanup_interval=None) as pool:
        take = pool.allocate if kind is MemoryPool else pool.get_buffer
        give = pool.release if kind is MemoryPool else pool.return_buffer
        blocks = [take(100) for _ in range(30_000)]

        def release_all():
            released = 0
            for i, block in enumerate(blocks):
                try:
                    block.release() if i % 2 == 0 else give(block)
                    released += 1
                except ValueError as error:
                    assert str(error) == "the block was released"
            return released

        assert sum(in_threads(release_all)) == len(blocks)
        assert pool.stats().blocks == pool.stats().shelved <= 1000


def test_a_block_that_one_thread_sends_and_another_releases(pool):
    """It was sent, and arrives, or it was released before."""
    turns = iter(range(10**9))

    def use(block):
        if next(turns) % 4 == 0:
            block.release()
            return None
        try:
            return pickle.dumps(block) if next(turns) % 2 else block.handle
        except ValueError as error:
            assert str(error) == "the block was released"
            return None

    for _ in range(100):
        block = fill(pool.allocate(100))
        for sent in in_threads(lambda block=block: use(block)):
            if isinstance(sent, bytes):
                assert text_of(pickle.loads(sent)) == b"hello"
            elif sent is not None:
                with contextlib.suppress(ValueError):  # all threads that asked for the handle got the same one
                    Block.attach(sent).release()
        del block
        assert (pool.total_allocated, pool.stats().records) == (0, 0)


def test_a_block_that_one_thread_looks_at_and_another_releases(pool):
    for i in range(100):
        block = fill(pool.allocate(100))
        turns = iter(range(10))

        def use(block=block, turns=turns, late=i % 4):
            try:
                if next(turns) == late:
                    block.release()
                    return b""
                assert len(block) == 100 or block.released
                assert "Block of 100 bytes" in repr(block)
                return bytes(memoryview(block)[:5])
            except (ValueError, BufferError) as error:
                assert "released" in str(error) or "still in use" in str(error)
                return b""

        assert set(in_threads(use)) <= {b"", b"hello"}
        del block, use
        assert pool.total_allocated == 0


def test_a_thread_that_is_left_at_the_end():
    done = run_python(
        "import threading, time\nfrom shmcomm import MemoryPool\n"
        "pool = MemoryPool(cleanup_interval=0.001)\n"
        "def churn():\n    while True:\n        pool.allocate(1 << 20).release()\n        pool.cleanup()\n"
        "for _ in range(3): threading.Thread(target=churn, daemon=True).start()\n"
        "time.sleep(0.1)\nprint(pool.name)"
    )
    assert not path_of(done.stdout.strip()).exists()


def end_with_blocks(name):
    pool = MemoryPool.attach(name)
    globals()["kept"] = [pool.allocate(100), pool.allocate(1 << 20)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_ends_gives_all_back(pool, method):
    process = multiprocessing.get_context(method).Process(target=end_with_blocks, args=(pool.name,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert pool.total_allocated == 0
    assert len(pool.stats().participants) == 1


# ---- random lives ----


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_lives(data):
    """Blocks keep their bytes, and nothing is lost, whatever is done with them."""
    with MemoryPool(max_size=4 << 20, cleanup_interval=None) as pool:
        alive = {}
        for i in range(data.draw(st.integers(1, 60))):
            step = data.draw(st.sampled_from(["allocate", "release", "drop", "send", "cleanup"]))
            if step == "allocate" or not alive:
                size = data.draw(st.sampled_from([16, 100, 1000, 20000, 30000, 200000]))
                with contextlib.suppress(MemoryError):
                    alive[i] = fill(pool.allocate(size), b"%015d" % i)
                continue
            if step == "cleanup":
                pool.cleanup()
                continue
            key = data.draw(st.sampled_from(sorted(alive)))
            block = alive.pop(key)
            assert text_of(block, 15) == b"%015d" % key
            if step == "release":
                block.release()
            elif step == "send":
                pickled = pickle.dumps(block)
                block.release()
                alive[key] = pickle.loads(pickled)
            del block
        for key, block in alive.items():
            assert text_of(block, 15) == b"%015d" % key
        alive.clear()
        block = None
        assert (pool.total_allocated, pool.stats().records) == (0, 0)
        pool.allocate(4 << 20).release()


def kill_at_random(kills):
    source = """
import pickle, random, sys
import shmcomm
pool = shmcomm.MemoryPool.attach(sys.argv[1])
kept = []
print("up", flush=True)
while True:
    try:
        kept.append(pool.allocate(random.choice([16, 100, 5000, 100000])))
    except MemoryError:
        kept.clear()
    block = random.choice(kept) if kept else None
    if block is not None and random.random() < 0.3:
        kept.append(pickle.loads(pickle.dumps(block)))
    if len(kept) > 50:
        random.shuffle(kept)
        del kept[:30]
"""
    with MemoryPool(max_size=8 << 20, cleanup_interval=None) as pool:
        for _ in range(kills):
            workers = [
                subprocess.Popen([sys.executable, "-c", source, pool.name], stdout=subprocess.PIPE) for _ in range(2)
            ]
            for process in workers:
                assert process.stdout.readline() == b"up\n"
            with contextlib.suppress(MemoryError):
                mine = [fill(pool.allocate(1000)) for _ in range(200)]
                assert all(text_of(block) == b"hello" for block in mine)
            mine = None
            for process in workers:
                process.kill()
                process.wait(PATIENCE_S)
                process.stdout.close()
        pool.cleanup()
        stats = pool.stats()
        assert (pool.total_allocated, stats.records, len(stats.participants)) == (0, 0, 1)
        pool.allocate(8 << 20).release()


def test_killed_workers_leave_nothing():
    kill_at_random(5)


# ---- BufferPool ----


def test_buffers_come_back_by_size(buffers):
    a, b = buffers.get_buffer(512), buffers.get_buffer(512)
    assert isinstance(a, Block)
    assert len(a) == 512
    fill(a)
    buffers.return_buffer(a)
    assert a.released
    assert (buffers.total_buffers, buffers.pool_sizes) == (1, {512: 1})
    c = buffers.get_buffer(512)
    assert text_of(c) == b"hello"  # that very one, as it was
    assert buffers.pool_sizes == {}
    b.release()  # does the same
    with c:
        pass
    assert buffers.pool_sizes == {512: 2}
    other = buffers.get_buffer(500)  # no other size will do
    assert buffers.pool_sizes == {512: 2}
    del other
    assert buffers.pool_sizes == {512: 2, 500: 1}
    buffers.clear()
    assert (buffers.total_buffers, buffers.pool_sizes, buffers.stats().blocks) == (0, {}, 0)


def test_no_more_than_max_pool_size(buffers):
    taken = [buffers.get_buffer(100) for _ in range(5)]
    for block in taken:
        buffers.return_buffer(block)
    assert buffers.pool_sizes == {100: 3}
    assert buffers.stats().blocks == 3
    buffers.clear()
    assert buffers.stats().bytes_used == 0


def test_wrong_buffers(buffers, pool):
    block = buffers.get_buffer(100)
    buffers.return_buffer(block)
    with pytest.raises(ValueError, match="the block was released"):
        buffers.return_buffer(block)
    assert buffers.pool_sizes == {100: 1}
    with pool.allocate(100) as other, pytest.raises(ValueError, match="not of <BufferPool"):
        buffers.return_buffer(other)
    block = buffers.get_buffer(100)
    view = memoryview(block)
    with pytest.raises(BufferError, match="still in use"):
        buffers.return_buffer(block)
    view.release()
    buffers.return_buffer(block)
    assert buffers.pool_sizes == {100: 1}


def test_buffers_are_shared_by_processes(buffers):
    with Peer() as peer:
        peer("pool = BufferPool.attach(name); block = pool.get_buffer(1000)", name=buffers.name)
        peer("memoryview(block)[:5] = b'theirs'[:5]; pool.return_buffer(block)")
        assert buffers.pool_sizes == {1000: 1}
        mine = buffers.get_buffer(1000)
        assert text_of(mine) == b"their"
        buffers.return_buffer(mine)
        peer("kept = pool.get_buffer(1000); more = pool.get_buffer(2000)")
        assert buffers.total_buffers == 0
        peer.kill()
        buffers.cleanup()
    assert (buffers.total_buffers, buffers.stats().bytes_used) == (0, 0)  # what the killed had is free memory


def test_buffers_stay_when_their_process_ends(buffers):
    with Peer() as peer:
        peer("pool = BufferPool.attach(name); pool.return_buffer(pool.get_buffer(1000))", name=buffers.name)
    assert buffers.pool_sizes == {1000: 1}
    assert len(buffers.stats().participants) == 1


def test_a_buffer_that_was_sent_is_not_pooled(buffers):
    with buffers.get_buffer(100) as block:
        pickled = pickle.dumps(fill(block))
    assert buffers.pool_sizes == {}
    with pickle.loads(pickled) as same:
        assert text_of(same) == b"hello"
    assert (buffers.total_buffers, buffers.stats().bytes_used) == (0, 0)


def test_a_buffer_through_a_process_that_has_not_opened_the_pool(buffers):
    with Peer() as peer:
        handle = buffers.get_buffer(100).handle
        assert peer("len(shmcomm.Block.attach(handle))", handle=handle) == 100


def test_a_full_buffer_pool():
    with BufferPool(max_size=4 * PAGE, cleanup_interval=None) as buffers:
        buffers.return_buffer(buffers.get_buffer(4 * PAGE))
        kept = buffers.get_buffer(100)  # what lies there gives way
        assert buffers.pool_sizes == {}
        with pytest.raises(MemoryError, match="is full"):
            buffers.get_buffer(4 * PAGE)
        kept.release()


def test_a_closed_buffer_pool():
    buffers = BufferPool(cleanup_interval=None)
    buffers.close()
    for call in (
        lambda: buffers.get_buffer(1),
        lambda: buffers.total_buffers,
        lambda: buffers.pool_sizes,
        lambda: buffers.max_pool_size,
        buffers.clear,
        buffers.stats,
        buffers.cleanup,
    ):
        with pytest.raises(ValueError, match=r"BufferPool '.*' is closed"):
            call()
