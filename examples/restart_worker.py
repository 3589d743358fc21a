"""A worker is killed in mid-work, and a new one goes on with the same two rings.

Run it: python examples/restart_worker.py
"""

import contextlib
import multiprocessing

from shmcomm import RingBufferChannel, ShutDown

NUMBERS = range(1000)
SPAWN = multiprocessing.get_context("spawn")


def worker(tasks_name, results_name):
    with RingBufferChannel.attach(tasks_name) as tasks, RingBufferChannel.attach(results_name) as results:
        with contextlib.suppress(ShutDown):  # main() has all its answers, and this would be one for the second time
            for number in tasks:
                results.send((number, number * number))


def main():
    squares = {}
    with RingBufferChannel(2048) as tasks, RingBufferChannel(2048) as results:

        def start():
            process = SPAWN.Process(target=worker, args=(tasks.name, results.name))
            process.start()
            return process

        first = start()
        tasks.send_batch(list(NUMBERS))
        for _ in range(10):
            number, square = results.receive()
            squares[number] = square
        first.kill()
        first.join()

        second = start()  # takes the ends of both rings that the dead one held
        while (answer := results.try_receive()) is not None:  # what the first one still got out
            squares[answer[0]] = answer[1]
        tasks.send_batch([number for number in NUMBERS if number not in squares])  # some of it twice: no harm done
        while len(squares) < len(NUMBERS):
            number, square = results.receive()
            squares[number] = square
        tasks.shutdown()  # what was sent twice is still done, and there is room for its results
        second.join()

    right = squares == {number: number * number for number in NUMBERS}
    print(f"{len(squares)} squares, {'all right' if right else 'WRONG'}")


if __name__ == "__main__":
    main()
