"""The process of `flujo serve`."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

import warm
from flujo.domain.acts import Actor, Via
from flujo.domain.steps import HumanInTheLoopStep
from flujo.exceptions import DatabaseMissing, LoginMissing, SettingsError
from flujo.serve.server import run
from flujo.services.access.tokens import create
from flujo.services.inspection.task_client import TaskClient
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.settings_serve import ServeTable, UserTable
from support import pipeline, start

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.queues import WorkerRecord


ASK = """\
version: "1"
name: ask
steps:
  - {kind: hitl, name: ask, message: "Send?"}
"""


async def _begin(root: Path) -> str:
    """Begin a run that waits for an answer, and return one that waits in the default queue."""
    (root / "blueprints").mkdir()
    (root / "blueprints/ask.yaml").write_text(ASK)
    async with Workspace(find_project(root)) as workspace:
        await start(pipeline(HumanInTheLoopStep("ask", message="Send?")), await workspace.store())
        return (await TaskClient(workspace).start_task("ask")).run_id


async def _workers(root: Path) -> list[WorkerRecord]:
    async with Workspace(find_project(root)) as workspace:
        return await TaskClient(workspace).workers()


def test_the_command_serves_executes_and_ends_with_its_streams_and_worker_at_sigterm(root: Path) -> None:
    queued = asyncio.run(_begin(root))
    words = [sys.executable, "-m", "flujo", "serve", "--port", "0", "--workers", "2"]
    with warm.Popen(words, cwd=root, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = re.search(r"http://127\.0\.0\.1:\d+/", process.stderr.readline())
        assert said is not None
        assert httpx.get(f"{said[0]}healthz").json() == {"status": "ok"}
        while "Waits for an answer" not in httpx.get(f"{said[0]}runs/{queued}").text:
            time.sleep(0.05)  # until the worker of the server has executed it
        assert [worker.concurrency for worker in asyncio.run(_workers(root))] == [2]
        with httpx.stream("GET", f"{said[0]}runs/run/live") as following:
            lines = following.iter_lines()
            assert next(lines) == "id: 0-0"
            process.send_signal(signal.SIGTERM)
            assert "event: ended" not in lines
        assert process.stderr.read() == "", "it has waited for nothing"
    assert asyncio.run(_workers(root)) == [], "the worker has said that it ends"
    assert process.returncode == -signal.SIGTERM, "a shell shows it as 143"


async def test_a_port_that_is_taken_is_an_error_that_names_another_one(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}: [^(]*$") as refused:
            await run(find_project(root), ServeTable(port=port), on_start=lambda _: None)
    assert "--port 0" in str(refused.value.hint)


def test_a_folder_outside_of_a_project_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(DatabaseMissing, match="is not in a Flujo project"):
        asyncio.run(run(find_project(tmp_path), ServeTable(port=0), on_start=lambda _: None))
    assert not list(tmp_path.iterdir())


async def test_it_listens_for_others_only_with_a_login_or_a_token(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project, everywhere = find_project(root), ServeTable(host="0.0.0.0", port=0)
    with pytest.raises(LoginMissing, match=r"others could reach 0\.0\.0\.0:0") as refused:
        await run(project, everywhere, on_start=lambda _: None)
    assert "hash-password" in str(refused.value.hint)

    def stop(_: str) -> None:
        raise _StoppedError

    async with Workspace(project) as workspace:
        await create(await workspace.store(), "billing", "operator", actor=Actor("ada", Via.CLI))
    with pytest.raises(_StoppedError):
        await run(project, everywhere, on_start=stop)
    assert "programs can use the API, and people cannot open pages" in caplog.text
    user = UserTable(role="viewer", password_hash="$argon2id$")
    with pytest.raises(_StoppedError):
        await run(project, everywhere.model_copy(update={"users": {"ada": user}}), on_start=stop)
    assert "passwords cross the network readable" in caplog.text


class _StoppedError(Exception):
    """The server would serve now."""
