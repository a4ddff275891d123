from __future__ import annotations

import asyncio
import functools
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from flujo.agents.function import FunctionAgent
from flujo.domain.agents import Ask
from flujo.domain.models import AppResources, PipelineContext
from flujo.exceptions import ArgumentsRejected, CallableError, PausedException


class Ticket(BaseModel):
    text: str
    priority: int = 0


@dataclass
class Address:
    city: str


def only(text: str) -> str:
    return text.upper()


def with_default(text: str, limit: int = 3) -> str:
    return text[:limit]


def by_name(other: int, data: str) -> str:
    return f"{data}{other}"


def nothing() -> str:
    return "nothing asked"


def many(*words: str) -> list[str]:
    return list(words)


def only_positional(a: int, b: int, /) -> int:
    return a - b


def anything(**fields: Any) -> dict[str, Any]:
    return fields


async def answered(fn: Any, **ask: Any) -> Any:
    return (await FunctionAgent(fn).ask(Ask(**ask))).output


@pytest.mark.parametrize(
    ("fn", "data", "output"),
    [
        (only, "a", "A"),
        (with_default, "abcdef", "abc"),
        (nothing, "dropped", "nothing asked"),
        (many, "one", ["one"]),
        (functools.partial(with_default, limit=1), "abc", "a"),
        (str.title, "ada lovelace", "Ada Lovelace"),
        (len, [1, 2], 2),
        (dict, {"a": 1}, {"a": 1}),
        (Address, "Oslo", Address("Oslo")),
        (lambda data, extra=1: [data, extra], "x", ["x", 1]),
    ],
)
async def test_without_arguments_the_data_goes_to_the_only_free_parameter(
    fn: Any, data: Any, output: Any
) -> None:
    assert await answered(fn, data=data) == output


@pytest.mark.parametrize(
    ("fn", "arguments", "output"),
    [
        (by_name, {"data": "x", "other": 2}, "x2"),
        (with_default, {"text": "abcdef"}, "abc"),
        (only_positional, {"b": 1, "a": 3}, 2),
        (anything, {"x": 1, "y": None}, {"x": 1, "y": None}),
        (nothing, {}, "nothing asked"),
    ],
)
async def test_arguments_go_to_parameters_by_name(fn: Any, arguments: Any, output: Any) -> None:
    assert await answered(fn, data="ignored", arguments=arguments) == output


async def test_a_parameter_called_data_gets_the_data_when_all_others_have_defaults() -> None:
    assert await answered(lambda first=1, data=None: data, data="x") == "x"


async def test_parameters_context_and_resources_are_injected() -> None:
    class Context(PipelineContext):
        seen: int = 0

    def step(data: str, context: Context, resources: AppResources) -> str:
        context.seen += 1
        return f"{data} {type(resources).__name__}"

    context = Context()
    agent = FunctionAgent(step)
    assert agent.wants_context
    reply = await agent.ask(Ask(data="x", context=context, resources=AppResources()))
    assert reply.output == "x AppResources"
    assert context.seen == 1
    assert not FunctionAgent(only).wants_context


async def test_values_become_what_the_annotations_declare() -> None:
    def step(ticket: Ticket, address: Address, tags: set[str]) -> list[Any]:
        return [ticket, address, tags]

    output = await answered(
        step,
        arguments={"ticket": {"text": "hi", "priority": 2}, "address": {"city": "Oslo"}, "tags": ["a", "a"]},
    )
    assert output == [Ticket(text="hi", priority=2), Address("Oslo"), {"a"}]


async def test_unresolvable_or_missing_annotations_leave_the_value_unchanged() -> None:
    class Own:
        pass

    def step(a: Missing, b: Any, c: Own) -> list[Any]:  # type: ignore[name-defined]  # noqa: F821
        return [a, b, c]

    assert await answered(step, arguments={"a": {"x": 1}, "b": 2, "c": 3}) == [{"x": 1}, 2, 3]


@pytest.mark.parametrize(
    ("fn", "ask", "says", "parameter"),
    [
        (by_name, {"arguments": {"data": "x"}}, "needs the argument `other`", "other"),
        (by_name, {"arguments": {"data": "x", "othr": 1}}, "passes `othr`, which is not a parameter", "othr"),
        (by_name, {"arguments": {"data": "x", "other": "many"}}, "argument `other` of", "other"),
        (by_name, {"data": "x"}, "needs the argument `other`", "other"),
        (only_positional, {"data": 1}, "it takes `a`, `b`; none is called `data`", None),
        (only, {"data": {"a": "mapping"}}, "argument `text` of", "text"),
    ],
)
async def test_an_unfitting_argument_names_its_parameter(
    fn: Any, ask: dict[str, Any], says: str, parameter: str | None
) -> None:
    with pytest.raises(ArgumentsRejected) as caught:
        await answered(fn, **ask)
    assert says in str(caught.value)
    assert caught.value.facts.get("parameter") == parameter
    assert caught.value.hint


async def test_an_unfitting_value_is_not_quoted() -> None:
    with pytest.raises(ArgumentsRejected) as caught:
        await answered(only, data={"card": "4111 1111 1111 1111"})
    assert "4111" not in f"{caught.value} {caught.value.facts}"


async def test_sync_callables_leave_the_event_loop_free() -> None:
    release = threading.Event()
    task = asyncio.create_task(answered(lambda data: release.wait(10), data=1))
    await asyncio.sleep(0.01)
    release.set()  # reached only because the loop was not blocked
    assert await task is True


async def test_async_callables_run_on_the_event_loop() -> None:
    class Caller:
        async def __call__(self, data: str) -> tuple[str, bool]:
            return data, threading.current_thread() is threading.main_thread()

    async def function(data: str) -> tuple[str, bool]:
        return await Caller()(data)

    for fn in (Caller(), function, functools.partial(function), lambda data: function(data)):
        assert await answered(fn, data="x") == ("x", True)


async def test_an_exception_of_a_callable_is_passed_on_unchanged() -> None:
    def fails(data: str) -> None:
        raise KeyError(data)

    def pauses(data: str) -> None:
        raise PausedException("ask someone")

    with pytest.raises(KeyError):
        await answered(fails, data="x")
    with pytest.raises(PausedException):
        await answered(pauses, data="x")


def test_a_target_that_is_not_callable_is_refused() -> None:
    with pytest.raises(CallableError, match="is not callable"):
        FunctionAgent("text", name="skills:x")  # type: ignore[arg-type]  # the point of the test
