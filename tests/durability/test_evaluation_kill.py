"""`kill -9` between the answer of a run and its score: the score is there once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

import warm
from flujo.domain.evaluations import EvaluationQuery, evaluation_id
from flujo.domain.journal import RunId
from flujo.domain.paths import ROOT
from flujo.domain.run import RunStatus
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.evaluations import Evaluation

FLUJO = [sys.executable, "-m", "flujo"]
SCORE = evaluation_id(RunId("r"), ROOT, "judge")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def project(tmp_path: Path, store_uri: str) -> Path:
    """Return a project whose evaluator writes a line to a file, and waits for another file."""
    (tmp_path / "flujo.toml").write_text(
        f'state_uri = "{store_uri}"\n[blueprints]\nallow_callables = ["skills.*"]\n'
        '[evaluation]\nenabled = true\n[evaluation.evaluators.judge]\ncall = "skills.judging:judge"\n'
    )
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "judging.py").write_text(
        dedent(
            """
            import os
            import time


            def greet(name: str) -> str:
                return f"hello {name}"


            def judge(output: str) -> float:
                with open("witness.log", "a") as file:
                    file.write("judged\\n")
                while not os.path.exists("go"):
                    time.sleep(0.01)
                return 0.5
            """
        )
    )
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "say.yaml").write_text(
        dedent(
            """
            version: "1"
            name: say
            input_schema: {type: string}
            steps: [{name: greet, call: "skills.judging:greet", with: {name: "{{ input }}"}}]
            """
        )
    )
    warm.run([*FLUJO, "migrate"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def found(project: Path) -> tuple[RunStatus, RunStatus, list[Evaluation]]:
    """Return the status of the run and of its evaluation, and the scores."""

    async def read() -> tuple[RunStatus, RunStatus, list[Evaluation]]:
        async with Workspace(find_project(project)) as workspace:
            store = await workspace.store()
            run, judging = await store.run(RunId("r")), await store.run(SCORE)
            return run.status, judging.status, await store.evaluations(EvaluationQuery())

    return asyncio.run(read())


def test_a_process_that_is_killed_before_the_score_leaves_it_to_a_worker(project: Path) -> None:
    process = warm.Popen(
        [*FLUJO, "run", "say", "-i", "ana", "--run-id", "r"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while not (project / "witness.log").exists():
            assert process.poll() is None, "the process has ended by itself"
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert found(project) == (RunStatus.COMPLETED, RunStatus.RUNNING, [])
    (project / "go").touch()
    for _ in range(2):
        done = warm.run(
            [*FLUJO, "worker", "--once"], cwd=project, capture_output=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
    run, judging, scores = found(project)
    assert (run, judging) == (RunStatus.COMPLETED, RunStatus.COMPLETED)
    assert [(each.key, each.run_id, each.score) for each in scores] == [(SCORE, "r", 0.5)]
    assert (project / "witness.log").read_text() == "judged\n" * 2


def test_a_command_writes_its_answer_and_then_lets_the_judge_end(project: Path) -> None:
    process = warm.Popen(
        [*FLUJO, "run", "say", "-i", "ana", "--run-id", "r"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "hello ana\n"
    (project / "go").touch()
    assert process.wait(60) == 0
    process.stdout.close()
    assert [each.score for each in found(project)[2]] == [0.5]


def test_a_command_leaves_a_judge_that_hangs_to_a_worker(project: Path) -> None:
    words = ["run", "say", "-i", "ana", "--run-id", "r", "--json"]
    done = warm.run([*FLUJO, *words], cwd=project, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "hello ana"
    assert found(project) == (RunStatus.COMPLETED, RunStatus.RUNNING, [])
    (project / "go").touch()
    worked = warm.run(
        [*FLUJO, "worker", "--once"], cwd=project, capture_output=True, check=False, timeout=120
    )
    assert worked.returncode == 0, worked.stderr
    assert [each.score for each in found(project)[2]] == [0.5]
