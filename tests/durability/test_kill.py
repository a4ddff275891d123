"""`kill -9` of a real `flujo run`, then `flujo resume` at once: no completed step runs again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

import warm
from flujo.domain.journal import EntryKind, EntryStatus, RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import UsageLimitExceeded
from flujo.governance.events import read_error
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)
KILLS = int(os.environ.get("FLUJO_KILLS", "2"))
LINES = 13
"""How often a whole run calls `touch`."""
TIME_S, WORK_S = 2.0, 0.5
"""A limit on the time of work, and the least time that a process works before it is killed."""


@pytest.fixture
def project(tmp_path: Path, store_uri: str) -> Path:
    """Return a project whose slow steps each write a line to a file."""
    (tmp_path / "flujo.toml").write_text(
        f'state_uri = "{store_uri}"\n[blueprints]\nallow_callables = ["skills.*"]\n'
    )
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "witness.py").write_text(
        dedent(
            """
            import os
            import time


            def touch(name: str, value: int) -> int:
                line = f"{name}\\n".encode()
                file = os.open("witness.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.write(file, line)
                os.fsync(file)
                os.close(file)
                time.sleep(float(os.environ.get("TOUCH_S", "0.05")))
                while "HOLD" in os.environ and not os.path.exists("go"):
                    time.sleep(0.01)
                return value + 1
            """
        )
    )
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "child.yaml").write_text(
        dedent(
            """
            version: "1"
            name: child
            input_schema: {type: object, required: [n], properties: {n: {type: integer}}}
            steps:
              - {name: one, call: "skills.witness:touch", with: {name: child/one, value: "{{ input.n }}"}}
              - {name: two, call: "skills.witness:touch", with: {name: child/two, value: "{{ previous }}"}}
            """
        )
    )
    (tmp_path / "blueprints" / "walk.yaml").write_text(
        dedent(
            """
            version: "1"
            name: walk
            context_schema: {type: object, properties: {seen: {type: array, default: []}}}
            output: {value: "{{ previous }}", seen: "{{ context.seen }}"}
            steps:
              - name: a
                call: skills.witness:touch
                with: {name: a, value: 1}
                save: {seen: {append: output}}
              - kind: loop
                name: rounds
                until: loop.index == 3
                steps:
                  - name: x
                    call: skills.witness:touch
                    with: {name: "rounds[{{ loop.index }}]/x", value: "{{ previous }}"}
                  - name: y
                    call: skills.witness:touch
                    with: {name: "rounds[{{ loop.index }}]/y", value: "{{ previous }}"}
                    save: {seen: {append: output}}
              - kind: conditional
                name: route
                if: steps.rounds.output > 3
                then:
                  - {name: big, call: "skills.witness:touch", with: {name: "route:then/big", value: "{{ previous }}"}}
                else:
                  - {name: small, call: "skills.witness:touch", with: {name: "route:else/small", value: 0}}
              - {kind: import, name: child, blueprint: ./child.yaml, with: {n: "{{ previous }}"}}
              - {name: z, call: "skills.witness:touch", with: {name: z, value: "{{ previous }}"}}
            """
        )
    )
    warm.run([*FLUJO, "migrate"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


FLUJO = [sys.executable, "-m", "flujo"]


def lines(project: Path) -> list[str]:
    witness = project / "witness.log"
    return witness.read_text().split() if witness.exists() else []


def launch(project: Path, *words: str, touch_s: float = 0.05, hold: bool = False) -> warm.Popen:
    """Start a command; each call of `touch` takes `touch_s` seconds, and with `hold` at least until `let_go`."""
    return warm.Popen(
        [*FLUJO, *words],
        cwd=project,
        env={**os.environ, "TOUCH_S": str(touch_s), **({"HOLD": "1"} if hold else {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def let_go(project: Path) -> None:
    """Let all held calls of `touch` return."""
    (project / "go").touch()


def finish(process: warm.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=90)
    assert "Traceback" not in err
    return process.returncode, out, err


def kill_after(project: Path, process: warm.Popen, count: int, pause_s: float) -> bool:
    """Send SIGKILL a moment after the witness has seen `count` calls; return whether the process was still running."""
    until = time.monotonic() + 60
    while len(lines(project)) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(pause_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return bool(process.returncode == -signal.SIGKILL)


async def finished_steps(project: Path, run_id: str) -> set[str]:
    """Return the paths of the completed steps in the journal."""
    async with Workspace(find_project(project)) as workspace:
        entries = await (await workspace.store()).entries(RunId(run_id))
    return {
        entry.path
        for entry in entries
        if entry.kind is EntryKind.WORK and entry.status is EntryStatus.COMPLETED
    }


@pytest.mark.guarantee("G1", "G2")
async def test_no_completed_step_runs_again_after_kill_9_at_random_moments(project: Path) -> None:
    code, unbroken, err = finish(launch(project, "run", "walk", "--json"))
    assert code == 0, err
    expected = json.loads(unbroken)["output"]
    assert Counter(lines(project)).most_common(1)[0][1] == 1
    assert len(lines(project)) == LINES
    chance = random.Random(20261122)
    kills = 0
    for number in range(3 * KILLS):
        (project / "witness.log").unlink()
        run_id = f"kill-{number}"
        process = launch(project, "run", "walk", "--run-id", run_id)
        if not kill_after(project, process, chance.randint(1, LINES - 1), chance.uniform(0, 0.04)):
            continue  # a busy machine: the run had ended
        kills += 1
        before = await finished_steps(project, run_id)
        code, out, err = finish(launch(project, "resume", run_id, "--json"))
        assert code == 0, err
        result = json.loads(out)
        assert (result["status"], result["output"]) == ("completed", expected)
        seen = Counter(lines(project))
        assert {path: seen[path] for path in before} == dict.fromkeys(before, 1)
        assert sum(seen.values()) - LINES <= 1, f"more than the step in flight ran again: {seen}"
        if kills == KILLS:
            break
    assert kills == KILLS


@pytest.mark.guarantee("G4")
def test_one_of_two_concurrent_resumes_wins_and_the_other_exits_8(project: Path) -> None:
    process = launch(project, "run", "walk", "--run-id", "race")
    assert kill_after(project, process, 3, 0)
    both = [launch(project, "resume", "race", hold=True) for _ in range(2)]
    while all(each.poll() is None for each in both):
        time.sleep(0.002)
    winner, loser = sorted(both, key=lambda each: each.poll() is not None)
    code, _, err = finish(loser)
    assert code == 8
    assert "is being executed" in err
    let_go(project)
    assert finish(winner)[0] == 0
    assert sum(Counter(lines(project)).values()) - LINES <= 1


def test_a_live_run_cannot_be_taken_over(project: Path) -> None:
    process = launch(project, "run", "walk", "--run-id", "alive", hold=True)
    while len(lines(project)) < 1 and process.poll() is None:
        time.sleep(0.002)
    code, _, err = finish(launch(project, "resume", "alive"))
    let_go(project)
    assert finish(process)[0] == 0
    assert code == 8
    assert "is being executed" in err


def test_ctrl_c_leaves_a_resumable_run_and_prints_how_to_resume(project: Path) -> None:
    process = launch(project, "run", "walk", "--run-id", "stop")
    while len(lines(project)) < 2 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "flujo resume stop" in err
    assert finish(launch(project, "resume", "stop"))[0] == 0
    assert sum(Counter(lines(project)).values()) - LINES <= 1


@pytest.mark.guarantee("G12")
def test_sigterm_releases_the_run_at_once(project: Path) -> None:
    process = launch(project, "run", "walk", "--run-id", "term")
    while len(lines(project)) < 2 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code not in (0, -signal.SIGTERM)
    assert "flujo resume term" in err
    assert finish(launch(project, "resume", "term"))[0] == 0


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("whose", ["run", "part"])
async def test_work_that_was_killed_counts_for_the_limit_on_time(project: Path, whose: str) -> None:
    blueprints, budget = project / "blueprints", f"budget: {{wall_time_s_limit: {TIME_S}}}\n"
    text = (blueprints / "child.yaml").read_text()
    (blueprints / "child.yaml").write_text(text + (budget if whose == "part" else ""))
    step = "steps:\n  - {kind: import, name: child, blueprint: ./child.yaml, with: {n: 1}}\n"
    text = f'version: "1"\nname: timed\n{step}{budget if whose == "run" else ""}'
    (blueprints / "timed.yaml").write_text(text)
    process = launch(project, "run", "timed", "--run-id", "timed", hold=True)
    kills = 0
    while kill_after(project, process, kills + 1, WORK_S):
        kills += 1
        assert kills * WORK_S < TIME_S + WORK_S, "killed work does not count"
        process = launch(project, "resume", "timed", hold=True)
    assert kills
    async with Workspace(find_project(project)) as workspace:
        run = await (await workspace.store()).run(RunId("timed"))
    assert run.status is RunStatus.FAILED
    assert read_error(run.error or b"").code == UsageLimitExceeded.code
