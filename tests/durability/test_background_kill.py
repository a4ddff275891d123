"""`kill -9` of a `flujo run` with a background task: the task ends once, and its parent gets the result."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

import warm
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import task_id
from flujo.domain.run import RunStatus
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.run import RunRecord

FLUJO = [sys.executable, "-m", "flujo"]
TASK = task_id(RunId("r"), StepPath("report"), 1)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def project(tmp_path: Path, store_uri: str) -> Path:
    """Return a project whose steps each write a line to a file; `slow` waits for a file."""
    (tmp_path / "flujo.toml").write_text(
        f'state_uri = "{store_uri}"\n[blueprints]\nallow_callables = ["skills.*"]\n'
    )
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "witness.py").write_text(
        dedent(
            """
            import os
            import time


            def touch(name: str) -> str:
                with open("witness.log", "a") as file:
                    file.write(name + "\\n")
                while name == "slow" and not os.path.exists("go"):
                    time.sleep(0.01)
                return name
            """
        )
    )
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "child.yaml").write_text(
        dedent(
            """
            version: "1"
            name: child
            steps:
              - {name: first, call: "skills.witness:touch", with: {name: first}}
              - {name: slow, call: "skills.witness:touch", with: {name: slow}}
              - {name: last, call: "skills.witness:touch", with: {name: last}}
            """
        )
    )
    (tmp_path / "blueprints" / "parent.yaml").write_text(
        dedent(
            """
            version: "1"
            name: parent
            steps:
              - {kind: import, name: report, blueprint: ./child.yaml, config: {execution_mode: background}}
              - {name: after, call: "skills.witness:touch", with: {name: after}}
              - {kind: await, name: result, task: report}
              - {name: end, call: "skills.witness:touch", with: {name: end}}
            output: "{{ steps.result.output }}"
            """
        )
    )
    warm.run([*FLUJO, "migrate"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def lines(project: Path) -> list[str]:
    """Return what the steps have written."""
    log = project / "witness.log"
    return log.read_text().split() if log.exists() else []


def killed(project: Path) -> None:
    """Start the run, and kill its process while the parent waits for the task."""
    process = subprocess.Popen(
        [*FLUJO, "run", "parent", "--run-id", "r"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while not {"slow", "after"} <= set(lines(project)) or statuses(project)[0] != RunStatus.WAITING:
            assert process.poll() is None, "the process has ended by itself"
            assert time.monotonic() < until, lines(project)
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def statuses(project: Path) -> tuple[RunStatus, RunStatus]:
    """Return the status of the run and of its task."""
    run, task = records(project)
    return run.status, task.status


def records(project: Path) -> tuple[RunRecord, RunRecord]:
    """Return the run and its task."""

    async def read() -> tuple[RunRecord, RunRecord]:
        async with Workspace(find_project(project)) as workspace:
            store = await workspace.store()
            return await store.run(RunId("r")), await store.run(TASK)

    return asyncio.run(read())


@pytest.mark.parametrize("words", [["resume", "r"], ["worker", "--once"]], ids=["resume", "worker"])
def test_a_task_whose_process_was_killed_ends_once_and_its_parent_gets_the_result(
    project: Path, words: list[str]
) -> None:
    killed(project)
    assert statuses(project) == (RunStatus.WAITING, RunStatus.RUNNING)
    (project / "go").touch()
    done = warm.run([*FLUJO, *words], cwd=project, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    run, task = records(project)
    assert (run.status, task.status) == (RunStatus.COMPLETED, RunStatus.COMPLETED)
    assert json.loads(run.output or b"") == "last"
    assert Counter(lines(project)) == {"first": 1, "slow": 2, "last": 1, "after": 1, "end": 1}
