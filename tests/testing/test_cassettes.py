"""A run becomes a test: saved, played without its model, and compared with a changed blueprint."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Response, provider_server
from cli.conftest import ASK
from flujo.domain.acts import Actor, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.sent_events import NewEvent
from flujo.exceptions import CassetteDamaged, CassetteMismatch, CassetteRefused, CassetteTooNew
from flujo.services.admin.scaffold import scaffold
from flujo.services.project.project import find_project
from flujo.services.replay.cassette import Cassette
from flujo.services.runs.runner import Flujo
from flujo.services.workspace import Workspace
from flujo.state.memory_store import MemoryStateStore
from flujo.testing import TestClock
from flujo.testing.cassettes import (
    CassetteFailed,
    OutsideCall,
    play_async,
    record_async,
    refusing_outside_calls,
    saved_async,
)
from support import pipeline, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADA = Actor("ada", Via.CLI)

DESK = """\
version: "1"
name: desk
input_schema: {type: string}
agents:
  sorter:
    model: openai-chat:gpt-5-mini
    instructions: "Sort tickets."
    output_schema: {type: object, required: [label], properties: {label: {type: string}}}
  clerk:
    model: openai-chat:gpt-5-mini
    instructions: "Look the customer up."
    tools:
      - {call: "skills.desk:lookup", effect: read}
steps:
  - name: fetch
    call: skills.desk:fetch
    with: {number: "{{ input }}"}
  - name: sort
    agent: sorter
    input: "{{ steps.fetch.output }}"
  - kind: granular
    name: research
    agent: clerk
    input: "Who is {{ steps.fetch.output }}?"
  - kind: sleep
    name: rest
    for: 2d
  - kind: hitl
    name: ok
    message: "Send?"
    answer_schema: {type: object, required: [ok], properties: {ok: {type: boolean}}}
  - kind: event
    name: paid
    event: order.paid
    key: input
    event_schema: {type: object, required: [amount], properties: {amount: {type: integer}}}
  - name: close
    call: skills.desk:close
output:
  label: "{{ steps.sort.output.label }}"
  who: "{{ steps.research.output }}"
  ok: "{{ steps.ok.output.ok }}"
  amount: "{{ steps.paid.output.amount }}"
  closed: "{{ steps.close.output }}"
"""

TEAM = """\
version: "1"
name: team
input_schema: {type: array, items: {type: string}}
agents:
  helper:
    model: openai-chat:gpt-5-mini
    tools: [{call: "skills.desk:lookup", effect: read}]
  writer: {model: "openai-chat:gpt-5-mini", instructions: "Write a report."}
  payer:
    model: openai-chat:gpt-5-mini
    tools: [{call: "skills.desk:pay", effect: idempotent, approve: true}]
steps:
  - kind: map
    name: each
    over: input
    as: who
    steps:
      - {name: look, agent: helper, input: "Look {{ who }} up."}
  - {name: report, agent: writer, input: "All about {{ input[0] }}.", config: {execution_mode: background}}
  - {kind: granular, name: settle, agent: payer, input: "Pay 5."}
  - {kind: await, name: reports, tasks: "{{ steps.report.output }}"}
output: {found: "{{ steps.each.output }}", paid: "{{ steps.settle.output }}", report: "{{ steps.reports.output }}"}
"""

BY_HAND = """\
flujo_cassette: 1
blueprint: {path: blueprints/team.yaml, name: team, digest: ""}
run: by-hand
input: [Ada, Bob, Ada]
answers:
  - {at: "settle/turn[0]/tool[0]", answer: {approved: true}}
expect: {output: null}
"""

CODE = '''\
"""Calls that must not be made when a cassette is played."""

import socket

CALLS = []


def fetch(number: str) -> str:
    CALLS.append("fetch")
    return f"Ada, ticket {number}"


def lookup(name: str) -> dict[str, bool]:
    """Look a customer up."""
    CALLS.append("lookup")
    return {"vip": name == "Ada"}


def pay(amount: int, idempotency_key: str) -> str:
    """Pay an amount."""
    CALLS.append("pay")
    return f"paid {amount}"


def close(data: dict) -> str:
    CALLS.append("close")
    return "closed"


def dial(data: dict) -> str:
    socket.create_connection(("192.0.2.1", 9), timeout=0.1)
    return "closed"


def length(output: dict) -> float:
    return float(len(output["who"]))
'''


@pytest.fixture(scope="module")
def taped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a cassette: a run with a model on this machine, two answers, and two days of sleep."""
    with pytest.MonkeyPatch.context() as patch, provider_server() as server:
        root = made(tmp_path_factory.mktemp("taped"), patch)
        server.will_answer(
            '{"label": "billing"}', Response(tool_call=("lookup", {"name": "Ada"})), "Ada is a VIP."
        )
        for key, value in server.environment.items():
            patch.setenv(key, value)
        text = asyncio.run(taped_run(root)).to_text()
    forget()
    return text


def made(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Make the project, and work in it."""
    root = folder / "desk"
    scaffold(root, "desk")
    (root / "skills/desk.py").write_text(CODE, "utf-8")
    (root / "blueprints/desk.yaml").write_text(DESK, "utf-8")
    patch.setattr(sys, "path", [*sys.path])
    patch.chdir(root)
    forget()
    return root


def forget() -> None:
    """Forget the modules of the project."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "skills"]:
        del sys.modules[name]


async def taped_run(root: Path) -> Cassette:
    workspace = Workspace(find_project(root))
    pipeline = workspace.load("blueprints/desk.yaml").handed_out()
    clock = TestClock(auto_advance=True)
    store, run = clock.memory_store(), RunId("A7")
    async with workspace, Flujo[Any, Any, Any](pipeline, store=store, clock=clock, recovery=False) as runner:
        assert (await runner.run_result_async("A7", run_id=run)).status == "waiting"
        await clock.advance(days=3)
        await store.expire(run, StepPath("rest"))
        assert (await runner.resume_async(run)).status == "paused"
        assert (await runner.resume_async(run, {"ok": True})).status == "waiting"
        event = NewEvent(event_id="e", run_id=run, name="order.paid", payload=b'{"amount":12}', actor=ADA)
        await store.send_event(event)
        result = await runner.resume_async(run)
        assert result.success, result.error
        return (await saved_async(workspace, store, run)).cassette


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield made(tmp_path, monkeypatch)
    forget()


@pytest.fixture
def saved(project: Path, taped: str) -> Path:
    """The cassette in its project, which has no key and no model."""
    path = project / "tests/cassettes/desk.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(taped, "utf-8")
    return path


def edit(path: Path, old: str, new: str, *, count: int = -1) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), "utf-8")


def expecting(path: Path, expect: str) -> None:
    """Replace what a cassette expects."""
    path.write_text(path.read_text("utf-8").partition("expect:")[0] + f"expect: {expect}\n", "utf-8")


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def called() -> list[str]:
    return list(sys.modules["skills.desk"].CALLS) if "skills.desk" in sys.modules else []


async def test_a_saved_run_is_played_without_model_tools_people_and_time(saved: Path) -> None:
    before = called()
    played = await play_async(saved)
    played.require_expected()
    assert played.output == {
        "label": "billing",
        "who": "Ada is a VIP.",
        "ok": True,
        "amount": 12,
        "closed": "closed",
    }
    assert called() == before
    assert played.unused == []


async def test_a_cassette_is_readable_and_comes_back(saved: Path) -> None:
    cassette = Cassette.open(saved)
    assert Cassette.from_text(cassette.to_text().encode(), "x") == cassette
    for line in (
        "flujo_cassette: 1",
        "  path: blueprints/desk.yaml",
        "input: A7",
        "- at: research",
        "  instructions: Look the customer up.",
        "    - user: Who is Ada, ticket A7?",
        "    - call: lookup",
        "  name: skills.desk:fetch",
    ):
        assert line in lines(saved)


async def test_a_changed_prompt_names_the_exchange_and_the_difference(saved: Path, project: Path) -> None:
    edit(project / "blueprints/desk.yaml", "Sort tickets.", "Sort tickets by their subject.")
    played = await play_async(saved)
    with pytest.raises(CassetteFailed) as failed:
        played.require_expected()
    assert str(failed.value).splitlines() == [
        "exchange 1 of `sort` no longer matches the request of agent 'sorter'",
        "--- recorded",
        "+++ now",
        "@@ -1,2 +1,2 @@",
        "-[instructions] Sort tickets.",
        "+[instructions] Sort tickets by their subject.",
        " [user] Ada, ticket A7",
    ]


async def test_a_changed_model_is_named(saved: Path, project: Path) -> None:
    edit(project / "blueprints/desk.yaml", "gpt-5-mini", "gpt-5", count=1)
    played = await play_async(saved)
    with pytest.raises(
        CassetteFailed, match="the model is `openai-chat:gpt-5`, and `openai-chat:gpt-5-mini` was"
    ):
        played.require_matches()


async def test_a_changed_call_is_named(saved: Path, project: Path) -> None:
    edit(project / "blueprints/desk.yaml", 'number: "{{ input }}"', 'number: "{{ input }}!"')
    with pytest.raises(
        CassetteFailed, match=r"the call of callable `skills\.desk:fetch` at `fetch` no longer"
    ):
        (await play_async(saved)).require_matches()


async def test_a_changed_tool_result_no_longer_matches_the_next_request(saved: Path) -> None:
    edit(saved, "  result:\n    vip: true", "  result:\n    vip: false")
    played = await play_async(saved)
    with pytest.raises(CassetteFailed, match="exchange 2 of `research` no longer matches"):
        played.require_matches()


async def test_another_output_is_shown_as_a_difference(saved: Path) -> None:
    edit(saved, "    amount: 12\n    closed", "    amount: 13\n    closed")
    with pytest.raises(CassetteFailed) as failed:
        (await play_async(saved)).require_expected()
    assert '- "amount": 13,' in str(failed.value)
    assert '+ "amount": 12,' in str(failed.value)


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        ("{}", ""),
        ("{schema: {type: object, required: [label]}}", ""),
        (
            "{schema: {type: object, required: [price]}}",
            "the output does not fit its schema: the value lacks `price`",
        ),
        ('{score: {by: "skills.desk:length", value: 12, tolerance: 1}}', ""),
        ('{score: {by: "skills.desk:length", value: 20, tolerance: 1}}', "gives the output 13, not 20 ± 1"),
    ],
)
async def test_an_output_may_be_held_to_a_schema_or_a_score(saved: Path, expect: str, why: str) -> None:
    expecting(saved, expect)
    played = await play_async(saved)
    if not why:
        played.require_expected()
        return
    with pytest.raises(CassetteFailed, match=why):
        played.require_expected()


async def test_a_callable_may_be_called_live(saved: Path) -> None:
    before = called()
    edit(saved, "expect:", 'live: ["skills.desk:close"]\nexpect:')
    (await play_async(saved)).require_expected()
    assert called() == [*before, "close"]


async def test_a_strict_play_refuses_the_network(saved: Path, project: Path) -> None:
    edit(saved, "expect:", 'live: ["skills.desk:dial"]\nexpect:')
    edit(project / "blueprints/desk.yaml", "skills.desk:close", "skills.desk:dial")
    with pytest.raises(OutsideCall, match=r"socket\.getaddrinfo 192\.0\.2\.1"), refusing_outside_calls():
        await play_async(saved)
    edit(saved, "skills.desk:dial", "skills.desk:close")
    edit(project / "blueprints/desk.yaml", "skills.desk:dial", "skills.desk:close")
    with refusing_outside_calls():
        (await play_async(saved)).require_expected()


async def test_a_missing_answer_leaves_the_run_where_it_asks(saved: Path) -> None:
    edit(saved, "- at: ok\n", "- at: other\n")
    with pytest.raises(CassetteFailed, match="the run is paused"):
        (await play_async(saved)).require_matches()


async def test_a_refresh_records_again_and_keeps_the_expectations(
    saved: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(project / "blueprints/desk.yaml", "Sort tickets.", "Sort tickets by their subject.")
    edit(saved, "expect:", 'live: ["skills.desk:close"]\nexpect:\n  schema: {type: object}')
    with provider_server() as server:
        server.will_answer('{"label": "sales"}', "Nobody.")
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        again = await record_async(saved)
    assert again.live == ("skills.desk:close",)
    assert again.expect.schema == {"type": "object"}
    assert again.expect.output[0]["label"] == "sales"
    for key in server.environment:
        monkeypatch.delenv(key)
    (await play_async(saved)).require_expected()


def team_answer(request: dict[str, Any]) -> Response:
    """Answer the three agents of the team, in any order of their requests."""
    messages = request["messages"]
    said = str([message.get("content") for message in messages])
    if messages[-1]["role"] == "tool":
        return Response(text=f"it is {messages[-1]['content']}")
    if "Pay" in said:
        return Response(tool_call=("pay", {"amount": 5}))
    if "Look" in said:
        return Response(tool_call=("lookup", {"name": "Ada" if "Ada" in said else "Bob"}))
    return Response(text="a long report")


async def test_items_background_tasks_tools_and_approvals_are_played(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "blueprints/team.yaml").write_text(TEAM, "utf-8")
    path = project / "team.yaml"
    path.write_text(BY_HAND, "utf-8")
    with provider_server() as server:
        server.will_answer(team_answer)
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        taped = await record_async(path)
    for key in server.environment:
        monkeypatch.delenv(key)
    assert sorted(called()) == ["lookup", "lookup", "lookup", "pay"]
    assert [each.at for each in taped.answers] == ["settle/turn[0]/tool[0]"]
    assert sum(len(each.exchanges) for each in taped.conversations) == 9
    played = await play_async(path)
    played.require_expected()
    assert list(played.output["report"].values()) == ["a long report"]
    assert sorted(called()) == ["lookup", "lookup", "lookup", "pay"]
    assert played.unused == []
    edit(path, "  given:\n    amount: 5", "  given:\n    amount: 6")
    with pytest.raises(CassetteFailed, match="the call of tool `pay`"):
        (await play_async(path)).require_matches()


async def test_a_cassette_of_another_blueprint_is_refused(saved: Path, project: Path) -> None:
    edit(project / "blueprints/desk.yaml", "name: desk", "name: shop")
    with pytest.raises(
        CassetteMismatch, match=r"is of the blueprint 'desk', and blueprints/desk\.yaml is 'shop'"
    ):
        await play_async(saved)
    (project / "blueprints/desk.yaml").unlink()
    with pytest.raises(CassetteMismatch, match="which this project does not have"):
        await play_async(saved)


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("a: 1", CassetteDamaged, "x is not a cassette"),
        ("- 1", CassetteDamaged, "x"),
        ("flujo_cassette: [", CassetteDamaged, "x cannot be read"),
        ("flujo_cassette: 2", CassetteTooNew, "x has version 2 of the format"),
        ("flujo_cassette: 1", CassetteDamaged, "`blueprint` is missing"),
        ("flujo_cassette: 1\nother: 1", CassetteDamaged, "`other` is not known"),
        ("flujo_cassette: 1\nblueprint: {path: 1}", CassetteDamaged, "`blueprint.path` is int"),
        (
            "flujo_cassette: 1\nblueprint: {path: a, name: a, digest: a}\nrun: r\ninput: 1\n"
            "models: [{at: x, model: m, exchanges: [{send: [1], answer: []}]}]",
            CassetteDamaged,
            r"`models\[0\].exchanges\[0\].send\[0\]` is not a mapping",
        ),
    ],
)
def test_a_damaged_cassette_names_the_place(text: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        Cassette.from_text(text.encode(), "x")


async def test_only_a_completed_run_of_a_blueprint_is_saved(project: Path) -> None:
    store, workspace = MemoryStateStore(), Workspace(find_project(project))
    done = await start(pipeline(), store, 1)
    with pytest.raises(CassetteRefused, match="its pipeline is written in Python"):
        await saved_async(workspace, store, RunId(done.run_id))
    (project / "blueprints/ask.yaml").write_text(ASK, "utf-8")
    asking = await start(workspace.load("blueprints/ask.yaml").handed_out(), store, run_id="asks")
    with pytest.raises(CassetteRefused, match="it is paused, and a cassette is of a completed run"):
        await saved_async(workspace, store, RunId(asking.run_id))
