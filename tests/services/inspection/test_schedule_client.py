"""The client of schedules: what lists show, what `apply` changes, and runs that a person triggers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.run import RunQuery
from flujo.domain.schedule_records import ScheduleChange
from flujo.exceptions import (
    RunnerClosed,
    ScheduleBusy,
    ScheduleConflict,
    ScheduleNotFound,
    SettingsError,
)
from flujo.services.inspection.schedule_client import ScheduleClient
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NIGHTLY = """\
version: "1"
name: nightly
schedule: {cron: "30 2 * * *", timezone: Europe/Berlin, input: a}
steps:
  - {kind: hitl, name: ask, message: "Go on?"}
"""


@pytest.fixture
def folder(tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FLUJO_STATE_URI", raising=False)
    (tmp_path / "flujo.toml").write_text(f"state_uri = {store_uri!r}\n")
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "nightly.yaml").write_text(NIGHTLY)
    return tmp_path


@pytest.fixture
async def workspace(folder: Path) -> AsyncIterator[Workspace]:
    async with Workspace(find_project(folder)) as opened:
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> ScheduleClient:
    return ScheduleClient(workspace, by="ada")


def _edit(folder: Path, old: str, new: str) -> None:
    path = folder / "blueprints" / "nightly.yaml"
    path.write_text(path.read_text().replace(old, new))


async def _changes(client: ScheduleClient, **options: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {one.name: (one.change, one.keys) for one in await client.apply(**options)}


async def test_a_schedule_of_the_files_is_applied(client: ScheduleClient) -> None:
    [before] = await client.list_schedules()
    assert (before.name, before.state, before.place) == ("nightly", "not applied", "blueprints/nightly.yaml")
    assert await _changes(client, dry_run=True) == {"nightly": ("added", ())}
    assert (await client.get("nightly")).state == "not applied", "nothing was changed"
    assert await _changes(client) == {"nightly": ("added", ())}
    after = await client.get("nightly")
    assert (after.state, after.next_at, after.pipeline) == ("active", before.next_at, "nightly")
    assert await _changes(client) == {"nightly": ("unchanged", ())}
    [act] = await client.acts("nightly")
    assert (str(act.verb), act.actor.by) == ("schedule_apply", "ada")


async def test_a_changed_schedule_keeps_its_pause_and_its_next_time(
    client: ScheduleClient, folder: Path
) -> None:
    await client.apply()
    await client.pause("nightly")
    await client.pause("nightly")
    before = await client.get("nightly")
    _edit(folder, "input: a", "input: b, jitter: 5m")
    assert (await client.get("nightly")).state == "differs"
    assert await _changes(client) == {"nightly": ("changed", ("input", "jitter_s", "files"))}
    after = await client.get("nightly")
    assert (after.state, after.next_at) == ("paused", before.next_at)
    assert after.schedule.input == "b"
    _edit(folder, "30 2", "45 3")
    assert await _changes(client) == {"nightly": ("changed", ("cron", "files"))}
    moved = await client.get("nightly")
    assert moved.next_at != before.next_at
    assert [str(act.verb) for act in await client.acts("nightly")] == [
        *("schedule_apply", "schedule_apply", "schedule_pause", "schedule_apply")
    ], "a second pause changes nothing"


async def test_the_schedules_of_other_projects_are_left_alone(
    client: ScheduleClient, folder: Path, store_uri: str
) -> None:
    await client.apply()
    toml = folder / "flujo.toml"
    toml.write_text(f"state_uri = {store_uri!r}\n[project]\nname = 'other'\n")
    async with Workspace(find_project(folder)) as other:
        with pytest.raises(ScheduleConflict, match="belongs to project ''"):
            await ScheduleClient(other).apply()
        _edit(folder, "name: nightly", "name: elsewhere")
        assert await _changes(ScheduleClient(other)) == {"elsewhere": ("added", ())}
        states = {view.name: view.state for view in await ScheduleClient(other).list_schedules()}
        assert states == {"elsewhere": "active", "nightly": "not in files"}


async def test_a_triggered_run_is_accepted_once_for_each_time(
    client: ScheduleClient, workspace: Workspace
) -> None:
    await client.apply()
    before = await client.get("nightly")
    first = await client.trigger("nightly", "2026-11-28T02:30")
    again = await client.trigger("nightly", datetime(2026, 11, 28, 1, 30, tzinfo=UTC))
    assert (first.run_id, first.existed) == ("nightly-20261128T013000Z", False), "in the schedule's zone"
    assert (again.run_id, again.existed) == (first.run_id, True)
    store = await workspace.store()
    [run] = await store.runs(RunQuery())
    assert (run.run_id, run.input, run.owner) == (first.run_id, b'"a"', None)
    assert run.metadata == {"schedule": "nightly"}
    assert (await client.get("nightly")).next_at == before.next_at
    assert [str(act.verb) for act in await client.acts("nightly")] == ["schedule_trigger", "schedule_apply"]


async def test_a_trigger_waits_for_no_run_that_has_not_ended(client: ScheduleClient, folder: Path) -> None:
    await client.apply()
    first = await client.trigger("nightly")
    with pytest.raises(ScheduleBusy, match=first.run_id) as caught:
        await client.trigger("nightly", "2026-11-28T02:30")
    assert caught.value.run_id == first.run_id
    _edit(folder, "input: a", "input: a, overlap: allow")
    with pytest.raises(ScheduleConflict, match="not the one that these files define"):
        await client.trigger("nightly", "2026-11-28T02:30")
    await client.apply()
    assert not (await client.trigger("nightly", "2026-11-28T02:30")).existed


async def test_the_next_times_are_those_of_the_zone(client: ScheduleClient) -> None:
    times = await client.next_times("nightly", 400)
    assert len(times) == 400
    assert times == sorted(set(times))
    assert {f"{each:%H:%M}" for each in times} <= {"02:30", "03:00"}
    assert len({each.utcoffset() for each in times}) == 2
    assert len({each.date() for each in times}) == 400


async def test_a_schedule_whose_time_has_passed_long_ago_is_late(
    client: ScheduleClient, workspace: Workspace
) -> None:
    await client.apply()
    store = await workspace.store()
    there = await store.schedules()
    [record] = there.records
    late = replace(record, next_at=there.now - 600, last_at=there.now - 90_000, last_run=RunId("x"))
    await store.change_schedule(ScheduleChange(before=record, after=late))
    view = await client.get("nightly")
    assert (view.state, view.skipped, view.last_run) == ("late", True, "x")
    [record] = (await store.schedules()).records
    await store.change_schedule(ScheduleChange(before=record, after=replace(record, next_at=None)))
    assert (await client.get("nightly")).state == "ended"
    assert await client.next_times("nightly") == []


async def test_a_wrong_call_is_refused_with_a_hint(client: ScheduleClient) -> None:
    await client.apply()
    for call in (
        client.get("nigtly"),
        client.pause("nigtly"),
        client.resume("nigtly"),
        client.trigger("nigtly"),
    ):
        with pytest.raises(ScheduleNotFound) as caught:
            await call
        assert "nightly" in (caught.value.hint or "")
    wrong: list[Any] = [
        client.trigger("nightly", "soon"),
        client.trigger("nightly", 5),  # type: ignore[arg-type]
        client.next_times("nightly", 0),
        client.get(3),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises(SettingsError):
            await call
    with pytest.raises(SettingsError, match="not a `Workspace`"):
        ScheduleClient("sqlite:///x")  # type: ignore[arg-type]
    async with ScheduleClient() as closed:
        pass
    with pytest.raises(RunnerClosed):
        await closed.list_schedules()
