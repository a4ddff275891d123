"""Resume, retry, cancel, fork and export from the page of a run: confirmed, and recorded with who."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request
from flujo.settings_serve import ServeTable
from serve.served import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.services.inspection.task_detail import TaskDetail

DECIDE = """\
version: "1"
name: decide
input_schema: {type: string}
context_schema: {properties: {note: {type: string, default: ""}}}
steps:
  - {kind: hitl, name: first, message: "First?"}
  - {kind: end, name: stop, fail: "it may not", when: "steps.first.output == 'no'"}
  - {kind: hitl, name: second, message: "Second?"}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("actions")
    (root / "blueprints").mkdir()
    (root / "blueprints/decide.yaml").write_text(DECIDE)
    with served(root) as client:
        yield client


def begun(browser: Served, run_id: str, answer: str | None = None, *, detach: bool = False) -> str:
    """Begin a run, and answer its first question."""
    blueprint = browser.workspace.load("blueprints/decide.yaml")
    browser.here(blueprint_runs.start, browser.workspace, blueprint, Request("go", run_id=run_id))
    if answer is not None:
        browser.here(TaskClient(browser.workspace).resume_task, run_id, answer, detach=detach)
    return run_id


def detail(browser: Served, run_id: str) -> TaskDetail:
    found: TaskDetail = browser.here(TaskClient(browser.workspace).get_task, run_id)
    return found


def offered(browser: Served, run_id: str) -> list[str]:
    return re.findall(
        rf'href="/runs/{run_id}/(resume|retry|cancel|fork|export)"', browser.get(f"/runs/{run_id}").text
    )


def send(browser: Served, run_id: str, action: str, **fields: str) -> str:
    """Confirm an action, and return the id of the run that is shown then."""
    form = browser.get(f"/runs/{run_id}/{action}").text
    token = re.search(r'name="(csrf_token)" value="([^"]+)"', form)
    fields |= {token[1]: token[2]} if token else {}
    answer = browser.post(f"/runs/{run_id}/{action}", data=fields, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].removeprefix("/runs/")


def test_a_run_is_cancelled_after_a_confirmation_under_the_name_of_the_user(browser: Served) -> None:
    begun(browser, "c")
    assert offered(browser, "c") == ["cancel", "fork", "export"]
    form = browser.get("/runs/c/cancel").text
    assert "The run ends for good" in form
    assert detail(browser, "c").task.status == "paused", "a page changes nothing"
    assert send(browser, "c", "cancel") == "c"
    found = detail(browser, "c")
    assert found.task.status == "cancelled"
    assert [(str(act.verb), str(act.actor.via)) for act in found.acts][-1] == ("cancel", "web")
    assert offered(browser, "c") == ["fork", "export"]
    assert "not possible now" in browser.get("/runs/c/cancel").text
    again = browser.post("/runs/c/cancel")
    assert (again.status_code, "cancelled" in again.text) == (409, True)


def test_a_failed_run_is_retried(browser: Served) -> None:
    begun(browser, "f", "no")
    assert offered(browser, "f") == ["retry", "cancel", "fork", "export"]
    send(browser, "f", "retry")
    assert "retry" in [str(act.verb) for act in detail(browser, "f").acts]


def test_an_answered_run_is_resumed(browser: Served) -> None:
    begun(browser, "r", "yes", detach=True)
    assert offered(browser, "r") == ["resume", "cancel", "fork", "export"]
    send(browser, "r", "resume")
    assert [pause.pause_id for pause in detail(browser, "r").task.questions] == ["second"]


def test_a_run_is_forked_at_a_step_with_other_values(browser: Served) -> None:
    begun(browser, "p", "no")
    fork = send(browser, "p", "fork", at="first", context='{"note": "again"}')
    assert fork != "p"
    assert detail(browser, fork).task.questions[0].pause_id == "first"
    assert re.search(r'fork of <a href="/runs/p">', browser.get(f"/runs/{fork}").text)
    assert re.search(rf'forked as <a href="/runs/{fork}">', browser.get("/runs/p").text)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"at": ""}, "no step is chosen"),
        ({"at": "first", "context": "{"}, "context is not JSON"),
        ({"at": "first", "context": "[1]"}, "not an object"),
        ({"at": "first", "context": '{"other": 1}'}, "has no field"),
        ({"at": "first", "input": "7"}, "input"),
    ],
)
def test_a_fork_that_cannot_begin_keeps_the_fields_of_its_form(
    browser: Served, fields: dict[str, str], says: str
) -> None:
    run_id = begun(browser, "k", "no") if not browser.here(_exists, browser, "k") else "k"
    answer = browser.post(f"/runs/{run_id}/fork", data=fields)
    assert answer.status_code == 422
    assert says in answer.text
    assert fields.get("context", "").replace('"', "&#34;") in answer.text


async def _exists(browser: Served, run_id: str) -> bool:
    return any(each.run_id == run_id for each in await TaskClient(browser.workspace).list_tasks())


def test_a_run_is_exported_as_the_command_writes_it(browser: Served) -> None:
    begun(browser, "e")
    answer = browser.get("/runs/e/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="e.jsonl.zst"'
    assert answer.content.startswith(b"\x28\xb5\x2f\xfd"), "zstd"


def test_a_read_only_server_offers_and_does_nothing(browser: Served) -> None:
    begun(browser, "o")
    serving = browser.app.state.serving  # type: ignore[attr-defined]
    object.__setattr__(serving, "settings", ServeTable(read_only=True))
    try:
        assert offered(browser, "o") == ["export"]
        assert browser.post("/runs/o/cancel").status_code == 403
    finally:
        object.__setattr__(serving, "settings", ServeTable())
    assert detail(browser, "o").task.status == "paused"
