"""Warnings about the models that answered: another one than requested, or several for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.agents.scripted import ScriptedAgent
from flujo.domain.agents import AgentSpec, Reply, model_matches
from flujo.domain.steps import CallableRef, DynamicParallelRouterStep, Step
from flujo.services.binding.binding import PipelineBinding
from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs.runner import Flujo
from flujo.services.workspace import agent_settings
from flujo.settings import load
from flujo.state.memory_store import MemoryStateStore
from support import call, pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence


def noted(data: str) -> str:
    return data


NOTED = CallableRef.of(noted)


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("openai:gpt-5-mini", "gpt-5-mini"),
        ("openai:gpt-5-mini", "gpt-5-mini-2025-08-07"),
        ("openai:gpt-5-mini-2025-08-07", "gpt-5-mini-2025-08-07"),
        ("anthropic:claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        ("openrouter:openai/gpt-5-mini", "openai/gpt-5-mini"),
        ("google:gemini-2.0-flash", "models/gemini-2.0-flash-001"),
        ("local:smollm2", "/somewhere/SmolLM2-135M.gguf"),
    ],
)
def test_a_name_with_its_release_is_the_same_model(asked: str, used: str) -> None:
    assert model_matches(asked, used)


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("openai:gpt-5", "gpt-5-mini"),
        ("openai:gpt-5-mini", "gpt-5"),
        ("openai:gpt-5-mini-2025-08-07", "gpt-5-mini-2025-11-01"),
        ("anthropic:claude-sonnet-4-5", "claude-opus-4-5"),
    ],
)
def test_another_name_or_another_release_is_another_model(asked: str, used: str) -> None:
    assert not model_matches(asked, used)


async def warnings(answers: Sequence[str]) -> list[str]:
    """Return the warnings for a run whose agent is answered by these models, one per request."""
    spec = AgentSpec(name="writer", model="openai:gpt-5-mini")
    names = [f"s{number}" for number in range(len(answers) - 1)]
    route = DynamicParallelRouterStep("route", router=spec, branches={"only": pipeline(call("x", NOTED))})
    tree = pipeline(*(Step(name, agent=spec) for name in names), route)
    script = ScriptedAgent(
        [Reply(output="x", model=each) for each in answers[:-1]] + [Reply(output="only", model=answers[-1])]
    )
    bound = PipelineBinding(allow_callables=(), agent_settings=agent_settings(load()))
    bound._agents[id(spec)] = script
    bound.bind(tree)
    store = MemoryStateStore()
    async with Flujo[Any, Any, Any](tree, store=store, binding=bound) as runner:
        result = await runner.run_result_async("in")
    assert result.success, result.error
    return (await TaskClient(store).get_task(result.run_id)).warnings


async def test_the_requested_model_gives_no_warning() -> None:
    assert await warnings(["gpt-5-mini-2025-08-07", "gpt-5-mini-2025-08-07"]) == []


async def test_another_model_than_requested_is_a_warning_with_its_steps() -> None:
    assert await warnings(["gpt-4o", "gpt-4o"]) == [
        "model gpt-4o answered instead of openai:gpt-5-mini at `s0`, `route`"
    ]
    [said] = await warnings(["gpt-4o"] * 6)
    assert said.endswith("at `s0`, `s1`, `s2` and 3 more")


async def test_two_models_for_one_in_a_run_are_a_warning() -> None:
    assert await warnings(["gpt-5-mini-2025-08-07", "gpt-5-mini-2025-11-01"]) == [
        "2 models answered requests to openai:gpt-5-mini in one run: gpt-5-mini-2025-08-07, gpt-5-mini-2025-11-01"
    ]
