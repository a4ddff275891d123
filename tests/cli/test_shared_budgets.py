"""Budgets that several runs share, on the command line: what is left, the end of it, and a raised limit."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, provider_server
from agents.provider_server import Response as Sent
from flujo.services.project.system import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

TALK = """\
version: "1"
name: talk
input_schema: {type: string}
agents:
  helper:
    model: openai-chat:gpt-4o-mini
    model_settings: {max_tokens: 100}
steps:
  - {name: help, agent: helper}
"""
RULE = """
[[budgets.rule]]
name = "support"
match = {blueprint = "talk"}
window = "month"
"""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        running.will_answer(lambda _: Sent("Done."))
        yield running


def with_rule(project: Project, text: str) -> None:
    project.blueprint("talk", TALK)
    settings = project.root / "flujo.toml"
    settings.write_text(settings.read_text("utf-8") + RULE + text, "utf-8")


def listed(flujo: Flujo, *words: str) -> Any:
    return json.loads(flujo("budgets", "--json", *words).stdout)


def test_a_team_sees_what_is_left_and_one_run_gets_more(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    with_rule(project, "requests_limit = 1\n")
    assert [(each["used"], each["left"]) for each in listed(flujo)] == [(0, 1)]
    assert flujo("run", "talk", "--input", "a").exit_code == 0
    [state] = listed(flujo, "--rule", "support")
    assert (state["rule"], state["limit"], state["used"], state["held"]) == (
        "support",
        "requests_limit",
        1,
        0,
    )
    assert state["forecast"] >= 1
    assert state["window_starts_at"] < state["window_ends_at"]
    assert "########## 100%  1 request" in flujo("budgets").stdout
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(SystemClock, "now", staticmethod(lambda: time.time() + 90 * 86_400))
        [seen] = listed(flujo)
    assert (seen["used"], seen["window_starts_at"]) == (1, state["window_starts_at"])

    refused = flujo("run", "talk", "--input", "b", "--run-id", "second")
    assert refused.exit_code == 6
    assert (
        "budget `support` allows 1 request (`requests_limit`) for each month: 1 request used"
        in refused.output
    )
    assert "--set budget.support.requests_limit=AMOUNT" in refused.output

    again = flujo("resume", "second", "--set", "budget.support.requests_limit=2", "--by", "ada")
    assert again.exit_code == 0, again.output
    assert [each["used"] for each in listed(flujo)] == [2]
    trace = flujo("run", "talk", "--input", "c")
    assert trace.exit_code == 6  # the rule itself is what it was


def test_a_limit_of_the_run_is_raised_after_it_has_ended_it(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    project.blueprint("talk", TALK + "budget: {total_cost_usd_limit: 0.0000001}\n")
    ended = flujo("run", "talk", "--input", "a", "--run-id", "one")
    assert ended.exit_code == 6
    assert "flujo resume one --set budget.total_cost_usd_limit=AMOUNT" in ended.output
    done = flujo("resume", "one", "--set", "budget.total_cost_usd_limit=5")
    assert done.exit_code == 0, done.output


def test_a_paused_run_continues_with_a_raised_limit(
    project: Project, flujo: Flujo, provider: Provider
) -> None:
    with_rule(project, 'requests_limit = 1\non_exhausted = "pause"\n')
    flujo("run", "talk", "--input", "a")
    paused = flujo("run", "talk", "--input", "b", "--run-id", "second")
    assert paused.exit_code == 5
    assert "next: flujo tasks resume second --field again=true" in paused.stderr
    assert flujo("resume", "second").exit_code == 5
    assert flujo("resume", "second", "--set", "budget.support.requests_limit=9").exit_code == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model=x", "sets no budget"),
        ("budget.total_cost_usd_limit", "sets no budget"),
        ("budget.total_cost_limit=1", "there is no limit 'total_cost_limit'"),
        ("budget.requests_limit=1.5", "'1.5' is not a whole number above 0"),
        ("budget.total_cost_usd_limit=-1", "'-1' is not a number above 0"),
        ("budget.total_cost_usd_limit=inf", "'inf' is not a number above 0"),
        ("budget.suport.requests_limit=1", "did you mean `support`?"),
        ("budget.support.wall_time_s_limit=1", "there is no limit 'wall_time_s_limit'"),
    ],
)
def test_a_wrong_limit_is_refused(project: Project, flujo: Flujo, given: str, message: str) -> None:
    with_rule(project, "requests_limit = 1\n")
    assert flujo("run", "ask", "--input", "x", "--run-id", "asks").exit_code == 5
    refused = flujo("resume", "asks", "--set", given)
    assert refused.exit_code == 2, refused.output
    assert message in refused.output


def test_a_rule_for_a_blueprint_that_does_not_exist_is_an_error(project: Project, flujo: Flujo) -> None:
    with_rule(project, "requests_limit = 1\n")
    project.blueprint("talk", TALK.replace("name: talk", "name: talks"))
    for words in (["validate"], ["budgets"]):
        refused = flujo(*words)
        assert refused.exit_code == 2, refused.output
        assert "rule 'support' matches no run" in refused.stderr
        assert "did you mean `talks`?" in refused.stderr
    assert flujo("budgets", "--rule", "suport").exit_code == 2
