"""Workers delete old runs as `[retention]` says, one of them each hour."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from flujo.domain.acts import Via
from flujo.domain.run import RunStatus
from flujo.exceptions import SettingsError
from flujo.services.admin.retention import Retention
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace, open_store
from flujo.settings import load
from flujo.state.sql.tables import acts, outbox
from flujo.testing.store_suite import move, new_run

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.state.store import SqlStateStore

SETTINGS = '[retention]\ncompleted = "30d"\nfailed = "90d"\n'
AGES_D = {"completed-old": 31, "completed-new": 29, "failed-old": 91, "failed-new": 31, "cancelled-old": 900}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "flujo.toml").write_text(SETTINGS)
    return tmp_path


async def filled(root: Path) -> None:
    """Make runs of several ages."""
    async with Workspace(find_project(root)) as workspace:
        store = await workspace.store()
        for name in AGES_D:
            run = await store.accept(new_run(name), {})
            await store.write(move(run, RunStatus(name.partition("-")[0])))
    with closing(sqlite3.connect(root / ".flujo/state.db")) as database, database:
        for name, days in AGES_D.items():
            changed = "UPDATE runs SET created_at = 0, updated_at = updated_at - ? WHERE run_id = ?"
            database.execute(changed, (days * 86400, name))


def left(root: Path) -> set[str]:
    with closing(sqlite3.connect(root / ".flujo/state.db")) as database:
        return {run for (run,) in database.execute("SELECT run_id FROM runs")}


async def test_each_status_has_its_age_and_the_others_are_kept(root: Path) -> None:
    await filled(root)
    async with Workspace(find_project(root)) as workspace:
        duty = Retention(workspace)
        assert await duty.look() == 1
        await duty.settled()
        assert await duty.look() == 0
        await duty.aclose()
    assert left(root) == {"completed-new", "failed-new", "cancelled-old"}
    with closing(sqlite3.connect(root / ".flujo/state.db")) as database:
        recorded = database.execute("SELECT by, via, object, before FROM acts ORDER BY id").fetchall()
    assert [row[:3] for row in recorded] == [
        ("retention", Via.WORKER, "completed"),
        ("retention", Via.WORKER, "failed"),
    ]
    assert [json.loads(row[3]) for row in recorded] == [["completed-old"], ["failed-old"]]


async def test_of_several_workers_one_deletes_within_an_hour(root: Path) -> None:
    await filled(root)
    async with Workspace(find_project(root)) as one, Workspace(find_project(root)) as other:
        duties = [Retention(one), Retention(other), Retention(other)]
        assert sum(await asyncio.gather(*(duty.look() for duty in duties))) == 1
        for duty in duties:
            await duty.aclose()
        store = await one.store()
        assert not await store.take_turn("retention", 3600)
        assert await store.take_turn("retention", 0)
        assert await store.take_turn("another", 3600)


async def test_one_store_takes_a_turn_on_each_database(store_uri: str) -> None:
    stores = [await open_store(store_uri, load()) for _ in range(3)]
    assert sum(await asyncio.gather(*(store.take_turn("retention", 3600) for store in stores))) == 1
    for store in stores:
        await store.aclose()


async def test_a_project_without_ages_deletes_nothing(tmp_path: Path) -> None:
    async with Workspace(find_project(tmp_path)) as workspace:
        assert await Retention(workspace).look() == 0
    assert not (tmp_path / ".flujo").exists()


@pytest.mark.parametrize("age", ['"30"', "30", '"0d"', '"30 days"', "true"])
def test_an_age_needs_a_unit(root: Path, age: str) -> None:
    (root / "flujo.toml").write_text(f"[retention]\ncompleted = {age}\n")
    with pytest.raises(SettingsError, match=r"flujo.toml:2: .*write 30d, 12h, 90m or 45s"):
        load(root / "flujo.toml")


def test_a_status_that_is_never_deleted_is_an_error(root: Path) -> None:
    (root / "flujo.toml").write_text('[retention]\npaused = "1d"\n')
    with pytest.raises(SettingsError, match="unknown key `paused`"):
        load(root / "flujo.toml")


async def test_old_messages_are_deleted_with_the_runs_or_before(store_uri: str) -> None:
    store: SqlStateStore = await open_store(store_uri, load())  # type: ignore[assignment]
    names = ("delivered", "given-up", "pending", "fresh")
    values = {
        "target": "ops",
        "event": "failed",
        "payload": b"{}",
        "digest": b"",
        "tries": 1,
        "available_at": 0.0,
    }
    old = {
        "delivered": {"delivered_at": 1.0},
        "given-up": {"given_up_at": 1.0},
        "fresh": {"delivered_at": 4e9},
    }

    def insert(connection: object) -> None:
        for name in names:
            row = {"error": name, "created_at": 1.0, **values, **old.get(name, {})}
            connection.execute(outbox.insert().values(row))  # type: ignore[attr-defined]

    await store.write_apart(insert)
    gone = [total async for total in store.purge([], 1.0, batch=1)][-1]
    assert gone.messages == 2
    rows = await store.read(lambda connection: connection.execute(outbox.select()).all())
    assert {row.error for row in rows} == {"pending", "fresh"}
    assert not await store.read(lambda connection: connection.execute(acts.select()).all())
    await store.aclose()
