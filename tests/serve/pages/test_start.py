"""Start a run in the browser: a form from the schema, a forecast, and one run however often it is sent."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pytest

from flujo.services.inspection.task_client import TaskClient
from serve.served import Served, served

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIM = """\
version: "1"
name: claim
description: Decide about <b>a claim</b>
input_schema:
  type: object
  required: [amount]
  properties:
    amount: {type: integer, minimum: 1, description: In euros}
    lines: {type: array, items: {type: string}}
steps:
  - {kind: hitl, name: ask, message: "Pay {{ input.amount }}?"}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("start")
    (root / "blueprints").mkdir()
    (root / "blueprints/claim.yaml").write_text(CLAIM)
    (root / "blueprints/broken.yaml").write_text(CLAIM.replace("kind: hitl", "kind: hit"))
    with served(root) as client:
        yield client


def fields(shown: str) -> dict[str, str]:
    """Return the fields of a form as a browser sends them, without its buttons."""
    found = re.findall(r'<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"', shown)
    return {html.unescape(name): html.unescape(value) for name, value in found}


def named(data: dict[str, str], end: str) -> str:
    return next(name for name in data if name.endswith(end))


def test_blueprints_are_offered_and_their_texts_are_texts(browser: Served) -> None:
    shown = browser.get("/start").text
    assert 'href="/start/claim">claim</a>' in shown
    assert "Decide about &lt;b&gt;a claim" in shown


def test_a_form_starts_one_run_in_a_queue_however_often_it_is_sent(browser: Served) -> None:
    shown = browser.get("/start/claim").text
    assert "In euros" in shown
    assert "Requests to models" in shown, "the forecast stands before the button"
    assert "no worker" in shown
    data = fields(shown)
    data |= {named(data, "/amount"): "70", "metadata": "customer=c1", "priority": "7", "_do": "start"}
    first, again = (browser.post("/start/claim", data=data, follow_redirects=False) for _ in range(2))
    assert first.status_code == again.status_code == 303
    assert first.headers["location"] == again.headers["location"]
    run_id = first.headers["location"].removeprefix("/runs/")
    detail = browser.here(TaskClient(browser.workspace).get_task, run_id)
    assert (detail.input["amount"], detail.task.queue) == (70, "default")
    record = browser.here(browser.here(browser.workspace.store).find, run_id)
    assert record.queued.priority == 7
    assert detail.task.metadata == {"customer": "c1"}


def test_an_input_that_does_not_fit_starts_nothing(browser: Served) -> None:
    before = len(browser.here(TaskClient(browser.workspace).list_tasks))
    data = fields(browser.get("/start/claim").text)
    answer = browser.post("/start/claim", data={**data, named(data, "/amount"): "0", "_do": "start"})
    assert answer.status_code == 422
    assert "Nothing was started" in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert fields(answer.text)["key"] == data["key"]
    for priority in ("high", "1000001", "1.5"):
        fits = {**data, named(data, "/amount"): "70", "priority": priority, "_do": "start"}
        answer = browser.post("/start/claim", data=fits)
        assert answer.status_code == 422
        assert 'id="priority-wrong"><li>is not a whole number from -1,000,000 to 1,000,000' in answer.text
    assert len(browser.here(TaskClient(browser.workspace).list_tasks)) == before


def test_a_forecast_is_that_of_the_input_and_a_row_is_added_without_a_script(browser: Served) -> None:
    data = fields(browser.get("/start/claim").text)
    data[named(data, "/amount")] = "70"
    shown = browser.post("/start/claim", data={**data, "_do": "forecast"}).text
    assert "Forecast for this input" in shown
    assert fields(shown)[named(data, "/amount")] == "70"
    more = browser.post("/start/claim", data={**data, "_do": f"add:{named(data, '/lines#rows')[:-5]}"}).text
    assert f'name="{named(data, "/lines#rows")[:-5]}/0"' in more


def test_a_blueprint_that_is_broken_or_unknown_is_refused(browser: Served) -> None:
    assert browser.get("/start/nothing").status_code == 400
    assert browser.get("/start/broken").status_code == 422
