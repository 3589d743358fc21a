"""ObjectPool: an object taken and given back; beside calls that do nothing, and a semaphore with a list."""

import alone
import floors
import pairs
import pytest

from shmcomm import ObjectPool

QUESTION = "object acquired and released"


def times(quick):
    return 10 if quick else 200_000


def noop(_obj):
    return True


KINDS = {
    "plain": {},
    "reset and validate": {"reset": noop, "validate": noop},
    "slots": {"slot_size": 4096},
}


@pytest.mark.parametrize("kind", KINDS)
def test_acquire_and_release(kind, sample, quick):
    factory = memoryview if kind == "slots" else object
    with ObjectPool(factory, **KINDS[kind]) as pool:
        sample(QUESTION, "ours", lambda: alone.pool_use(pool, times(quick)))


def test_acquire_and_release_floor(sample, quick):
    sample(QUESTION, "floor", lambda: 2 * floors.call(pairs.payloads(64), 1 if quick else 1000))


def test_semaphore_and_list(sample, quick):
    sample(QUESTION, "rival", lambda: alone.semaphore_use(64, times(quick)))


@pytest.mark.parametrize("held", [0, 1000])
def test_behind_others(held, sample, quick):
    """Whoever holds many finds and gives back one as fast."""
    with ObjectPool(object, max_size=held + 16) as pool:
        for _ in range(held):
            pool.acquire()
        sample(f"{QUESTION} while {held} are held", "ours", lambda: alone.pool_use_beside(pool, times(quick)))
