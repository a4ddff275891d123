"""Kills processes that fork a run at every point: a script, because only a single-threaded process may fork.

    python crash_forks.py URI [--every N] [--first N]

prints the report as JSON. A process executes a run, forks it, and is killed. Another one finds the whole fork
or none of it, continues it or forks the run again, and makes no call with an effect.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from flujo.domain.journal import RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import RunStatus
from flujo.domain.run_forks import Forked, forks_of
from flujo.domain.steps import CallableRef, Expr, LoopStep, Step
from flujo.exceptions import RunNotFound
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from flujo.testing.crash_points import enumerate_crashes, reach

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = "loop[1]/large"
COPIED = ["first", "loop[0]/large", "loop[0]/small", "loop[0]", "loop[0]"]


class Forking:
    """A run and its fork for each crash point."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    async def run(self, run: int) -> Any:
        """Execute the run, fork it or continue its fork; return both, and the damage that was found before."""
        parent, fork = RunId(f"run-{run}"), RunId(f"fork-{run}")
        calls: list[str] = []

        def step(name: str, size: int) -> Step:
            def work(data: str) -> str:
                calls.append(name)
                reach("in a step")
                return str(len(data) + 1).rjust(size)

            return Step(name, CallableRef(f"effects:{name}", work))

        body = Pipeline((step("large", 20_000), step("small", 1)))
        tree = Pipeline(
            (step("first", 1), LoopStep("loop", body=body, until=Expr("loop.index == 2"))), "forked"
        )
        store = await SqlStateStore.open(self._uri)
        try:
            broken = await _broken(store, parent, fork)
            async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
                first = await runner.run_result_async("x", run_id=parent)
                before = await store.entries(parent)
                calls.clear()
                try:
                    is_open = (await store.run(fork)).status is not RunStatus.COMPLETED
                    if is_open:
                        await runner.resume_async(fork)
                except RunNotFound:
                    await runner.fork_async(parent, at=AT, new_run_id=fork)
            found = await store.run(fork)
            return {
                "broken": broken,
                "calls": calls,
                "same": (await store.entries(parent)) == before,
                "status": str(found.status),
                "output": [str(first.output), (found.output or b"").decode()],
                "entries": [[entry.path, entry.seq] for entry in await store.entries(fork)],
                "forks": [list(each) for each in forks_of(await store.acts(parent))],
            }
        finally:
            await store.aclose()

    def check(self, run: int, seen: Any) -> Iterator[str]:
        """Yield violations: half a fork, a call that was made, another output, a changed parent."""
        if seen["broken"]:
            yield seen["broken"]
        if seen["calls"]:
            yield f"the fork has made calls: {seen['calls']}"
        if not seen["same"]:
            yield "the parent has other entries than before"
        if seen["status"] != "completed" or json.dumps(seen["output"][0]) != seen["output"][1]:
            yield f"the fork is {seen['status']} with {seen['output']}"
        if [seq for _, seq in seen["entries"]] != list(range(1, len(seen["entries"]) + 1)):
            yield f"the journal of the fork has gaps: {seen['entries']}"
        if seen["forks"] != [[f"fork-{run}", AT]]:
            yield f"the parent knows the forks {seen['forks']}"


async def _broken(store: SqlStateStore, parent: RunId, fork: RunId) -> str:
    """Return what a new reader finds of half a fork after the crash."""
    try:
        await store.run(fork)
    except RunNotFound:
        known = (await store.acts(parent), await store.acts(fork), await store.entries(fork))
        return f"there is no fork, but {known}" if any(known) else ""
    copied = [entry.path for entry in (await store.entries(fork))[: len(COPIED)]]
    forked = Forked.of(await store.acts(fork))
    is_whole = copied == COPIED and forked is not None and len(forks_of(await store.acts(parent))) == 1
    return "" if is_whole else f"there is half a fork: {copied}, {forked}"


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    forking = Forking(given.uri)
    report = enumerate_crashes(forking.run, forking.run, forking.check, every=given.every, first=given.first)
    print(json.dumps(report.to_json()))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
