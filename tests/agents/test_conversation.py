"""A conversation within one attempt of a plain step: tools, their failures, and the end of the attempt."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_ai import ModelRetry

from engine.talking import add, calls
from flujo import AppResources, Flujo
from flujo.agents.conversation import MOST_REQUESTS
from flujo.domain.agents import Ask
from flujo.domain.steps import BaseStep, CallableRef, Step
from flujo.domain.tools import CallableTool
from flujo.domain.usage import Usage
from flujo.exceptions import AgentError, OutputRejected, PausedException, ResourcesMissing, TurnLimitReached
from flujo.testing import MemoryStateStore, ScriptedAgent
from support import COUNTER_SCHEMA, pipeline, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.models import PipelineContext

ONE = Usage(requests=1)


def agent_of(script: Any, *tools: Callable[..., Any], **more: Any) -> ScriptedAgent:
    return ScriptedAgent(script, tools=tools, usage=ONE, **more)


class Desk(AppResources):
    clerk: str = "Ada"


def step(agent: ScriptedAgent) -> BaseStep:
    return Step("talk", CallableRef.of(agent))


def heard(agent: ScriptedAgent) -> list[Any]:
    """Return the contents of the last messages that the agent got."""
    return [part["content"] for part in agent.asked[-1].data[-1]["parts"]]


def used(error: BaseException) -> Usage:
    usage = error.usage  # type: ignore[attr-defined]  # each failed ask has it
    assert isinstance(usage, Usage)
    return usage


async def test_the_results_of_tools_reach_the_model_in_the_order_of_the_calls() -> None:
    agent = agent_of([calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})), "10"], add)
    reply = await agent.ask(Ask(data="add all"))
    assert (reply.output, heard(agent)) == ("10", [3, 7])
    assert (reply.usage.requests, reply.usage.tool_calls) == (2, 2)


async def test_an_unknown_tool_and_wrong_arguments_go_back_to_the_model_and_are_not_counted() -> None:
    agent = agent_of([calls(("missing", {}), ("add", {"a": "x"}), ("add", {"a": 1, "b": 1})), "2"], add)
    reply = await agent.ask(Ask())
    unknown, wrong, right = heard(agent)
    assert unknown == "the call was not made: there is no tool `missing`; the tools are `add`"
    assert "`a`: Input should be a valid integer" in wrong
    assert (right, reply.usage.tool_calls) == (2, 1)


async def test_a_tool_that_wants_another_call_gets_it_as_often_as_answers_may_be_corrected() -> None:
    tries: list[int] = []

    def pick(n: int) -> int:
        tries.append(n)
        if n < 3:
            raise ModelRetry(f"{n} is too small")
        return n

    agent = agent_of([calls(("pick", {"n": n})) for n in (1, 2, 3)] + ["3"], pick, corrections=2)
    assert (await agent.ask(Ask())).output == "3"
    assert tries == [1, 2, 3]
    agent = agent_of([calls(("pick", {"n": n})) for n in (1, 2, 3)], pick, corrections=1)
    with pytest.raises(OutputRejected, match="tool `pick` cannot be used: 2 is too small") as caught:
        await agent.ask(Ask())
    assert caught.value.retryable
    assert used(caught.value) == Usage(requests=2, tool_calls=2)


async def test_calls_of_one_response_run_at_the_same_time_and_one_failure_cancels_the_others() -> None:
    both, ended = asyncio.Barrier(2), []

    async def meet(name: str) -> str:
        try:
            await both.wait()
            if name == "a":
                raise LookupError("no table")
            await asyncio.Event().wait()
        finally:
            ended.append(name)
        return name

    agent = agent_of([calls(("meet", {"name": "a"}), ("meet", {"name": "b"}))], meet)
    async with asyncio.timeout(60):
        with pytest.raises(LookupError, match="no table") as caught:
            await agent.ask(Ask())
    assert ended == ["a", "b"]
    assert used(caught.value) == Usage(requests=1, tool_calls=2)


async def test_a_tool_that_is_too_slow_goes_back_to_the_model() -> None:
    agent = agent_of([calls(("slow", {})), "late"], slow)
    agent.tools["slow"].timeout_s = 0.02
    assert (await agent.ask(Ask())).output == "late"
    assert heard(agent) == ["the call took longer than 0.02 s"]


async def slow() -> None:
    await asyncio.Event().wait()


async def test_a_slow_tool_with_the_context_ends_the_attempt_without_its_writes() -> None:
    def linger(context: PipelineContext) -> None:
        context.total = 1  # type: ignore[attr-defined]  # of the schema
        time.sleep(0.1)

    agent = agent_of([calls(("linger", {})), "end"], linger)
    agent.tools["linger"].timeout_s = 0.02
    result = await start(pipeline(step(agent), context_schema=COUNTER_SCHEMA), MemoryStateStore())
    assert result.error is not None
    assert "tool `linger`: the call took longer than 0.02 s" in result.error.message
    assert result.context is not None
    assert result.context.model_dump()["total"] == 0


async def test_tools_get_resources_and_the_context_and_their_writes_are_kept() -> None:
    threads = []

    def note(text: str, context: PipelineContext, resources: Desk) -> str:
        threads.append(threading.current_thread())
        context.log = [*context.log, text]  # type: ignore[attr-defined]  # of the schema
        return f"{resources.clerk}: noted"

    agent = agent_of([calls(("note", {"text": "a"}), ("note", {"text": "b"})), "end"], note)
    tree = pipeline(step(agent), context_schema=COUNTER_SCHEMA)
    async with Flujo[Any, Any, Any](tree, store=MemoryStateStore(), resources=Desk()) as runner:
        result = await runner.run_result_async("note both")
    assert result.output == "end"
    assert heard(agent) == ["Ada: noted", "Ada: noted"]
    assert result.context is not None
    assert result.context.model_dump()["log"] == ["a", "b"]
    assert all(each.daemon for each in threads)
    with pytest.raises(ResourcesMissing):
        await agent_of([calls(("note", {"text": "a"}))], note).ask(Ask())


async def test_a_result_that_is_not_json_is_an_error_for_the_model() -> None:
    agent = agent_of([calls(("strange", {})), "end"], strange)
    assert (await agent.ask(Ask())).output == "end"
    assert "the call was made, and its result cannot be recorded" in heard(agent)[0]


def strange() -> object:
    return object()


async def test_a_tool_that_pauses_pauses_the_step() -> None:
    def ask_human() -> None:
        raise PausedException("really?")

    with pytest.raises(PausedException, match="really"):
        await agent_of([calls(("ask_human", {}))], ask_human).ask(Ask())


async def test_a_model_that_never_answers_ends_the_attempt() -> None:
    agent = agent_of(lambda _: calls(("add", {"a": 1, "b": 1})), add)
    with pytest.raises(TurnLimitReached, match=f"made {MOST_REQUESTS} requests in one attempt") as caught:
        await agent.ask(Ask())
    assert agent.count == used(caught.value).requests == MOST_REQUESTS
    assert "granular" in str(caught.value.hint)


async def test_a_rejected_answer_is_requested_again_with_the_reason() -> None:
    async def check(value: Any) -> Any:
        if value != "yes":
            raise OutputRejected("no", reason=f"{value!r} is not yes")
        return value.upper()

    agent = agent_of(["no", "yes"], add)
    reply = await agent.ask(Ask(check=check))
    assert (reply.output, reply.repairs) == ("YES", ("asked again because 'no' is not yes",))
    with pytest.raises(OutputRejected, match="agent 'scripted': no") as caught:
        await agent_of(["no", "no", "yes"], add).ask(Ask(check=check))
    assert used(caught.value).requests == 2


async def test_one_attempt_calls_no_tool_whose_calls_must_be_recorded() -> None:
    agent = ScriptedAgent(["done"], tools=[CallableTool(add, enforce_idempotency=True)])
    with pytest.raises(AgentError, match="tool `add` has `enforce_idempotency`") as refused:
        await agent.ask(Ask(data="go"))
    assert "kind: granular" in (refused.value.hint or "")
    assert agent.asked == []
