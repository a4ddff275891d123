"""`kill -9` amid background tasks and batches of items: each ends once, and its parent gets the result."""

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
from flujo.exceptions import RunNotFound
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flujo.domain.run import RunRecord

FLUJO = [sys.executable, "-m", "flujo"]
TASK = task_id(RunId("r"), StepPath("report"), 1)

pytestmark = pytest.mark.timeout(600)


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
    (tmp_path / "blueprints" / "spread.yaml").write_text(
        dedent(
            """
            version: "1"
            name: spread
            steps:
              - kind: map
                name: each
                over: "['a', 'b', 'slow', 'c', 'd']"
                max_concurrency: 2
                config: {executor: queue, batch_size: 2}
                steps: [{name: one, call: "skills.witness:touch", with: {name: "{{ item }}"}}]
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

    def is_amid() -> bool:
        is_slow = {"slow", "after"} <= set(lines(project))
        return is_slow and statuses(project)[0] is RunStatus.WAITING

    killed_when(is_amid, project, "run", "parent", "--run-id", "r")


def killed_when(is_amid: Callable[[], bool], project: Path, *words: str) -> None:
    """Start a command, and kill its process at a moment."""
    process = warm.Popen(
        [*FLUJO, *words],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while not is_amid():
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
    return record(project, RunId("r")), record(project, TASK)


def record(project: Path, run_id: RunId) -> RunRecord:
    """Return a run."""

    async def read() -> RunRecord:
        async with Workspace(find_project(project)) as workspace:
            return await (await workspace.store()).run(run_id)

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


def test_the_batches_of_a_worker_that_was_killed_are_executed_by_another_one(project: Path) -> None:
    begun = warm.run(
        [*FLUJO, "run", "spread", "--run-id", "r", "--paused-ok"],
        cwd=project,
        capture_output=True,
        check=False,
    )
    assert begun.returncode == 0, begun.stderr
    others = [task_id(RunId("r"), StepPath(path), 1) for path in ("each[0..1]", "each[4..4]")]

    def is_amid() -> bool:
        # A batch that is under way too would be executed again, and its item called twice.
        try:
            ended = all(record(project, each).status is RunStatus.COMPLETED for each in others)
        except RunNotFound:
            return False  # the last batch is launched when the first has ended
        return "slow" in lines(project) and ended

    killed_when(is_amid, project, "worker")
    (project / "go").touch()
    done = warm.run([*FLUJO, "worker", "--once"], cwd=project, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    run = record(project, RunId("r"))
    assert json.loads(run.output or b"null") == ["a", "b", "slow", "c", "d"]
    assert Counter(lines(project)) == {"a": 1, "b": 1, "slow": 2, "c": 1, "d": 1}
