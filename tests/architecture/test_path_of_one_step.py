"""The modules that one step of a blueprint crosses: a reader has to open them to follow the step."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flujo
from flujo import Flujo
from flujo.domain.run import RunStatus
from flujo.services.read_blueprint import read_blueprint

if TYPE_CHECKING:
    from types import FrameType

    import pytest

SOURCE = Path(flujo.__file__).parent
INSIDE = f"{SOURCE}{os.sep}"
AT_MOST = 21
CROSSED = {
    "engine.interpreter",
    "engine.frame",
    "engine.call_layers",
    "engine.attempts",
    "engine.foreign_code",
    "engine.journal",
    "agents.function",
    "agents.thread_pool",
    "domain.paths",
    "domain.canonical",
    "domain.journal",
    "domain.run",
    "state.store",
    "state.writer.writer",
    "state.writer.batch",
    "state.rules",
    "state.leases",
    "state.codec",
    "state.sql.database",
    "state.sql.retry",
    "state.sql.statements",
}
"""The current modules. The list only shrinks; update it when the path becomes shorter."""

PROJECT = """\
[project]
name = "one"
[blueprints]
allow_callables = ["skills"]
"""
BLUEPRINT = """\
version: "1"
name: one
input_schema: {type: string}
steps:
  - {name: first, call: "skills:greet"}
  - {name: second, call: "skills:greet"}
  - {name: third, call: "skills:greet"}
  - {name: fourth, call: "skills:greet"}
"""
SKILLS = """\
calls = []
watch = []

def greet(data: str) -> str:
    calls.append(data)
    for each in watch:
        each(len(calls))
    return "hello " + data
"""
_RESUMED = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class Route:
    """A profiler for all threads that records the modules whose code is entered while it is active.

    A coroutine entered earlier is only resumed, so it does not count: it encloses the step. Methods that `dataclass`
    generates have no file.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.is_open = False
        self._entered: set[FrameType] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(INSIDE):
            return
        if frame.f_code.co_flags & _RESUMED:
            if frame in self._entered:
                return
            self._entered.add(frame)
        if self.is_open:
            self.modules.add(".".join(Path(file).relative_to(SOURCE).with_suffix("").parts))


async def test_one_step_crosses_only_the_listed_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the call of one step to the call of the next: its entry is committed, the next step is taken."""
    for name, text in (("flujo.toml", PROJECT), ("one.yaml", BLUEPRINT), ("skills.py", SKILLS)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    route = Route()

    def between_the_second_and_the_third(calls: int) -> None:
        route.is_open = calls == 2

    importlib.import_module("skills").watch.append(between_the_second_and_the_third)
    before = sys.getprofile()
    threading.setprofile(route)  # the writer's thread starts with the store
    try:
        async with Flujo[str, str](read_blueprint("one.yaml"), recovery=False) as runner:
            sys.setprofile(route)
            result = await runner.run_result_async("you")
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    assert result.status is RunStatus.COMPLETED
    assert route.modules == CROSSED, "the modules of one step have changed: see the docstring of CROSSED"
    assert len(CROSSED) <= AT_MOST
