"""What the queue programs share when their workers and their database fail.

Usage: serve.py fill URI JOBS, or serve.py work URI NAME CONCURRENCY LEDGER; a worker runs until it is killed.
"""

import os
import sys
import time
from collections.abc import Callable

JOB_S = 0.2


def note(ledger: str, number: int) -> None:
    """Append the number of a completed job to the ledger, with the time."""
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{number} {time.time()}\n".encode())
    os.close(file)


def main(fill: Callable[[str, int], None], work: Callable[[str, str, int, str], None]) -> None:
    """Do what the arguments say."""
    match sys.argv[1:]:
        case ["fill", uri, jobs]:
            fill(uri, int(jobs))
        case ["work", uri, name, concurrency, ledger]:
            work(uri, name, int(concurrency), ledger)
        case words:
            raise SystemExit(f"unknown arguments: {words}")
