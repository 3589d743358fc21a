"""ObjectPool: who gets which object when, what callables may do, waiting, deaths, slots in shared memory."""

import contextlib
import ctypes
import gc
import itertools
import mmap
import os
import pickle
import signal
import threading
import time
import types
import weakref

import numpy as np
import pytest
from helpers import Peer, fork_worker, forked, path_of, until

import shmcomm
from shmcomm import CorruptedError, Empty, LayoutError, ObjectPool, RingBufferChannel

forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Thing:
    """Counts what is done to it."""

    made = itertools.count()

    def __init__(self, view=None):
        self.number, self.view, self.resets, self.valid = next(Thing.made), view, 0, True

    def reset(self):
        self.resets += 1

    def is_valid(self):
        return self.valid


@pytest.fixture
def pool():
    with ObjectPool(Thing, reset=Thing.reset, validate=Thing.is_valid, max_size=4) as made:
        yield made


def take_all(pool):
    objects = [pool.acquire(timeout=0) for _ in range(pool.max_size)]
    with pytest.raises(Empty):
        pool.acquire(timeout=0)
    assert len({id(o) for o in objects}) == pool.max_size
    return objects


def check_whole(pool):
    """Nothing is in use, and everything can be."""
    assert pool.allocated == 0
    for obj in take_all(pool):
        pool.release(obj)


# ---- one process ----


def test_defaults():
    with ObjectPool(object) as pool:
        assert (pool.max_size, pool.slot_size, pool.size, pool.allocated, pool.available) == (64, 0, 0, 0, 64)
        assert repr(pool) == f"<ObjectPool {pool.name!r}>"
        check_whole(pool)
        assert (pool.size, pool.available) == (64, 64)


def test_the_last_one_used_comes_first(pool):
    first, second = pool.acquire(), pool.acquire()
    assert first is not second
    pool.release(first)
    pool.release(second)
    assert pool.acquire() is second
    assert pool.acquire() is first
    assert pool.size == 2


def test_counts(pool):
    assert (pool.size, pool.allocated, pool.available) == (0, 0, 4)
    a, b = pool.acquire(), pool.acquire()
    assert (pool.size, pool.allocated, pool.available) == (2, 2, 2)
    pool.release(a)
    assert (pool.size, pool.allocated, pool.available) == (2, 1, 3)
    pool.release(b)
    assert (pool.size, pool.allocated, pool.available) == (2, 0, 4)


def test_initial_size():
    made = []
    with ObjectPool(lambda: made.append([]) or made[-1], initial_size=3, max_size=5) as pool:
        assert (len(made), pool.size, pool.allocated) == (3, 3, 0)
        taken = [pool.acquire() for _ in range(3)]
        assert len(made) == 3
        assert all(any(t is m for m in made) for t in taken)
        pool.acquire()
        assert len(made) == 4


def test_all_of_them_at_once():
    with ObjectPool(Thing, initial_size=7, max_size=7) as pool:
        check_whole(pool)


def test_reset_and_validate(pool):
    thing = pool.acquire()
    assert thing.resets == 0
    pool.release(thing)
    assert thing.resets == 1
    assert pool.acquire() is thing
    assert thing.resets == 1
    thing.valid = False
    pool.release(thing)
    other = pool.acquire()
    assert other is not thing
    assert other.resets == 0
    assert pool.size == 1
    pool.release(other)
    check_whole(pool)


def test_what_is_not_valid_is_dropped(pool):
    thing = pool.acquire()
    seen = weakref.ref(thing)
    thing.valid = False
    pool.release(thing)
    del thing
    assert seen() is not None
    pool.acquire()
    assert seen() is None


def test_all_in_use(pool):
    objects = take_all(pool)
    with pytest.raises(Empty, match=r"<ObjectPool '.*'>: all 4 objects are in use"):
        pool.acquire(timeout=0.01)
    with pytest.raises(shmcomm.Error):
        pool.acquire(0)
    assert pool.try_acquire() is None
    assert pool.try_acquire(5) == 5
    assert pool.try_acquire(default="none") == "none"
    pool.release(objects[2])
    assert pool.try_acquire(5) is objects[2]


def test_many():
    with ObjectPool(Thing, max_size=1000) as pool:
        objects = take_all(pool)
        for obj in objects[::2] + objects[1::2]:
            pool.release(obj)
        assert pool.acquire() is objects[-1]
        assert (pool.size, pool.allocated) == (1000, 1)


@pytest.mark.parametrize("order", [lambda o: o, reversed, lambda o: o[1::2] + o[::2]], ids=["same", "reversed", "odd"])
def test_objects_are_found_in_any_order(order):
    with ObjectPool(Thing, max_size=300) as pool:
        for _ in range(3):
            for obj in list(order(take_all(pool))):
                pool.release(obj)
        assert pool.allocated == 0


class Awkward:
    """Equal to everything, without a hash, and its repr raises."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __repr__(self):
        raise RuntimeError("no repr")


def test_objects_are_known_by_identity():
    with ObjectPool(Awkward, max_size=2) as pool:
        a, b = pool.acquire(), pool.acquire()
        with pytest.raises(ValueError, match="this Awkward object was not acquired from this <ObjectPool"):
            pool.release(Awkward())
        assert pool.allocated == 2
        pool.release(a)
        with pytest.raises(ValueError, match="this Awkward object of <ObjectPool .*> is not in use"):
            pool.release(a)
        assert pool.acquire() is a
        pool.release(b)
        pool.release(a)


def test_equal_is_not_the_same():
    with ObjectPool(lambda: [1], max_size=2) as pool:
        a = pool.acquire()
        with pytest.raises(ValueError, match="was not acquired"):
            pool.release([1])
        pool.release(a)
        check_whole(pool)


def test_release_of_what_is_not_ours(pool):
    with ObjectPool(Thing) as other, ObjectPool.attach(pool.name, Thing) as same:
        thing = pool.acquire()
        for wrong in (None, 5, "text", Thing(), other.acquire(), same.acquire()):
            with pytest.raises(ValueError, match=f"this {type(wrong).__name__} object was not acquired from this"):
                pool.release(wrong)
        with pytest.raises(ValueError, match="not acquired"):
            same.release(thing)
        assert pool.allocated == 2
        pool.release(thing)
    check_whole(pool)


def test_clear(pool):
    used, idle = pool.acquire(), pool.acquire()
    seen = weakref.ref(idle)
    pool.release(idle)
    del idle
    pool.clear()
    assert seen() is None
    assert (pool.size, pool.allocated) == (2, 1)
    pool.release(used)
    assert pool.acquire() is used
    pool.clear()
    pool.release(used)
    pool.clear()
    assert pool.acquire() is not used


def test_borrow(pool):
    with pool.borrow() as thing:
        assert isinstance(thing, Thing)
        assert pool.allocated == 1
    assert thing.resets == 1
    with pytest.raises(KeyError), pool.borrow() as again:
        assert again is thing
        raise KeyError
    assert (thing.resets, pool.allocated) == (2, 0)
    lent = pool.borrow(timeout=0)
    for _ in range(2):
        with lent as obj:
            assert obj is thing
    assert pool.allocated == 0


def test_borrow_misused(pool):
    lent = pool.borrow()
    with lent:
        with pytest.raises(RuntimeError, match=r"borrowed through this already: call borrow\(\) again"):
            lent.__enter__()
        assert pool.allocated == 1
    with pytest.raises(RuntimeError, match="nothing of <ObjectPool .*> is borrowed"):
        lent.__exit__(None, None, None)
    objects = take_all(pool)
    with pytest.raises(Empty), pool.borrow(timeout=0):
        pass
    with pytest.raises(ValueError, match="timeout must be"):
        pool.borrow(timeout=-1)
    for obj in objects:
        pool.release(obj)
    with pytest.raises(ValueError, match="not in use"), pool.borrow() as thing:
        pool.release(thing)
    check_whole(pool)


def test_a_pool_that_is_closed_in_the_block():
    with ObjectPool(Thing) as pool, pool.borrow() as thing:
        pool.close()
    assert thing.resets == 0


# ---- wrong arguments ----


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((), {}, TypeError, r"ObjectPool\(\) missing required argument 'factory'"),
        ((5,), {}, TypeError, "factory must be callable, not int"),
        ((None,), {}, TypeError, "factory must be callable, not NoneType"),
        ((object, 5), {}, TypeError, "takes at most 1 positional"),
        ((object,), {"reset": 5}, TypeError, "reset must be callable, not int"),
        ((object,), {"validate": "x"}, TypeError, "validate must be callable, not str"),
        ((object,), {"max_size": 0}, ValueError, "max_size must be between 1 and 65536, not 0"),
        ((object,), {"max_size": 65537}, ValueError, "max_size must be between 1 and 65536"),
        ((object,), {"max_size": -1}, ValueError, "max_size must be between"),
        ((object,), {"max_size": 1.5}, TypeError, "max_size must be an integer, not float"),
        ((object,), {"slot_size": -1}, ValueError, "slot_size must be between 0 and"),
        ((object,), {"slot_size": 1 << 80}, ValueError, "slot_size must be between 0 and"),
        ((object,), {"slot_size": "4"}, TypeError, "slot_size must be an integer, not str"),
        ((object,), {"initial_size": 65}, ValueError, "initial_size must be between 0 and 64, not 65"),
        ((object,), {"initial_size": 3, "max_size": 2}, ValueError, "initial_size must be between 0 and 2"),
        ((object,), {"initial_size": -1}, ValueError, "initial_size must be between"),
        ((object,), {"initial_size": None}, TypeError, "initial_size must be an integer"),
        ((object,), {"nonsense": 1}, TypeError, "unexpected keyword argument 'nonsense'"),
        ((object,), {"name": "a/b"}, ValueError, "a name is 1 to 200"),
        ((object,), {"max_participants": 0}, ValueError, "max_participants must be between"),
    ],
)
def test_wrong_construction(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        ObjectPool(*arguments, **keywords)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.acquire(-1), ValueError, "timeout must be a non-negative number"),
        (lambda p: p.acquire(float("nan")), ValueError, "timeout must be"),
        (lambda p: p.acquire("1"), TypeError, "timeout must be seconds"),
        (lambda p: p.acquire(1, 2), TypeError, "takes at most 1 positional"),
        (lambda p: p.acquire(wait=1), TypeError, "unexpected keyword"),
        (lambda p: p.try_acquire(1, 2), TypeError, "takes at most 1 positional"),
        (lambda p: p.borrow("1"), TypeError, "timeout must be seconds"),
        (lambda p: p.release(), TypeError, "exactly one argument"),
        (lambda p: p.clear(1), TypeError, "no arguments"),
    ],
)
def test_wrong_calls(pool, call, error, message):
    with pytest.raises(error, match=message):
        call(pool)
    check_whole(pool)


def test_memory_that_is_not_there():
    with pytest.raises(OSError, match="bytes"):
        ObjectPool(bytes, slot_size=1 << 40, max_size=1000)


CLOSED = {
    "acquire": lambda p: p.acquire(),
    "try_acquire": lambda p: p.try_acquire(),
    "release": lambda p: p.release(1),
    "borrow": lambda p: p.borrow(),
    "clear": lambda p: p.clear(),
    "size": lambda p: p.size,
    "allocated": lambda p: p.allocated,
    "available": lambda p: p.available,
    "max_size": lambda p: p.max_size,
    "slot_size": lambda p: p.slot_size,
    "stats": lambda p: p.stats(),
    "unlink": lambda p: p.unlink(),
    "pickle": pickle.dumps,
    "enter": lambda p: p.__enter__(),
}


@pytest.mark.parametrize("call", CLOSED.values(), ids=CLOSED)
def test_closed(call):
    pool = ObjectPool(object)
    pool.close()
    pool.close()
    assert pool.closed
    with pytest.raises(ValueError, match=f"ObjectPool '{pool.name}' is closed"):
        call(pool)


# ---- callables that raise ----


class Fault(Exception):
    pass


class Moody:
    """Its callables raise when they are told to, and count their calls."""

    def __init__(self):
        self.raises, self.calls = None, []

    def does(self, what, result):
        self.calls.append(what)
        if self.raises == what:
            raise Fault(what)
        return result

    def factory(self, *view):
        return self.does("factory", Thing(*view))

    def reset(self, _obj):
        self.does("reset", None)

    def validate(self, obj):
        return self.does("validate", obj.valid)


@pytest.fixture(params=[0, 100], ids=["objects", "slots"])
def moody(request):
    moods = Moody()
    pool = ObjectPool(moods.factory, reset=moods.reset, validate=moods.validate, max_size=3, slot_size=request.param)
    with pool:
        yield moods, pool


def test_a_factory_that_raises(moody):
    moods, pool = moody
    moods.raises = "factory"
    for call in (pool.acquire, pool.try_acquire, lambda: pool.acquire(0), lambda: pool.borrow().__enter__()):
        with pytest.raises(Fault, match="factory"):
            call()
        assert pool.allocated == 0
    moods.raises = None
    check_whole(pool)


def test_a_validate_that_raises(moody):
    moods, pool = moody
    thing = pool.acquire()
    pool.release(thing)
    moods.raises = "validate"
    with pytest.raises(Fault, match="validate"):
        pool.acquire()
    assert pool.allocated == 0
    moods.raises = None
    assert pool.acquire() is not thing
    with pytest.raises(ValueError, match="not acquired"):
        pool.release(thing)


def test_a_reset_that_raises(moody):
    moods, pool = moody
    thing = pool.acquire()
    moods.raises = "reset"
    with pytest.raises(Fault, match="reset"):
        pool.release(thing)
    assert (pool.allocated, pool.stats().dirty) == (0, 1)
    with pytest.raises(ValueError, match="not acquired"):
        pool.release(thing)
    if pool.slot_size:  # its memory must be reset before anybody gets it
        while pool.stats().dirty:
            with pytest.raises(Fault, match="reset"):
                pool.acquire()
            moods.raises = None
            pool.release(pool.acquire())
    moods.raises = None
    check_whole(pool)
    assert pool.stats().dirty == 0


def test_a_reset_that_raises_in_a_block(moody):
    moods, pool = moody
    moods.raises = "reset"
    with pytest.raises(Fault, match="reset") as caught, pool.borrow():
        raise KeyError("first")
    assert isinstance(caught.value.__context__, KeyError)
    moods.raises = None
    check_whole(pool)


def test_a_factory_that_raises_after_a_false_validate(moody):
    moods, pool = moody
    thing = pool.acquire()
    thing.valid = False
    pool.release(thing)
    moods.raises = "factory"
    with pytest.raises(Fault, match="factory"):
        pool.acquire()
    moods.raises = None
    check_whole(pool)


def test_a_factory_that_raises_at_creation(own_folder):
    made = []

    def factory():
        if len(made) == 2:
            raise Fault("the third")
        made.append(Thing())
        return made[-1]

    with pytest.raises(Fault, match="the third"):
        ObjectPool(factory, initial_size=3, name="never")
    gc.collect()
    assert list(own_folder.iterdir()) == []
    with pytest.raises(Fault, match="the third"):
        ObjectPool.open("never", factory, initial_size=3)
    assert list(own_folder.iterdir()) == []


class Stop(BaseException):
    pass


def stop(_obj):
    raise Stop


def test_base_exceptions_pass_through():
    with ObjectPool(Thing, reset=stop, max_size=1) as pool:
        thing = pool.acquire()
        with pytest.raises(Stop):
            pool.release(thing)
        assert pool.acquire(timeout=0) is not thing


class NoTruth:
    def __bool__(self):
        raise Fault("no truth")


def test_a_validate_without_truth():
    with ObjectPool(Thing, validate=lambda _: NoTruth(), max_size=1) as pool:
        pool.release(pool.acquire())
        with pytest.raises(Fault, match="no truth"):
            pool.acquire()
        pool.release(pool.acquire(timeout=0))


@pytest.mark.parametrize("value", [None, 5, (), "one"])
def test_a_factory_that_returns_the_same_again(value):
    with ObjectPool(lambda: value, max_size=3) as pool:
        assert pool.acquire() is value
        with pytest.raises(ValueError, match=f"returned the same {type(value).__name__} object again"):
            pool.acquire()
        assert pool.allocated == 1
        pool.release(value)
        assert pool.acquire() is value


def test_a_factory_of_the_wrong_signature():
    with ObjectPool(lambda: Thing(), slot_size=8) as pool, pytest.raises(TypeError, match="positional argument"):
        pool.acquire()
    with ObjectPool(lambda view: Thing()) as pool, pytest.raises(TypeError, match="positional argument"):
        pool.acquire()


# ---- callables that use the pool ----


def test_a_factory_that_acquires():
    pools = []

    def factory():
        return [pools[0].acquire()] if pools[0].allocated < 3 else []

    with ObjectPool(factory, max_size=3) as pool:
        pools.append(pool)
        outer = pool.acquire()
        inner = outer[0]
        assert (inner[0], pool.allocated) == ([], 3)
        for obj in (inner, outer, inner[0]):
            pool.release(obj)
        check_whole(pool)


def test_a_reset_that_releases_again():
    with ObjectPool(Thing, reset=lambda obj: pool.release(obj), max_size=2) as pool:
        thing = pool.acquire()
        with pytest.raises(ValueError, match="not in use"):
            pool.release(thing)
        check = pool.try_acquire()
        assert check is not thing
        assert pool.allocated == 1


@pytest.mark.parametrize("which", ["factory", "validate", "reset"])
def test_a_callable_that_closes(which):
    def closes(what, result):
        if what == which:
            pool.close()
        return result

    pool = ObjectPool(
        lambda: closes("factory", Thing()),
        validate=lambda _: closes("validate", True),
        reset=lambda _: closes("reset", None),
    )
    with ObjectPool.attach(pool.name, Thing) as other:
        if which == "factory":
            with pytest.raises(ValueError, match="was closed while this call waited"):
                pool.acquire()
        else:
            thing = pool.acquire()
            pool.release(thing)  # reset: done all the same
            if which == "validate":
                with pytest.raises(ValueError, match="was closed"):
                    pool.acquire()
        assert pool.closed
        assert other.allocated == 0
        check_whole(other)


def test_finalisers_that_use_the_pool():
    class Loud:
        def __del__(self):
            with contextlib.suppress(ValueError):  # when the pool is closed
                pool.try_acquire()

    with ObjectPool(Loud, max_size=4) as pool:
        pool.release(pool.acquire())
        pool.clear()
        assert pool.allocated == 1
    gc.collect()


# ---- slots in shared memory ----


@pytest.mark.parametrize("size", [1, 63, 64, 65, 4096])
def test_slot_memory(size):
    with ObjectPool(memoryview, slot_size=size, max_size=3) as pool:
        views = take_all(pool)
        for i, view in enumerate(views):
            assert (view.nbytes, view.readonly, view.format, bytes(view)) == (size, False, "B", bytes(size))
            assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % 64 == 0
            view[:] = bytes([i + 1]) * size
        for i, view in enumerate(views):
            assert bytes(view) == bytes([i + 1]) * size
        stats = pool.stats()
        assert (stats.bytes_total, stats.bytes_used, stats.slot_size) == (3 * size, 3 * size, size)


def array_of(view):
    return np.frombuffer(view, "f8")


def test_arrays_over_slots():
    with ObjectPool(array_of, reset=lambda a: a.fill(0), slot_size=800, max_size=2) as pool:
        with pool.borrow() as array:
            array += np.arange(100)
        with pool.borrow() as same:
            assert same is array
            assert same.sum() == 0


def test_an_object_is_built_once_in_each_process():
    with ObjectPool(Thing, slot_size=8, max_size=2) as pool, Peer() as peer:
        peer(
            "built = []; pool = ObjectPool.attach(name, lambda v: built.append(v) or [v]); "
            "x = pool.acquire(); x[0][:] = b'from you'",
            name=pool.name,
        )
        mine = pool.acquire()
        assert bytes(mine.view) == bytes(8)
        peer("pool.release(x)")
        theirs = pool.acquire()
        assert bytes(theirs.view) == b"from you"
        pool.release(mine)
        pool.release(theirs)
        assert peer("[pool.release(pool.acquire()) for _ in range(5)] and len(built)") == 1
        assert {id(t) for t in take_all(pool)} == {id(mine), id(theirs)}


def test_views_outlive_the_pool():
    pool = ObjectPool(memoryview, slot_size=100)
    view = pool.acquire()
    view[:5] = b"alive"
    array = np.frombuffer(view, "u1")
    name = pool.name
    pool.close()
    del pool
    gc.collect()
    assert bytes(view[:5]) == b"alive"
    view[0] = 65
    del view
    assert array[0] == 65
    with pytest.raises(FileNotFoundError):
        ObjectPool.attach(name, memoryview)


def test_memory_is_unmapped_with_the_last_view():
    def mapped():
        with open("/proc/self/maps") as file:
            return sum(line.split()[4] == inode for line in file)

    pool = ObjectPool(memoryview, slot_size=100)
    inode = str(path_of(pool).stat().st_ino)
    view = pool.acquire()[5:]
    assert mapped() == 1
    pool.close()
    assert mapped() == 1
    del view, pool
    assert mapped() == 0


def test_a_slot_that_is_not_valid_is_reset():
    def reset(thing):
        thing.resets += 1
        thing.view[:] = bytes(8)

    with ObjectPool(Thing, reset=reset, validate=lambda t: t.view[0] == 0, slot_size=8, max_size=1) as pool:
        thing = pool.acquire()
        pool.release(thing)
        thing.view[0] = 9  # by a view that is still around
        other = pool.acquire()
        assert other is not thing
        assert (other.resets, other.view[0]) == (1, 0)


# ---- waiting ----


def in_thread(function, *arguments):
    result = []

    def run():
        try:
            result.append(function(*arguments))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, result


def test_a_thread_waits_for_another(pool):
    objects = take_all(pool)
    thread, result = in_thread(pool.acquire)
    until(lambda: pool.stats().waiters == 1)
    pool.release(objects[1])
    thread.join(30)
    assert result == [objects[1]]
    assert pool.stats().waiters == 0


def test_a_process_waits_for_another(pool):
    objects = take_all(pool)
    with Peer() as peer:
        peer("pool = ObjectPool.attach(name, list)", name=pool.name)
        peer.begin("x = pool.acquire()")
        until(lambda: pool.stats().waiters == 1)
        assert peer.busy()
        pool.release(objects[0])
        peer.result()
        assert pool.allocated == 4
        with pytest.raises(Empty):
            pool.acquire(0)
        peer.begin("time.sleep(0.05); pool.release(x)")
        objects[0] = pool.acquire()
        peer.result()


def test_as_many_wait_as_are_released(pool):
    objects = take_all(pool)
    waiting = [in_thread(pool.acquire) for _ in range(4)]
    until(lambda: pool.stats().waiters == 4)
    for obj in objects:
        pool.release(obj)
    for thread, _ in waiting:
        thread.join(30)
        assert not thread.is_alive()
    assert {id(result[0]) for _, result in waiting} == {id(obj) for obj in objects}


def test_close_ends_waiting(pool):
    take_all(pool)
    thread, result = in_thread(pool.acquire)
    until(lambda: pool.stats().waiters == 1)
    pool.close()
    thread.join(30)
    assert isinstance(result[0], ValueError)
    assert "was closed while this call waited" in str(result[0])


def test_close_of_one_handle_lets_the_others_wait(pool):
    objects = take_all(pool)
    other = ObjectPool.attach(pool.name, list)
    thread, result = in_thread(pool.acquire)
    until(lambda: pool.stats().waiters == 1)
    other.close()
    pool.release(objects[0])
    thread.join(30)
    assert result == [objects[0]]


def test_ctrl_c(pool):
    take_all(pool)
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pool.acquire()
    timer.join()
    assert pool.stats().waiters == 0


def test_waiting_takes_no_processor_time(pool):
    take_all(pool)
    before = time.thread_time()
    with pytest.raises(Empty):
        pool.acquire(timeout=0.5)
    assert time.thread_time() - before < 0.25


@pytest.mark.parametrize("slot_size", [0, 64])
def test_threads_never_share_an_object(slot_size):
    inside, failures = set(), []

    def use():
        for _ in range(300):
            with pool.borrow() as obj:
                if id(obj) in inside:
                    failures.append(obj)
                inside.add(id(obj))
                time.sleep(0)
                inside.discard(id(obj))

    with ObjectPool(Thing, reset=Thing.reset, max_size=3, slot_size=slot_size) as pool:
        threads = [in_thread(use) for _ in range(8)]
        for thread, result in threads:
            thread.join(60)
            assert result == [None]
        assert failures == []
        assert pool.size <= 3
        check_whole(pool)


# ---- several processes ----


def test_the_limit_is_for_all(pool):
    with Peer() as peer:
        peer("pool = ObjectPool.attach(name, list); mine = [pool.acquire() for _ in range(3)]", name=pool.name)
        assert (pool.size, pool.allocated, pool.available) == (3, 3, 1)
        thing = pool.acquire()
        assert pool.try_acquire() is None
        assert peer("pool.try_acquire()") is None
        peer("pool.release(mine.pop())")
        pool.release(pool.acquire())
        pool.release(thing)
        assert sorted(p.holds for p in pool.stats().participants) == [(), ("2 objects",)]
    until(lambda: pool.allocated == 0)


def test_objects_move_to_free_places():
    """Without memory a place is a permission: an idle object goes to whichever is free."""
    made = []
    with ObjectPool(lambda: made.append([]) or made[-1], max_size=2) as pool, Peer() as peer:
        peer("pool = ObjectPool.attach(name, list)", name=pool.name)
        mine = pool.acquire()
        pool.release(mine)
        for _ in range(3):
            peer("x = pool.acquire()")
            assert pool.acquire() is mine
            peer("pool.release(x)")
            pool.release(mine)
        assert len(made) == 1


def test_exit_gives_everything_back(pool):
    with Peer() as peer:
        peer("pool = ObjectPool.attach(name, list); mine = [pool.acquire() for _ in range(3)]", name=pool.name)
        peer.end()
    assert (pool.allocated, pool.stats().deaths) == (0, 0)
    check_whole(pool)


def test_close_gives_everything_back():
    with ObjectPool(Thing, reset=Thing.reset, slot_size=8, max_size=3) as pool:
        with ObjectPool.attach(pool.name, memoryview) as other:
            view = other.acquire()
            other.release(other.acquire())
            view[:4] = b"half"
            assert pool.allocated == 1
        assert (pool.allocated, pool.stats().dirty) == (0, 1)
        things = take_all(pool)
        assert sorted(t.resets for t in things) == [0, 0, 1]


# ---- deaths ----


@pytest.mark.parametrize("reap", [True, False], ids=["buried", "zombie"])
@pytest.mark.parametrize("slot_size", [0, 64])
def test_a_killed_holder(slot_size, reap):
    if not reap and shmcomm._core._os_body != "linux":
        pytest.skip("there a zombie is taken for living: csrc/os/shc_os_posix.c")
    with ObjectPool(Thing, reset=Thing.reset, max_size=2, slot_size=slot_size) as pool, Peer() as peer:
        peer("pool = ObjectPool.attach(name, lambda *v: list(v)); x = [pool.acquire(), pool.acquire()]", name=pool.name)
        if slot_size:
            peer("x[0][0][:] = b'z' * 64")
        assert pool.try_acquire() is None
        peer.kill(reap=reap)
        things = take_all(pool)
        assert pool.stats().deaths == 2
        assert {t.resets for t in things} == ({1} if slot_size else {0})
        for thing in things:
            pool.release(thing)
        check_whole(pool)


def test_who_waits_gets_what_a_killed_one_had(pool):
    take_all(pool)
    with ObjectPool(Thing, max_size=1) as single, Peer() as peer:
        peer("pool = ObjectPool.attach(name, list); x = pool.acquire()", name=single.name)
        thread, result = in_thread(single.acquire)
        until(lambda: single.stats().waiters == 1)
        peer.kill()
        thread.join(30)
        assert isinstance(result[0], Thing)


def test_all_users_of_a_persistent_pool_are_killed(own_folder):
    def clean(view):
        view[:] = bytes(4)

    with Peer() as peer:
        peer(
            "pool = ObjectPool(memoryview, slot_size=4, max_size=2, name='kept', persist=True);"
            "x = pool.acquire(); x[:] = b'half'; y = pool.acquire(); y[:] = b'done'; pool.release(y)"
        )
        peer.kill()
    with ObjectPool.attach("kept", memoryview, reset=clean) as pool:
        assert sorted(bytes(view) for view in take_all(pool)) == [bytes(4), b"done"]
        pool.unlink()


def test_a_killed_waiter(pool):
    objects = take_all(pool)
    with Peer() as peer:
        peer("pool = ObjectPool.attach(name, list)", name=pool.name)
        peer.begin("pool.acquire()")
        until(lambda: pool.stats().waiters == 1)
        peer.kill()
        for obj in objects:
            pool.release(obj)
        check_whole(pool)
        assert pool.stats().deaths == 0


def test_a_stopped_holder_keeps_what_it_has():
    with ObjectPool(Thing, max_size=1) as pool, Peer() as peer:
        peer("pool = ObjectPool.attach(name, list); x = pool.acquire()", name=pool.name)
        peer.signal(signal.SIGSTOP)
        with pytest.raises(Empty):
            pool.acquire(timeout=0.2)
        peer.signal(signal.SIGCONT)
        peer("pool.release(x)")
        pool.release(pool.acquire(timeout=30))
        assert pool.stats().deaths == 0


# ---- fork ----


@forks
@pytest.mark.parametrize("slot_size", [0, 64])
def test_a_child_builds_its_own(slot_size):
    with ObjectPool(Thing, reset=Thing.reset, max_size=3, slot_size=slot_size) as pool:
        mine, idle = pool.acquire(), pool.acquire()
        pool.release(idle)

        def child():
            with pytest.raises(ValueError, match="not acquired from this .* in this process"):
                pool.release(mine)
            assert (pool.allocated, pool.size) == (1, 2)
            theirs = [pool.acquire(), pool.acquire()]
            assert mine not in theirs
            assert idle not in theirs
            assert pool.try_acquire() is None
            assert len(pool.stats().participants) == 2
            pool.release(theirs[0])
            pool.close()

        assert forked(child) == 0
        assert (pool.allocated, pool.stats().deaths) == (1, 0)
        assert pool.acquire() is idle
        pool.release(idle)
        pool.release(mine)
        check_whole(pool)


@forks
def test_a_child_that_dies_with_an_object():
    with ObjectPool(Thing, max_size=1) as pool:
        pool.release(pool.acquire())
        pid = fork_worker(lambda: (pool.acquire(), time.sleep(60)))
        until(lambda: pool.allocated == 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert isinstance(pool.acquire(timeout=30), Thing)
        assert pool.stats().deaths == 1


@forks
@pytest.mark.parametrize("which", ["factory", "validate", "reset"])
def test_a_fork_inside_a_callable(which):
    def forks(what, result):
        if what == which and not children:
            children.append(os.fork())
            if children == [0]:
                here.append("child")
        return result

    children, here = [], []
    with ObjectPool(
        lambda: forks("factory", Thing()),
        validate=lambda _: forks("validate", True),
        reset=lambda _: forks("reset", None),
        max_size=2,
    ) as pool:
        code = 1
        try:
            for _ in range(2):
                thing = pool.acquire()
                pool.release(thing)
        except RuntimeError as error:
            if here and "this process was forked inside a call" in str(error):
                pool.release(pool.acquire())
                code = 0
        finally:
            if here:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        check_whole(pool)


# ---- names, pickling ----


def test_attach(pool):
    with ObjectPool.attach(pool.name, list, reset=list.clear, validate=lambda _: True, timeout=1) as same:
        assert (same.max_size, same.name) == (4, pool.name)
        obj = same.acquire()
        obj.append(1)
        same.release(obj)
        assert obj == []
        assert pool.size == 1
    with pytest.raises(TypeError, match="missing required argument 'factory'"):
        ObjectPool.attach(pool.name)
    with pytest.raises(TypeError, match="factory must be callable, not int"):
        ObjectPool.attach(pool.name, 5)
    with pytest.raises(FileNotFoundError):
        ObjectPool.attach("no-such-pool", list)


def test_another_kind(pool):
    with pytest.raises(LayoutError):
        RingBufferChannel.attach(pool.name)
    with RingBufferChannel(4) as channel, pytest.raises(LayoutError):
        ObjectPool.attach(channel.name, list)


def test_open(own_folder):
    built = []

    def factory(*_):
        built.append([])
        return built[-1]

    with ObjectPool.open("a-pool", factory, initial_size=2, max_size=5, slot_size=10) as pool:
        assert (pool.max_size, pool.slot_size, pool.size, len(built)) == (5, 10, 2, 2)
        with ObjectPool.open("a-pool", factory, initial_size=3) as same:
            assert (same.max_size, same.slot_size, len(built)) == (5, 10, 2)
        for option, asked, there in (("max_size", 6, 5), ("slot_size", 0, 10), ("slot_size", 11, 10)):
            with pytest.raises(LayoutError, match=f"exists with {option} {there}, not {asked}"):
                ObjectPool.open("a-pool", factory, **{option: asked})
        with pytest.raises(LayoutError, match="exists with persist False, not True"):
            ObjectPool.open("a-pool", factory, persist=True)
        with pytest.raises(FileExistsError):
            ObjectPool(factory, name="a-pool")
    with ObjectPool.open("a-pool", factory) as pool:
        assert (pool.max_size, pool.slot_size) == (64, 0)


def test_persist(own_folder):
    with ObjectPool(memoryview, slot_size=4, max_size=2, name="kept", persist=True) as pool:
        with pool.borrow() as view:
            view[:] = b"kept"
        with pool.borrow():
            pass
    with ObjectPool.attach("kept", memoryview) as pool:
        assert b"kept" in {bytes(v) for v in take_all(pool)}
        pool.unlink()


def is_list(obj):
    return isinstance(obj, list)


def test_pickle():
    with ObjectPool(list, reset=list.clear, validate=is_list, max_size=2) as pool:
        again = pickle.loads(pickle.dumps(pool))
        with again:
            assert type(again) is ObjectPool
            assert again.name == pool.name
            obj = again.acquire()
            obj.append(1)
            again.release(obj)
            assert obj == []
            assert pool.size == 1


def test_a_pool_is_sent_to_another_process():
    with ObjectPool(list, max_size=2) as pool, Peer() as peer:
        peer("x = pool.acquire()", pool=pool)
        assert pool.allocated == 1
        assert peer("type(x)") is list


def test_callables_that_do_not_pickle():
    with ObjectPool(lambda: [5], max_size=2) as pool:
        with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
            pickle.dumps(pool)
        check_whole(pool)


# ---- life ----


def test_weakref_subclass_and_generic():
    class Sub(ObjectPool):
        extra = 5

    assert isinstance(ObjectPool[list], types.GenericAlias)
    with Sub(list) as pool:
        pool.attribute = 1
        assert weakref.ref(pool)() is pool
        assert isinstance(pool.acquire(), list)
        with Sub.attach(pool.name, list) as other:
            assert type(other) is Sub
    with pytest.raises(AttributeError), ObjectPool(list) as pool:
        pool.attribute = 1


def test_cycles_are_collected():
    class Owner:
        def __init__(self):
            self.pool = ObjectPool(self.make, reset=self.reset, validate=self.validate)

        def make(self):
            return [self]

        def reset(self, obj):
            pass

        def validate(self, obj):
            return True

    owner = Owner()
    out, idle = owner.pool.acquire(), owner.pool.acquire()
    owner.pool.release(idle)
    path, seen = path_of(owner.pool), weakref.ref(owner)
    assert path.exists()
    del owner, out, idle
    gc.collect()
    assert seen() is None
    assert not path.exists()


def test_a_cycle_through_borrow():
    pool = ObjectPool(list)
    lent = pool.borrow()
    obj = lent.__enter__()
    obj.append(lent)
    path = path_of(pool)
    del pool, lent, obj
    gc.collect()
    assert not path.exists()


def test_dropping_the_pool_drops_its_objects():
    pool = ObjectPool(Thing)
    seen = [weakref.ref(pool.acquire()), weakref.ref(pool.acquire())]
    assert seen[0]() is not None
    del pool
    gc.collect()
    assert [s() for s in seen] == [None, None]


def test_stats(pool):
    pool.acquire()
    stats = pool.stats()
    assert isinstance(stats, shmcomm.ObjectPoolStats)
    assert pickle.loads(pickle.dumps(stats)) == stats
    fields = stats.asdict()
    assert fields.pop("participants")[0]["holds"] == ("1 object",)
    assert fields == {
        "bytes_total": 0, "bytes_used": 0, "max_size": 4, "size": 1, "allocated": 1, "available": 3, "dirty": 0,
        "slot_size": 0, "waiters": 0, "deaths": 0,
    }  # fmt: skip
    with pytest.raises(AttributeError):
        stats.size = 5


# ---- spoilt memory ----


@pytest.fixture
def spoilt():
    """A pool of two, and a function that overwrites the words of its slots."""
    with ObjectPool(Thing, max_size=2) as pool:
        with open(path_of(pool), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:

            def spoil(word):
                memory[-128:-112] = word.to_bytes(8, "little") * 2

            yield pool, spoil


@pytest.mark.parametrize("word", [0, 1 << 44, (1 << 64) - 1, 0xFFF, (1 << 63) | 1, 77 << 12])
def test_spoilt_words(spoilt, word):
    pool, spoil = spoilt
    thing = pool.acquire()
    spoil(word)
    assert 0 <= pool.allocated <= 2
    assert 0 <= pool.size <= 2
    assert pool.stats().available + pool.stats().allocated == 2
    with pytest.raises(CorruptedError):
        pool.release(thing)
    with pytest.raises(ValueError, match="not acquired"):
        pool.release(thing)
    spoil(0)
    check_whole(pool)


def test_a_slot_that_is_given_to_its_holder_again(spoilt):
    pool, spoil = spoilt
    take_all(pool)
    spoil(0)
    with pytest.raises(CorruptedError):
        pool.acquire(timeout=0)
