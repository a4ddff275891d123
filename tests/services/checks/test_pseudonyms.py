"""Runs whose requests have pseudonyms: the model sees no value, and people, tools and the journal see the values."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import Field

from agents.provider_server import Fault, Provider, Response, provider_server
from flujo import AgentSpec, Flujo, GranularStep, ParallelStep, Pipeline, PipelineContext, Step
from flujo.domain import canonical
from flujo.domain.journal import TRANSCRIPT, RunId
from flujo.domain.run import RunQuery, RunStatus
from flujo.exceptions import PseudonymsNeedKeys
from flujo.governance.key_ring import KeyRing, new_key
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAIL, PHONE = "jane.doe@example.org", "+44 20 7946 0958"
TEXT = f"I am {MAIL}, call {PHONE}."
RUN = RunId("run")
KEYS = KeyRing((new_key("k1"),), source="KEYS")
PSEUDONYM = re.compile(r"<[A-Z]+_[a-z]{8}>")
SCHEMA = {"type": "object", "properties": {"to": {"type": "string", "format": "email"}}, "required": ["to"]}
given: list[str] = []


def lookup(mail: str) -> dict[str, str]:
    """Look a customer up."""
    given.append(mail)
    return {"phone": PHONE}


CLERK = AgentSpec("clerk", "openai-chat:gpt-4o-mini", instructions=f"You serve {MAIL}.", retries=0)
HELPER = AgentSpec("helper", "openai-chat:gpt-4o-mini", tools=[lookup])


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    monkeypatch.chdir(tmp_path)
    with provider_server() as running:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{running.url}/v1")
        yield running


def asking(name: str, **more: Any) -> Step:
    more = {"pii": "tokenise", **more}
    return Step(name, agent=CLERK, input="{{ input }}", **more)


def echo(request: dict[str, Any]) -> Response:
    """Answer with the pseudonyms of the request, and with one that the model invents."""
    return Response(f"Dear {' '.join(PSEUDONYM.findall(_said(request)))} <PERSON_9>")


def filled(request: dict[str, Any]) -> Response:
    return Response(json.dumps({"to": PSEUDONYM.findall(_said(request))[0]}))


def _said(request: dict[str, Any]) -> str:
    return str(request["messages"][-1]["content"])


async def run(tree: Pipeline, store: Any, **more: Any) -> Any:
    async with Flujo(tree, store=store, **more) as flujo:
        return await flujo.run_result_async(TEXT, run_id=RUN)


async def test_no_value_is_sent_and_every_branch_has_the_same_pseudonyms(
    provider: Provider, store_uri: str
) -> None:
    provider.will_answer(echo, echo, filled)
    tree = Pipeline(
        (
            ParallelStep("both", {"a": Pipeline((asking("a"),)), "b": Pipeline((asking("b"),))}),
            asking("form", output_schema=SCHEMA),
        )
    )
    store = SqlStateStore(store_uri, keys=KEYS)
    result = await run(tree, store)
    assert result.status is RunStatus.COMPLETED, result.error
    assert result.output == {"to": MAIL}
    sent = json.dumps(provider.requests)
    assert MAIL not in sent
    assert PHONE not in sent
    assert len(set(PSEUDONYM.findall(sent))) == 2
    entries = await store.entries(RUN)
    outputs = [canonical.decode(each.output or b"null") for each in entries]
    assert {each for each in outputs if isinstance(each, str)} == {f"Dear {MAIL} {PHONE} <PERSON_9>"}
    details = [canonical.decode(each.detail or b"{}") for each in entries]
    digests = [each[TRANSCRIPT] for each in details if TRANSCRIPT in each]
    texts = [(await store.blobs([digest]))[digest].decode() for digest in digests]
    assert len(texts) == 3
    for text in texts:
        assert MAIL not in text
        assert PHONE not in text
        assert PSEUDONYM.findall(text)[0] in sent
    await store.aclose()


async def test_a_resumed_conversation_sends_the_same(provider: Provider, sqlite_uri: str) -> None:
    given.clear()

    def calling(request: dict[str, Any]) -> Response:
        return Response(tool_call=("lookup", {"mail": PSEUDONYM.findall(_said(request))[0]}))

    provider.will_answer(calling, Fault.BAD_REQUEST, echo)
    tree = Pipeline((GranularStep("talk", HELPER, pii="tokenise"),))
    first = SqlStateStore(sqlite_uri, keys=KEYS)
    assert (await run(tree, first)).status is RunStatus.FAILED
    await first.aclose()
    again = SqlStateStore(sqlite_uri, keys=KEYS)
    async with Flujo(tree, store=again) as flujo:
        result = await flujo.resume_async(RUN, retry_failed=True)
    assert result.output == f"Dear {PHONE} <PERSON_9>"
    assert given == [MAIL], "the tool got the value"
    assert provider.requests[1]["messages"] == provider.requests[2]["messages"]
    assert MAIL not in json.dumps(provider.requests)
    await again.aclose()


class Desk(PipelineContext):
    """What a help desk knows."""

    mail: Annotated[str, Field(json_schema_extra={"pii": "tokenise"})] = MAIL


async def test_a_field_is_tokenised_whatever_the_step_declares(provider: Provider, sqlite_uri: str) -> None:
    provider.will_answer("Good.")
    store = SqlStateStore(sqlite_uri, keys=KEYS)
    await run(Pipeline((asking("plain", pii=None), asking("masked", pii="scrub"))), store, context_model=Desk)
    plain, masked = (_said(each) for each in provider.requests)
    assert PSEUDONYM.sub("<EMAIL>", plain) == f"I am <EMAIL>, call {PHONE}."
    assert PSEUDONYM.sub("<EMAIL>", masked) == "I am <EMAIL>, call <PHONE>."
    assert "<EMAIL_" in plain
    assert "<EMAIL_" in masked
    await store.aclose()


async def test_without_a_key_no_run_begins(provider: Provider, sqlite_uri: str) -> None:
    plain, memory = SqlStateStore(sqlite_uri), MemoryStateStore()
    for store in (plain, memory):
        with pytest.raises(PseudonymsNeedKeys, match="step `a` tokenises"):
            await run(Pipeline((asking("a"),)), store)
        assert await store.runs(RunQuery()) == []
    with pytest.raises(PseudonymsNeedKeys, match=r"field `context\.mail` tokenises"):
        await run(Pipeline((asking("a", pii=None),)), plain, context_model=Desk)
    assert provider.requests == []
    await plain.aclose()
