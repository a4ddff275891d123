"""`[governance] tools`: what is not on the list is not called, whatever kind of tool or step asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, detail, talk, value
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus
from flujo.domain.steps import GranularStep
from flujo.domain.steps.tools import AgentTool
from flujo.services.runs.runner import Flujo
from flujo.testing import ScriptedAgent
from support import World, call, pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

VARIABLE = "FLUJO_GOVERNANCE_TOOL_ALLOWLIST"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def allow(folder: Path, text: str) -> None:
    (folder / "flujo.toml").write_text("[governance]\n" + text + "\n", "utf-8")


async def run(tree: Pipeline, store: StateStore) -> Any:
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        return await runner.run_result_async("x", run_id=RUN)


@pytest.mark.parametrize("listed", ['tools = ["add"]', f'tools = ["{add.__module__}:add"]', ""])
async def test_a_tool_of_the_list_is_called(store: StateStore, tmp_path: Path, listed: str) -> None:
    allow(tmp_path, listed)
    result = await run(talk([calls(("add", {"a": 1, "b": 2})), "3"]), store)
    assert result.success
    [entry] = [each for each in await store.entries(RUN) if each.path == "research/turn[0]/tool[0]"]
    assert (value(entry), detail(entry)["outcome"]) == (3, "result")


@pytest.mark.parametrize("listed", ['tools = ["subtract"]', "tools = []"])
async def test_the_model_reads_that_a_tool_is_denied(store: StateStore, tmp_path: Path, listed: str) -> None:
    allow(tmp_path, listed)
    called = []

    def drop(name: str) -> str:
        """Drop a table."""
        called.append(name)
        return "dropped"

    result = await run(talk([calls(("drop", {"name": "t"})), "sorry"], tools=(drop,)), store)
    assert (result.output, called) == ("sorry", [])
    [entry] = [each for each in await store.entries(RUN) if each.path == "research/turn[0]/tool[0]"]
    assert value(entry) == "the call was not made: this project does not allow the tool `drop`"
    assert detail(entry)["outcome"] == "refused"
    assert detail(entry)["refused_by"] == "allow_list"


async def test_a_denied_call_fails_the_step_where_that_is_set(store: StateStore, tmp_path: Path) -> None:
    allow(tmp_path, 'tools = ["subtract"]\non_denied = "fail"')
    result = await run(talk([calls(("add", {"a": 1, "b": 2})), "3"]), store)
    assert (result.status, result.error.code) == (RunStatus.FAILED, "FLJ468")
    assert "`add` is not on the list of allowed tools: `subtract`" in result.error.message


async def test_an_agent_as_a_tool_and_its_own_tools_are_on_the_list(
    store: StateStore, tmp_path: Path
) -> None:
    inner = ScriptedAgent([calls(("add", {"a": 1, "b": 2})), "three"], tools=(add,))
    helper = AgentTool(inner, "Does one task", name="helper")
    agent = ScriptedAgent([calls(("helper", {"prompt": "add"})), "done"], tools=(helper,))
    allow(tmp_path, 'tools = ["helper"]')
    result = await run(pipeline(GranularStep("research", agent)), store)
    assert result.success
    details = {each.path: detail(each) for each in await store.entries(RUN)}
    inside = StepPath("research/turn[0]/tool[0]/turn[0]/tool[0]")
    assert details[inside]["refused_by"] == "allow_list"


async def test_the_variable_comes_before_the_file(
    store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(tmp_path, 'tools = ["add"]\non_denied = "fail"')
    monkeypatch.setenv(VARIABLE, "subtract, divide")
    result = await run(talk([calls(("add", {"a": 1, "b": 2})), "3"]), store)
    assert "`divide` and `subtract`" in result.error.message


async def test_an_empty_variable_denies_all(
    store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    result = await run(talk([calls(("add", {"a": 1, "b": 2})), "no"]), store)
    assert result.success
    [entry] = [each for each in await store.entries(RUN) if each.path == "research/turn[0]/tool[0]"]
    assert detail(entry)["refused_by"] == "allow_list"


async def test_callables_of_steps_are_checked_with_calls(store: StateStore, tmp_path: Path) -> None:
    world = World()
    tree = pipeline(call("one", world.add("one")), call("two", world.add("two")))
    target = tree.steps[0].call.target  # type: ignore[attr-defined]
    allow(tmp_path, f'tools = ["{target}"]\ncalls = true')
    result = await run(tree, store)
    assert (result.error.code, result.error.path, world.calls) == ("FLJ468", "two", ["one"])
