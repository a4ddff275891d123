"""A conversation with a model, over the wire formats of the providers and as a union of tools."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, provider_server
from agents.provider_server import Response as Sent
from flujo.agents.chat import ChatAgent, build_agent
from flujo.agents.messages import from_model
from flujo.agents.settings import AgentSettings
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.conversations import FinalAnswer, ToolCall, ToolCalls, ToolResult
from flujo.domain.threads import Exchange
from flujo.exceptions import ModelUnavailable, OutputRejected, OutputTruncated
from support import listener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODELS = {
    "openai-chat": "openai-chat:gpt-4o-mini",
    "openai": "openai:gpt-4o-mini",
    "anthropic": "anthropic:claude-haiku-4-5-20251001",
    "google": "google:gemini-2.0-flash",
}
WAYS = list(product(MODELS, ("body", "stream")))
LABEL = {"type": "object", "properties": {"label": {"enum": ["refund", "bug"]}}, "required": ["label"]}


def lookup(name: str) -> dict[str, bool]:
    """Look a customer up."""
    return {"vip": name == "Ada"}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


def agent_of(provider: Provider, folder: Path, api: str = "openai-chat", **spec: Any) -> ChatAgent:
    settings = AgentSettings(environment=provider.environment, cache_dir=folder)
    return build_agent(AgentSpec("helper", MODELS[api], **spec), tools=[lookup], settings=settings)


@pytest.mark.parametrize(("api", "way"), WAYS)
async def test_a_conversation_continues_from_its_recorded_messages(
    provider: Provider, tmp_path: Path, api: str, way: str
) -> None:
    provider.will_answer(Sent(tool_call=("lookup", {"name": "Ada"})), "Ada is a VIP.")
    ask, heard = Ask(instructions="Be brief."), list[str]()
    on_text = listener(heard) if way == "stream" else None
    session = agent_of(provider, tmp_path, api).converse(ask, [])
    prompt = session.prompt("Who is Ada?")
    response = await session.request([prompt], may_call=True, meter=None, on_text=on_text)
    assert (response.usage.requests, response.usage.tool_calls) == (1, 0)
    calls = session.read(response.message)
    assert isinstance(calls, ToolCalls)
    (call,) = calls.calls
    assert (call.name, call.arguments) == ("lookup", {"name": "Ada"})

    # another process, from the journal
    recorded = json.loads(canonical.encode([prompt, response.message]))
    again = agent_of(provider, tmp_path, api).converse(ask, recorded)
    results = again.results([(call, ToolResult({"vip": True}))])
    last = await again.request([results], may_call=False, meter=None, on_text=on_text)
    assert again.read(last.message) == FinalAnswer("Ada is a VIP.")
    assert "".join(heard) == ("Ada is a VIP." if way == "stream" else "")
    sent = json.dumps(provider.requests[1])
    for expected in ("Be brief.", "Who is Ada?", "vip", '"lookup"'):
        assert expected in sent
    choice = provider.requests[1].get("tool_choice") or provider.requests[1]["toolConfig"]
    assert "none" in json.dumps(choice).lower()


THREAD = (
    Exchange("writer", "Draft.", "A draft."),
    Exchange("helper", "Judge.", "Too long.", is_own=True),
    Exchange("writer", "Again.", "Short."),
)


@pytest.mark.parametrize("api", MODELS)
async def test_a_model_sees_the_thread_before_the_conversation(
    provider: Provider, tmp_path: Path, api: str
) -> None:
    provider.will_answer("Good.", "Good.")
    agent = agent_of(provider, tmp_path, api)
    session = agent.converse(Ask(history=THREAD), [])
    response = await session.request([session.prompt("And?")], may_call=True, meter=None, on_text=None)
    assert session.read(response.message) == FinalAnswer("Good.")
    assert (await agent.ask(Ask(data="And?", history=THREAD))).output == "Good."
    texts = ["Draft.", "A draft.", "Judge.", "Too long.", "Again.", "Short.", "And?"]
    for sent in map(json.dumps, provider.requests):
        places = [sent.index(text) for text in texts]
        assert places == sorted(places)
        assert [sent.count(text) for text in ("[user to writer]", "[writer]", "helper]")] == [2, 2, 0]


async def test_a_rejected_answer_on_a_thread_keeps_the_thread(provider: Provider, tmp_path: Path) -> None:
    provider.will_answer('{"label": "praise"}', '{"label": "bug"}')
    agent = agent_of(provider, tmp_path, output_schema=LABEL)
    assert (await agent.ask(Ask(data="x", history=THREAD[:2]))).output == {"label": "bug"}
    roles = [each["role"] for each in provider.requests[1]["messages"]]
    assert roles == ["user", "user", "user", "assistant", "user", "assistant", "user"]


async def test_a_failed_request_leaves_the_conversation_as_it_was(provider: Provider, tmp_path: Path) -> None:
    session = agent_of(provider, tmp_path).converse(Ask(), [])
    provider.will_answer(Sent(status=500), "Good day.")
    prompt = session.prompt("Hello")
    with pytest.raises(ModelUnavailable) as caught:
        await session.request([prompt], may_call=True, meter=None, on_text=None)
    assert caught.value.usage.requests == 1  # type: ignore[attr-defined]  # each failed request has its usage
    response = await session.request([prompt], may_call=True, meter=None, on_text=None)
    assert session.read(response.message) == FinalAnswer("Good day.")
    assert [m["role"] for m in provider.requests[1]["messages"]] == ["user"]


async def test_a_cut_tool_call_is_not_a_response(provider: Provider, tmp_path: Path) -> None:
    provider.will_answer(Sent(tool_call=("lookup", {"name": "Ada"}), kind="length"))
    session = agent_of(provider, tmp_path).converse(Ask(), [])
    with pytest.raises(OutputTruncated):
        await session.request([session.prompt("x")], may_call=True, meter=None, on_text=None)


async def test_an_answer_is_read_against_the_schema_of_the_step(provider: Provider, tmp_path: Path) -> None:
    provider.will_answer('{"label": "praise"}', '{"label": "bug"}')
    session = agent_of(provider, tmp_path).converse(Ask(output_schema=LABEL), [])
    first = await session.request([session.prompt("x")], may_call=True, meter=None, on_text=None)
    with pytest.raises(OutputRejected) as caught:
        session.read(first.message)
    again = session.again(str(caught.value.facts["reason"]))
    second = await session.request([again], may_call=True, meter=None, on_text=None)
    assert session.read(second.message) == FinalAnswer({"label": "bug"})
    assert "not 'praise'" in provider.requests[1]["messages"][-1]["content"]


async def test_a_text_that_the_journal_cannot_hold_is_not_an_answer(
    provider: Provider, tmp_path: Path
) -> None:
    provider.will_answer("a\x00b")
    session = agent_of(provider, tmp_path).converse(Ask(), [])
    response = await session.request([session.prompt("x")], may_call=True, meter=None, on_text=None)
    recorded = json.loads(canonical.encode(response.message))
    with pytest.raises(OutputRejected, match="half of a surrogate pair"):
        session.read(recorded)


@pytest.mark.parametrize(
    "written", ['{"name": "Ad', "[1]", '{"n": 1e999}', '{"n": 123456789012345678901234567890}']
)
async def test_arguments_that_are_not_a_json_object_do_not_break_the_journal(
    provider: Provider, tmp_path: Path, written: str
) -> None:
    provider.will_answer(Sent(tool_call=("lookup", written)))
    session = agent_of(provider, tmp_path).converse(Ask(), [])
    response = await session.request([session.prompt("x")], may_call=True, meter=None, on_text=None)
    read = session.read(json.loads(canonical.encode(response.message)))
    assert isinstance(read, ToolCalls)
    assert not isinstance(read.calls[0].arguments, dict)


def test_the_traits_name_model_instructions_schema_and_tools(provider: Provider, tmp_path: Path) -> None:
    traits = agent_of(provider, tmp_path).traits(Ask(instructions="Be brief.", output_schema=LABEL))
    assert traits["model"] == "openai-chat:gpt-4o-mini"
    assert traits["instructions"] == "Be brief."
    assert traits["output_schema"] == LABEL
    assert traits["tools"]["lookup"]["description"] == "Look a customer up."
    canonical.encode(traits)


# A part of the history -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", MODELS)
async def test_a_session_continues_after_a_summary_and_the_newest_turn(
    provider: Provider, tmp_path: Path, api: str
) -> None:
    provider.will_answer("Ada is a VIP.")
    session = agent_of(provider, tmp_path, api).converse(Ask(instructions="Be brief."), [])
    call = ToolCall("lookup", {"name": "Ada"}, "call_1")
    task, results = session.prompt("Who is a VIP?"), session.results([(call, ToolResult({"vip": True}))])
    session.continue_from([session.recap(task, "Bob is not one."), from_model(calls=[call])])
    response = await session.request([results], may_call=True, meter=None, on_text=None)
    assert session.read(response.message) == FinalAnswer("Ada is a VIP.")
    sent = json.dumps(provider.requests[-1])
    places = [sent.index(text) for text in ("Who is a VIP?", "Bob is not one.", "Ada", "vip")]
    assert places == sorted(places)


@pytest.mark.parametrize("api", MODELS)
async def test_an_agent_with_a_schema_writes_a_summary_as_text(
    provider: Provider, tmp_path: Path, api: str
) -> None:
    provider.will_answer("Ada is a VIP so far.")
    agent = agent_of(provider, tmp_path, api, output_schema=LABEL)
    call = ToolCall("lookup", {"name": "Ada"}, "call_1")
    session = agent.converse(Ask(output_schema={"type": "string"}), [])
    older = [
        session.prompt("Who is a VIP?"),
        from_model(calls=[call]),
        session.results([(call, ToolResult({"vip": True}))]),
    ]
    session.continue_from(older)
    response = await session.request([session.summarise()], may_call=False, meter=None, on_text=None)
    assert session.read(response.message) == FinalAnswer("Ada is a VIP so far.")
    assert "Summarise the conversation" in json.dumps(provider.requests[-1])
