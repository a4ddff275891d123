"""Drawings: every kind of step is drawn, and the output is valid in its format."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import CallableRef, Expr, GranularStep, HumanInTheLoopStep, Step, Text
from flujo.domain.steps.tools import BlueprintTool
from flujo.exceptions import SettingsError
from flujo.services.checks.validation import compiled_or_refused
from flujo.services.inspection import graph_formats
from flujo.services.inspection.graph import Graph, graph_of
from flujo.services.project.project import find_project
from flujo.testing import ScriptedAgent

ROOT = Path(__file__).parents[3]


def _edges(graph: Graph) -> set[tuple[str, str, str]]:
    titles: dict[str, str] = {}
    boxes = [graph.root]
    while boxes:
        box = boxes.pop()
        titles |= {node.id: node.title for node in box.nodes}
        boxes += box.boxes
    return {(titles[edge.tail], titles[edge.head], edge.label) for edge in graph.edges}


def _blueprint(name: str, *, unfold: bool = False) -> Graph:
    return graph_of(compiled_or_refused(find_project(ROOT), f"blueprints/{name}.yaml"), unfold=unfold)


def test_steps_follow_each_other() -> None:
    assert _edges(_blueprint("hello")) == {
        ("start", "english", ""),
        ("english", "german", ""),
        ("german", "spanish", ""),
        ("spanish", "end", ""),
    }


def test_a_choice_leads_into_each_branch_and_each_branch_leads_on() -> None:
    edges = _edges(_blueprint("ticket_triage"))
    assert {("facts", "order", "refund"), ("facts", "issue", "bug"), ("facts", "answer", "default")} <= edges
    assert {("offer", "again", ""), ("issue", "again", ""), ("answer", "again", "")} <= edges


def test_a_loop_goes_back_until_its_condition_holds() -> None:
    edges = _edges(_blueprint("ticket_triage"))
    assert {("again", "write", ""), ("check", "until", ""), ("until", "again", "no")} <= edges
    assert ("until", "approve", "yes") in edges


def test_transitions_lead_from_the_end_of_a_state_to_the_head_of_the_next() -> None:
    edges = _edges(_blueprint("draft_review"))
    assert ("check", "approval", "steps.check.output.ok || context.edits >= 5") in edges
    assert {("check", "edit", "else"), ("text", "critique", ""), ("send", "end", "")} <= edges


def test_branches_part_and_meet() -> None:
    edges = _edges(_blueprint("second_opinion"))
    assert {("fork", "check", "facts"), ("fork", "judge", "tone")} <= edges
    assert {("check", "join", ""), ("judge", "join", ""), ("join", "end", "")} <= edges


def test_an_import_is_one_node_until_it_is_unfolded() -> None:
    assert ("facts", "answer", "default") in _edges(_blueprint("ticket_triage"))
    assert ("facts", "find", "default") in _edges(_blueprint("ticket_triage", unfold=True))


def test_a_tool_that_consists_of_steps_is_reached_by_a_call_and_leads_back() -> None:
    look = Pipeline(Step("look", CallableRef("m:look")), name="order", input_schema={"type": "object"})
    agent = ScriptedAgent([], tools=[BlueprintTool(look, "Look an order up")])
    tree = Pipeline(GranularStep("talk", agent), name="p")
    assert {("talk", "order", "calls"), ("order", "talk", "")} <= _edges(graph_of(tree))
    assert ("talk", "look", "calls") in _edges(graph_of(tree, unfold=True))


def test_a_fallback_is_reached_by_failing() -> None:
    fallback = Step(name="plan_b", call=CallableRef("m:b"))
    step = Step(name="plan_a", call=CallableRef("m:a"), fallback=fallback)
    graph = graph_of(Pipeline((step,), name="p"))
    assert ("plan_a", "fallback", "fails") in _edges(graph)
    assert [edge.label for edge in graph.edges if edge.is_failure] == ["fails"]
    assert "-.->" in graph_formats.mermaid(graph)
    assert "style=dashed" in graph_formats.dot(graph)


@given(st.text(max_size=300))
def test_no_text_of_a_blueprint_breaks_a_drawing(text: str) -> None:
    asked = HumanInTheLoopStep(name="ask", message=Text(text), when=Expr(text))
    graph = graph_of(Pipeline((asked,), name="p"))
    for line in graph_formats.mermaid(graph).splitlines()[1:]:
        assert re.fullmatch(
            r'  n\d+[(\[{/>]+"[\w ,.:()#;<>/-]*"[)\]}/]+|  n\d+ -->(\|"[\w ,.:()#;<>/-]*"\|)? n\d+', line
        ), line
    labels = re.findall(r'label=("(?:[^"\\\n]|\\.)*")[,\]]', graph_formats.dot(graph))
    assert len(labels) == 3


def test_svg_is_drawn_by_graphviz_or_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _blueprint("hello")
    if shutil.which("dot"):
        assert "<svg" in graph_formats.svg(graph)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match="Graphviz") as refused:
        graph_formats.svg(graph)
    assert "graphviz" in str(refused.value.hint)
