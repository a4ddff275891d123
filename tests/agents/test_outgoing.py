"""The model's door: no personal data is sent to a model that a project or a step masks, and the recorded messages stay."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, provider_server
from agents.provider_server import Response as Sent
from flujo.agents.chat import ChatAgent, build_agent
from flujo.agents.outgoing import Door
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.conversations import ToolCalls, ToolResult
from flujo.domain.files import File
from flujo.domain.personal_data import Pseudonyms, Rules
from flujo.domain.threads import Exchange
from flujo.exceptions import PseudonymsNeedKeys
from flujo.governance.personal_data.name_rules import Name
from flujo.governance.personal_data.names import SPACY
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

MAIL, PHONE = "jane.doe@example.org", "+44 20 7946 0958"
MODELS = {
    "openai": "openai-chat:gpt-4o-mini",
    "anthropic": "anthropic:claude-haiku-4-5-20251001",
    "google": "google:gemini-2.0-flash",
}


def lookup(name: str) -> dict[str, str]:
    """Look a customer up."""
    return {"mail": f"{name}@example.org"}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


@pytest.fixture
def hides() -> None:
    GATE.hide_personal_data(Rules())


def agent_of(provider: Provider, folder: Path, api: str = "openai", **spec: Any) -> ChatAgent:
    settings = AgentSettings(environment=provider.environment, cache_dir=folder)
    return build_agent(AgentSpec("helper", MODELS[api], **spec), tools=[lookup], settings=settings)


@pytest.mark.parametrize("api", MODELS)
@pytest.mark.usefixtures("hides")
async def test_a_plain_step_sends_no_personal_data(provider: Provider, tmp_path: Path, api: str) -> None:
    provider.will_answer(Sent(tool_call=("lookup", {"name": "jane"})), f"Ask {MAIL}.")
    before = Exchange("writer", f"Call {PHONE}.", "Called 8.8.8.8.")
    ask = Ask(data=f"Who is {MAIL}?", instructions=f"Never name {PHONE}.", history=[before])
    reply = await agent_of(provider, tmp_path, api).ask(ask)
    assert reply.output == f"Ask {MAIL}."  # what the model says is a value
    sent = json.dumps(provider.requests)
    assert not [each for each in (MAIL, PHONE, "8.8.8.8", "jane@example.org") if each in sent]
    for expected in (
        "Who is <EMAIL>?",
        "Never name <PHONE>.",
        "Call <PHONE>.",
        "Called <IP>.",
        '\\"<EMAIL>\\"',
    ):
        assert expected in sent or expected.replace('\\"', '"') in sent


@pytest.mark.usefixtures("hides")
async def test_a_conversation_sends_the_same_after_a_resume(provider: Provider, tmp_path: Path) -> None:
    provider.will_answer(Sent(tool_call=("lookup", {"name": MAIL})), "Done.", "Done.")
    agent = agent_of(provider, tmp_path)
    session = agent.converse(Ask(), [])
    prompt = session.prompt({"to": MAIL, "phone": "2025550143"})
    first = await session.request([prompt], may_call=True, meter=None, on_text=None)
    calls = session.read(first.message)
    assert isinstance(calls, ToolCalls)
    results = session.results([(calls.calls[0], ToolResult({"mail": MAIL}))])
    assert MAIL in json.dumps([prompt, first.message, results])  # recorded as they are
    await session.request([results], may_call=True, meter=None, on_text=None)
    again = agent.converse(Ask(), [prompt, first.message])
    await again.request([results], may_call=True, meter=None, on_text=None)
    assert provider.requests[1]["messages"] == provider.requests[2]["messages"]
    assert MAIL not in json.dumps(provider.requests)
    assert provider.requests[0]["messages"][-1]["content"] == '{"phone":"<PHONE>","to":"<EMAIL>"}'


@pytest.mark.usefixtures("hides")
async def test_a_step_keeps_all_or_the_texts_of_some_fields(provider: Provider, tmp_path: Path) -> None:
    provider.will_answer("Good.")
    agent = agent_of(provider, tmp_path)
    await agent.ask(Ask(data=f"{MAIL} {PHONE}", pii="keep"))
    await agent.ask(Ask(data=f"{MAIL} {PHONE}", kept=[f"my mail is {MAIL}"]))
    sent = [each["messages"][-1]["content"] for each in provider.requests]
    assert sent == [f"{MAIL} {PHONE}", f"{MAIL} <PHONE>"]


async def test_a_step_masks_its_requests_in_a_project_that_masks_nothing(
    provider: Provider, tmp_path: Path
) -> None:
    provider.will_answer("Good.")
    agent = agent_of(provider, tmp_path)
    await agent.ask(Ask(data=f"{MAIL} x"))
    await agent.ask(Ask(data=f"{MAIL} x", pii="scrub"))
    assert [each["messages"][-1]["content"] for each in provider.requests] == [f"{MAIL} x", "<EMAIL> x"]


@pytest.mark.usefixtures("hides")
async def test_files_of_text_are_masked_and_others_are_sent_as_they_are(
    provider: Provider, tmp_path: Path
) -> None:
    provider.will_answer("Good.")
    note = File.of("note.txt", f"to {MAIL}".encode())
    data = {note.sha256: f"to {MAIL}".encode()}

    async def contents(digests: Collection[str]) -> Mapping[str, bytes]:
        return {digest: data[digest] for digest in digests}

    await agent_of(provider, tmp_path).ask(Ask(data="Read it.", files=[note], contents=contents))
    sent = json.dumps(provider.requests)
    assert MAIL not in sent
    assert "to <EMAIL>" in sent


async def test_the_event_loop_continues_while_names_are_found(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, reads, continues = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    waited: list[bool] = []

    def find(text: str, _: Any) -> list[Name]:
        loop.call_soon_threadsafe(reads.set)
        waited.append(continues.wait(10))
        return [Name(0, 3, "person")] if text.startswith("Ana") else []

    monkeypatch.setattr(SPACY, "find", find)
    GATE.hide_personal_data(Rules(entities=("person",)))
    provider.will_answer("Done.")
    agent = agent_of(provider, tmp_path)
    note = File.of("note.txt", b"Ana too")

    async def contents(_: Collection[str]) -> Mapping[str, bytes]:
        return {note.sha256: b"Ana too"}

    ask = Ask(data="Ana called.", instructions="Ana asks.", files=[note], contents=contents)
    asking = asyncio.create_task(agent.ask(ask))
    await reads.wait()
    continues.set()
    await asking
    assert len(waited) >= 3
    assert all(waited), "the text was read beside the loop"
    assert "Ana" not in json.dumps(provider.requests)


@pytest.mark.usefixtures("hides")
def test_reasoning_which_is_signed_stays() -> None:
    thought = {"part_kind": "thinking", "content": f"about {MAIL}", "signature": "x"}
    said = {"part_kind": "text", "content": f"about {MAIL}"}
    (message,) = Door().messages([{"kind": "response", "parts": [thought, said]}])
    assert message["parts"] == [thought, {"part_kind": "text", "content": "about <EMAIL>"}]


@pytest.mark.usefixtures("hides")
def test_broken_json_is_masked_as_a_text() -> None:
    assert Door().text(f'{{"to": "{MAIL}"') == '{"to": "<EMAIL>"'
    assert Door().text('{ "a" : 1 }') == '{ "a" : 1 }'


def test_masks_are_a_part_of_what_decides_an_answer(provider: Provider, tmp_path: Path) -> None:
    before = agent_of(provider, tmp_path).answered_with
    GATE.hide_personal_data(Rules(entities=("email",)))
    after = agent_of(provider, tmp_path).answered_with
    assert {name for name in after if after[name] != before.get(name)} == {"personal_data"}


@pytest.mark.parametrize("api", MODELS)
async def test_a_tokenised_value_is_put_back_in_calls_answers_and_streams(
    provider: Provider, tmp_path: Path, api: str
) -> None:
    made, pieces = Pseudonyms(b"k" * 32), list[str]()
    pseudonym = made.of("phone", PHONE)
    provider.will_answer(Sent(tool_call=("lookup", {"name": pseudonym})), f"Call {pseudonym}.")

    async def listen(piece: str) -> None:
        pieces.append(piece)

    ask = Ask(data=f"I am at {PHONE}.", pii="tokenise", pseudonyms=made, on_text=listen)
    reply = await agent_of(provider, tmp_path, api).ask(ask)
    assert reply.output == "".join(pieces) == f"Call {PHONE}."
    sent, transcript = json.dumps(provider.requests), json.dumps(reply.transcript)
    assert PHONE not in sent + transcript
    assert f"I am at {pseudonym}." in sent
    assert f"Call {pseudonym}." in transcript


async def test_nothing_is_sent_without_a_key(provider: Provider, tmp_path: Path) -> None:
    with pytest.raises(PseudonymsNeedKeys, match=r"no key"):
        await agent_of(provider, tmp_path).ask(Ask(data=MAIL, pii="tokenise"))
    assert provider.requests == []
