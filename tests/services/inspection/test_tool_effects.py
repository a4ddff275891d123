"""What `explain` and `graph` say about tools, from the project's source text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from flujo import CallableRef, Secret, Step
from flujo.domain.agents import AgentSpec
from flujo.domain.tools import CallableTool
from flujo.services.inspection.tool_effects import declared_effects, notes
from flujo.services.project.project import Project, find_project

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
import flujo

raise SystemExit("this module is never imported")


@flujo.tool(effect="read")
def search(text: str) -> str: ...


def post(text: str) -> str: ...


@cached
def wrapped(text: str) -> str: ...


class Lookup: ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "flujo.toml").write_text("", "utf-8")
    (tmp_path / "inspected_tools.py").write_text(CODE, "utf-8")
    return find_project(tmp_path)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("inspected_tools:search", "read"),
        ("inspected_tools:post", "unsafe, not declared"),
        ("inspected_tools:wrapped", "declared in code that is not read"),
        ("inspected_tools:Lookup", "declared in code that is not read"),
        ("inspected_tools:missing", "declared in code that is not read"),
        ("json:dumps", "declared in code that is not read"),
    ],
)
def test_the_effect_of_a_tool_is_read_from_its_source(project: Project, target: str, said: str) -> None:
    assert declared_effects(project)(CallableTool(target)) == said
    assert "inspected_tools" not in sys.modules


def test_the_effect_of_an_entry_goes_before_that_of_its_source(project: Project) -> None:
    stricter = CallableTool("inspected_tools:search", effect="unsafe", enforce_idempotency=True)
    assert declared_effects(project)(stricter) == "unsafe, recorded before it is made"


def test_bound_parameters_are_shown_with_the_names_of_secrets(project: Project) -> None:
    bound = {"key": Secret("BANK_KEY"), "account": {"number": 7}}
    tool = CallableTool("inspected_tools:search", with_=bound)
    said = 'read, `key` is the secret BANK_KEY, `account` is {"number":7}'
    assert declared_effects(project)(tool) == said


def test_a_step_has_a_line_for_each_tool_and_each_limit(project: Project) -> None:
    tools = [CallableRef("inspected_tools:search"), CallableRef("inspected_tools:post")]
    agent = AgentSpec("clerk", "openai:gpt-5-mini", tools=tools)
    effects = declared_effects(project)
    talk = Step.granular("talk", agent, max_turns=5, max_tool_concurrency=2, on_limit="pause")
    assert list(notes(talk, effects)) == [
        "tool search: read",
        "tool post: unsafe, not declared",
        "at most 5 turns, then a question",
        "at most 2 tool calls at a time",
    ]
    assert len(list(notes(Step("once", agent=agent), effects))) == 2
    mute = AgentSpec("mute", "openai:gpt-5-mini")
    assert list(notes(Step.granular("talk", mute), effects)) == ["at most 20 turns, then it fails"]
