"""`flujo check-resume`: which waiting runs can continue with the blueprints on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from flujo.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

ORDER = """\
version: "1"
name: order
input_schema: {type: string}
steps:
  - {name: write, call: "skills.work:note", with: {text: "{{ input }}"}}
  - kind: conditional
    name: way
    if: steps.write.output == "a"
    then:
      - {name: short, call: "skills.work:note", with: {text: short}}
      - {kind: hitl, name: ok, message: "Send {{ previous }}?"}
    else:
      - {kind: hitl, name: ok, message: "Send?"}
output: "{{ steps.way.output }}"
"""

CHANGES = {
    "nothing": ("Send?", "Send?", "yes", ""),
    "a step after the question": (
        "output:",
        "  - {name: end, call: skills.work:note, with: {text: x}}\noutput:",
        "yes",
        "",
    ),
    "a new step before the question": (
        '      - {kind: hitl, name: ok, message: "Send {{',
        '      - {name: mid, call: skills.work:note, with: {text: x}}\n      - {kind: hitl, name: ok, message: "Send {{',
        "yes",
        "",
    ),
    "the input of a completed step": ("{{ input }}", "{{ input }}!", "yes", "1 changed"),
    "another branch": ('== "a"', '== "b"', "no", "at `way`"),
    "a renamed step": ("short, call", "brief, call", "no", "lacks `way:then/short`"),
    "a renamed question": (
        'name: ok, message: "Send {{',
        'name: sure, message: "Send {{',
        "no",
        "lacks `way:then/ok`",
    ),
    "a renamed composite": ("way", "road", "no", "lacks `way`"),
    "an error": ("kind: conditional", "kind: conditionall", "no", "FLJ"),
}


@pytest.mark.parametrize(("old", "new", "answer", "why"), CHANGES.values(), ids=CHANGES)
def test_the_answer_for_a_run_with_an_open_question(
    flujo: Flujo, project: Project, old: str, new: str, answer: str, why: str
) -> None:
    project.blueprint("order", ORDER)
    assert flujo("run", "order", "--input", "a").exit_code == ExitCode.PAUSED
    project.blueprint("order", ORDER.replace(old, new))
    result = flujo("check-resume")
    assert result.exit_code == (ExitCode.OK if answer == "yes" else ExitCode.RUN_FAILED)
    assert result.stdout.splitlines()[1].split()[0] == answer
    assert why in result.stdout + result.stderr
    resumed = flujo("resume", "@last", "--accept-changes")
    assert (resumed.exit_code == ExitCode.PAUSED) == (answer == "yes"), "the command says what a resume does"


def test_the_answer_as_data(flujo: Flujo, project: Project) -> None:
    project.blueprint("order", ORDER)
    flujo("run", "order", "--input", "a")
    project.blueprint(
        "order", ORDER.replace("{{ input }}", "{{ input }}!").replace("short, call", "brief, call")
    )
    result = flujo("check-resume", "@last", "--json")
    assert result.exit_code == ExitCode.RUN_FAILED
    [found] = json.loads(result.stdout)
    assert (found["can_continue"], found["lost"], found["kept"]) == (False, ["way:then/short"], ["write"])
    assert [(each["path"], each["cause"]) for each in found["changed"]] == [("write", "input")]


def test_nothing_waits(flujo: Flujo, project: Project) -> None:
    flujo("run", "hello", "--input", "Ada")
    result = flujo("check-resume")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no runs to check" in result.stderr


def test_the_runs_of_another_database_are_checked(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.blueprint("order", ORDER)
    production = f"sqlite:///{project.root}/production.db"
    with monkeypatch.context() as there:
        there.setenv("FLUJO_STATE_URI", production)
        flujo("run", "order", "--input", "a")
    result = flujo("check-resume", "--against", production)
    assert (result.exit_code, result.stdout.splitlines()[1].split()[0]) == (0, "yes")


def test_accepted_changes_are_listed(flujo: Flujo, project: Project) -> None:
    project.blueprint("order", ORDER)
    flujo("run", "order", "--input", "a")
    project.blueprint("order", ORDER.replace("{{ input }}", "{{ input }}!"))
    resumed = flujo("resume", "@last", "--accept-changes")
    assert "completed steps kept: `write`, `way:then/short`\n" in resumed.stderr
    assert "of these, changed: `write (input)`\n" in resumed.stderr
    assert project.notes() == ["a", "short"]
