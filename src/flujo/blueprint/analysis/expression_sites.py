"""Where expressions and texts stand in a blueprint, each with the names that are in scope there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions.evaluators import check_expression, check_text
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.traversal import COMPOSITES, Path, texts
from flujo.blueprint.schemas.algebra import Schema, closed
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.expressions.evaluators import Checked


@dataclass(frozen=True)
class ExpressionSite:
    """An expression or a text where it stands, with the names that it sees."""

    path: Path
    source: str
    tree: Schema
    logic: bool = False
    expect: str | None = None
    prompt: tuple[str, str] | None = None
    """Project path and text, for a text that stands in a file of its own."""

    @property
    def names_callable(self) -> bool:
        """Whether a callable stands where an expression could."""
        return self.logic and looks_like_target(self.source)

    @cached_property
    def checked(self) -> Checked:
        """Return what the expression or text gives, and what is wrong with it."""
        if self.logic:
            return check_expression(self.source, self.tree, expect=self.expect)
        return check_text(self.source, self.tree)


def places(unit: Unit, visit: Visit) -> Iterator[ExpressionSite]:
    """Yield every expression and text of one step, those of the agent it asks included."""
    step, here = visit.step, visit.path
    yield from _logic(step.when, (*here, "when"), visit.scope.tree(), "bool")
    if isinstance(step, COMPOSITES):
        yield from _in_composite(unit, visit, visit.scope.tree())
        yield from _value(step.output, (*here, "output"), visit.end.tree())
    else:
        yield from _in_leaf(unit, visit, visit.scope.tree())
    if step.cache is not None:
        yield from _logic(step.cache.key, (*here, "cache", "key"), visit.scope.tree(), None)
    own = visit.scope.tree(output=visit.own)
    for name, save in step.save.items():
        if isinstance(save, doc.Append):
            yield from _logic(save.append, (*here, "save", name, "append"), own, None)
        else:
            yield from _logic(save, (*here, "save", name), own, None)


def _in_leaf(unit: Unit, visit: Visit, tree: Schema) -> Iterator[ExpressionSite]:
    here = visit.path
    match visit.step:
        case doc.Step() as step:
            yield from _value(step.input, (*here, "input"), tree)
            yield from _value(step.with_, (*here, "with"), tree)
            yield from _instructions(unit, step.agent, tree)
        case doc.HitlStep() as step:
            yield from _value(step.message, (*here, "message"), tree)
            if isinstance(step.on_deadline, doc.AnswerInstead):
                yield from _value(step.on_deadline.answer, (*here, "on_deadline", "answer"), tree)
        case doc.ImportStep() as step:
            yield from _value(step.with_, (*here, "with"), tree)
            if isinstance(step.on_failure, doc.OutputInstead):
                yield from _value(step.on_failure.output, (*here, "on_failure", "output"), tree)
        case doc.CacheStep() as step:
            yield from _logic(step.key, (*here, "key"), tree, None)
        case doc.TreeSearchStep() as step:
            yield from _tree_search(unit, visit, step, tree)
        case _:
            pass


def _in_composite(unit: Unit, visit: Visit, tree: Schema) -> Iterator[ExpressionSite]:
    here = visit.path
    match visit.step:
        case doc.ConditionalStep() as step:
            yield from _logic(step.if_, (*here, "if"), tree, "bool")
            yield from _logic(step.switch, (*here, "switch"), tree, None)
        case doc.LoopStep() as step:
            yield from _loop(visit, step, tree)
        case doc.StateMachineStep() as step:
            yield from _transitions(visit, step)
        case doc.MapStep() as step:
            yield from _logic(step.over, (*here, "over"), tree, "list")
        case doc.RouterStep() as step:
            yield from _value(step.input, (*here, "input"), tree)
            yield from _instructions(unit, step.router, tree)
        case _:
            pass


def places_at_top(unit: Unit) -> Iterator[ExpressionSite]:
    """Yield the texts of the blueprint's own `output`."""
    yield from _value(unit.blueprint.output, ("output",), unit.end.tree())


def _loop(visit: Visit, step: doc.LoopStep, tree: Schema) -> Iterator[ExpressionSite]:
    end = visit.end.tree()
    yield from _logic(step.until, (*visit.path, "until"), end, "bool")
    for name, carry in step.carry.items():
        yield from _value(carry.initial, (*visit.path, "carry", name, "initial"), tree)
        yield from _logic(carry.next, (*visit.path, "carry", name, "next"), end, None)


def _tree_search(
    unit: Unit, visit: Visit, step: doc.TreeSearchStep, tree: Schema
) -> Iterator[ExpressionSite]:
    yield from _value(step.input, (*visit.path, "input"), tree)
    if not visit.is_known:
        return
    found = visit.own["properties"]
    node = {name: found[name] for name in ("candidate", "path", "depth")}
    asked = visit.scope.tree(previous=closed({**node, "input": None}))
    for name in dict.fromkeys((step.propose, step.evaluate)):
        yield from _instructions(unit, name, asked)
    judged = {name: found[name] for name in ("candidate", "score", "depth")}
    yield from _logic(step.goal, (*visit.path, "goal"), visit.scope.tree(**judged), "bool")


def _transitions(visit: Visit, step: doc.StateMachineStep) -> Iterator[ExpressionSite]:
    for name, state in step.states.items():
        tree = visit.bodies[name].end.tree()
        for index, transition in enumerate(state.transitions):
            path = (*visit.path, "states", name, "transitions", index, "when")
            yield from _logic(transition.when, path, tree, "bool")


def _instructions(unit: Unit, name: str | None, tree: Schema) -> Iterator[ExpressionSite]:
    agent = unit.blueprint.agents.get(name or "")
    if agent is None or not agent.template:
        return
    path = ("agents", name or "", "instructions")
    if agent.instructions is not None:
        yield ExpressionSite(path, agent.instructions, tree)
    elif prompt := unit.prompts.get(name or ""):
        yield ExpressionSite(path, prompt[1], tree, prompt=prompt)


def _logic(source: str | None, path: Path, tree: Schema, expect: str | None) -> Iterator[ExpressionSite]:
    if source is not None:
        yield ExpressionSite(path, source, tree, logic=True, expect=expect)


def _value(value: Any, path: Path, tree: Schema) -> Iterator[ExpressionSite]:
    for below, text in texts(value):
        yield ExpressionSite((*path, *below), text, tree)
