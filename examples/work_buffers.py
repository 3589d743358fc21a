"""Four workers share two large work buffers; one of them is killed with a buffer in its hands.

Run it: python examples/work_buffers.py
"""

import multiprocessing
import time

import numpy as np

from shmcomm import ObjectPool, SharedMemoryBuffer

LENGTH = 100_000
JOBS = 40
SPAWN = multiprocessing.get_context("spawn")


def as_array(view):
    return np.frombuffer(view, "f8")


def clean(buffer):
    buffer[:] = 0


def worker(pool, results_name, jobs):
    with pool, SharedMemoryBuffer.attach(results_name) as results:
        for job in jobs:
            with pool.borrow() as buffer:  # waits while both are in use
                buffer += np.arange(LENGTH) * job  # it is all zeros before, whoever had it
                results.as_array(JOBS, "f8")[job] = buffer.sum()


def careless(pool):
    buffer = pool.acquire()
    buffer[: LENGTH // 2] = np.nan
    time.sleep(3600)


def main():
    with (
        ObjectPool(as_array, reset=clean, slot_size=8 * LENGTH, max_size=2) as pool,
        SharedMemoryBuffer(8 * JOBS) as results,
    ):
        victim = SPAWN.Process(target=careless, args=(pool,))
        victim.start()
        while pool.allocated == 0:
            time.sleep(0.01)
        workers = [SPAWN.Process(target=worker, args=(pool, results.name, range(i, JOBS, 4))) for i in range(4)]
        for process in workers:
            process.start()
        victim.kill()
        victim.join()
        for process in workers:
            process.join()

        expected = np.arange(LENGTH).sum() * np.arange(JOBS, dtype="f8")
        right = np.array_equal(results.as_array(JOBS, "f8"), expected)
        deaths = pool.stats().deaths
    print(f"{JOBS} results with {deaths} buffer of a killed worker, {'all right' if right else 'WRONG'}")


if __name__ == "__main__":
    main()
