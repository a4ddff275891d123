"""Branches whose names are any text: their paths are shown decoded, and found however they are typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

DESK, ODD = "Desktop Team", "Ä/B [1]: c"
TICKETS = f"""\
version: 1
name: tickets
input_schema: {{type: string}}
steps:
  - kind: parallel
    name: ask
    branches:
      "{DESK}": [{{kind: hitl, name: desk, message: "Which desk?"}}]
      "{ODD}": [{{kind: hitl, name: floor, message: "Which floor?"}}]
  - kind: conditional
    name: route
    switch: input
    branches:
      "{ODD}": [{{name: note, call: "skills.work:note", with: {{text: '{{{{ steps.ask.output["{ODD}"] }}}}'}}}}]
"""


@pytest.fixture
def run(flujo: Flujo, project: Project) -> str:
    """A run that waits in both branches."""
    project.blueprint("tickets", TICKETS)
    asked = flujo("run", "tickets", "--input", ODD, "--json")
    assert asked.exit_code == 5
    run_id: str = json.loads(asked.stdout)["run_id"]
    return run_id


def test_a_run_goes_through_branches_of_any_text(flujo: Flujo, run: str) -> None:
    shown = f"ask:{ODD}/floor"
    assert f"waiting for an answer at `{shown}`" in flujo("tasks", "show", run).stdout
    assert flujo("tasks", "resume", f"{run}:ask:{DESK}/desk", "--input", "4").exit_code == 5
    # As it is shown, as it is recorded, and without the brackets that shells interpret.
    assert flujo("tasks", "resume", f"{run}:{shown}", "--input", "5").exit_code == 0
    for typed in (f"route:{ODD}/note", "route:Ä%2FB%20%5B1%5D%3A%20c/note"):
        assert f"route:{ODD}/note" in flujo("trace", run, typed).stdout
    assert f"took `{ODD}`" in flujo("why", run, "route").stdout
    assert flujo("replay", run, "--until", f"route:{ODD}/note").exit_code == 0
    forked = flujo("fork", run, "--at", f"route:{ODD}/note", "--json")
    assert forked.exit_code == 0, forked.output


def test_no_screen_shows_the_encoding_of_a_branch(flujo: Flujo, run: str) -> None:
    for command in (("explain", "tickets"), ("trace", run), ("tasks", "show", run), ("graph", "tickets")):
        assert "%2F" not in flujo(*command).stdout


def test_pages_escape_the_names_of_branches(flujo: Flujo, project: Project) -> None:
    project.blueprint("tickets", TICKETS.replace(DESK, "<b>&team"))
    assert flujo("run", "tickets", "--input", ODD).exit_code == 5
    page = flujo("trace", "@last", "--format", "html").stdout
    assert "&lt;b&gt;&amp;team" in page
    assert "<b>&team" not in page
    assert "<b>" not in flujo("graph", "tickets", "--format", "mermaid").stdout
