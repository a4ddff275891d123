"""A workspace opens its store once, on first use, and nothing after it is closed."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from flujo.blueprint.closure import Closure
from flujo.exceptions import RunnerClosed, SecretInValue, StateError
from flujo.governance.sink import GATE
from flujo.services.admin.doctor import durability_of
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace, open_store
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

pytestmark = pytest.mark.usefixtures("is_left_alone")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("FLUJO_STATE_URI", raising=False)
    return Workspace(find_project(tmp_path))


@pytest.fixture
def is_left_alone() -> Iterator[None]:
    """Fail a test that leaves threads of a store behind, which end shortly after the store is closed."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread.name


async def test_concurrent_first_uses_share_one_store(workspace: Workspace) -> None:
    first, second, third = await asyncio.gather(*(workspace.store() for _ in range(3)))
    assert first is second is third
    await workspace.aclose()


async def test_a_closed_workspace_opens_nothing(workspace: Workspace) -> None:
    await workspace.store()
    await workspace.aclose()
    await workspace.aclose()
    for used in (workspace.store(), workspace.answer_cache()):
        with pytest.raises(RunnerClosed, match="workspace"):
            await used


async def test_closing_while_the_store_opens_leaves_no_store_open(workspace: Workspace) -> None:
    opening = asyncio.ensure_future(workspace.store())
    await asyncio.sleep(0)  # it has begun to open, in a thread
    await asyncio.gather(workspace.aclose(), workspace.aclose())
    with pytest.raises(RunnerClosed):
        await opening


async def test_closing_continues_when_its_caller_is_cancelled(workspace: Workspace) -> None:
    await workspace.store()
    closing = asyncio.ensure_future(workspace.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await workspace.aclose()


@pytest.mark.guarantee("G30")
@pytest.mark.parametrize(("level", "used"), [("full", 2), ("relaxed", 1)])
async def test_a_sqlite_file_is_used_at_the_durability_that_doctor_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, used: int
) -> None:
    monkeypatch.delenv("FLUJO_STATE_URI", raising=False)
    (tmp_path / "flujo.toml").write_text(f'[settings]\ndurability = "{level}"\n')
    project = find_project(tmp_path)
    store = await open_store(project.state_uri, project.settings)
    assert isinstance(store, SqlStateStore)
    assert await store.read(_synchronous) == used
    await store.aclose()
    assert f"synchronous={('OFF', 'NORMAL', 'FULL')[used]}" in durability_of(project).words


def _synchronous(connection: sa.Connection) -> object:
    return connection.exec_driver_sql("PRAGMA synchronous").scalar()


async def test_the_password_in_a_url_given_to_a_program_is_a_known_secret(workspace: Workspace) -> None:
    with pytest.raises(StateError):
        await open_store("postgresql://ada:correct-horse-battery@127.0.0.1:1/db", workspace.project.settings)
    with pytest.raises(SecretInValue, match="password of the database"):
        GATE.admit(b'"correct-horse-battery"', "input")


def test_the_pinned_blueprints_that_were_read_last_are_kept(workspace: Workspace) -> None:
    def closure(number: int) -> Closure:
        text = f'version: "1"\nname: b\nsteps:\n  - {{kind: hitl, name: ask, message: "{number}?"}}\n'
        return Closure("b.yaml", {"b.yaml": text.encode()})

    first = workspace.load_pinned(closure(0), is_read=True)
    assert workspace.load_pinned(closure(0), is_read=True) is first
    assert workspace.load_pinned(closure(0)) is not first
    for number in range(1, 16):
        workspace.load_pinned(closure(number), is_read=True)
    assert workspace.load_pinned(closure(0), is_read=True) is first  # and it is the newest now
    workspace.load_pinned(closure(16), is_read=True)
    assert workspace.load_pinned(closure(0), is_read=True) is first
    for number in range(17, 33):
        workspace.load_pinned(closure(number), is_read=True)
    assert workspace.load_pinned(closure(0), is_read=True) is not first
