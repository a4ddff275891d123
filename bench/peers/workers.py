"""Worker processes of a queue, which begin together."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_S = 60


def arguments() -> tuple[str, int, int, int]:
    """Return the database, and the numbers of jobs, of workers, and of jobs at once in each worker."""
    uri, *numbers = sys.argv[1:5]
    jobs, workers, concurrency = map(int, numbers)
    return uri, jobs, workers, concurrency


def started(work: Callable[..., None], workers: int, *given: object) -> list[BaseProcess]:
    """Start processes that execute `work(*given, barrier)`, and return once all have met at the barrier."""
    barrier = SPAWN.Barrier(workers + 1)
    processes: list[BaseProcess] = [
        SPAWN.Process(target=work, args=(*given, barrier)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait(PATIENCE_S)
    return processes


def drained_s(work: Callable[..., None], workers: int, *given: object) -> float:
    """Return the seconds from the barrier to the end of the last process; see `started`."""
    processes = started(work, workers, *given)
    began = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - began
