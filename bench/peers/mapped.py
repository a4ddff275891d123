"""A map of a peer. Usage: map.py WORKERS FUNCTION COUNT [URI]; prints one line of JSON."""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from items import busy, nothing

ROUNDS = 3
"""The fastest of so many counts, as for Flujo."""

WARM_UP = 16
"""How many items are mapped before the clock starts."""


FUNCTIONS = {"nothing": nothing, "busy": busy}


def arguments() -> tuple[int, str, int, str]:
    """Return the number of worker processes, the function, the number of items and the database."""
    workers, function, count, *uri = sys.argv[1:]
    return int(workers), function, int(count), uri[0] if uri else ""


def fastest_s(mapped: Callable[[int], list[int]], count: int) -> float:
    """Return the seconds of a map over so many numbers, after a small one."""
    mapped(WARM_UP)
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        results = mapped(count)
        spent.append(time.perf_counter() - began)
        assert results == list(range(count))
    return min(spent)


def say(package: str, **seconds: float) -> None:
    """Print the seconds and the version of the package."""
    print(json.dumps({**seconds, "versions": f"{package} {version(package)}"}))
