"""Tools that worker processes execute: each call is one attempt, with the rules of any other tool."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, detail, entries, talk, value
from flujo.agents.tools import tools_of
from flujo.domain.executor import Needs
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.tools import CallableTool
from flujo.services.executors.named import Executors
from flujo.services.executors.processes import Processes
from flujo.services.executors.wire import ProjectOnWorker
from flujo.services.project.imports import importable
from flujo.services.project.project import find_project
from flujo.state.memory_store import MemoryStateStore
from services.executors.suite import appears
from support import resume, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flujo.domain.executor import Executor, Unit
    from flujo.domain.pipeline import Pipeline

CODE = """
import os, time

from pydantic_ai import ModelRetry


def where(n: int) -> list[int]:
    return [n, os.getpid()]


def pay(amount: int, idempotency_key: str) -> str:
    return idempotency_key


def unsure(text: str) -> None:
    raise ModelRetry(f"{text} is not a number")


def hangs(file: str) -> None:
    part = file + ".part"
    with open(part, "w") as written:
        written.write(str(os.getpid()))
    os.rename(part, file)
    time.sleep(600)
"""

ON_WORKER = ProjectOnWorker(root=".", state_providers={}, max_result=1000, flujo="1")


@pytest.fixture(scope="module")
def executors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executors]:
    """The executors of a project with tools; `cores` has one process."""
    root = tmp_path_factory.mktemp("moved")
    (root / "moved_tools.py").write_text(CODE, "utf-8")
    (root / "flujo.toml").write_text(
        '[blueprints]\nallow_callables = ["moved_tools"]\n[executors.cores]\nkind = "processes"\nsize = 1\n',
        "utf-8",
    )
    before = list(sys.path)
    importable(root)
    opened = Executors(find_project(root))
    yield opened
    asyncio.run(opened.aclose())
    sys.path[:] = before
    sys.modules.pop("moved_tools", None)


def _talk(
    answers: list[Any],
    tools: list[CallableTool],
    executors: Callable[[str], Executor | None],
    timeout_s: float | None = None,
) -> Pipeline:
    """Return a conversation with tools that have executors."""
    tree = talk(answers, tools=())
    agent: Any = tree.steps[0].agent.live  # type: ignore[attr-defined]  # a scripted agent
    agent._functions = tools_of("scripted", tools, timeout_s=timeout_s, executors=executors)
    return tree


def _moved(name: str, **rules: Any) -> CallableTool:
    return CallableTool(getattr(importlib.import_module("moved_tools"), name), executor="cores", **rules)


async def test_a_call_is_executed_elsewhere_under_the_rules_of_its_tool(executors: Executors) -> None:
    script = [
        calls(("where", {"n": 4}), ("pay", {"amount": 9}), ("unsure", {"text": "x"}), ("where", {"n": "x"})),
        "end",
    ]
    tools = [_moved("where", effect="read"), _moved("pay", enforce_idempotency=True), _moved("unsure")]
    store = MemoryStateStore()
    result = await start(_talk(script, tools, executors.named), store, "go")
    assert result.output == "end"
    recorded = await entries(store)
    where, pay, unsure, wrong = (recorded[f"research/turn[0]/tool[{number}]"] for number in range(4))
    number, process = value(where)
    assert (number, process == os.getpid()) == (4, False)
    assert value(pay) == (await store.intents(RUN))[0].key
    assert (detail(unsure)["outcome"], value(unsure)) == ("retry", "x is not a number")
    assert detail(wrong)["outcome"] == "refused"


async def test_a_worker_that_is_lost_amid_an_unsafe_call_leaves_it_in_doubt(
    executors: Executors, tmp_path: Path
) -> None:
    file, store = tmp_path / "pid", MemoryStateStore()
    tool = _moved("hangs", effect="unsafe", enforce_idempotency=True)
    tree = _talk([calls(("hangs", {"file": str(file)})), "end"], [tool], executors.named)
    running = asyncio.ensure_future(start(tree, store, "go"))
    os.kill(await appears(file), signal.SIGKILL)
    result = await running
    assert result.status is RunStatus.PAUSED
    assert [each.kind for each in await store.pauses(RUN)] == [PauseKind.DOUBT]
    file.unlink()
    again = await resume(tree, store)
    assert (again.status, file.exists()) == (RunStatus.PAUSED, False), "it is not called again"


class _Waits:
    """An executor that never answers."""

    name = "cores"
    leaves_process = True

    def __init__(self) -> None:
        self.cancelled: list[Unit] = []

    async def submit(self, unit: Unit) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(unit)
            raise

    async def check(self) -> Any: ...

    async def aclose(self) -> None: ...


async def test_a_time_limit_cancels_the_unit_of_the_call() -> None:
    store, waits = MemoryStateStore(), _Waits()
    tool = CallableTool(add, executor="cores", resources={"cpu": 2})
    tree = _talk([calls(("add", {"a": 1, "b": 2})), "end"], [tool], lambda _: waits, timeout_s=0.01)
    assert (await start(tree, store, "go")).output == "end"
    late = (await entries(store))["research/turn[0]/tool[0]"]
    assert (detail(late)["outcome"], value(late)) == ("error", "the call took longer than 0.01 s")
    (unit,) = waits.cancelled
    assert (unit.target, unit.data, unit.by_name) == ("engine.talking:add", b'{"a":1,"b":2}', True)
    assert unit.needs == Needs(cpu=2)
    assert unit.step is not None
    assert unit.step.path == "research/turn[0]/tool[0]"


async def test_an_executor_that_cannot_be_used_ends_the_step() -> None:
    def without_gpu(_: str) -> Executor:
        return Processes("cores", 1, ON_WORKER, lambda _: None)

    tool = CallableTool(add, executor="cores", resources={"gpu": 1})
    tree = _talk([calls(("add", {"a": 1, "b": 2})), "end"], [tool], without_gpu)
    result = await start(tree, MemoryStateStore(), "go")
    assert result.status is RunStatus.FAILED
    assert "1 gpu" in str(result.error)
