"""The table of runs: its conditions and its page stand in the address."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from flujo.domain.steps import HumanInTheLoopStep
from flujo.serve.pages import runs
from serve.served import Served, served
from support import pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Five completed runs of two users, and one that asks."""
    with served(tmp_path_factory.mktemp("runs")) as browser:
        tree = pipeline(context_schema={"properties": {"user_id": {"type": "string"}}})
        for number in range(5):
            who = {"user_id": HOSTILE if number else "ada"}
            browser.run(tree, run_id=f"r{number}", metadata={"n": number}, initial_context_data=who)
        browser.run(pipeline(HumanInTheLoopStep("ask", message="Send?"), name="asks"), run_id="asked")
        yield browser


def listed(shown: str) -> list[str]:
    return re.findall(r'href="/runs/(\w+)"', shown)


def test_a_run_has_its_status_blueprint_user_time_cost_and_tokens(filled: Served) -> None:
    shown = filled.get("/runs").text
    assert listed(shown) == ["asked", "r4", "r3", "r2", "r1", "r0"]
    assert '<span class="badge good">completed</span>' in shown
    assert '<span class="badge warning">paused</span>' in shown
    assert "$0.00" in shown
    assert "<img" not in shown
    assert "&lt;img src=x" in shown


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=paused", ["asked"]),
        ("blueprint=asks&status=&user_id=", ["asked"]),
        ("user_id=ada", ["r0"]),
        ("metadata=n>=3", ["r4", "r3"]),
        ("metadata=n=1 n=2&order=oldest", ["r1", "r2"]),
        ("since=1h&until=2h", []),
        ("pause=ask", ["asked"]),
    ],
)
def test_the_conditions_are_those_of_a_list(filled: Served, query: str, found: list[str]) -> None:
    assert listed(filled.get(f"/runs?{query}").text) == found


def test_pages_follow_each_other_and_keep_the_conditions(
    filled: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PAGE", 2)
    address, seen = "/runs?status=completed&order=oldest", []
    while address:
        shown = filled.get(address).text
        seen += listed(shown)
        following = re.search(r'rel="next" href="([^"]+)"', shown)
        address = following[1].replace("&amp;", "&") if following else ""
    assert seen == ["r0", "r1", "r2", "r3", "r4"]
    assert 'href="/runs?status=completed&amp;order=oldest">First page</a>' in shown
    assert "all 6</a>" in shown, "the counts are those of every page"


def test_the_counts_lead_to_the_runs_of_a_status(filled: Served) -> None:
    shown = filled.get("/runs?blueprint=asks&status=failed").text
    counts = re.findall(r'href="/runs(\?[^"]+)">(\w+) (\d+)</a>', shown)
    assert counts == [("?blueprint=asks", "all", "1"), ("?blueprint=asks&amp;status=paused", "paused", "1")]
    assert "No runs match." in shown


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("status=done", "is not the status of a run"),
        ("since=soon", "is not a time"),
        ("order=upwards", "order"),
        ("cursor=x", "is not a cursor"),
        ("metadata=customer", "is not a condition"),
        ("kind=walk", "kind"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(filled: Served, query: str, says: str) -> None:
    answer = filled.get(f"/runs?{query}")
    assert answer.status_code == 400
    assert says in unquote(answer.text)
