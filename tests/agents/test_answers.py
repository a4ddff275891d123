"""Answers over the wire: four APIs, as a body and as a stream. A cut answer is never used."""

from __future__ import annotations

import json
import os
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from agents.answer_corpus import CorpusAnswer, corpus
from agents.provider_server import Provider, Response, provider_server
from flujo.agents.chat import ChatAgent, build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.exceptions import OutputRejected, OutputTruncated
from flujo.json_schema import strict_json
from support import listener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODELS = {
    "openai-chat": "openai-chat:gpt-4o-mini",
    "openai-responses": "openai-responses:gpt-4o-mini",
    "anthropic": "anthropic:claude-haiku-4-5-20251001",
    "google": "google:gemini-2.5-flash",
}
WAYS = list(product(MODELS, ("body", "stream")))
LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["refund", "bug"]}, "note": {"type": "string"}},
    "required": ["label"],
}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


def agent_of(
    provider: Provider, api: str, folder: Path, *, tools: Any = (), level: int = 2, **spec: Any
) -> ChatAgent:
    settings = AgentSettings(environment=provider.environment, cache_dir=folder, coercion_level=level)
    spec = {"model_settings": {"max_tokens": 200}, **spec}
    return build_agent(AgentSpec(name="sorter", model=MODELS[api], **spec), tools=tools, settings=settings)


def ask(way: str) -> Ask:
    return Ask(data="Sort it.", on_text=listener([]) if way == "stream" else None)


@pytest.mark.parametrize(("api", "way"), WAYS)
@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (None, "The quick"),
        (LABEL, '{"label": "bug", "no'),
        (LABEL, '{"label": "bug"}'),
        ({"enum": ["refund", "bug"]}, "bug"),
        (None, ""),
    ],
    ids=["text", "JSON", "whole JSON", "word", "nothing"],
)
async def test_a_cut_answer_is_refused_whatever_it_contains(
    provider: Provider, tmp_path: Path, api: str, way: str, schema: Any, text: str
) -> None:
    provider.will_answer(Response(text, kind="length"))
    agent = agent_of(provider, api, tmp_path, output_schema=schema, retries=0)
    with pytest.raises(OutputTruncated, match="cut off at the limit of 200 tokens") as caught:
        await agent.ask(ask(way))
    assert "max_tokens" in (caught.value.hint or "")
    assert (caught.value.code, caught.value.max_tokens, caught.value.retryable) == ("FLJ307", 200, True)
    usage = caught.value.usage  # type: ignore[attr-defined]  # each failed request has its usage
    assert (usage.requests, usage.output_tokens, usage.unpriced_requests) == (1, 100, 0)


@pytest.mark.parametrize(("api", "way"), WAYS)
async def test_a_cut_answer_is_requested_again_and_both_are_paid(
    provider: Provider, tmp_path: Path, api: str, way: str
) -> None:
    provider.will_answer(Response('{"label": "refund"}', kind="length"), '{"label": "bug"}')
    reply = await agent_of(provider, api, tmp_path, output_schema=LABEL).ask(ask(way))
    assert reply.output == {"label": "bug"}
    assert (reply.usage.requests, reply.usage.output_tokens) == (2, 200)
    assert reply.repairs == (
        "asked again because it was cut off at the limit of 200 tokens, so it must be shorter",
    )
    again = json.dumps(provider.requests[1])
    assert "Sort it." in again
    assert "so it must be shorter" in again
    assert "refund" not in again.replace('"enum": ["refund", "bug"]', "")


@pytest.mark.parametrize("way", ["body", "stream"])
async def test_a_cut_tool_call_is_not_made_and_earlier_calls_are_not_repeated(
    provider: Provider, tmp_path: Path, way: str
) -> None:
    calls: list[tuple[str, str]] = []

    def book(city: str, day: str = "today") -> str:
        calls.append((city, day))
        return f"booked {city}"

    def cut(_: dict[str, Any]) -> Response:
        whole = Response(tool_call=("book", {"city": "Oslo"}))
        return Response(tool_call=whole.tool_call, kind="length")

    provider.will_answer(Response(tool_call=("book", {"city": "Rome", "day": "Monday"})), cut, "Booked.")
    reply = await agent_of(provider, "openai-chat", tmp_path, tools=[book]).ask(ask(way))
    assert reply.output == "Booked."
    assert calls == [("Rome", "Monday")]
    assert (reply.usage.requests, reply.usage.tool_calls) == (3, 1)
    assert [m["role"] for m in provider.requests[2]["messages"]] == ["user", "assistant", "tool", "user"]


@pytest.mark.parametrize(("api", "way"), WAYS)
@pytest.mark.parametrize("kind", ["refusal", "content_filter"])
async def test_a_refusal_is_final_and_keeps_its_words(
    provider: Provider, tmp_path: Path, api: str, way: str, kind: Any
) -> None:
    provider.will_answer(Response("I do not sort lamps." if kind == "refusal" else "", kind=kind))
    with pytest.raises(OutputRejected, match="refused to answer") as caught:
        await agent_of(provider, api, tmp_path, output_schema=LABEL).ask(ask(way))
    assert not caught.value.retryable
    assert len(provider.requests) == 1
    if kind == "refusal" and api.startswith("openai"):
        assert "I do not sort lamps." in str(caught.value)


@pytest.mark.parametrize(("api", "way"), WAYS)
async def test_white_space_is_not_an_answer(provider: Provider, tmp_path: Path, api: str, way: str) -> None:
    provider.will_answer(" \n\u200b", "Good day.")
    assert (await agent_of(provider, api, tmp_path).ask(ask(way))).output == "Good day."
    assert len(provider.requests) == 2


@pytest.mark.parametrize("text", ["a\x00b", "\ud83d", '{"label": "bug", "note": "\\u0000"}'])
async def test_a_broken_character_is_an_answer_that_does_not_fit(
    provider: Provider, tmp_path: Path, text: str
) -> None:
    provider.will_answer(text, '{"label": "bug"}')
    schema = LABEL if text.startswith("{") else None
    reply = await agent_of(provider, "openai-chat", tmp_path, output_schema=schema).ask(ask("body"))
    assert reply.usage.requests == 2
    assert "asked again because" in reply.repairs[0]


@pytest.mark.parametrize(("api", "way"), WAYS)
async def test_tags_inside_a_json_text_are_text(
    provider: Provider, tmp_path: Path, api: str, way: str
) -> None:
    answer = {"label": "bug", "note": "<think>a</think> and </think> and <think>"}
    provider.will_answer(json.dumps(answer))
    reply = await agent_of(provider, api, tmp_path, output_schema=LABEL, level=0).ask(ask(way))
    assert (reply.output, reply.repairs) == (answer, ())


@pytest.mark.parametrize(("api", "way"), WAYS)
async def test_reasoning_is_not_the_answer(provider: Provider, tmp_path: Path, api: str, way: str) -> None:
    provider.will_answer('<think>{"label": "bug"}?</think>{"label": "refund"}')
    reply = await agent_of(provider, api, tmp_path, output_schema=LABEL).ask(ask(way))
    assert (reply.output, reply.repairs) == ({"label": "refund"}, ("set the reasoning aside",))
    provider.answers[:] = ["<think>Who is it?</think>\n\nGood day."]
    assert (await agent_of(provider, api, tmp_path).ask(ask(way))).output == "Good day."


# What a client does to the text of an answer matters for tags, odd characters, white space and prose.
# `make soak` sends every answer.
EVERY = int(os.environ.get("FLUJO_CORPUS_STRIDE", "7"))
ON_THE_WIRE = [
    (answer, *WAYS[number % len(WAYS)])
    for number, answer in enumerate(
        [*corpus("reasoning"), *corpus("characters"), *corpus("corrections"), *corpus("outer")]
    )
][::EVERY]


@pytest.mark.parametrize(("answer", "api", "way"), ON_THE_WIRE, ids=str)
async def test_the_wire_changes_no_answer(
    provider: Provider, tmp_path: Path, answer: CorpusAnswer, api: str, way: str
) -> None:
    provider.will_answer(answer.text)
    agent = agent_of(provider, api, tmp_path, output_schema=answer.schema, retries=0)
    if answer.lowest <= 2:
        assert strict_json.is_same((await agent.ask(ask(way))).output, answer.value)
    else:
        with pytest.raises(OutputRejected):
            await agent.ask(ask(way))
