"""`flujo resume --accept-changes`: every recorded path must exist in the changed blueprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

SWITCH = """\
version: "1"
name: changing
input_schema: {type: string}
steps:
  - kind: conditional
    name: facts
    switch: input
    branches:
      refund:
        - {name: order, call: "skills.work:note", with: {text: refund}}
        - {kind: hitl, name: approve, message: "Pay?"}
    default:
      - {name: order, call: "skills.work:note", with: {text: default}}
      - {kind: hitl, name: approve, message: "Answer?"}
"""

QUESTION = """\
version: "1"
name: changing
input_schema: {type: string}
steps:
  - kind: conditional
    name: facts
    switch: input
    branches:
      refund:
        - {kind: hitl, name: approve, message: "Pay?"}
    default:
      - {kind: hitl, name: approve, message: "Answer?"}
"""

MACHINE = """\
version: "1"
name: changing
input_schema: {type: string}
steps:
  - kind: state_machine
    name: letter
    initial: refund
    states:
      refund:
        steps: [{name: order, call: "skills.work:note", with: {text: refund}}]
        transitions: [{to: review}]
      review:
        steps: [{kind: hitl, name: approve, message: "Send?"}]
      spare:
        steps: [{name: order, call: "skills.work:note", with: {text: spare}}]
        transitions: [{to: review}]
    final: [review]
"""

OWN_STEPS = """\
version: "1"
name: changing
input_schema: {type: string}
steps:
  - {name: kept, call: "skills.greet:greet", with: {name: Ada}, cache: {}}
  - kind: tree_search
    name: search
    propose: skills.spell:longer
    evaluate: skills.spell:score
    max_depth: 1
  - {kind: hitl, name: approve, message: "Fine?"}
"""

SPELL = '''\
"""Guesses one letter."""


def longer(node: dict) -> list[str]:
    return ["a", "b"]


def score(node: dict) -> int:
    return 1
'''


@pytest.mark.parametrize(
    ("text", "old", "new", "lost"),
    [
        (SWITCH, "refund:", "repay:", "`facts:refund/order`"),
        (QUESTION, "refund:", "repay:", "`facts:refund/approve`"),
        (MACHINE, "refund", "repay", "`letter:refund[0]`"),
    ],
    ids=["branch", "branch with an open question", "state"],
)
def test_a_recorded_branch_or_state_that_is_gone_is_refused(
    flujo: Flujo, project: Project, text: str, old: str, new: str, lost: str
) -> None:
    """The default branch and the spare state have steps of the same names and kinds: they do not count."""
    path = project.blueprint("changing", text)
    assert flujo("run", "changing", "-i", "refund").exit_code == 5
    path.write_text(text.replace(old, new), "utf-8")
    refused = flujo("resume", "@last", "--accept-changes")
    assert refused.exit_code == 8
    assert lost in refused.stderr
    assert flujo("tasks", "show", "@last").exit_code == 0
    assert flujo("tasks", "resume", "@last", "--input", "yes").exit_code == 0, "the run stayed as it was"


def test_changes_beside_the_recorded_branch_are_accepted(flujo: Flujo, project: Project) -> None:
    path = project.blueprint("changing", SWITCH)
    flujo("run", "changing", "-i", "refund")
    path.write_text(SWITCH.replace("Pay?", "Really pay?").replace("text: default", "text: other"), "utf-8")
    accepted = flujo("resume", "@last", "--accept-changes", "--paused-ok")
    assert accepted.exit_code == 0
    assert "`facts:refund/order`" in accepted.stderr
    assert flujo("tasks", "resume", "@last", "--input", "yes").stdout == "yes\n"
    assert project.notes() == ["refund"]


def test_entries_that_a_step_records_for_itself_have_a_place(flujo: Flujo, project: Project) -> None:
    """A cache records its miss and a search its questions, below steps that declare no steps."""
    (project.root / "skills/spell.py").write_text(SPELL, "utf-8")
    path = project.blueprint("changing", OWN_STEPS)
    assert flujo("run", "changing", "-i", "x").exit_code == 5
    path.write_text(OWN_STEPS.replace("Fine?", "Good?"), "utf-8")
    accepted = flujo("resume", "@last", "--accept-changes", "--paused-ok")
    assert accepted.exit_code == 0, accepted.stderr
