"""Kills processes that rotate keys at every point: a script, because only a single-threaded process may fork.

    python crash_rotating.py URI [--every N] [--first N]

prints the report as JSON. A process rotates the keys of a database to another key, and is killed. Another one rotates
them again: each value is read as before, and none of the other key is left.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from flujo.domain.acts import Actor, Via
from flujo.domain.journal import RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import CallableRef, Step
from flujo.governance.key_ring import Key, KeyRing
from flujo.services.admin.keys import rotate
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from flujo.testing.crash_points import enumerate_crashes, in_a_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA = Actor("ada", Via.CLI)
KEYS = (Key("a", b"a" * 32), Key("b", b"b" * 32))
RUNS = [RunId(f"run-{number}") for number in range(2)]


def _large(data: str) -> str:
    return data.ljust(20_000)


TREE = Pipeline((Step("large", CallableRef("rotating:large", _large)),), "letters")


class Rotating:
    """A few runs, whose values every rotation writes with the other key."""

    def __init__(self, uri: str, first: int, every: int) -> None:
        self._uri, self._first, self._every = uri, first, every

    def _keys(self, point: int) -> KeyRing:
        turn = (point - self._first) // self._every % 2
        return KeyRing((KEYS[1 - turn], KEYS[turn]), source="KEYS")

    async def write(self, _: int) -> None:
        """Write the runs, with the key that the first rotation replaces."""
        store = await SqlStateStore.open(self._uri, keys=self._keys(self._first + self._every))
        try:
            async with Flujo[Any, Any, Any](TREE, store=store, recovery=False) as runner:
                for run_id in RUNS:
                    await runner.run_result_async(f"a letter of {run_id}", run_id=run_id)
        finally:
            await store.aclose()

    async def rotate(self, point: int) -> Any:
        """Rotate the keys, and return what is there."""
        store = await SqlStateStore.open(self._uri, keys=self._keys(point))
        try:
            result = await rotate(store, actor=ADA, batch=3)
            entries = [await store.entries(run_id) for run_id in RUNS]
            outputs = [(each.output or b"").decode().strip(' "') for run in entries for each in run]
            return {"left": result.counts.left, "outputs": outputs}
        finally:
            await store.aclose()

    def check(self, _: int, seen: Any) -> Iterator[str]:
        """Yield violations: a value of the other key, or one that is read differently."""
        if seen["left"]:
            yield f"{seen['left']} values of the other key are left"
        if seen["outputs"] != [f"a letter of {run_id}" for run_id in RUNS]:
            yield f"the runs have {seen['outputs']}"


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    rotating = Rotating(given.uri, given.first, given.every)
    in_a_fork(rotating.write, 0)
    report = enumerate_crashes(
        rotating.rotate, rotating.rotate, rotating.check, every=given.every, first=given.first
    )
    print(json.dumps(report.to_json()))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
