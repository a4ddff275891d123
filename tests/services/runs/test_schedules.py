"""Workers fire schedules: each time once, as the files and the database agree, and missed times as `catch_up` says."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.cron import newest_times
from flujo.domain.journal import RunId
from flujo.domain.run import Move, RunQuery, RunStatus, Write
from flujo.domain.schedule_records import ScheduleChange, ScheduleRecord
from flujo.domain.schedules import run_id_of
from flujo.services.inspection.schedule_client import ScheduleClient
from flujo.services.project.project import find_project
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.run_services import RunServices
from flujo.services.runs.schedules import Scheduler
from flujo.services.runs.worker import Worker, WorkerEvents
from flujo.services.workspace import Workspace
from flujo.state.sql.tables import schedules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DAY = 86_400.0
CRON = f"0 {int(time.time() // 3600 + 12) % 24} * * *"
"""Fires about twelve hours from now, so no time passes during a test."""
NIGHTLY = """\
version: "1"
name: nightly
input_schema: {{type: object, properties: {{text: {{type: string}}}}, required: [text]}}
schedule:
  cron: "{cron}"
  input: {{text: hello}}
  metadata: {{team: data}}
{more}
steps:
  - {{name: up, call: "skills.words:upper", with: {{text: "{{{{ input.text }}}}"}}}}
"""
PAUSING = """\
version: "1"
name: asking
schedule: {cron: "CRON", overlap: OVERLAP, catch_up: last}
steps:
  - {kind: hitl, name: ask, message: "Go on?"}
"""


@pytest.fixture
def folder(tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FLUJO_STATE_URI", raising=False)
    (tmp_path / "flujo.toml").write_text(
        f"state_uri = {store_uri!r}\n[blueprints]\nallow_callables = ['skills.*']\n"
    )
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "words.py").write_text("def upper(text: str) -> str:\n    return text.upper()\n")
    return tmp_path


@pytest.fixture
async def workspace(folder: Path) -> AsyncIterator[Workspace]:
    _write(folder)
    async with Workspace(find_project(folder)) as opened:
        yield opened


def _write(folder: Path, more: str = "", text: str = NIGHTLY) -> None:
    (folder / "blueprints" / "nightly.yaml").write_text(
        text.format(more=more, cron=CRON) if text is NIGHTLY else text.replace("CRON", CRON)
    )


class _Working:
    """A worker of a workspace, and its events."""

    def __init__(self, workspace: Workspace) -> None:
        self.events: list[WorkerEvents] = []
        self._worker = Worker(workspace, RecoveryPolicy(every_s=0.05), self.events.append)

    async def drain(self) -> list[str]:
        """Do what is due; return the events as words."""
        self.events.clear()
        await self._worker.drain()
        return [f"{each.event} {each.run_id or each.detail}" for each in self.events]

    async def aclose(self) -> None:
        await self._worker.aclose()


async def _drained(workspace: Workspace) -> list[str]:
    async with aclosing(_Working(workspace)) as working:
        return await working.drain()


async def _record(workspace: Workspace) -> ScheduleRecord:
    [record] = (await (await workspace.store()).schedules()).records
    return record


async def _due(workspace: Workspace, days_ago: int = 0) -> list[float]:
    """Let the schedule be due since some days; return the times that have passed, the oldest first."""
    store = await workspace.store()
    there = await store.schedules()
    [record] = there.records
    times = newest_times(CRON, "UTC", there.now - 99 * DAY, there.now, days_ago + 1)
    await store.change_schedule(ScheduleChange(before=record, after=replace(record, next_at=times[0])))
    return times


async def _runs(workspace: Workspace) -> dict[str, str]:
    runs = await (await workspace.store()).runs(RunQuery(limit=1000))
    return {run.run_id: str(run.status) for run in sorted(runs, key=lambda run: run.run_id)}


def _id(time: float, name: str = "nightly") -> str:
    return run_id_of(name, time)


async def test_a_worker_that_starts_adds_the_schedule_and_fires_nothing_yet(workspace: Workspace) -> None:
    assert await _drained(workspace) == []
    record, now = await _record(workspace), (await (await workspace.store()).schedules()).now
    assert record.name == "nightly"
    assert record.next_at is not None
    assert now < record.next_at <= now + DAY
    assert (record.last_at, record.is_paused) == (None, False)
    assert await _runs(workspace) == {}


async def test_a_due_time_starts_one_run_which_the_worker_executes(workspace: Workspace) -> None:
    await _drained(workspace)
    [due] = await _due(workspace)
    said = await _drained(workspace)
    assert said == [f"fired {_id(due)}", f"begun {_id(due)}", f"ended {_id(due)}"]
    run = await (await workspace.store()).run(RunId(_id(due)))
    assert (run.status, run.output) == (RunStatus.COMPLETED, b'"HELLO"')
    assert canonical.decode(run.input) == {"text": "hello"}
    assert run.metadata == {"team": "data", "schedule": "nightly"}
    record = await _record(workspace)
    assert (record.next_at, record.last_at, record.last_run) == (due + DAY, due, _id(due))
    assert await _drained(workspace) == []


async def test_workers_that_look_at_once_fire_each_time_once(folder: Path, workspace: Workspace) -> None:
    _write(folder, "  catch_up: all\n  overlap: allow")
    chance = random.Random(16)
    spaces = [Workspace(find_project(folder)) for _ in range(3)]
    fired: list[str] = []

    def tell(event: str, run_id: str, _detail: str) -> None:
        fired.extend([run_id] if event == "fired" else [])

    async def services(space: Workspace) -> Any:
        return await RunServices.of_project(space)

    def made(space: Workspace) -> Scheduler:
        return Scheduler(space, lambda: services(space), tell, every_s=1)

    try:
        await made(spaces[0]).look()
        times = await _due(spaces[0], days_ago=6)
        for _ in range(4):
            looking = [asyncio.create_task(made(chance.choice(spaces)).look()) for _ in range(4)]
            await asyncio.sleep(chance.random() / 50)
            looking[chance.randrange(4)].cancel()  # a worker that stops in the middle
            await asyncio.gather(*looking, return_exceptions=True)
        await made(spaces[1]).look()
        assert await _runs(spaces[2]) == {_id(each): "accepted" for each in times}
        assert len(fired) == len(set(fired))
        assert (await _record(spaces[0])).next_at == times[-1] + DAY
    finally:
        for space in spaces:
            await space.aclose()


@pytest.mark.parametrize(
    ("catch_up", "fires"), [("none", []), ("last", [3]), ("all\n  overlap: allow", [0, 1, 2, 3])]
)
async def test_times_that_passed_without_a_worker_are_caught_up(
    folder: Path, workspace: Workspace, catch_up: str, fires: list[int]
) -> None:
    _write(folder, f"  catch_up: {catch_up}")
    await _drained(workspace)
    times = await _due(workspace, days_ago=3)
    said = await _drained(workspace)
    assert await _runs(workspace) == {_id(times[number]): "completed" for number in fires}
    skipping = "schedule nightly was late: skipped the times that it missed"
    assert (skipping in said) is (len(fires) < 4)
    assert (await _record(workspace)).next_at == times[-1] + DAY


async def test_another_definition_is_not_fired_and_is_reported_once(
    folder: Path, workspace: Workspace
) -> None:
    await _drained(workspace)
    [due] = await _due(workspace)
    _write(folder, "  jitter: 1s")
    differs = (
        "schedule this worker does not fire nightly, which differs from blueprints/nightly.yaml; "
        "`flujo schedules apply` updates it"
    )
    async with aclosing(_Working(workspace)) as working:
        assert await working.drain() == [differs]
        assert await working.drain() == []
    assert await _runs(workspace) == {}
    await ScheduleClient(workspace).apply()
    assert f"ended {_id(due)}" in await _drained(workspace), "the time that was due is not lost"


async def test_other_files_with_the_same_definition_are_not_fired(folder: Path, workspace: Workspace) -> None:
    await _drained(workspace)
    await _due(workspace)
    path = folder / "blueprints" / "nightly.yaml"
    path.write_text(path.read_text().replace("name: up", "name: upper"))
    [said] = await _drained(workspace)
    assert "differs from blueprints/nightly.yaml" in said
    assert await _runs(workspace) == {}


async def test_a_schedule_that_left_the_files_stays_until_apply(folder: Path, workspace: Workspace) -> None:
    await _drained(workspace)
    await _due(workspace)
    path = folder / "blueprints" / "nightly.yaml"
    path.unlink()
    (folder / "blueprints" / "other.yaml").write_text(
        PAUSING.replace("OVERLAP", "skip").replace("CRON", CRON)
    )
    said = await _drained(workspace)
    assert said == [
        "schedule this worker does not fire nightly, which is not in its files; "
        "`flujo schedules apply` removes it"
    ]
    done = await ScheduleClient(workspace).apply()
    assert [(one.name, one.change) for one in done] == [("asking", "unchanged"), ("nightly", "removed")]
    assert [record.name for record in (await (await workspace.store()).schedules()).records] == ["asking"]


async def test_a_paused_schedule_fires_nothing_and_does_not_catch_up(workspace: Workspace) -> None:
    await _drained(workspace)
    await _due(workspace, days_ago=2)
    async with ScheduleClient(workspace, by="ada") as client:
        await client.pause("nightly")
        assert await _drained(workspace) == []
        await client.resume("nightly")
        assert await _drained(workspace) == []
        record, now = await _record(workspace), (await (await workspace.store()).schedules()).now
        assert record.next_at is not None
        assert record.next_at > now
        acts = await client.acts("nightly")
        assert [str(act.verb) for act in acts] == ["schedule_resume", "schedule_pause"]
        assert {act.actor.by for act in acts} == {"ada"}


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
async def test_a_time_meets_a_run_that_waits_for_a_human(
    folder: Path, workspace: Workspace, overlap: str
) -> None:
    _write(folder, text=PAUSING.replace("OVERLAP", overlap))
    await _drained(workspace)
    times = await _due(workspace, days_ago=1)
    earlier, later = _id(times[0], "asking"), _id(times[1], "asking")
    store = await workspace.store()
    [record] = (await store.schedules()).records
    await ScheduleClient(workspace).trigger("asking", _iso(times[0]))
    await store.change_schedule(
        ScheduleChange(before=await _record(workspace), after=replace(record, next_at=times[1]))
    )
    said = await _drained(workspace)
    blocked = {earlier: "accepted", later: "accepted"}
    if overlap == "allow":
        assert set(await _runs(workspace)) == set(blocked)
        return
    assert set(await _runs(workspace)) == {earlier}
    record = await _record(workspace)
    skipped = f"schedule {later} is skipped: run {earlier} has not ended"
    assert (skipped in said) is (overlap == "skip")
    assert record.next_at == times[1] + (DAY if overlap == "skip" else 0)
    assert await _runs(workspace) == {earlier: "paused"}
    claimed = await store.claim(RunId(earlier), statuses=[RunStatus.PAUSED])
    ending = Move(status=RunStatus.CANCELLED)
    await store.write(Write(run_id=claimed.run_id, fence=claimed.fence, move=ending))
    await _drained(workspace)
    assert set(await _runs(workspace)) == ({earlier} if overlap == "skip" else {earlier, later})


async def test_a_run_that_cannot_start_leaves_the_time_due(folder: Path, workspace: Workspace) -> None:
    (folder / "skills" / "state.py").write_text(
        "from flujo import PipelineContext\n\n\nclass Ctx(PipelineContext):\n    team: str\n"
    )
    _write(folder, "  context: {tem: a}\ncontext: skills.state:Ctx")
    await _drained(workspace)
    [due] = await _due(workspace)
    async with aclosing(_Working(workspace)) as working:
        [said] = await working.drain()
        assert said.startswith("schedule nightly cannot start a run: ")
        assert "tem" in said
        assert await working.drain() == []
    assert (await _record(workspace)).next_at == due
    _write(folder, "  context: {team: a}\ncontext: skills.state:Ctx")
    await ScheduleClient(workspace).apply()
    await _drained(workspace)
    assert await _runs(workspace) == {_id(due): "completed"}


async def test_a_broken_blueprint_does_not_stop_the_schedules_of_others(
    folder: Path, workspace: Workspace
) -> None:
    await _drained(workspace)
    [due] = await _due(workspace)
    (folder / "blueprints" / "broken.yaml").write_text("schedule: 3\nname: x\n")
    said = await _drained(workspace)
    assert said[0].startswith("schedule blueprints/broken.yaml is left out: ")
    assert await _runs(workspace) == {_id(due): "completed"}


async def test_a_damaged_schedule_stops_no_recovery(folder: Path, workspace: Workspace) -> None:
    await _drained(workspace)
    await ScheduleClient(workspace).trigger("nightly", "2026-11-28T02:00")
    store = await workspace.store()
    await store.write_apart(lambda connection: connection.execute(schedules.update().values(digest="x")))  # type: ignore[attr-defined]  # of the store in SQL
    async with aclosing(_Working(workspace)) as working:
        said = await working.drain()
        assert said[0].startswith("schedule no schedule is fired: schedule nightly is corrupt")
        assert said[-1] == "ended nightly-20261128T020000Z"
        assert await working.drain() == []


async def test_a_run_goes_to_the_queue_of_its_schedule(folder: Path, workspace: Workspace) -> None:
    _write(folder, "  queue: night\n  priority: 2")
    fired: list[str] = []

    async def services() -> Any:
        return await RunServices.of_project(workspace)

    def made() -> Scheduler:
        return Scheduler(workspace, services, lambda event, run, _: fired.append(f"{event} {run}"), every_s=1)

    await made().look()
    [due] = await _due(workspace)
    assert await made().look() == 1
    assert fired == [f"fired {_id(due)}"]
    run = await (await workspace.store()).run(RunId(_id(due)))
    assert run.queued is not None
    assert (run.queued.queue, run.queued.priority, run.status) == ("night", 2, RunStatus.ACCEPTED)


async def test_a_schedule_of_flujo_toml_runs_a_blueprint(folder: Path) -> None:
    (folder / "blueprints" / "shout.yaml").write_text(
        NIGHTLY.format(more="", cron=CRON).replace("name: nightly", "name: shout").replace("schedule:", "x:")
    )
    text = (folder / "blueprints" / "shout.yaml").read_text()
    begin, end = text.index("x:"), text.index("steps:")
    (folder / "blueprints" / "shout.yaml").write_text(text[:begin] + text[end:])
    toml = folder / "flujo.toml"
    toml.write_text(
        toml.read_text()
        + f"[schedules.hourly]\nblueprint = 'shout'\ncron = '{CRON}'\ninput = {{text = 'hey'}}\n"
    )
    async with Workspace(find_project(folder)) as workspace:
        await _drained(workspace)
        [due] = await _due(workspace)
        await _drained(workspace)
        run = await (await workspace.store()).run(RunId(_id(due, "hourly")))
        assert (run.pipeline, run.output) == ("shout", b'"HEY"')


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()
