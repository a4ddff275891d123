"""Input and output processors and validators of a step."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, provider_server
from flujo.agents.settings import AgentSettings
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import RunId
from flujo.domain.models import PipelineContext
from flujo.domain.steps import CallableRef, Processors, Step
from flujo.exceptions import PausedException
from flujo.services.binding.binding import PipelineBinding
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from support import COUNTER_SCHEMA, RunStatus, StepConfig, Text, World, call, pipeline, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ECHO = CallableRef("test:echo", lambda data: data)


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


def ref(fn: Any, name: str = "it") -> CallableRef:
    return CallableRef(f"test:{name}", fn)


async def test_processors_change_the_input_and_the_output(store: MemoryStateStore) -> None:
    async def doubled(data: int) -> int:
        return data * 2

    processors = Processors(
        input=(ref(lambda data: data + 1, "more"), ref(doubled, "doubled")),
        output=(ref(str, "text"), ref(len, "size")),
    )
    result = await start(pipeline(call("x", ECHO, processors=processors)), store, 49)
    assert result.output == 3
    entry = (await store.entries(RunId("run")))[0]
    assert (entry.input, entry.output) == (b"100", b"3")


async def test_a_processor_of_arguments_gets_and_returns_them_by_name(store: MemoryStateStore) -> None:
    def shouted(data: dict[str, str]) -> dict[str, str]:
        return {name: value.upper() for name, value in data.items()}

    step = call(
        "x",
        ref(lambda left, right: left + right, "join"),
        arguments={"left": Text("{{ input }}"), "right": Text("!")},
        processors=Processors(input=(ref(shouted),)),
    )
    assert (await start(pipeline(step), store, "hi")).output == "HI!"
    wrong = call("x", ECHO, arguments={"data": Text("a")}, processors=Processors(input=(ref(len, "len"),)))
    failed = await start(pipeline(wrong), MemoryStateStore())
    assert failed.error is not None
    assert (failed.error.code, failed.error.path) == ("FLJ305", "x")
    assert "`test:len` returned a number" in failed.error.message


async def test_context_writes_of_processors_stay_and_those_of_validators_do_not(
    store: MemoryStateStore,
) -> None:
    class Counted(PipelineContext):
        total: int = 0

    def count(data: Any, context: Counted) -> Any:
        context.total += 1
        return data

    def judge(data: Any, context: Counted) -> bool:
        context.total += 100
        return context.total == 103

    step = call(
        "x",
        ref(count, "count"),
        processors=Processors(input=(ref(count, "count"),), output=(ref(count, "count"),)),
        validators=(ref(judge),),
    )
    async with Flujo[Any, Any, Counted](pipeline(step), context_model=Counted, store=store) as runner:
        result = await runner.run_result_async(None)
    assert result.context is not None
    assert (result.status, result.context.total) == (RunStatus.COMPLETED, 3)


async def test_a_sync_validator_does_not_block_the_event_loop(store: MemoryStateStore) -> None:
    seen: list[str] = []
    step = call("x", ECHO, validators=(ref(lambda data: seen.append(threading.current_thread().name)),))
    await start(pipeline(step), store)
    assert seen
    assert seen[0] != threading.main_thread().name


def refuses(data: Any) -> bool:
    raise ValueError("too short")


def asserts(data: Any) -> None:
    raise AssertionError("no name in it")


@pytest.mark.parametrize(
    ("validator", "reason"),
    [
        (lambda data: False, "it returned False"),
        (lambda data: "not polite", "not polite"),
        (refuses, "too short"),
        (asserts, "no name in it"),
    ],
    ids=["false", "a reason", "a ValueError", "an AssertionError"],
)
async def test_an_output_refused_by_a_validator_leads_to_another_attempt(
    store: MemoryStateStore, validator: Any, reason: str
) -> None:
    world = World()
    step = call("x", world.add("x"), validators=(ref(validator),), config=StepConfig(max_retries=1))
    result = await start(pipeline(step), store, 1)
    assert world.calls == ["x", "x"]
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ304", "x")
    assert result.error.message == f"output of step 'x' does not pass validator `test:it`: {reason}"


@pytest.mark.parametrize("answer", [None, True])
async def test_a_validator_accepts_with_none_or_true(store: MemoryStateStore, answer: Any) -> None:
    step = call("x", ECHO, validators=(ref(lambda data: answer),))
    assert (await start(pipeline(step), store, 1)).success


async def test_a_value_that_does_not_fit_the_parameter_of_a_validator_is_refused(
    store: MemoryStateStore,
) -> None:
    def judge(data: int) -> None: ...

    result = await start(pipeline(call("x", ECHO, validators=(ref(judge),))), store, "many")
    assert result.error is not None
    assert result.error.code == "FLJ304"
    assert "`data`" in result.error.message


def breaks(data: Any) -> Any:
    raise KeyError("lost")


def asks(data: Any) -> Any:
    raise PausedException("Well?")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"validators": (ref(breaks),)}, "validator `test:it` raised KeyError: 'lost'"),
        ({"validators": (ref(lambda data: 3),)}, "validator `test:it` returned a value of type int"),
        ({"validators": (ref(asks),)}, "validator `test:it` asked a human: Well?"),
        ({"processors": Processors(input=(ref(breaks),))}, "processor `test:it` raised KeyError: 'lost'"),
        ({"processors": Processors(output=(ref(breaks),))}, "processor `test:it` raised KeyError: 'lost'"),
    ],
    ids=["raises", "no verdict", "asks", "input", "output"],
)
async def test_the_error_names_the_broken_processor_or_validator(
    store: MemoryStateStore, keys: Any, message: str
) -> None:
    result = await start(pipeline(call("x", ECHO, **keys)), store, 1)
    assert result.error is not None
    assert (result.error.code, result.error.path, result.error.message) == ("FLJ401", "x", message)


async def test_the_time_limit_of_the_step_stops_a_hung_processor(store: MemoryStateStore) -> None:
    async def hang(data: Any) -> None:
        await asyncio.Event().wait()

    step = call("x", ECHO, processors=Processors(output=(ref(hang),)), config=StepConfig(timeout_s=0.01))
    result = await start(pipeline(step), store)
    assert result.error is not None
    assert result.error.code == "FLJ403"


async def test_an_output_that_breaks_its_schema_names_the_place_and_is_retried(
    store: MemoryStateStore,
) -> None:
    world = World()
    answers = iter([{"tags": ["a", 1]}, {"tags": ["a"]}])
    step = call(
        "x",
        world.add("x", lambda data: next(answers)),
        output_schema={
            "type": "object",
            "properties": {"tags": {"type": "array", "items": {"type": "string"}}},
        },
        config=StepConfig(max_retries=1),
    )
    assert (await start(pipeline(step), store)).output == {"tags": ["a"]}
    error = canonical.decode((await store.entries(RunId("run")))[0].error or b"{}")
    assert (error["code"], error["path"], error["retryable"]) == ("FLJ304", "x", True)
    assert "output of step 'x'" in error["message"]
    assert "`tags[1]` must be `string`" in error["message"]


async def test_an_input_that_does_not_fit_is_not_retried(store: MemoryStateStore) -> None:
    def takes(data: int) -> int:
        return data

    step = call("x", ref(takes), config=StepConfig(max_retries=3))
    result = await start(pipeline(step), store, "many")
    assert result.error is not None
    assert result.error.code == "FLJ305"
    assert len(await store.entries(RunId("run"))) == 1


# A model ------------------------------------------------------------------------------------------------


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


@pytest.fixture
def binding(provider: Provider, tmp_path: Path) -> PipelineBinding:
    environment = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"{provider.url}/v1"}
    return PipelineBinding(
        allow_callables=(), agent_settings=AgentSettings(environment=environment, cache_dir=tmp_path)
    )


async def asked(step: Step, binding: PipelineBinding, store: MemoryStateStore, value: Any) -> Any:
    tree = pipeline(step, context_schema=COUNTER_SCHEMA)
    binding.bind(tree)
    async with Flujo[Any, Any, Any](tree, store=store, binding=binding) as runner:
        return await runner.run_result_async(value, run_id="run")


WRITER = AgentSpec(name="writer", model="openai-chat:gpt-4o-mini", retries=2)


async def test_the_reason_of_a_validator_is_returned_to_the_model(
    provider: Provider, binding: PipelineBinding, store: MemoryStateStore
) -> None:
    provider.will_answer("Hey.", "Hey you.", "Dear customer.")
    validators = (ref(lambda data: None if data.startswith("Dear") else f"{data!r} is not polite"),)
    result = await asked(Step(name="x", agent=WRITER, validators=validators), binding, store, "Write.")
    assert result.output == "Dear customer."
    assert result.usage.requests == 3
    assert len(await store.entries(RunId("run"))) == 1
    conversation = [message["content"] for message in provider.requests[-1]["messages"]]
    assert conversation[0] == "Write."
    assert "'Hey.' is not polite" in conversation[2]
    assert "'Hey you.' is not polite" in conversation[4]


async def test_a_model_that_never_passes_a_validator_fails_and_its_usage_counts(
    provider: Provider, binding: PipelineBinding, store: MemoryStateStore
) -> None:
    provider.will_answer("Hey.")
    step = Step(name="x", agent=WRITER, validators=(ref(lambda data: "not polite"),))
    result = await asked(step, binding, store, "Write.")
    assert (result.error.code, result.usage.requests) == ("FLJ304", 3)
    assert "agent 'writer'" in result.error.message
    assert "not polite" in result.error.message


async def test_a_schema_validates_the_processed_answer(
    provider: Provider, binding: PipelineBinding, store: MemoryStateStore
) -> None:
    provider.will_answer("It is hard to say.", " Bug. ")
    step = Step(
        name="x",
        agent=WRITER,
        processors=Processors(output=(ref(lambda data: data.strip(" .").lower()),)),
        output_schema={"enum": ["bug", "refund"]},
    )
    result = await asked(step, binding, store, "Sort.")
    assert (result.output, result.usage.requests) == ("bug", 2)
    assert "must be one of" in provider.requests[1]["messages"][2]["content"]


async def test_a_broken_validator_ends_the_conversation_and_its_usage_counts(
    provider: Provider, binding: PipelineBinding, store: MemoryStateStore
) -> None:
    provider.will_answer("Hey.")
    result = await asked(Step(name="x", agent=WRITER, validators=(ref(breaks),)), binding, store, "Write.")
    assert (result.error.code, result.usage.requests) == ("FLJ401", 1)
