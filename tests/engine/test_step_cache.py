"""Cached steps: the cache key, the cached values, and how a run shows them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from flujo.agents.scripted import ScriptedAgent
from flujo.domain.agents import AgentSpec, Reply
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.models import PipelineContext
from flujo.domain.run import RunStatus
from flujo.domain.steps import BaseStep, CachePolicy, CacheStep, CallableRef, Step
from flujo.domain.usage import NOTHING, Usage
from flujo.engine.cache_key import NOT_THE_AGENTS_ANSWERS
from flujo.exceptions import PausedException
from flujo.services.runs.runner import Flujo
from flujo.state.memory_cache import MemoryCache
from flujo.state.memory_store import MemoryStateStore
from support import (
    COUNTER_SCHEMA,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Save,
    StepConfig,
    StoppingStore,
    Text,
    World,
    answer,
    call,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COSTS = Usage(input_tokens=7, requests=1, cost_micro_usd=30)
CACHED = CachePolicy()


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def world() -> World:
    return World()


async def outputs(tree: Any, *inputs: Any, cache: Any = None) -> list[Any]:
    """Return the outputs of several runs of one runner."""
    async with Flujo[Any, Any, Any](tree, persist_state=False, cache=cache) as runner:
        results = [await runner.run_result_async(value) for value in inputs]
    assert [result.error for result in results] == [None] * len(inputs)
    return [result.output for result in results]


# The key --------------------------------------------------------------------------------------------------


async def test_the_same_request_is_made_once(world: World) -> None:
    tree = pipeline(call("double", world.add("double", lambda n: n * 2), cache=CACHED))
    assert await outputs(tree, 2, 3, 2, 3) == [4, 6, 4, 6]
    assert len(world.calls) == 2


async def test_a_cache_around_a_step_behaves_the_same_and_shares_its_entries(world: World) -> None:
    ask = world.add("ask")
    tree = pipeline(
        CacheStep(name="known", step=call("inner", ask)),
        call("other_name", ask, cache=CACHED, tags=("t",), config=StepConfig(max_retries=2)),
        output=Text("{{ [steps.known.cached, steps.other_name.cached] }}"),
    )
    assert await outputs(tree, 1, 1) == [[False, True], [True, True]]


@pytest.mark.guarantee("G21")
async def test_the_key_of_a_miss_is_recorded_below_its_step(world: World, store: MemoryStateStore) -> None:
    tree = pipeline(call("a", world.add("a"), cache=CACHED))
    await start(tree, store, 1, cache=MemoryCache())
    decisions = [
        entry.path for entry in await store.entries(RunId("run")) if entry.kind is EntryKind.DECISION
    ]
    assert decisions == ["a:cache"]


def asking(world: World, **more: Any) -> BaseStep:
    return call("a", world.add("a", lambda data: data), cache=CACHED, **more)


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize(
    "other",
    [
        lambda world: asking(world, output_schema={"type": "integer"}),
        lambda world: asking(world, input=Text("{{ previous + 1 }}")),
        lambda world: asking(world, arguments={"data": 1}),
        lambda world: call("a", world.add("b"), cache=CACHED),
        lambda world: call("a", CallableRef("world:a", lambda data: data), cache=CACHED),
        lambda world: call("a", world.add("a"), cache=CachePolicy(key=Expr("'more'"))),
        lambda world: LoopStep(
            name="a", body=pipeline(call("inner", world.add("a"))), until=Expr("true"), cache=CACHED
        ),
    ],
)
async def test_everything_that_may_change_the_answer_changes_the_key(
    world: World, other: Callable[[World], BaseStep]
) -> None:
    cache = MemoryCache()
    await outputs(pipeline(asking(world)), 1, cache=cache)
    await outputs(pipeline(other(world)), 1, cache=cache)
    assert len(cache) == 2


@pytest.mark.guarantee("G21")
async def test_a_missing_value_and_an_empty_one_have_different_keys(world: World) -> None:
    def outer(given: Any) -> BaseStep:
        body = pipeline(call("a", world.add("a"), input=given))
        return LoopStep(name="loop", body=body, until=Expr("true"), cache=CACHED)

    cache = MemoryCache()
    for given, expected in ((None, 1), ((), []), ({}, {})):
        assert await outputs(pipeline(outer(given)), 1, cache=cache) == [expected]


@pytest.mark.guarantee("G21")
async def test_a_number_and_its_text_have_different_keys(world: World) -> None:
    tree = pipeline(call("a", world.add("a"), cache=CACHED))
    assert await outputs(tree, 1, "1", True, None, [1]) == [1, "1", True, None, [1]]


@pytest.mark.guarantee("G21")
async def test_outside_values_that_a_composite_reads_are_part_of_the_key(world: World) -> None:
    body = pipeline(call("work", world.add("work"), input=Text("{{ input.a }}")))
    first = call("first", world.add("first", lambda data: "same"))
    loop = LoopStep(name="loop", body=body, until=Expr("input.b > 0"), cache=CACHED)
    tree = pipeline(first, loop, output=Text("{{ [steps.loop.output, steps.loop.cached] }}"))
    given = [{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 2}]
    assert await outputs(tree, *given) == [[1, False], [2, False], [1, True]]


async def test_an_import_has_the_same_key_for_the_same_input(world: World) -> None:
    child = pipeline(call("c", world.add("c"), input=Text("{{ input.x }}")))
    arguments = {"x": Text("{{ input.a }}")}
    step = ImportStep(name="sub", blueprint="x", pipeline=child, arguments=arguments, cache=CACHED)
    assert await outputs(pipeline(step), {"a": 1, "x": 1}, {"a": 1, "x": 2}, {"a": 2, "x": 2}) == [1, 1, 2]
    assert len(world.calls) == 2


async def test_a_step_that_reads_the_run_id_is_never_cached(world: World) -> None:
    tree = pipeline(call("a", world.add("a"), input=Text("{{ run.id }}"), cache=CACHED))
    first, second = await outputs(tree, 1, 1)
    assert first != second


async def test_a_callable_may_be_the_key(world: World) -> None:
    key = CallableRef("x:key", lambda data: data["text"].lower())
    step = call("a", world.add("a"), input=Text("one"), cache=CachePolicy(key=key))
    await outputs(pipeline(step), {"text": "A"}, {"text": "a"}, {"text": "b"})
    assert len(world.calls) == 2


async def test_captured_variables_of_a_function_are_part_of_the_key() -> None:
    def made(factor: int) -> BaseStep:
        return call("a", CallableRef("x:times", lambda n: n * factor), cache=CACHED)

    cache = MemoryCache()
    assert await outputs(pipeline(made(2)), 5, cache=cache) == [10]
    assert await outputs(pipeline(made(3)), 5, cache=cache) == [15]


async def test_arguments_of_a_partial_are_part_of_the_key() -> None:
    def add(data: int, more: int) -> int:
        return data + more

    cache = MemoryCache()
    for more in (1, 2):
        target: Any = CallableRef("x:add", partial(add, more=more))
        assert await outputs(pipeline(call("a", target, cache=CACHED)), 1, cache=cache) == [1 + more]


class Country(PipelineContext):
    country: str = "de"
    count: int = 0


def reading(calls: list[str]) -> CallableRef:
    async def tax(data: int, context: Country) -> str:
        calls.append(context.country)
        return f"{data} in {context.country}"

    tax.cache_key = "tax"  # type: ignore[attr-defined]  # its captured log is not data
    return CallableRef("x:tax", tax)


@pytest.mark.parametrize(("key", "asked"), [(None, 3), (Expr("context.country"), 2)])
async def test_a_callable_that_takes_the_context_is_cached_only_by_a_key(
    key: Expr | None, asked: int
) -> None:
    calls: list[str] = []
    tree = pipeline(call("a", reading(calls), cache=CachePolicy(key=key)))
    async with Flujo[Any, Any, Country](tree, persist_state=False, context_model=Country) as runner:
        for country in ("de", "fr", "de"):
            result = await runner.run_result_async(1, initial_context_data={"country": country})
            assert result.output == f"1 in {country}"
    assert len(calls) == asked


# Agents ---------------------------------------------------------------------------------------------------


class Colour(BaseModel):
    name: str


class Paint(BaseModel):
    name: str


def look_up(name: str) -> str:
    """Look up a name."""
    return name


OTHER_AGENTS: dict[str, Any] = {
    "model": "openai:gpt-5-nano",
    "instructions": "Answer in French.",
    "output_schema": {"type": "string", "maxLength": 5},
    "output_type": Colour,
    "model_settings": {"temperature": 0.5},
    "retries": 3,
    "tool_timeout": 1.0,
    "tools": [look_up],
}
"""For each field that decides the answer, another value than its default."""


async def key_of_agent(monkeypatch: pytest.MonkeyPatch, *, composite: bool = False, **fields: Any) -> str:
    """Return the key under which the answer of a step with this agent is looked up."""
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    spec = AgentSpec(**{"name": "a", "model": "openai:gpt-5-mini", **fields})

    async def answers(self: Any, ask: Any) -> Reply:
        return Reply(output="yes")

    monkeypatch.setattr("flujo.agents.chat.ChatAgent.ask", answers)
    asked: list[str] = []

    class Watched(MemoryCache):
        async def get(self, key: str) -> bytes | None:
            asked.append(key)
            return await super().get(key)

    step: BaseStep = Step(name="s", agent=spec, cache=None if composite else CACHED)
    if composite:
        step = LoopStep(name="l", body=pipeline(step), until=Expr("true"), cache=CACHED)
    async with Flujo[Any, Any, Any](pipeline(step), persist_state=False, cache=Watched()) as runner:
        result = await runner.run_result_async("hello")
    assert result.error is None
    (key,) = asked
    return key


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("composite", [False, True])
@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(AgentSpec)])
async def test_each_field_of_an_agent_is_in_the_key_or_is_listed_as_without_effect(
    field: str, composite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = await key_of_agent(monkeypatch, composite=composite)
    if field in NOT_THE_AGENTS_ANSWERS:
        assert await key_of_agent(monkeypatch, composite=composite, **{field: "other"}) == usual
    else:
        given = {field: OTHER_AGENTS[field]}
        other = await key_of_agent(monkeypatch, composite=composite, **given)
        assert other != usual
        assert await key_of_agent(monkeypatch, composite=composite, **given) == other


@pytest.mark.guarantee("G21")
async def test_two_classes_of_an_answer_have_different_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = [await key_of_agent(monkeypatch, output_type=each) for each in (Colour, Paint)]
    assert one != other


@pytest.mark.guarantee("G21")
async def test_the_state_of_a_tool_is_in_the_key_and_a_live_client_refuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tool(tenant: Any) -> Any:
        def find(name: str) -> str:
            """Find a name."""
            return f"{tenant}{name}"

        return find

    keys = [await key_of_agent(monkeypatch, tools=[tool(each)]) for each in ("a", "b", "a")]
    assert keys[0] == keys[2] != keys[1]
    with pytest.raises(ValueError, match="not enough values"):  # the cache is not asked at all
        await key_of_agent(monkeypatch, tools=[tool(iter("a"))])


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("package", ["openai", "pydantic-ai-slim"])
async def test_another_version_of_the_packages_of_a_provider_is_another_key(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, installed = await key_of_agent(monkeypatch), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99" if name == package else installed(name))
    assert await key_of_agent(monkeypatch) != usual


@pytest.mark.guarantee("G21")
async def test_another_endpoint_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = await key_of_agent(monkeypatch)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    assert await key_of_agent(monkeypatch) != usual


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("setting", ["coercion_tolerant_level = 0", 'structured_output_default = "prompt"'])
async def test_another_way_of_reading_answers_is_another_key(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = await key_of_agent(monkeypatch)
    (tmp_path / "flujo.toml").write_text(f"[aros]\n{setting}\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert await key_of_agent(monkeypatch) != usual


# Cached values --------------------------------------------------------------------------------------------


@pytest.mark.guarantee("G21")
async def test_failures_are_not_cached(store: MemoryStateStore, world: World) -> None:
    def fail_once(data: Any) -> Any:
        if len(world.calls) == 1:
            raise ValueError("not today")
        return data

    tree, cache = pipeline(call("a", world.add("a", fail_once), cache=CACHED)), MemoryCache()
    assert (await start(tree, store, 1, cache=cache)).status is RunStatus.FAILED
    assert len(cache) == 0
    assert (await start(tree, store, 1, run_id="again", cache=cache)).output == 1
    assert len(cache) == 1


@pytest.mark.parametrize("around", [True, False])
async def test_the_output_of_a_fallback_is_not_cached(world: World, around: bool) -> None:
    def fail(data: Any) -> Any:
        raise ValueError("away")

    policy = None if around else CACHED
    asks = call("a", world.add("a", fail), fallback=call("b", world.add("b", lambda n: -n)), cache=policy)
    cache = MemoryCache()
    tree = pipeline(CacheStep(name="known", step=asks) if around else asks)
    assert await outputs(tree, 1, 1, cache=cache) == [-1, -1]
    assert (len(cache), world.calls) == (0, ["a", "b", "a", "b"])


async def test_a_skipped_step_neither_reads_nor_writes_the_cache(world: World) -> None:
    tree = pipeline(call("a", world.add("a", lambda n: n + 1), when=Expr("input > 1"), cache=CACHED))
    cache = MemoryCache()
    assert await outputs(tree, 1, cache=cache) == [1]
    assert len(cache) == 0
    assert await outputs(tree, 2, 2, 1, cache=cache) == [3, 3, 1]


async def test_the_answer_of_a_human_is_not_cached(store: MemoryStateStore) -> None:
    def ask(data: Any) -> Any:
        raise PausedException("which one?")

    tree, cache = pipeline(call("a", CallableRef("x:ask", ask), cache=CACHED)), MemoryCache()
    for number in range(2):
        run_id = f"run-{number}"
        assert (await start(tree, store, 1, run_id=run_id, cache=cache)).status is RunStatus.PAUSED
        await answer(store, "a", number, run_id=run_id)
        assert (await resume(tree, store, run_id=run_id, cache=cache)).output == number
    assert len(cache) == 0


async def test_save_applies_to_a_cached_answer_too(store: MemoryStateStore, world: World) -> None:
    save = {"log": Save(Expr("output + context.total"), append=True)}
    tree = pipeline(
        call("a", world.add("a"), cache=CACHED, save=save),
        CacheStep(name="b", step=call("c", world.add("a")), save=save),
        context_schema=COUNTER_SCHEMA,
        output=Text("{{ context.log }}"),
    )
    cache = MemoryCache()
    for number, total in enumerate((0, 10)):
        context = {"total": total}
        result = await start(tree, store, 1, run_id=f"r{number}", cache=cache, initial_context_data=context)
        assert result.output == [1 + total, 1 + total]


async def test_a_result_that_wrote_to_the_context_is_not_cached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def count(data: int, context: Country) -> int:
        context.count += 1
        return data

    policy = CachePolicy(key=Expr("context.country"))
    tree = pipeline(
        call("a", CallableRef("x:count", count), cache=policy), output=Text("{{ context.count }}")
    )
    async with Flujo[Any, Any, Country](tree, persist_state=False, context_model=Country) as runner:
        assert [(await runner.run_result_async(1)).output for _ in range(2)] == [1, 1]
    assert "the step wrote `count` to the context" in caplog.text


async def test_the_facts_of_a_composite_are_cached_with_its_output(world: World) -> None:
    loop = LoopStep(
        name="loop",
        body=pipeline(call("a", world.add("a"))),
        until=Expr("false"),
        max_iterations=2,
        on_limit="continue",
        cache=CACHED,
    )
    tree = pipeline(loop, output=Text("{{ [steps.loop.exhausted, steps.loop.cached] }}"))
    assert await outputs(tree, 1, 1) == [[True, False], [True, True]]
    assert len(world.calls) == 2


@pytest.mark.parametrize(
    "damaged", [b"", b"\xff", b"not json", b"[]", b"{}", b'{"output":1}', b'{"output":"1","facts":{}}']
)
async def test_an_entry_that_cannot_be_used_is_a_miss_and_replaced(world: World, damaged: bytes) -> None:
    class Damaged(MemoryCache):
        async def get(self, key: str) -> bytes | None:
            return await super().get(key) if len(world.calls) else damaged

    cache = Damaged()
    tree = pipeline(call("a", world.add("a"), output_schema={"type": "integer"}, cache=CACHED))
    assert await outputs(tree, 1, 1, cache=cache) == [1, 1]
    assert world.calls == ["a"]


async def test_a_cache_error_is_a_miss_and_a_line_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def get(self, key: str) -> bytes | None:
            raise OSError("the cache is away")

        async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
            raise OSError("the cache is full")

    with caplog.at_level(logging.WARNING, "flujo.cache"):
        assert await outputs(pipeline(call("a", world.add("a"), cache=CACHED)), 1, 1, cache=Broken()) == [
            1,
            1,
        ]
    assert world.calls == ["a", "a"]
    assert "the cache is away" in caplog.text
    assert "the cache is full" in caplog.text


# Concurrent steps -----------------------------------------------------------------------------------------


@pytest.mark.guarantee("G21")
async def test_concurrent_identical_steps_execute_once(world: World) -> None:
    body = pipeline(call("a", world.add("a"), input=Text("{{ item.what }}"), cache=CACHED))
    tree = pipeline(MapStep(name="each", over=Expr("input"), body=body, max_concurrency=20))
    items = [{"what": what, "n": n} for n, what in enumerate("abab" * 5)]
    assert await outputs(tree, items) == [list("abab" * 5)]
    assert len(world.calls) == 2


async def test_when_the_executing_step_fails_the_next_one_executes(
    store: MemoryStateStore, world: World
) -> None:
    async def fail_first(data: Any) -> Any:
        world.calls.append("a")
        number = len(world.calls)
        await asyncio.sleep(0)
        if number == 1:
            raise ValueError("not me")
        return data

    fail_first.cache_key = "ask"  # type: ignore[attr-defined]  # its captured log is not data
    ask = CallableRef("x:ask", fail_first)
    branches = {name: pipeline(call("a", ask, cache=CACHED)) for name in ("one", "two", "three")}
    both = ParallelStep(name="both", branches=branches, on_branch_failure="skip")
    result = await start(pipeline(both), store, 1)
    assert (result.status, len(result.output)) == (RunStatus.COMPLETED, 2)
    assert world.calls == ["a", "a"]


# In a run -------------------------------------------------------------------------------------------------


async def test_a_cached_answer_costs_nothing_and_is_visible(store: MemoryStateStore) -> None:
    agent: Any = ScriptedAgent(["yes"], usage=COSTS)
    agent.cache_key = "yes"
    target: Any = CallableRef("x:agent", agent)
    tree, cache = pipeline(call("a", target, cache=CACHED)), MemoryCache()
    first = await start(tree, store, 1, run_id="first", cache=cache)
    second = await start(tree, store, 1, run_id="second", cache=cache)
    assert (first.usage, second.usage) == (COSTS, NOTHING)
    assert [step.cached for step in (*first.steps, *second.steps)] == [False, True]
    [entry] = await store.entries("second")  # type: ignore[arg-type]
    assert (entry.kind, entry.detail, entry.output) == (EntryKind.DONE, b'{"cached":true}', b'"yes"')


async def test_a_resumed_run_keeps_its_cached_answer_after_the_cache_evicts_it(
    store: MemoryStateStore, world: World
) -> None:
    cache = MemoryCache()
    await outputs(pipeline(call("a", world.add("a", lambda n: n + 1), cache=CACHED)), 1, cache=cache)
    tree = pipeline(
        call("a", world.add("a", lambda n: n + 1), cache=CACHED),
        HumanInTheLoopStep(name="ok", message=Text("ok?")),
        output=Text("{{ [steps.a.output, steps.a.cached] }}"),
    )
    assert (await start(tree, store, 1, cache=cache)).status is RunStatus.PAUSED
    await answer(store, "ok", True)
    assert (await resume(tree, store, cache=MemoryCache())).output == [2, True]
    assert world.calls == ["a"]


async def test_a_resumed_run_continues_its_own_work_instead_of_reading_the_cache(world: World) -> None:
    loop = LoopStep(
        name="loop",
        body=pipeline(call("one", world.add("one")), call("two", world.add("two"))),
        until=Expr("true"),
        cache=CACHED,
    )
    tree, store, cache = pipeline(loop), MemoryStateStore(), MemoryCache()
    stopping: Any = StoppingStore(store, 1)
    with pytest.raises(Exception, match="is unavailable"):
        await start(tree, stopping, 1, cache=cache)
    await outputs(tree, 1, cache=cache)
    world.calls.clear()
    result = await resume(tree, store, cache=cache)
    assert (result.output, world.calls) == (1, ["two"])
    assert not any(step.cached for step in result.steps)
