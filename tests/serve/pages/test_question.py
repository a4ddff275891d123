"""The page of one question: its form, the recorded answer, and an answer that comes late."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.client import TaskClient
from flujo.domain.paths import StepPath
from flujo.domain.personal_data import Rules
from flujo.domain.run import PauseKind
from flujo.governance.sink import GATE
from serve.asked import ARGUMENTS, answer_of, approval, call, fields, opened, question

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace

PAGE = "/questions/r/ask"
REPLY = {
    "type": "object",
    "required": ["ok", "note"],
    "properties": {
        "ok": {"type": "boolean", "title": "Send it?"},
        "note": {"type": "string", "minLength": 3, "description": "For the customer"},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
    },
}


@pytest.fixture
def asked(browser: TestClient, workspace: Workspace) -> Any:
    """Open a question of the run `r`."""
    return lambda pause, **facts: opened(browser, workspace, "r", pause, **facts)


def sent(browser: TestClient, do: str, page: str | None = None, **changes: str) -> Any:
    """Send the form of the page as a browser does, with some fields changed."""
    given = fields(browser.get(PAGE).text if page is None else page)
    return browser.post(PAGE, data={**given, **changes, "_do": do})


def test_a_question_shows_its_message_its_run_and_a_form(browser: TestClient, asked: Any) -> None:
    asked(question(REPLY, deadline_s=7200.0), user_id="ann", metadata={"team": "north"})
    shown = browser.get(PAGE).text
    for part in ("<strong>the order</strong>", "north", "ann", "in 1 h", "Send it?", "For the customer"):
        assert part in shown
    assert 'aria-describedby="r-' in shown


def test_an_answer_is_recorded_and_the_page_says_by_whom_and_who_continues(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    asked(question(REPLY))
    more = sent(browser, "add:v/lines", **{"v/ok": "0", "v/note": "Sorry!"})
    assert (more.status_code, 'name="v/lines/0/sku"' in more.text) == (200, True)
    answered = sent(browser, "answer", more.text, **{"v/lines/0/sku": "A-1"})
    assert [each.status_code for each in answered.history] == [303]
    assert answer_of(browser, workspace, "r") == {"ok": True, "note": "Sorry!", "lines": [{"sku": "A-1"}]}
    assert "You answered" in answered.text
    assert "Sorry!" in answered.text
    assert "continues it." in answered.text


def test_what_does_not_fit_stands_at_its_field_and_nothing_typed_is_lost(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    asked(question(REPLY))
    blank = sent(browser, "answer", **{"v/note": "x <&> y"})
    assert (blank.status_code, blank.text.count("is required")) == (422, 1)
    assert "x &lt;&amp;&gt; y" in blank.text
    short = sent(browser, "answer", **{"v/ok": "1", "v/note": "ab"})
    assert short.status_code == 422
    assert "has fewer than 3 characters" in short.text
    assert 'aria-invalid="true"' in short.text
    assert fields(short.text)["v/note"] == "ab"
    assert answer_of(browser, workspace, "r") is None


def test_a_late_answer_learns_who_won_and_with_which_answer(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    asked(question({"type": "boolean"}))
    page = browser.get(PAGE).text

    async def bob() -> None:
        await TaskClient(workspace, by="bob").answer_question("r", "ask", False)

    call(browser, bob)
    late = sent(browser, "answer", page, v="0")
    assert late.status_code == 409
    assert "Nothing was recorded" in late.text
    assert "bob answered" in late.text
    assert answer_of(browser, workspace, "r") is False


def test_an_answer_to_another_question_than_the_one_shown_is_refused(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    asked(question({"type": "boolean"}))
    changed = sent(browser, "answer", v="0", _seen="d0")
    assert (changed.status_code, "is not the one that was shown" in changed.text) == (409, True)
    assert answer_of(browser, workspace, "r") is None


def test_a_call_is_approved_with_its_arguments_or_with_changed_ones(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    asked(approval())
    shown = browser.get(PAGE).text
    assert "&#34;amount&#34;: 42" in shown
    assert fields(shown)["v/amount"] == "42"
    too_much = sent(browser, "approve", **{"v/amount": "101"})
    assert (too_much.status_code, "is above 100" in too_much.text) == (422, True)
    sent(browser, "approve", **{"v/amount": "40"})
    answer = answer_of(browser, workspace, "r")
    assert (answer["approved"], answer["arguments"]) == (True, {**ARGUMENTS, "amount": 40})


@pytest.mark.parametrize(("do", "approved"), [("approve", True), ("deny", False)])
def test_a_call_is_approved_as_it_is_or_denied_with_a_reason(
    browser: TestClient, workspace: Workspace, asked: Any, do: str, approved: bool
) -> None:
    asked(approval(editable=do == "approve"))
    for nothing in ("answer", "none"):
        sent(browser, nothing)
        assert answer_of(browser, workspace, "r") is None
    sent(browser, do, _reason="too much")
    answer = answer_of(browser, workspace, "r")
    assert (answer["approved"], "arguments" in answer) == (approved, False)
    assert answer.get("reason") == (None if approved else "too much")


def test_masked_arguments_are_not_edited(browser: TestClient, workspace: Workspace, asked: Any) -> None:
    GATE.suspect(["nothing-else"])
    asked(approval(arguments={"order": "hunter2-x", "amount": 1}))
    GATE.know(["hunter2-x"], "KEY")
    shown = browser.get(PAGE).text
    assert "hunter2" not in shown
    assert "Change the arguments" not in shown
    sent(browser, "approve")
    assert "arguments" not in answer_of(browser, workspace, "r")


def test_a_call_in_doubt_and_a_question_without_a_schema_are_answered(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    doubt = {
        "type": "object",
        "required": ["resolution"],
        "properties": {"resolution": {"enum": ["done", "retry", "fail"]}, "result": True},
        "additionalProperties": False,
    }
    asked(question(doubt, kind=PauseKind.DOUBT))
    opened(browser, workspace, "s", question())
    wrong = sent(browser, "answer", **{"v/resolution": "1", "v/result": "7"})
    assert (wrong.status_code, "has no result" in wrong.text) == (422, True)
    sent(browser, "answer", **{"v/resolution": "0", "v/result": '{"id": 7}'})
    assert answer_of(browser, workspace, "r") == {"resolution": "done", "result": {"id": 7}}
    seen = fields(browser.get("/questions/s/ask").text)
    browser.post("/questions/s/ask", data={**seen, "v": "as you like", "_do": "answer"})
    assert answer_of(browser, workspace, "s") == "as you like"


def test_a_claim_is_shown_taken_over_and_confirmed(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    asked(question({"type": "boolean"}))
    assert "You have claimed" in sent(browser, "claim").text
    assert "Claim for 15 minutes" in sent(browser, "release").text
    early = browser.get(PAGE).text

    async def bob() -> None:
        await TaskClient(workspace, by="bob").claim_question("r", "ask")

    call(browser, bob)
    refused = sent(browser, "claim")
    assert (refused.status_code, "bob has claimed" in refused.text) == (409, True)
    unaware = sent(browser, "answer", early, v="0")
    assert (unaware.status_code, 'name="_over_claim"' in unaware.text) == (409, True)
    assert answer_of(browser, workspace, "r") is None
    assert "You have claimed" in sent(browser, "take").text
    call(browser, lambda: TaskClient(workspace, by="bob").claim_question("r", "ask", take=True))
    sent(browser, "answer", v="0", _over_claim="on")
    assert answer_of(browser, workspace, "r") is True


def test_an_escalated_question_comes_back_to_the_inbox_with_its_reason(
    browser: TestClient, asked: Any
) -> None:
    asked(question())
    inbox = sent(browser, "escalate", _reason="above my limit")
    assert inbox.url.path == "/"
    assert "above my limit" in inbox.text
    assert "above my limit" in browser.get(PAGE).text


def test_an_unknown_question_and_a_read_only_server_change_nothing(browser: TestClient, asked: Any) -> None:
    assert browser.get("/questions/r/ask").status_code == 404
    asked(question())
    assert browser.get("/questions/r/other").status_code == 404
    assert browser.post("/questions/r/other", data={"_do": "answer"}).status_code == 404


def test_the_path_of_any_step_is_part_of_an_address(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    asked(replace(question({"type": "boolean"}), pause_id=StepPath("loop[2]/ask!doubt[0]")))
    found = re.search(r'class="question" href="([^"]*)"', browser.get("/").text)
    assert found is not None
    page = browser.get(found[1])
    assert page.status_code == 200
    action = re.search(r'class="answer" action="([^"]*)"', page.text)
    assert action is not None
    answered = browser.post(action[1], data={**fields(page.text), "v": "0", "_do": "answer"})
    assert (answered.status_code, "You answered" in answered.text) == (200, True)
    assert answer_of(browser, workspace, "r") is True


def test_masked_values_are_shown_to_an_operator_once_and_it_is_recorded(
    browser: TestClient, workspace: Workspace, asked: Any
) -> None:
    GATE.hide_personal_data(Rules(entities=("email",)))
    asked(question(message="Write to <b>ada@example.com</b>?"))
    shown = browser.get(PAGE).text
    assert "ada@" not in shown
    assert 'value="reveal"' in shown
    assert "Write to &lt;b&gt;ada@example.com&lt;/b&gt;?" in sent(browser, "reveal").text
    assert "ada@" not in browser.get(PAGE).text
    direct = browser.post("/api/v1/runs/r/reveal", json={"pause_id": "ask"})
    assert direct.json() == {"message": "Write to <b>ada@example.com</b>?"}
    assert direct.headers["cache-control"] == "no-store"
    acts = call(browser, lambda: TaskClient(workspace).get_task("r")).acts
    assert [(str(act.verb), act.object, str(act.actor.via)) for act in acts] == [("reveal", "ask", "web")] * 2
