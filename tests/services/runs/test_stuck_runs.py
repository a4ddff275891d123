"""A worker warns of runs that wait without a reason, once for each."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from flujo.domain.run import RunStatus
from flujo.services.project.project import find_project
from flujo.services.runs import stuck_runs
from flujo.services.runs.stuck_runs import StuckRuns
from flujo.services.workspace import Workspace
from flujo.testing.store_suite import move, new_run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_run_that_waits_for_nothing_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "flujo.toml").write_text("")
    async with Workspace(find_project(tmp_path)) as workspace:
        store = await workspace.store()
        run = await store.accept(new_run("lost"), {})
        await store.write(move(run, RunStatus.WAITING))
        await StuckRuns(workspace).look()
        assert caplog.messages == []  # the process has just begun
        monkeypatch.setattr(stuck_runs, "EVERY_S", 0.0)
        duty = StuckRuns(workspace)
        for _ in range(2):
            assert await duty.look() == 0
        [line] = caplog.messages
        assert "run lost of" in line
        assert "waits for nothing; `flujo tasks show lost` shows it" in line
        with closing(sqlite3.connect(tmp_path / ".flujo/state.db")) as database, database:
            database.execute("UPDATE runs SET status = 'cancelled'")
        await duty.look()
        assert len(caplog.messages) == 1
