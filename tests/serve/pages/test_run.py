"""The page of a run: its facts, steps, values and log, all masked and escaped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.steps import GranularStep, HumanInTheLoopStep, MapStep, Step
from flujo.domain.usage import Usage
from flujo.governance.sink import GATE
from flujo.serve.pages import run
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request
from flujo.testing import ScriptedAgent, ToolCall
from serve.served import Served, served
from support import Expr, Text, World, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "</pre></details><script>document.title='taken'</script><img src=x onerror='x'>\u202egnp"
CHOOSE = """\
version: "1"
name: choose
input_schema: {type: integer}
steps:
  - kind: conditional
    name: route
    if: input > 5
    then: [{kind: hitl, name: ask, message: "Really?"}]
    else: [{kind: hitl, name: small, message: "Really small?"}]
"""
KEY = "a-key-of-a-&-service"


def hostile(name: str) -> str:
    """Look a customer up."""
    raise ValueError(HOSTILE)


def wrong(data: Any) -> None:
    raise KeyError(HOSTILE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a run of hostile texts that asks, one with long values, and one that has failed."""
    usage = Usage(input_tokens=1300, output_tokens=120, requests=1)
    agent = ScriptedAgent([[ToolCall("hostile", {"name": HOSTILE})], HOSTILE], tools=[hostile], usage=usage)
    talking = pipeline(
        Step("ask", agent=ScriptedAgent([HOSTILE], usage=usage), input=Text("Sort {{ input }}")),
        GranularStep("talk", agent),
        MapStep("each", over=Expr("[1]"), body=pipeline(Step("wrong", wrong)), on_error="collect"),
        HumanInTheLoopStep("question", message="Send {{ input }}?"),
        name="hostile",
    )
    work = World().add("long", lambda n: "x" * 45_000 + f"end {KEY}")
    root = tmp_path_factory.mktemp("run")
    (root / "blueprints").mkdir()
    (root / "blueprints/choose.yaml").write_text(CHOOSE)
    with served(root) as client:
        client.run(talking, HOSTILE, run_id="asks")
        many = MapStep("m", over=Expr("[1, 2, 3]"), body=pipeline(call("w", work)))
        client.run(pipeline(many), run_id="long")
        client.run(pipeline(Step("wrong", wrong)), run_id="failed")
        blueprint = client.workspace.load("blueprints/choose.yaml")
        client.here(blueprint_runs.start, client.workspace, blueprint, Request(7, run_id="drawn"))
        (root / "blueprints/choose.yaml").write_text(CHOOSE.replace("ask", "other"))
        yield client


def test_every_text_of_a_run_is_a_text(browser: Served) -> None:
    for address in ("/runs/asks", "/runs/asks?step=talk", "/runs/asks/value?of=input"):
        shown = browser.get(address).text
        assert re.findall(r"<script[^>]*>", shown) in (['<script src="/static/live.js" defer>'], [])
        assert "<img" not in shown
        assert "\u202e" not in shown
        assert "&lt;script&gt;document.title" in shown
        assert " style=" not in shown, "the policy of the server forbids it"


def test_a_run_shows_its_question_steps_costs_and_log(browser: Served) -> None:
    shown = browser.get("/runs/asks").text
    assert '<p role="status"><span class="badge warning">paused</span></p>' in shown
    assert re.search(r"Waits for an answer</a>: Send", shown)
    for words in ("4,260 tokens", "<b>asked</b>", "<dt>calls</dt>", "KeyError", 'data-path="talk/turn'):
        assert words in shown, words
    assert re.search(r'data-events="/runs/asks/live\?after=\d+"', shown)


def test_the_path_is_drawn_on_the_blueprint_as_it_was_accepted(browser: Served) -> None:
    shown = browser.get("/runs/drawn").text
    assert 'aria-label="The path through choose"' in shown
    assert re.search(r'class="human waiting"', shown)
    places = re.findall(
        r'<li class="depth-(\d)">(?:<a href="([^"]+)">)?(\w+)(?:</a>)?: <b>([\w ]+)</b>', shown
    )
    assert places == [
        ("0", "/runs/drawn?step=route", "route", "waiting"),
        ("1", "/runs/drawn?step=route%3Athen/ask", "ask", "waiting"),
        ("1", "", "small", "not reached"),
    ]
    assert '"path scroll"' not in browser.get("/runs/asks").text, "it is written in Python"


def test_a_failed_step_is_open_and_its_error_has_its_place(browser: Served) -> None:
    shown = browser.get("/runs/failed").text
    assert '<details open data-path="wrong">' in shown
    assert re.search(r"test_run\.py:\d+ in wrong", shown)
    assert "data-events" not in shown, "nothing follows in a run that has ended"


def test_a_long_value_is_cut_and_has_its_own_pages(browser: Served) -> None:
    GATE.know([KEY], "SERVICE_KEY")
    shown = browser.get("/runs/long").text
    link = re.search(r'href="(/runs/long/value\?path=m%5B0%5D%2Fw&amp;of=output)">All 45,\d+ char', shown)
    assert link is not None
    first, last = (browser.get(link[1].replace("&amp;", "&") + part).text for part in ("", "&part=3"))
    assert "Part 1 of 3" in first
    assert "x" * 20_000 in first
    assert 'rel="next"' in first
    assert "end " in last
    assert 'rel="next"' not in last
    assert KEY not in last.replace("&amp;", "&")


def test_a_large_tree_is_cut_and_a_step_opens_by_itself(
    browser: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MOST_STEPS", 2)
    shown = browser.get("/runs/long").text
    assert "more step" in shown
    step = re.search(r'href="(/runs/long\?step=m%5B0%5D)"', shown)
    assert step is not None
    assert 'data-path="m[0]/w"' in browser.get(step[1]).text


@pytest.mark.parametrize(
    ("address", "status", "says"),
    [
        ("/runs/nothing", 404, "nothing"),
        ("/runs/long?step=nowhere", 400, "has no step"),
        ("/runs/long/value?path=nowhere", 400, "has no step"),
        ("/runs/long/value?of=secrets", 400, "is not a value"),
        ("/runs/long/value?of=input&part=2", 400, "has no part"),
        ("/runs/long/value?of=input&part=x", 400, "has no part"),
    ],
)
def test_what_does_not_exist_is_refused(browser: Served, address: str, status: int, says: str) -> None:
    answer = browser.get(address)
    assert answer.status_code == status
    assert says in answer.text
