"""What the programs of `agents.py` share: one conversation with a tool, measured; standard library only.

    python bench.py TURNS FOLDER

prints a line of JSON. A conversation has TURNS responses: each calls the tool `lookup`, the last one answers.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

ANSWER = "All of them are known."
LEAST_TURNS = 100
"""Short conversations are repeated until there are so many turns."""

Talk = Callable[[str, int], Awaitable[object]]
"""Leads a conversation with an id and so many turns."""


class Script:
    """The responses of all conversations, in order. One conversation runs at a time."""

    def __init__(self) -> None:
        self.turns = 0
        self.turn = 0

    def next(self) -> int | None:
        """Return the number of the next call; None when the answer is due."""
        self.turn += 1
        return None if self.turn >= self.turns else self.turn


def lookup(name: str) -> str:
    """Look a customer up."""
    return f"{name} has been a customer since 2019 and prefers letters to calls."


async def measured(script: Script, talk: Talk, database: Path | None) -> dict[str, float]:
    """Return the milliseconds and bytes of a turn."""
    turns = int(sys.argv[1])

    async def one(name: str, turns: int) -> None:
        script.turns, script.turn = turns, 0
        await talk(name, turns)
        assert script.turn == turns, f"the model was called {script.turn} times in {turns} turns"

    await one("warm-up", 3)
    times, cpu = [], []
    rounds = max(1, LEAST_TURNS // turns)
    before = _size(database)
    for number in range(rounds):
        began, worked = time.perf_counter(), time.process_time()
        await one(f"talk-{number}", turns)
        times.append(time.perf_counter() - began)
        cpu.append(time.process_time() - worked)
    return {
        "ms": statistics.median(times) / turns * 1e3,
        "cpu_ms": statistics.median(cpu) / turns * 1e3,
        "bytes": (_size(database) - before) / rounds / turns,
    }


def _size(database: Path | None) -> int:
    """Return the bytes of a database, without its log."""
    if database is None:
        return 0
    import sqlite3

    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (pages,), (free,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count")
        )
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    return (pages - free) * size


def main(
    distributions: tuple[str, ...],
    work: Callable[[Path], Awaitable[dict[str, float]]],
) -> None:
    """Print what `work` has measured in a folder, with the versions of the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("turns", type=int)
    parser.add_argument("folder", type=Path)
    found = asyncio.run(work(parser.parse_args().folder))  # type: ignore[arg-type]  # all of them are coroutines
    versions = ", ".join(f"{name} {version(name)}" for name in distributions)
    print(json.dumps({**found, "versions": versions}), flush=True)
    os._exit(0)  # peers leave threads behind
