"""Runs whose callables are executed by other processes, of which some are killed."""

from __future__ import annotations

import importlib
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import warm
from durability.random_programs import known, random_program, tree
from flujo import Flujo
from flujo.domain.values import CallableRef
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from durability.random_programs import Part

PROGRAMS = 4
"""How many random programs have steps in other processes."""

CODE = """
import os, time
from pathlib import Path

HERE = Path(__file__).parent


def note(text: str) -> None:
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(text + "\\n")


def first(data: str) -> str:
    note("first")
    return data


def second(data: str, idempotency_key: str | None = None) -> str:
    note(f"second {idempotency_key}")
    if not (HERE / "go").exists():
        time.sleep(600)
    return data
"""

FAR = """
import os, signal
from pathlib import Path


def first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def work(data: int, number: int, name: str, folder: str) -> int:
    if number % 2 and first(Path(folder, "lost before")):
        os.kill(os.getpid(), signal.SIGKILL)
    with Path(folder, "calls.txt").open("a") as calls:
        calls.write(f"{name}\\n")
    if number % 3 == 0 and first(Path(folder, f"lost after {name}")) and first(Path(folder, "lost after")):
        Path(folder, "lost.txt").write_text(name)
        os.kill(os.getpid(), signal.SIGKILL)
    return data + number
"""

BLUEPRINT = """version: "1"
name: two
steps:
  - {{name: first, call: killed_run:first, config: {{executor: cores}}}}
  - {{name: second, call: killed_run:second, config: {{executor: cores}}{options}}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "killed_run.py").write_text(CODE, "utf-8")
    (tmp_path / "flujo.toml").write_text(
        '[blueprints]\nallow_callables = ["killed_run"]\n[executors.cores]\nkind = "processes"\nsize = 1\n',
        "utf-8",
    )
    return tmp_path


def _calls(root: Path) -> list[str]:
    file = root / "calls.txt"
    return file.read_text("utf-8").splitlines() if file.exists() else []


def _killed_in_the_second(root: Path, options: str) -> str:
    """Kill the process of a run while a worker executes its second step; return the run's id."""
    (root / "two.yaml").write_text(BLUEPRINT.format(options=options), "utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "FLUJO_STATE_URI"}
    run = warm.Popen(
        [sys.executable, "-m", "flujo", "run", "two.yaml", "--input", "a"], cwd=root, env=environment
    )
    for _ in range(6000):
        if len(_calls(root)) == 2:
            break
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert [call.split()[0] for call in _calls(root)] == ["first", "second"]
    (root / "go").touch()
    (database,) = root.rglob("*.db")
    with sqlite3.connect(database) as connection:
        ((run_id,),) = connection.execute("SELECT run_id FROM runs")
    return str(run_id)


def _flujo(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "FLUJO_STATE_URI"}
    return warm.run(
        [sys.executable, "-m", "flujo", *command],
        cwd=root,
        env=environment,
        capture_output=True,
    )


def test_a_step_with_an_entry_is_not_submitted_again_and_the_other_one_is(root: Path) -> None:
    run_id = _killed_in_the_second(
        root, ", effect: idempotent, enforce_idempotency: true, in_doubt: retry_same_key"
    )
    resumed = _flujo(root, "resume", run_id)
    assert resumed.returncode == 0, resumed.stderr
    first, *seconds = _calls(root)
    assert first == "first"
    assert len(seconds) == 2
    assert len(set(seconds)) == 1, "both have the same key"
    assert "None" not in seconds[0]


def test_an_unsafe_call_that_was_under_way_is_in_doubt(root: Path) -> None:
    run_id = _killed_in_the_second(root, ", effect: unsafe, enforce_idempotency: true")
    resumed = _flujo(root, "resume", run_id)
    assert resumed.returncode == 5, resumed.stderr
    assert len(_calls(root)) == 2, "it is not called again"


def _moved(program: Sequence[Part]) -> tuple[Part, ...]:
    """Return a program with its plain steps, those in maps too, in other processes."""
    return tuple(
        replace(
            part, kind="far" if part.kind == "step" else part.kind, bodies=tuple(map(_moved, part.bodies))
        )
        for part in program
    )


async def test_random_programs_give_the_result_of_the_reference_although_processes_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "far_work.py").write_text(FAR, "utf-8")
    (tmp_path / "flujo.toml").write_text(
        '[blueprints]\nallow_callables = ["far_work"]\n[executors.far]\nkind = "processes"\nsize = 2\n',
        "utf-8",
    )
    wanted, happened = Counter[str](), Counter[str]()

    async def act(name: str, _data: int, _key: str) -> None:
        happened[name] += 1

    async with Workspace(find_project(tmp_path)) as workspace:
        work = importlib.import_module("far_work").work
        for seed in range(PROGRAMS):
            program = _moved(random_program(Random(seed), also=()))
            shape = tree(program, act, far=(CallableRef("far_work:work", work), {"folder": str(tmp_path)}))
            async with Flujo[Any, Any, Any](
                shape, store=MemoryStateStore(), binding=workspace.bind(shape), recovery=False
            ) as runner:
                result = await runner.run_result_async(5)
                await runner.replay_from_trace(result.run_id)  # raises at a difference
            reference = known(program, 5)
            assert result.output == reference.output, seed
            wanted += reference.effects
    sys.modules.pop("far_work")
    repeated = (tmp_path / "lost.txt").read_text("utf-8")
    assert (tmp_path / "lost before").exists()
    assert +(happened + Counter(_calls(tmp_path))) == wanted + Counter([repeated])
