"""The events of a run for its page: every line once, from any place on, until the run or the server ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from flujo.domain.steps import HumanInTheLoopStep
from serve.served import Served, served
from support import World, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("live")) as client:
        world = World().add("say", lambda n: "<b>first</b>\nid: 99\ndata: taken")
        client.run(pipeline(*(call(name, world) for name in ("a", "b", "say"))), run_id="done")
        client.run(pipeline(HumanInTheLoopStep("ask", message="Send\n\ndata: this?")), run_id="asks")
        yield client


def lines(text: str) -> list[str]:
    return re.findall(r'event: line\ndata: <li [^\n]* data-key="(\d+ \d+ \w+ [^"]*)"', text)


def test_a_reader_continues_behind_the_last_event_that_it_has(browser: Served) -> None:
    answer = browser.get("/runs/done/live")
    assert answer.headers["content-type"].startswith("text/event-stream")
    whole, ids = lines(answer.text), re.findall(r"^id: (.+)$", answer.text, re.MULTILINE)
    assert [key.split()[2] for key in whole] == ["accepted", *["completed"] * 3, "status"]
    assert answer.text.endswith("event: ended\ndata:\n\n")
    assert answer.text.count("event: changed") == len(whole)
    for number, place in enumerate(ids):
        rest = browser.get("/runs/done/live", headers={"last-event-id": place}).text
        assert {*whole[: number + 1], *lines(rest)} == set(whole), "nothing is lost behind any event"
    assert lines(browser.get("/runs/done/live?after=2").text)[0].startswith("3 ")


def test_a_text_of_a_run_cannot_write_events(browser: Served) -> None:
    assert not re.search(r"^(id: 99|data: taken)", browser.get("/runs/done/live").text, re.MULTILINE)
    assert "<b>first" not in browser.get("/runs/done/live").text


def test_a_stream_breaks_off_when_the_server_stops(browser: Served) -> None:
    closing = browser.app.state.serving.ending  # type: ignore[attr-defined]
    browser.portal.call(closing.set)  # type: ignore[union-attr]
    answer = browser.get("/runs/asks/live")
    closing.clear()
    assert answer.status_code == 200
    assert "ended" not in answer.text


@pytest.mark.parametrize(
    ("address", "status"),
    [("/runs/nothing/live", 404), ("/runs/done/live?after=x", 400), ("/runs/done/live?after=-1", 400)],
)
def test_errors_are_answers_and_not_streams(browser: Served, address: str, status: int) -> None:
    assert browser.get(address).status_code == status
