"""`migrations:` of a blueprint: runs that began with other names of steps continue with the new ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

BEFORE = """\
version: "1"
name: offer
input_schema: {type: string}
steps:
  - {name: draft, call: "skills.work:note", with: {text: "{{ input }}"}}
  - kind: loop
    name: again
    until: loop.index >= 1
    steps:
      - {name: sign, call: "skills.work:note", with: {text: "n{{ loop.index }}"}}
  - {kind: hitl, name: approve, message: "Send {{ steps.draft.output }}?"}
  - {name: send, call: "skills.work:note", with: {text: "{{ steps.approve.output }}"}}
output: "{{ steps.draft.output }} {{ steps.send.output }}"
"""
AFTER = (
    BEFORE.replace("draft", "compose")
    .replace("name: sign", "name: seal")
    .replace("name: again", "name: twice")
    .replace("approve", "confirm")
    .replace(
        "steps:\n  - {name",
        "migrations:\n"
        "  - {from: draft, to: compose}\n"
        "  - {from: again, to: twice}\n"
        "  - {from: again/sign, to: twice/seal}\n"
        "  - {from: approve, to: confirm}\n"
        "  - {from: never, to: send}\n"
        "steps:\n  - {name",
        1,
    )
)


@pytest.fixture
def waiting(flujo: Flujo, project: Project) -> None:
    """A run that waits, and a changed blueprint."""
    project.blueprint("offer", BEFORE)
    assert flujo("run", "offer", "--input", "Ada").exit_code == 5
    project.blueprint("offer", AFTER)


@pytest.mark.usefixtures("waiting")
def test_a_waiting_run_continues_with_the_new_names(flujo: Flujo, project: Project) -> None:
    checked = flujo("check-resume", "--json")
    assert json.loads(checked.stdout)[0]["migrations"] == [
        {"from": "draft", "to": "compose"},
        {"from": "again", "to": "twice"},
        {"from": "again/sign", "to": "twice/seal"},
        {"from": "approve", "to": "confirm"},
    ]
    assert (checked.exit_code, json.loads(checked.stdout)[0]["lost"]) == (0, [])
    resumed = flujo("resume", "@last", "--accept-changes")
    assert resumed.exit_code == 5
    assert "renamed: `draft → compose`" in resumed.stderr
    assert "`approve`" in resumed.stderr, "the question keeps the name by which it is answered"
    answered = flujo("tasks", "resume", "@last", "--input", "yes")
    assert answered.exit_code == 0, answered.stderr
    assert project.notes() == ["Ada", "n0", "n1", "yes"], "no step was executed twice"
    traced = json.loads(flujo("trace", "@last", "--json").stdout)
    assert [step["path"] for step in traced["children"]] == ["draft", "again", "approve", "send"]


@pytest.mark.usefixtures("waiting")
def test_a_run_is_replayed_explained_and_forked_with_the_new_names(flujo: Flujo, project: Project) -> None:
    assert flujo("replay", "@last", "--blueprint", "blueprints/offer.yaml").exit_code == 0
    assert flujo("resume", "@last", "--accept-changes").exit_code == 5
    replay = flujo("replay", "@last")
    assert replay.exit_code == 0, replay.stderr
    why = flujo("why", "@last", "again")
    assert (why.exit_code, "loop.index >= 1" in why.stdout) == (0, True), why.stdout + why.stderr
    forked = flujo("fork", "@last", "--at", "confirm", "--answer", "confirm=no", "--live-effects")
    assert forked.exit_code == 0, forked.stderr
    assert project.notes() == ["Ada", "n0", "n1", "no"]
    traced = json.loads(flujo("trace", "@last", "--json").stdout)
    assert [step["path"] for step in traced["children"]] == ["compose", "twice", "confirm", "send"]


def test_a_new_run_has_the_new_names(flujo: Flujo, project: Project) -> None:
    project.blueprint("offer", AFTER)
    assert flujo("run", "offer", "--input", "Ada").exit_code == 5
    assert flujo("tasks", "resume", "@last", "--input", "yes").exit_code == 0
    traced = json.loads(flujo("trace", "@last", "--json").stdout)
    assert [step["path"] for step in traced["children"]] == ["compose", "twice", "confirm", "send"]


@pytest.mark.usefixtures("waiting")
def test_the_accepted_migrations_are_recorded(flujo: Flujo, project: Project) -> None:
    flujo("resume", "@last", "--accept-changes")
    project.blueprint("offer", AFTER.replace("name: offer\n", "name: offer\ndescription: Offers.\n"))
    again = flujo("resume", "@last", "--accept-changes")
    assert "renamed: `draft → compose`" in again.stderr
    assert flujo("tasks", "resume", "@last", "--input", "yes").exit_code == 0
    assert project.notes() == ["Ada", "n0", "n1", "yes"]


BRANCHES = """\
version: "1"
name: sort
input_schema: {type: string}
steps:
  - {name: draft, call: "skills.work:note", with: {text: "{{ input }}"}}
  - kind: parallel
    name: both
    branches:
      left: [{name: one, call: "skills.work:note", with: {text: left}}]
      right: [{kind: hitl, name: approve, message: "Go on?"}]
  - kind: import
    name: apart
    blueprint: inner.yaml
    with: {text: later}
    config: {execution_mode: background}
  - {kind: hitl, name: sure, message: "Sure?"}
  - {kind: await, name: all, task: apart}
output: {left: "{{ steps.both.output.left }}", task: "{{ steps.all.output }}"}
"""
INNER = """\
version: "1"
name: inner
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
steps:
  - {name: deep, call: "skills.work:note", with: {text: "{{ input.text }}"}}
"""
MOVED = """\
version: "1"
name: sort
input_schema: {type: string}
migrations:
  - {from: draft, to: "intro:in/draft"}
  - {from: "both:left", to: "both:port"}
  - {from: "both:left/one", to: "both:port/first"}
  - {from: "both:right/approve", to: "both:right/extra:then/confirm"}
  - {from: apart, to: later}
steps:
  - kind: parallel
    name: intro
    branches: {in: [{name: draft, call: "skills.work:note", with: {text: "{{ input }}"}}]}
  - kind: parallel
    name: both
    branches:
      port: [{name: first, call: "skills.work:note", with: {text: left}}]
      right:
        - kind: conditional
          name: extra
          if: "input != ''"
          then: [{kind: hitl, name: confirm, message: "Go on?"}]
  - kind: import
    name: later
    blueprint: inner.yaml
    with: {text: later}
    config: {execution_mode: background}
  - {kind: hitl, name: sure, message: "Sure?"}
  - {kind: await, name: all, task: later}
output: {left: "{{ steps.both.output.port }}", task: "{{ steps.all.output }}"}
"""


@pytest.mark.parametrize("answers", [0, 1])
def test_a_run_follows_branches_moves_and_tasks(flujo: Flujo, project: Project, answers: int) -> None:
    """Before and after the background task has been launched under its old name."""
    project.blueprint("inner", INNER)
    project.blueprint("sort", BRANCHES)
    ran = flujo("run", "sort", "--input", "Ada")
    assert ran.exit_code == 5, ran.stderr
    for _ in range(answers):
        assert flujo("tasks", "resume", "@last", "--input", "yes").exit_code == 5
    project.blueprint("sort", MOVED)
    checked = flujo("check-resume", "--json")
    assert (checked.exit_code, json.loads(checked.stdout)[0]["lost"]) == (0, []), checked.stdout
    said = flujo("check-resume")
    assert "draft → intro:in/draft, both:left → both:port" in said.stderr + said.stdout
    assert flujo("resume", "@last", "--accept-changes").exit_code == 5
    for _ in range(2 - answers):
        answered = flujo("tasks", "resume", "@last", "--input", "yes")
    assert answered.exit_code == 0, answered.stderr
    assert json.loads(answered.stdout) == {"left": "left", "task": "later"}
    assert sorted(project.notes()) == ["Ada", "later", "left"]
    replay = flujo("replay", "@last")
    assert replay.exit_code == 0, replay.stderr


def test_a_run_that_would_not_come_to_its_step_is_refused(flujo: Flujo, project: Project) -> None:
    project.blueprint("inner", INNER)
    project.blueprint("sort", BRANCHES)
    ran = flujo("run", "sort", "--input", "Ada")
    assert ran.exit_code == 5, ran.stderr
    project.blueprint("sort", MOVED.replace("input != ''", "input == ''"))
    checked = flujo("check-resume", "--json")
    assert json.loads(checked.stdout)[0]["lost"] == ["both:right/extra:then/confirm"]
    assert checked.exit_code == 1
    refused = flujo("resume", "@last", "--accept-changes")
    assert "FLJ541" in refused.stderr
    assert "does not come to where" in refused.stderr
