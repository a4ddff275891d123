"""`flujo evals`: scores of live traffic and of people, listed and shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

SETTINGS = """
[evaluation]
enabled = true

[evaluation.evaluators.long]
expr = "size(output) > 100"

[evaluation.evaluators.broken]
expr = "output.missing"
"""
BLUEPRINT = """version: "1"
name: say
input_schema: {type: string}
steps:
  - {kind: sleep, name: rest, for: 1ms}
output: "hello {{ input }}"
"""


@pytest.fixture
def scored(flujo: Flujo, project: Project) -> Project:
    """A project with a run that two evaluators have scored; one of them fails."""
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as settings:
        settings.write(SETTINGS)
    project.blueprint("say", BLUEPRINT)
    ran = flujo("run", "say", "-i", "ana", "--run-id", "r")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout == "hello ana\n"
    return project


def test_a_run_shows_its_scores_and_what_has_no_score(flujo: Flujo, scored: Project) -> None:
    shown = flujo("evals", "show", "r")
    assert shown.exit_code == 0, shown.output
    assert "long" in shown.stdout
    assert "0.00   ░░░░░░░░░░" in shown.stdout
    assert "none" in shown.stdout
    data = json.loads(flujo("evals", "show", "r", "--json").stdout)
    assert data["pending"] == []
    scores = {each["evaluator"]: each for each in data["evaluations"]}
    assert (scores["long"]["score"], scores["long"]["error"]) == (0.0, None)
    assert scores["broken"]["score"] is None
    assert "missing" in scores["broken"]["error"]


def test_an_evaluation_is_shown_like_a_run_but_not_among_the_tasks_of_its_run(
    flujo: Flujo, scored: Project
) -> None:
    listed = json.loads(flujo("tasks", "list", "--kind", "eval", "--json").stdout)
    assert {(each["kind"], each["parent"], each["status"]) for each in listed} == {
        ("eval", "r", "completed"),
        ("eval", "r", "failed"),
    }
    assert [each["run_id"] for each in json.loads(flujo("tasks", "list", "--json").stdout)] == ["r"]
    evaluating = listed[0]["run_id"]
    assert "score" in flujo("trace", evaluating).stdout
    assert evaluating not in flujo("trace", "r").stdout
    shown = flujo("tasks", "show", evaluating).stdout
    assert "parent:    r\n" in shown
    refused = flujo("replay", evaluating)
    assert refused.exit_code != 0
    assert "flujo replay r" in refused.output
    assert flujo("replay", "r").exit_code == 0


def test_a_rating_is_recorded_as_a_score_and_as_an_act(flujo: Flujo, scored: Project) -> None:
    rated = flujo("evals", "rate", "r", "--score", "0.8", "--by", "ana", "--reason", "kind", "--name", "tone")
    assert rated.exit_code == 0, rated.output
    assert flujo("evals", "rate", "r", "--score", "1", "--path", "rest", "--by", "bob").exit_code == 0
    listed = json.loads(flujo("evals", "list", "--json").stdout)
    assert [(each["evaluator"], each["path"], each["score"], each["by"]) for each in listed[:2]] == [
        ("rating", "rest", 1.0, "bob"),
        ("tone", "", 0.8, "ana"),
    ]
    acts = json.loads(flujo("tasks", "show", "r", "--json").stdout)["acts"]
    assert [(act["verb"], act["by"], act["object"]) for act in acts] == [
        ("rate", "ana", "tone"),
        ("rate", "bob", "rating"),
    ]


def test_scores_are_found_by_conditions(flujo: Flujo, scored: Project) -> None:
    flujo("evals", "rate", "r", "--score", "0.4")

    def found(*conditions: str) -> list[str]:
        listed = flujo("evals", "list", "--json", *conditions)
        assert listed.exit_code == 0, listed.output
        return sorted(each["evaluator"] for each in json.loads(listed.stdout))

    assert found() == ["broken", "long", "rating"]
    assert found("--blueprint", "say", "--since", "1h") == ["broken", "long", "rating"]
    assert found("--below", "0.5") == ["long", "rating"]
    assert found("--evaluator", "rating") == ["rating"]
    assert found("--lock", "0000") == []
    assert found("--since", "2100-01-01") == []
    assert flujo("evals", "list", "--blueprint", "other").output.strip() == "no matching scores"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("rate", "r", "--score", "1.5"), "from 0 to 1"),
        (("rate", "r", "--score", "nan"), "from 0 to 1"),
        (("rate", "none", "--score", "1"), "none"),
        (("rate", "r", "--score", "1", "--path", "nowhere"), "nowhere"),
        (("list", "--below", "2"), "--below"),
        (("list", "--since", "soon"), "--since"),
        (("show", "none"), "none"),
    ],
)
def test_wrong_words_are_refused_and_nothing_is_recorded(
    flujo: Flujo, scored: Project, words: tuple[str, ...], says: str
) -> None:
    refused = flujo("evals", *words)
    assert refused.exit_code not in (0, 1)
    assert says in refused.output
    assert "Traceback" not in refused.output
    assert len(json.loads(flujo("evals", "list", "--json").stdout)) == 2
