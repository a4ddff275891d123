"""The heartbeat file of a worker, for probes: fresh while the event loop runs, also without a database."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import SettingsError
from flujo.services.project.project import find_project
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.heartbeat import HeartbeatFile
from flujo.services.runs.worker import Worker, WorkerOptions
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - it observes a file from outside, like a probe
            await asyncio.sleep(0.01)


def make_old(file: Path) -> None:
    os.utime(file, (0, 0))


def is_fresh(file: Path) -> bool:
    return file.exists() and time.time() - file.stat().st_mtime < 3600


async def test_the_file_is_touched_again_and_again_and_removed_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    file.touch()
    make_old(file)  # of a worker that was killed
    heartbeat = HeartbeatFile(file, every_s=0.01)
    heartbeat.begin()
    assert is_fresh(file)
    for _ in range(2):
        make_old(file)
        await until(lambda: is_fresh(file))
    await heartbeat.aclose()
    assert not file.exists()


async def test_a_file_that_cannot_be_touched_for_a_while_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, away = tmp_path / "run", tmp_path / "away"
    folder.mkdir()
    heartbeat = HeartbeatFile(folder / "heartbeat", every_s=0.01)
    heartbeat.begin()
    folder.rename(away)
    make_old(away / "heartbeat")
    await until(lambda: "cannot touch the heartbeat file" in caplog.text)
    away.rename(folder)
    await until(lambda: is_fresh(folder / "heartbeat"))
    await heartbeat.aclose()


async def test_a_worker_has_it_once_its_database_is_open(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    async with Workspace(find_project(tmp_path)) as workspace:
        options = WorkerOptions(heartbeat_file=file)
        worker = Worker(workspace, RecoveryPolicy(), lambda _: None, options)
        assert not is_fresh(file)
        working = asyncio.create_task(worker.work())
        await until(lambda: is_fresh(file))
        working.cancel()
        await asyncio.wait([working])
        assert is_fresh(file)  # while it finishes its runs
        await worker.aclose()
    assert not is_fresh(file)


@pytest.mark.parametrize("name", ["nowhere/heartbeat", "folder", "flujo.toml"])
async def test_a_file_that_cannot_be_the_heartbeat_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "flujo.toml").write_text("[blueprints]\n", "utf-8")
    async with Workspace(find_project(tmp_path)) as workspace:
        options = WorkerOptions(heartbeat_file=tmp_path / name)
        worker = Worker(workspace, RecoveryPolicy(), lambda _: None, options)
        with pytest.raises(SettingsError, match=f"--heartbeat-file .*{name}`") as refused:
            await worker.drain()
        await worker.aclose()
    assert refused.value.hint == "name a new file in a folder that this user can write to"
    assert (tmp_path / "flujo.toml").read_text("utf-8") == "[blueprints]\n"
    assert (tmp_path / "folder").is_dir()
