"""What a pipeline costs that never ends: rounds of `continue_as_new`, with the memory of the process.

    python bench/endless.py
    python bench/endless.py --rounds 10000 --pg postgresql://user:password@host/database

Each round is a run of one callable, whose end accepts the next run. Printed are, for each tenth of the
rounds, the seconds, the resident memory of the process, and the entries of the newest run; at the end the
time in which `TaskClient.wait` finds the last run from the id of the first one.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from postgres import server

from flujo import ContinueAsNewStep, Flujo, Pipeline, Step, TaskClient
from flujo.domain.events import RunEnded
from flujo.domain.journal import RunId
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore


def _pipeline(rounds: int) -> Pipeline:
    return Pipeline(
        (
            Step("add", lambda number: number + 1),
            ContinueAsNewStep("next", input="{{ previous }}", when=f"previous < {rounds}"),
        ),
        name="endless",
        input_schema={"type": "integer"},
    )


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 1e6


async def _measure(uri: str, rounds: int) -> None:
    store = await SqlStateStore.open(uri)
    ended, began = 0, time.monotonic()

    async def look(event: Any) -> None:
        nonlocal ended, began
        if not isinstance(event, RunEnded):
            return
        ended += 1
        if ended % (rounds // 10) == 0:
            entries = len(await store.entries(event.run_id))
            now = time.monotonic()
            print(f"{ended:>7} rounds  {now - began:6.2f} s  {_resident_mb():7.1f} MB  {entries} entries")
            began = now

    async with Flujo[Any, Any, Any](_pipeline(rounds), store=store, recovery=False) as runner:
        result = await runner.run_result_async(0, run_id="endless", sink=look)
    assert result.output == rounds, result
    began = time.monotonic()
    found = await TaskClient(store).wait(RunId("endless"))
    print(f"the last run, {found.run_id}, is found in {(time.monotonic() - began) * 1000:.1f} ms")
    await store.aclose()


def main() -> None:
    """Measure on SQLite, then on Postgres."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=10_000)
    options.add_argument("--pg", default="", help="a database of its own; default: a new server")
    options.add_argument("--disk", default="/var/tmp", help="folder for the databases")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.disk) as folder:
        print("sqlite")
        asyncio.run(_measure(f"sqlite:///{folder}/state.db", given.rounds))
    print("postgres")
    with server(given.pg, given.disk) as uri:
        migrations.migrate(uri)
        asyncio.run(_measure(uri, given.rounds))


if __name__ == "__main__":
    main()
