"""The parts of a key name each thing that decides an answer, and a changed thing is the part that differs."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.domain.agents import AgentSpec, Reply
from flujo.domain.models import AppResources
from flujo.domain.steps import CachePolicy, CallableRef, Step
from flujo.exceptions import SettingsError
from flujo.services.inspection.cache_lookups import Explanation, explain_lookup
from flujo.services.runs.runner import Flujo
from flujo.state.memory_cache import MemoryCache
from flujo.state.memory_store import MemoryStateStore
from support import call, pipeline

CACHED = CachePolicy(key="input")


class Colour:
    name: str


class Paint:
    name: str


def look_up(name: str) -> str:
    """Look up a name."""
    return name


def look_around(name: str) -> str:
    """Look around."""
    return name + "!"


CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "model": ({"model": "openai:gpt-5-nano"}, {"agent a: model"}),
    "instructions": ({"instructions": "In French."}, {"agent a: instructions"}),
    "settings": ({"model_settings": {"temperature": 0.5}}, {"agent a: model_settings"}),
    "schema": ({"output_schema": {"type": "boolean"}}, {"agent a: output_schema"}),
    "tool": ({"tools": [look_around]}, {"agent a: tools"}),
}


async def explained(
    store: MemoryStateStore, cache: MemoryCache, step: Step, given: Any = "x", resources: Any = None
) -> Explanation:
    async with Flujo[Any, Any, Any](pipeline(step), store=store, cache=cache, resources=resources) as runner:
        result = await runner.run_result_async(given)
        assert result.error is None
        return await explain_lookup(store, cache, "@last", "s")


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_field_of_an_agent_is_the_part_that_differs(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(self: Any, ask: Any) -> Reply:
        return Reply(output=True)

    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setattr("flujo.agents.chat.ChatAgent.ask", answers)
    fields, differing = CHANGES[change]
    usual: dict[str, Any] = {"name": "a", "model": "openai:gpt-5-mini", "tools": [look_up]}
    store, cache = MemoryStateStore(), MemoryCache()
    await explained(store, cache, Step(name="s", agent=AgentSpec(**usual), cache=CACHED))
    found = await explained(store, cache, Step(name="s", agent=AgentSpec(**usual | fields), cache=CACHED))
    assert found.nearest is not None
    names = set(found.lookup.differing(found.nearest))
    assert names - {name for name in names if name.startswith("callable ")} == differing
    assert {"agent a: base_url", "agent a: pydantic-ai-slim"} < set(found.lookup.parts)


class Tenant(AppResources):
    cache_key: str


def of_tenant(data: Any, resources: Tenant) -> str:
    return resources.cache_key


@pytest.mark.guarantee("G21")
async def test_other_resources_and_another_declared_key_are_the_parts_that_differ() -> None:
    store, cache = MemoryStateStore(), MemoryCache()
    step = call("s", CallableRef("x:y", of_tenant), cache=CachePolicy(key="input.k"))
    await explained(store, cache, step, {"k": 1}, Tenant(cache_key="a"))
    found = await explained(store, cache, step, {"k": 2}, Tenant(cache_key="b"))
    assert found.nearest is not None
    assert found.lookup.differing(found.nearest) == ["input", "key", "resources of x:y"]


async def test_a_run_without_cached_steps_has_nothing_to_explain() -> None:
    store = MemoryStateStore()
    async with Flujo[Any, Any, Any](pipeline(call("s", CallableRef("x:y", look_up))), store=store) as runner:
        await runner.run_result_async("x")
    with pytest.raises(SettingsError, match="no cached step 's'") as refused:
        await explain_lookup(store, None, "@last", "s")
    assert refused.value.hint == "none of its steps has a `cache`"
