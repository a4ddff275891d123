"""One answer to several questions: the form, the preview, and what becomes of each."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING, Any

from flujo.client import TaskClient
from serve.asked import answer_of, approval, call, fields, opened, question

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace

SCHEMA = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
BOTH = "/batch?q=a%3Aask&q=b%3Aask"


def sent(browser: TestClient, page: str, do: str, **changes: str) -> Any:
    """Send the form of a page, as a browser does."""
    many: dict[str, Any] = {
        name: [unescape(value) for value in re.findall(rf'name="{name}" value="([^"]*)"', page)]
        for name in "qs"
    }
    return browser.post("/batch", data={**fields(page), **many, "_do": do, **changes})


def answers(browser: TestClient, workspace: Workspace, *runs: str) -> list[Any]:
    return [answer_of(browser, workspace, run_id) for run_id in runs]


def test_one_answer_is_looked_at_and_then_recorded_for_all(browser: TestClient, workspace: Workspace) -> None:
    for run_id in "ab":
        opened(browser, workspace, run_id, question(SCHEMA, message=f"Send {run_id}?"))
    form = browser.get(BOTH).text
    blank = sent(browser, form, "answer")
    assert (blank.status_code, "is required" in blank.text) == (422, True)
    preview = sent(browser, blank.text, "answer", **{"v/ok": "0"})
    assert preview.text.count(">fits<") == 2
    assert answers(browser, workspace, "a", "b") == [None, None]
    back = sent(browser, preview.text, "edit")
    assert "Look at the answers" in back.text
    done = sent(browser, preview.text, "record")
    assert [each.status_code for each in done.history] == [303]
    assert done.text.count("by you") == 2
    assert answers(browser, workspace, "a", "b") == [{"ok": True}] * 2


def test_all_or_none_and_one_by_one_when_another_answer_was_first(
    browser: TestClient, workspace: Workspace
) -> None:
    for run_id in "abc":
        opened(browser, workspace, run_id, question(SCHEMA))
    form = browser.get(BOTH).text
    together = sent(browser, form, "answer", **{"v/ok": "0"}).text
    apart = sent(browser, form, "answer", **{"v/ok": "0", "_together": "off"}).text

    async def bob() -> None:
        await TaskClient(workspace, by="bob").answer_question("b", "ask", {"ok": False})

    call(browser, bob)
    refused = sent(browser, together, "record")
    assert (refused.status_code, "Nothing was recorded" in refused.text) == (409, True)
    assert "answered before by bob" in refused.text
    assert answers(browser, workspace, "a", "b") == [None, {"ok": False}]
    partly = sent(browser, apart, "record")
    assert (partly.status_code, ">recorded<" in partly.text) == (409, True)
    assert answers(browser, workspace, "a", "b", "c") == [{"ok": True}, {"ok": False}, None]


def test_calls_are_approved_or_denied_together_as_they_are(browser: TestClient, workspace: Workspace) -> None:
    opened(browser, workspace, "a", approval())
    opened(browser, workspace, "b", approval(arguments={"order": "18", "amount": 1}))
    preview = sent(browser, browser.get(BOTH).text, "deny", _reason="not today").text
    assert "not today" in preview
    sent(browser, preview, "record")
    found = answers(browser, workspace, "a", "b")
    assert [(each["approved"], each["reason"]) for each in found] == [(False, "not today")] * 2
    assert found[0]["digest"] != found[1]["digest"]


def test_questions_with_different_forms_are_offered_apart(browser: TestClient, workspace: Workspace) -> None:
    opened(browser, workspace, "a", question(SCHEMA))
    opened(browser, workspace, "b", question({"type": "string"}))
    shown = browser.get(BOTH).text
    assert "different forms" in shown
    assert 'href="/batch?q=a%3Aask"' in shown
    assert "Look at" not in shown


def test_a_selection_that_is_empty_or_unknown_is_an_error(browser: TestClient) -> None:
    assert browser.get("/batch").status_code == 400
    assert browser.get("/batch?q=nothing").status_code == 404
    assert browser.get("/batch?q=a%3Aask").status_code == 404
