"""Files of a prompt: the bytes on the wire of each provider, their reservation, and what a model refuses."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64decode
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, provider_server
from agents.provider_server import Response as Sent
from agents.test_session import MODELS, lookup
from domain.test_files import PDF, SAMPLES, png
from flujo.agents.chat import ChatAgent, build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.conversations import ToolCall, ToolResult
from flujo.domain.files import File
from flujo.exceptions import FileNotTaken

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from flujo.domain.usage import Usage


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


def agent_of(provider: Provider, folder: Path, model: str, **spec: Any) -> ChatAgent:
    settings = AgentSettings(environment=provider.environment, cache_dir=folder)
    return build_agent(AgentSpec("reader", model, **spec), tools=[lookup], settings=settings)


def ask_with(*given: tuple[str, bytes], **keys: Any) -> Ask:
    """Return a request with files, whose bytes are found by their digests only."""
    kept = {canonical.digest(data): data for _, data in given}

    async def contents(digests: Collection[str]) -> Mapping[str, bytes]:
        return {digest: kept[digest] for digest in digests}

    return Ask(data="What is it?", files=[File.of(*each) for each in given], contents=contents, **keys)


def b64(data: bytes) -> str:
    return b64encode(data).decode()


@pytest.mark.parametrize("way", ["turn", "attempt"])
@pytest.mark.parametrize("api", MODELS)
async def test_the_bytes_of_an_image_are_on_the_wire(
    provider: Provider, tmp_path: Path, api: str, way: str
) -> None:
    provider.will_answer("A dot.")
    agent, ask = agent_of(provider, tmp_path, MODELS[api]), ask_with(("dot.png", png()))
    if way == "turn":
        session = agent.converse(ask, [])
        prompt = session.prompt(ask.data)
        await session.request([prompt], may_call=True, meter=None, on_text=None)
        assert b64(png()) not in json.dumps(prompt)
        assert canonical.digest(png()) in json.dumps(prompt)
    else:
        assert (await agent.ask(ask)).output == "A dot."
    [request] = provider.requests
    uri = f"data:image/png;base64,{b64(png())}"
    match api:
        case "openai-chat":
            [text, image] = request["messages"][-1]["content"]
            assert (text["text"], image["image_url"]["url"]) == ("What is it?", uri)
        case "openai":
            [text, image] = request["input"][-1]["content"]
            assert (text["text"], image["image_url"]) == ("What is it?", uri)
        case "anthropic":
            [text, image] = request["messages"][-1]["content"]
            assert image["source"] == {"type": "base64", "media_type": "image/png", "data": b64(png())}
        case _:
            [text, image] = request["contents"][-1]["parts"]
            inline = image["inlineData"]
            assert (inline["mime_type"], urlsafe_b64decode(inline["data"])) == ("image/png", png())


@pytest.mark.parametrize("api", MODELS)
async def test_pdf_and_text_are_sent_as_each_provider_takes_them(
    provider: Provider, tmp_path: Path, api: str
) -> None:
    provider.will_answer("Sums.")
    ask = ask_with(("a.pdf", PDF), ("a.csv", b"one,2\n"), ("notes.md", b"# Three\n"), ("d.json", b'{"n":4}'))
    await agent_of(provider, tmp_path, MODELS[api]).ask(ask)
    sent = json.dumps(provider.requests)
    assert b64(PDF) in sent
    for text in ("one,2\\n", "# Three\\n", '{\\"n\\":4}'):
        data = text.encode().decode("unicode_escape").encode()
        assert text in sent or b64(data) in sent


async def test_files_are_sent_again_with_each_turn_of_a_resumed_conversation(
    provider: Provider, tmp_path: Path
) -> None:
    provider.will_answer(Sent(tool_call=("lookup", {"name": "Ada"})), "A dot.")
    ask = ask_with(("dot.png", png()))
    agent = agent_of(provider, tmp_path, "openai-chat:gpt-4o")
    session = agent.converse(ask, [])
    prompt = session.prompt(ask.data)
    response = await session.request([prompt], may_call=True, meter=None, on_text=None)
    history = canonical.decode(canonical.encode([prompt, response.message]))
    call = ToolCall("lookup", {"name": "Ada"}, "call_1")
    later = agent.converse(ask, history)
    await later.request([later.results([(call, ToolResult("yes"))])], may_call=True, meter=None, on_text=None)
    images = [request["messages"][0]["content"][1]["image_url"]["url"] for request in provider.requests]
    assert images == [f"data:image/png;base64,{b64(png())}"] * 2


@pytest.mark.parametrize(
    ("model", "name", "data"),
    [
        ("openai:gpt-4o-mini", "a.mp3", SAMPLES["audio/mpeg"]),
        ("openai-chat:gpt-audio", "a.flac", SAMPLES["audio/flac"]),
        ("anthropic:claude-haiku-4-5-20251001", "a.wav", SAMPLES["audio/wav"]),
    ],
)
@pytest.mark.parametrize("way", ["turn", "attempt"])
async def test_a_file_that_a_model_does_not_take_is_refused_before_a_request(
    provider: Provider, tmp_path: Path, model: str, name: str, data: bytes, way: str
) -> None:
    provider.will_answer("never")
    agent, ask = agent_of(provider, tmp_path, model), ask_with((name, data))
    session = agent.converse(ask, [])
    turn = session.request([session.prompt("x")], may_call=True, meter=None, on_text=None)
    with pytest.raises(FileNotTaken) as refused:
        await (turn if way == "turn" else agent.ask(ask))
    turn.close()
    assert refused.value.code == "FLJ435"
    assert f"model {model!r} does not take files of type {File.of(name, data).media_type}" in str(
        refused.value
    )
    assert not provider.requests


class Meter:
    """Keeps the reservations."""

    bounds_answers = refuses_unpriced = False

    def __init__(self) -> None:
        self.reserved: list[Usage] = []

    async def reserve(self, worst: Usage) -> Meter:
        self.reserved.append(worst)
        return self

    async def call_tools(self, count: int) -> None: ...

    def settle(self, used: Usage) -> None: ...

    def lose(self, known: Usage) -> None: ...


@pytest.mark.parametrize(
    ("model", "name", "data", "tokens"),
    [
        ("openai-chat:gpt-4o", "a.png", png() + b"\0" * 2_000_000, 5_000),
        ("openai-chat:gpt-4o-mini", "a.png", png(), 50_000),
        ("openai-chat:gpt-4o", "a.pdf", PDF, 8_000),
        ("openai-chat:gpt-4o", "a.pdf", b"%PDF-1.7\n" + b"\xff" * 95_000, 80_000),
        ("openai-chat:gpt-4o", "a.pdf", b"%PDF-1.7\n" + b"\xff" * 9_000_000, 1_000_000),
        ("openai-chat:gpt-4o", "a.txt", b"x" * 7_000, 7_000),
        ("openai-chat:gpt-audio", "a.wav", SAMPLES["audio/wav"] + bytes(300_000 - 16), 10_000),
    ],
)
async def test_an_estimate_of_its_tokens_is_reserved(
    provider: Provider, tmp_path: Path, model: str, name: str, data: bytes, tokens: int
) -> None:
    provider.will_answer("Seen.")
    agent = agent_of(provider, tmp_path, model)
    with_files, without = Meter(), Meter()
    await agent.ask(ask_with((name, data), meter=with_files))
    await agent.ask(Ask(data="What is it?", meter=without))
    more = with_files.reserved[0].input_tokens - without.reserved[0].input_tokens
    assert tokens <= more < tokens + 20
