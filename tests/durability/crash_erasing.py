"""Kills processes that erase a person at every point: a script, because only a single-threaded process may fork.

    python crash_erasing.py URI [--every N] [--first N]

prints the report as JSON. A process erases a person with two runs and a fork, and is killed. Another one erases
the person again: no run of the person is there, no other run has lost anything, and one proof counts all.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain.acts import Actor, Via
from flujo.domain.erasure import Subject
from flujo.domain.journal import RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import RunQuery
from flujo.domain.steps import CallableRef, Step
from flujo.services.admin.erasure import erase
from flujo.services.runs.runner import Flujo
from flujo.state.sql import erasure
from flujo.state.sql.tables import blob_refs, blobs
from flujo.state.store import SqlStateStore
from flujo.testing.crash_points import enumerate_crashes, in_a_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 400
"""More crash points than an erasure has; a person is written for each at which it is killed."""
ADA = Actor("ada", Via.CLI)
OF_A_USER = {"type": "object", "properties": {"user_id": {"type": "string"}}}


def _large(data: str) -> str:
    return data.ljust(20_000)


def _short(data: str) -> str:
    return data[:1]


STEPS = (
    Step("large", CallableRef("erasing:large", _large)),
    Step("short", CallableRef("erasing:short", _short)),
)
TREE = Pipeline(STEPS, "letters", context_schema=OF_A_USER)


class Erasing:
    """For each crash point a person with two runs and a fork, and a run of another person."""

    def __init__(self, uri: str, points: range) -> None:
        self._uri = uri
        self._points = points

    async def write(self, _: int) -> None:
        """Write the runs of all points."""
        store = await SqlStateStore.open(self._uri)
        try:
            async with Flujo[Any, Any, Any](TREE, store=store, recovery=False) as runner:
                for run in self._points:
                    for user, run_id in (("ana", "one"), ("ana", "two"), ("bob", "other")):
                        await runner.run_result_async(
                            f"a letter of {user} {run}",
                            run_id=f"{run_id}-{run}",
                            initial_context_data={"user_id": f"{user}-{run}"},
                        )
                    await runner.fork_async(f"one-{run}", at="large", new_run_id=f"fork-{run}")
        finally:
            await store.aclose()

    async def erase(self, run: int) -> Any:
        """Erase the person of a point, every second one in parts of a row, and return what is there."""
        erasure.ENTRIES = 1 if run % 2 else 10_000
        store = await SqlStateStore.open(self._uri)
        try:
            proof = await erase(store, Subject("user_id", f"ana-{run}"), actor=ADA, batch=1)
            there = await store.runs(RunQuery(limit=10_000))
            other = RunId(f"other-{run}")
            return {
                "there": sorted(each.run_id for each in there if each.run_id.endswith(f"-{run}")),
                "other": [len(entry.output or b"") for entry in await store.entries(other)],
                "unnamed": await store.read(_unnamed),
                "removed": proof.count("runs").removed,
            }
        finally:
            await store.aclose()

    def check(self, run: int, seen: Any) -> Iterator[str]:
        """Yield violations: a run that is left, damage to others, a content too many, a wrong proof."""
        if seen["there"] != [f"other-{run}"]:
            yield f"there are {seen['there']}"
        if seen["other"] != [20_002, 3]:
            yield f"the other run has {seen['other']}"
        if seen["unnamed"]:
            yield f"contents that no run names: {seen['unnamed']}"
        if seen["removed"] not in (3, 0):  # 0: the killed process had written the proof
            yield f"the proof counts {seen['removed']} runs"


def _unnamed(connection: sa.Connection) -> list[str]:
    named = sa.select(blob_refs.c.digest)
    return list(connection.scalars(sa.select(blobs.c.digest).where(blobs.c.digest.not_in(named))))


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    erasing = Erasing(given.uri, range(given.first, MOST, given.every))
    in_a_fork(erasing.write, 0)
    report = enumerate_crashes(
        erasing.erase, erasing.erase, erasing.check, every=given.every, first=given.first
    )
    print(json.dumps(report.to_json()))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
