"""Workers resume runs whose process has died: real processes, really killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

import warm
from flujo.domain.journal import RunId
from flujo.domain.run import Due, NewRun, RunStatus
from flujo.services.project.project import find_project
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.recovery import Recovery
from flujo.services.workspace import Workspace
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flujo.domain.run import RunRecord
    from flujo.services.runs.execution import Stop

FLUJO = [sys.executable, "-m", "flujo"]

SKILLS = """
import os
import time


def touch(name: str, wait: bool = False) -> str:
    with open("witness.log", "a", encoding="utf-8") as file:
        file.write(f"{name}\\n")
    while wait and not os.path.exists("go"):
        time.sleep(0.005)
    return name


def die(data: str) -> str:
    os.kill(os.getpid(), 9)
"""
PIPELINES = """
import flujo
from flujo import Flujo, Pipeline, Step
from flujo.domain.steps import CallableRef
from skills.witness import touch


def greet(data: str) -> str:
    return touch(f"python/{data}")


@flujo.register
def greeting() -> Pipeline:
    return Pipeline((Step(name="greet", call=CallableRef.of(greet)),), name="greeting")
"""
WALK = """
version: "1"
name: walk
steps:
  - {name: a, call: "skills.witness:touch", with: {name: a}}
  - {name: b, call: "skills.witness:touch", with: {name: b, wait: true}}
  - {name: c, call: "skills.witness:touch", with: {name: c}}
"""
ASK = """
version: "1"
name: ask
steps:
  - {kind: hitl, name: ask, message: ok?, deadline_s: 0.3, on_deadline: {answer: nobody}}
  - {name: use, call: "skills.witness:touch", with: {name: "{{ steps.ask.output }}"}}
"""


@pytest.fixture
def project(tmp_path: Path, store_uri: str) -> Path:
    """A project with short leases and frequent polling."""
    (tmp_path / "flujo.toml").write_text(
        f'state_uri = "{store_uri}"\n[blueprints]\nallow_callables = ["skills.*"]\n'
        "[settings]\nlease_s = 1.5\nrecovery_s = 0.1\nmax_recoveries = 2\n"
    )
    for name, text in {
        "skills/witness.py": SKILLS,
        "pipelines.py": PIPELINES,
        "blueprints/walk.yaml": WALK,
        "blueprints/ask.yaml": ASK,
        "blueprints/die.yaml": 'version: "1"\nname: die\nsteps: [{name: d, call: "skills.witness:die"}]\n',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    warm.run([*FLUJO, "migrate"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def launch(project: Path, *words: str) -> warm.Popen:
    """Start a command."""
    return warm.Popen(
        [*FLUJO, *words],
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: warm.Popen) -> tuple[int, str, str]:
    """Return a command's exit code, stdout and stderr."""
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def seen(project: Path) -> list[str]:
    """Return who was called, in order."""
    witness = project / "witness.log"
    return witness.read_text().split() if witness.exists() else []


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.01)


def cut_off(project: Path, run_id: str) -> None:
    """Leave a run whose process was killed in step b."""
    before = seen(project).count("b")
    process = launch(project, "run", "walk", "--run-id", run_id)
    until(lambda: seen(project).count("b") > before)
    process.kill()
    process.communicate()


async def record_of(project: Path, run_id: Any) -> RunRecord:
    """Return the record of a run."""
    async with Workspace(find_project(project)) as workspace:
        return await (await workspace.store()).run(run_id)


async def rested(project: Path, run_id: str, status: RunStatus) -> RunRecord:
    """Return a run once it has reached `status`."""
    end = time.monotonic() + 60
    while True:
        record = await record_of(project, run_id)
        if record.status is status:
            return record
        assert time.monotonic() < end, record.status
        time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs in this loop


async def test_a_worker_resumes_the_run_of_a_killed_process(project: Path) -> None:
    cut_off(project, "left")
    (project / "go").touch()
    code, out, err = finish(launch(project, "worker", "--once", "--json"))
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [(each["event"], each.get("detail")) for each in events] == [
        ("begun", None),
        ("ended", "completed"),
        ("summary", None),
    ]
    assert Counter(seen(project)) == {"a": 1, "b": 2, "c": 1}
    assert (await record_of(project, "left")).output == b'"c"'
    code, _, err = finish(launch(project, "worker", "--once"))
    assert (code, "executed 0 runs" in err) == (0, True)


@pytest.mark.guarantee("G4")
async def test_one_of_two_workers_wins_a_run_and_the_other_continues_without_it(project: Path) -> None:
    for number in range(2):
        cut_off(project, f"left-{number}")
    (project / "go").touch()
    both = [finish(each) for each in [launch(project, "worker", "--once", "--json") for _ in range(2)]]
    assert [code for code, _, _ in both] == [0, 0]
    ended = [json.loads(line) for _, out, _ in both for line in out.splitlines() if "ended" in line]
    assert sorted(each["run_id"] for each in ended) == [f"left-{number}" for number in range(2)]
    assert Counter(seen(project))["c"] == 2


@pytest.mark.guarantee("G12")
async def test_a_stopped_worker_releases_its_run(project: Path) -> None:
    cut_off(project, "left")
    worker = launch(project, "worker", "--grace", "0s")
    until(lambda: seen(project).count("b") == 2)
    worker.send_signal(signal.SIGTERM)
    code, _, err = finish(worker)
    assert code == 0, err
    record = await record_of(project, "left")
    assert (record.status, record.owner) == (RunStatus.RUNNING, None)
    (project / "go").touch()
    assert finish(launch(project, "worker", "--once"))[0] == 0
    assert (await record_of(project, "left")).status is RunStatus.COMPLETED


@pytest.mark.guarantee("G5")
async def test_a_frozen_worker_loses_its_run_and_cannot_write(project: Path) -> None:
    cut_off(project, "left")
    frozen = launch(project, "worker", "--grace", "0s")
    until(lambda: seen(project).count("b") == 2)
    frozen.send_signal(signal.SIGSTOP)
    other = launch(project, "worker", "--json")
    until(
        lambda: seen(project).count("b") == 3
    )  # the lease had to expire, because a frozen process is not dead
    (project / "go").touch()
    record = await rested(project, "left", RunStatus.COMPLETED)
    frozen.send_signal(signal.SIGCONT)
    other.send_signal(signal.SIGTERM)
    finish(other)
    frozen.send_signal(signal.SIGTERM)
    finish(frozen)
    assert await record_of(project, "left") == record
    assert seen(project).count("c") == 1


async def test_a_run_that_kills_its_process_is_parked_with_a_reason(project: Path) -> None:
    assert finish(launch(project, "run", "die", "--input", "x", "--run-id", "poison"))[0] == -signal.SIGKILL
    for _ in range(2):
        assert finish(launch(project, "worker", "--once"))[0] == -signal.SIGKILL
    assert finish(launch(project, "worker", "--once"))[0] == 0
    record = await record_of(project, "poison")
    assert record.status is RunStatus.PARKED
    assert b"FLJ520" in (record.error or b"")
    _, shown, err = finish(launch(project, "tasks", "show", "poison"))
    assert "lost its process 3 times" in shown
    assert "flujo resume poison" in err
    assert finish(launch(project, "resume", "poison"))[0] == -signal.SIGKILL
    assert (await record_of(project, "poison")).status is RunStatus.RUNNING


async def accepted(project: Path, blueprint: str, *run_ids: str) -> None:
    """Record runs that no process executes yet."""
    async with Workspace(find_project(project)) as workspace:
        store, found = await workspace.store(), workspace.load(f"blueprints/{blueprint}.yaml")
        for run_id in run_ids:
            new = NewRun(
                run_id=RunId(run_id),
                pipeline=found.pipeline.name,
                closure=found.closure.digest,
                input=b'"x"',
                context=b"{}",
            )
            await store.accept(new, found.closure.blobs(), claim=False)


@pytest.mark.guarantee("G6")
async def test_a_run_that_kills_its_worker_takes_no_neighbour_with_it(project: Path) -> None:
    """Two workers die with three runs; the third executes each in a process of its own, and survives."""
    innocents = ("walk-1", "walk-2")
    settings = project / "flujo.toml"
    settings.write_text(settings.read_text().replace("max_recoveries = 2", "max_recoveries = 1"))
    await accepted(project, "walk", *innocents)
    await accepted(project, "die", "poison")
    for _ in range(2):
        assert finish(launch(project, "worker", "--once", "--concurrency", "4"))[0] == -signal.SIGKILL
    together = [await record_of(project, run_id) for run_id in (*innocents, "poison")]
    assert {record.recoveries for record in together} == {0}
    (project / "go").touch()
    code, _, err = finish(launch(project, "worker", "--once", "--concurrency", "4"))
    assert code == 0, err
    assert err.count("it ended its process, in which it was alone: SIGKILL") == 2
    poison = await record_of(project, "poison")
    assert (poison.status, poison.recoveries) == (RunStatus.PARKED, 2)
    for run_id in innocents:
        record = await record_of(project, run_id)
        assert (record.status, record.recoveries) == (RunStatus.COMPLETED, 0)
    assert seen(project).count("c") == 2


@pytest.mark.guarantee("G11", "G18")
async def test_a_worker_handles_an_expired_deadline_and_a_recorded_answer(project: Path) -> None:
    assert finish(launch(project, "run", "ask", "--run-id", "late", "--paused-ok"))[0] == 0
    worker = launch(project, "worker", "--json")
    await rested(project, "late", RunStatus.COMPLETED)
    assert finish(launch(project, "run", "ask", "--run-id", "early", "--paused-ok"))[0] == 0
    finish(launch(project, "tasks", "resume", "early", "--input", "somebody", "--detach"))
    await rested(project, "early", RunStatus.COMPLETED)
    worker.send_signal(signal.SIGTERM)
    code, out, _ = finish(worker)
    assert (code, "deadline" in out) == (0, True)
    assert seen(project)[0] == "nobody"


async def test_a_worker_runs_registered_pipelines_and_skips_what_it_cannot_bind(project: Path) -> None:
    starting = """
import asyncio
import pipelines
from flujo import Flujo
from flujo.services.runs.run_request import Request, pinned
from flujo.services.project.project import find_project
from flujo.services.project.system import SystemRandom
from flujo.services.workspace import Workspace

async def main():
    async with Workspace(find_project(__import__("pathlib").Path.cwd())) as ws:
        tree = pipelines.greeting()
        closure, blobs = pinned(tree, None)
        request = Request(input="ada", context={}, run_id="py", metadata=None)
        new = await request.new_run(tree, ws.bind(tree), closure, SystemRandom())
        await (await ws.store()).accept(new, blobs, claim=False)

asyncio.run(main())
"""
    with warm.Popen([sys.executable, "-c", starting], cwd=project) as process:
        assert process.wait(60) == 0
    code, out, _ = finish(launch(project, "worker", "--once", "--json"))
    skipped, summary = (json.loads(line) for line in out.splitlines())
    assert (code, skipped["event"], summary["event"]) == (1, "skipped", "summary")
    assert "is not registered in this process" in skipped["detail"]
    assert [each["run_id"] for each in summary["skipped"]] == ["py"]
    code, out, err = finish(launch(project, "worker", "--once", "--import", "pipelines"))
    assert code == 0, err
    assert (await record_of(project, "py")).output == b'"python/ada"'


def test_a_module_that_cannot_be_imported_has_its_own_exit_code(project: Path) -> None:
    code, _, err = finish(launch(project, "worker", "--once", "--import", "nowhere"))
    assert code == 3
    assert "nowhere" in err


async def test_a_run_that_ended_while_due_runs_were_read_is_not_started_again() -> None:
    """The list was read while the run was executed here, and arrives when the run has left this process."""
    gate = asyncio.Event()
    gate.set()
    started: list[RunId] = []

    class SlowStore(MemoryStateStore):
        async def due(self, **_: Any) -> Due:
            found = Due(runs=(RunId("one"),))
            await gate.wait()
            return found

    async def store() -> SlowStore:
        return SlowStore()

    async def take_over(run_id: RunId, _: Stop) -> None:
        started.append(run_id)
        await asyncio.sleep(0)

    recovery = Recovery(store, RecoveryPolicy(), take_over)
    assert await recovery.look() == 1
    gate.clear()
    late = asyncio.create_task(recovery.look())
    await asyncio.sleep(0)
    await recovery.settled()
    gate.set()
    assert await late == 0
    assert started == ["one"]
