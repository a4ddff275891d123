"""An answer through a tool is read like one in text, in every kind of API."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, Response, provider_server
from flujo.agents.answer_tool import name_beside
from flujo.agents.chat import ChatAgent, build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.conversations import FinalAnswer, ToolCalls
from support import listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODELS = {
    "openai-chat": "openai-chat:gpt-4o-mini",
    "openai": "openai:gpt-4o-mini",
    "anthropic": "anthropic:claude-haiku-4-5-20251001",
    "google": "google:gemini-2.0-flash",
}
WAYS = list(product(MODELS, ("body", "stream")))
LABEL = {"type": "object", "properties": {"label": {"enum": ["refund", "bug"]}}, "required": ["label"]}


def lookup(name: str) -> str:
    """Look a customer up."""
    return name


@pytest.fixture
def server() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


@pytest.fixture
def build(server: Provider, tmp_path: Path) -> Callable[..., ChatAgent]:
    def make(api: str = "openai-chat", tools: Any = (), **spec: Any) -> ChatAgent:
        settings = AgentSettings(environment=server.environment, cache_dir=tmp_path, structured_output="tool")
        spec = {"output_schema": LABEL, **spec}
        return build_agent(AgentSpec("sorter", MODELS[api], **spec), tools=tools, settings=settings)

    return make


def answer(arguments: Any = None, **more: Any) -> Response:
    return Response(tool_call=("final_answer", {"label": "bug"} if arguments is None else arguments), **more)


@pytest.mark.parametrize(("api", "way"), WAYS)
async def test_the_arguments_of_the_tool_are_the_answer(
    server: Provider, build: Callable[..., ChatAgent], api: str, way: str
) -> None:
    server.will_answer(answer())
    heard: list[str] = []
    reply = await build(api).ask(Ask(data="x", on_text=listener(heard) if way == "stream" else None))
    assert (reply.output, reply.repairs, heard) == ({"label": "bug"}, (), [])
    assert "final_answer" in str(server.requests[0])


@pytest.mark.parametrize("api", MODELS)
async def test_an_answer_that_does_not_fit_is_corrected(
    server: Provider, build: Callable[..., ChatAgent], api: str
) -> None:
    server.will_answer(answer({"label": "praise"}), answer())
    reply = await build(api).ask(Ask(data="x"))
    assert (reply.output, reply.usage.requests) == ({"label": "bug"}, 2)


async def test_broken_arguments_of_the_answer_are_repaired_like_text(
    server: Provider, build: Callable[..., ChatAgent]
) -> None:
    server.will_answer(answer("{'label': 'bug',}"))
    assert (await build().ask(Ask(data="x"))).output == {"label": "bug"}


async def test_a_list_is_wrapped_in_an_object(server: Provider, build: Callable[..., ChatAgent]) -> None:
    server.will_answer(answer({"value": [1, 2]}))
    schema = {"type": "array", "items": {"type": "integer"}}
    assert (await build(output_schema=schema).ask(Ask(data="x"))).output == [1, 2]


async def test_a_text_without_a_call_is_read_as_the_answer(
    server: Provider, build: Callable[..., ChatAgent]
) -> None:
    server.will_answer('{"label": "bug"}')
    assert (await build().ask(Ask(data="x"))).output == {"label": "bug"}


async def test_an_agent_without_a_schema_gets_no_tool_for_its_answer(
    server: Provider, build: Callable[..., ChatAgent]
) -> None:
    server.will_answer("Good day.")
    assert (await build(output_schema=None).ask(Ask(data="x"))).output == "Good day."
    assert "tools" not in server.requests[0]


@pytest.mark.parametrize("api", MODELS)
async def test_an_agent_with_tools_calls_them_before_it_answers(
    server: Provider, build: Callable[..., ChatAgent], api: str
) -> None:
    server.will_answer(Response(tool_call=("lookup", {"name": "Ada"})), answer())
    reply = await build(api, tools=[lookup]).ask(Ask(data="x"))
    assert (reply.output, reply.usage.tool_calls) == ({"label": "bug"}, 1)


async def test_an_answer_beside_other_calls_is_dropped(
    server: Provider, build: Callable[..., ChatAgent]
) -> None:
    server.will_answer(
        Response(tool_call=("lookup", {"name": "Ada"}), more_calls=(("final_answer", {"label": "refund"}),)),
        answer(),
    )
    session = build(tools=[lookup]).converse(Ask(), [])
    first = await session.request([session.prompt("x")], may_call=True, meter=None, on_text=None)
    read = session.read(first.message)
    assert isinstance(read, ToolCalls)
    assert [call.name for call in read.calls] == ["lookup"]


@pytest.mark.parametrize("api", MODELS)
async def test_the_last_request_allows_only_the_answer(
    server: Provider, build: Callable[..., ChatAgent], api: str
) -> None:
    server.will_answer(answer())
    session = build(api, tools=[lookup]).converse(Ask(), [])
    response = await session.request([session.prompt("x")], may_call=False, meter=None, on_text=None)
    assert session.read(response.message) == FinalAnswer({"label": "bug"})


def test_the_tool_for_answers_has_a_name_of_its_own() -> None:
    assert name_beside(["lookup"]) == "final_answer"
    assert name_beside(["final_answer", "final_answer_"]) == "final_answer__"
