"""Kills workers that fire schedules at every point: a script, because only a single-threaded process may fork.

    python crash_schedules.py SHAPE URI FOLDER [--every N] [--first N]

prints the report as JSON. A worker finds three missed times of a schedule, fires and executes them. After each
kill another worker continues, and every time has one completed run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flujo
from flujo.domain.cron import newest_times
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import RunQuery
from flujo.domain.schedule_records import ScheduleChange, ScheduleRecord, definition
from flujo.domain.schedules import Overlap, Schedule, run_id_of
from flujo.domain.steps import CallableRef, Step
from flujo.services.project.project import find_project
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.run_request import pinned_by_name
from flujo.services.runs.worker import Worker
from flujo.services.workspace import Workspace
from flujo.state.store import SqlStateStore
from flujo.testing.crash_points import enumerate_crashes, in_a_fork, reach

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTELY = "* * * * *"
SHAPES: dict[str, Overlap] = {"one_after_another": "queue", "at_once": "allow"}


class Firing:
    """A schedule of its own for each crash point, with three times that were missed."""

    def __init__(self, overlap: Overlap, folder: Path) -> None:
        self._overlap = overlap
        self._folder = folder
        self._first = 0.0

    def measure(self, uri: str) -> None:
        """Read the time of the database, from which the missed times are counted."""

        async def now(_: int) -> float:
            store = await SqlStateStore.open(uri)
            try:
                return (await store.schedules()).now
            finally:
                await store.aclose()

        self._first = in_a_fork(now, 0) // 60 * 60 - 120

    async def run(self, run: int) -> Any:
        """Start a worker until nothing is due; return the schedule and its runs."""
        name = f"s{run}"

        async def work(data: Any) -> Any:
            reach("in a step")
            return data

        schedule = Schedule(cron=MINUTELY, name=name, catch_up="all", overlap=self._overlap, input=run)
        step = Step(name="work", call=CallableRef("effects:work", work))
        flujo.register(lambda: Pipeline(step, name, schedules=[schedule]))
        async with Workspace(find_project(self._folder)) as workspace:
            store = await workspace.store()
            missed = ScheduleRecord(
                name=name,
                definition=definition(schedule, name, ""),
                closure=pinned_by_name(name)[0],
                next_at=self._first,
            )
            await store.change_schedule(ScheduleChange(before=None, after=missed))
            worker = Worker(workspace, RecoveryPolicy(every_s=0.05), lambda _: None)
            try:
                await worker.drain()
            finally:
                await worker.aclose()
            record = (await store.schedules()).named(name)
            assert record is not None
            runs = await store.runs(RunQuery(pipeline=name, limit=1000))
            return {"next_at": record.next_at, "runs": {each.run_id: str(each.status) for each in runs}}

    def check(self, run: int, seen: Any) -> Iterator[str]:
        """Yield violations: a time without a run, a run without a time, and a run that has not completed."""
        name = f"s{run}"
        times = newest_times(MINUTELY, "UTC", self._first, seen["next_at"] - 1, 1000)
        expected = {run_id_of(name, time): "completed" for time in times}
        if len(times) < 3 or seen["runs"] != expected:
            yield f"the runs are {seen['runs']}, but the times that passed are {sorted(expected)}"


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--twice", action="store_true")
    given = parser.parse_args()
    (given.folder / "flujo.toml").write_text(f"state_uri = {json.dumps(given.uri)}\n", "utf-8")
    firing = Firing(SHAPES[given.shape], given.folder)
    firing.measure(given.uri)
    report = enumerate_crashes(
        firing.run, firing.run, firing.check, every=given.every, first=given.first, twice=given.twice
    )
    print(json.dumps(report.to_json()))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
