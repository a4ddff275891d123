"""The expressions and texts of a blueprint, each with the names in its scope."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions.evaluators import check_expression, check_text
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.roles import Role, Sees, Site, keys, roles, sites
from flujo.blueprint.language.traversal import Path, texts
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flujo.blueprint.analysis.scope import Scope
    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.expressions.evaluators import Checked
    from flujo.blueprint.schemas.algebra import Schema


@dataclass(frozen=True)
class ExpressionSite:
    """An expression or a text with its path and scope."""

    path: Path
    source: str
    tree: Schema
    logic: bool = False
    expect: str | None = None
    body: str = ""
    """The body whose end it sees, for an expression between the bodies of a step."""
    prompt: tuple[str, str] | None = None
    """Project path and text, for a text in a separate file."""

    @property
    def names_callable(self) -> bool:
        """Whether it is a callable in place of an expression."""
        return self.logic and looks_like_target(self.source)

    @cached_property
    def checked(self) -> Checked:
        """The result of checking the expression or text."""
        if self.logic:
            return check_expression(self.source, self.tree, expect=self.expect)
        return check_text(self.source, self.tree)


@dataclass(frozen=True)
class Prompts:
    """The agents of a blueprint, and what their texts depend on."""

    agents: Mapping[str, doc.Agent]
    files: Mapping[str, tuple[str, str]]
    """The project paths and texts of their prompt files."""
    arguments: Callable[[doc.Tool], Schema]
    """Returns the schema of the arguments that a model passes to a tool, as far as it is known."""


def places(prompts: Prompts, visit: Visit) -> Iterator[ExpressionSite]:
    """Yield every expression and text of one step, including those of its agents."""
    yield from _Places(prompts, visit).model(visit.step, visit.path, Site(), "")
    for keys_of, source in visit.step.asked_choices():
        path = (*visit.path, *keys_of)
        yield ExpressionSite(path, source, visit.tree(Sees.BEFORE, ""), logic=True, expect="list")


def places_at_top(blueprint: doc.Blueprint, end: Scope) -> Iterator[ExpressionSite]:
    """Yield the texts of the blueprint's own `output`, and the expression of its `deadline`."""
    yield from _value(blueprint.output, ("output",), end.tree())
    if isinstance(blueprint.deadline, doc.TimeLimit):
        known = {"type": "object", "properties": {"input": end.input}, "required": ["input"]}
        yield _seconds(blueprint.deadline, ("deadline",), known)


@dataclass(frozen=True)
class _Places:
    """Walks the fields of one step by their roles."""

    prompts: Prompts
    visit: Visit

    def model(self, model: doc.Strict, path: Path, around: Site, body: str) -> Iterator[ExpressionSite]:
        """Yield the sites in a mapping; a field without its own site inherits the enclosing one."""
        kind = type(model)
        names, marks, own = keys(kind), roles(kind), sites(kind)
        for name, value in model:
            role = marks.get(name)
            if value is not None and (role is not None or not isinstance(value, str)):
                yield from self.value(value, (*path, names[name]), role, own.get(name, around), body)

    def value(
        self, value: Any, path: Path, role: Role | None, site: Site, body: str
    ) -> Iterator[ExpressionSite]:
        match role, value:
            case Role.LOGIC | Role.ANSWERER, str():
                yield from self.named(value, path, role, site, body)
            case Role.VALUE, _:
                yield from _value(value, path, self.visit.tree(site.sees, body))
            case Role.STEPS, dict():  # states: the keys beside their steps
                for name, one in value.items():
                    if isinstance(one, doc.Strict):
                        yield from self.model(one, (*path, name), site, name)
            case Role.STEPS, _:
                return  # they have their own visits
            case _:
                yield from self.parts(value, path, role, site, body)

    def parts(
        self, value: Any, path: Path, role: Role | None, site: Site, body: str
    ) -> Iterator[ExpressionSite]:
        match value:
            case doc.Strict():
                yield from self.model(value, path, site, body)
            case dict():
                for name, one in value.items():
                    yield from self.value(one, (*path, name), role, site, body)
            case list():
                for index, one in enumerate(value):
                    yield from self.value(one, (*path, index), role, site, body)
            case _:
                return

    def named(self, value: str, path: Path, role: Role, site: Site, body: str) -> Iterator[ExpressionSite]:
        """Yield an expression; for an agent, its instructions, which are evaluated in the step's scope."""
        if site.sees in _OF_A_SEARCH and not self.visit.is_known:
            return
        tree = self.visit.tree(site.sees, body)
        if role is Role.LOGIC:
            yield ExpressionSite(path, value, tree, logic=True, expect=site.expect, body=body)
        else:
            yield from _instructions(self.prompts, value, tree)
            yield from _approvals(self.prompts, value, tree)
            _, *helpers = doc.with_helpers([value], self.prompts.agents)
            for name in helpers:  # its prompt is what the model writes
                yield from _instructions(self.prompts, name, _with_text_before(tree))
                yield from _approvals(self.prompts, name, _with_text_before(tree))


_OF_A_SEARCH = (Sees.NODE, Sees.CANDIDATE)


def _instructions(prompts: Prompts, name: str, tree: Schema) -> Iterator[ExpressionSite]:
    agent = prompts.agents.get(name)
    if agent is None or not agent.template:
        return
    path = ("agents", name, "instructions")
    if agent.instructions is not None:
        yield ExpressionSite(path, agent.instructions, tree)
    elif prompt := prompts.files.get(name):
        yield ExpressionSite(path, prompt[1], tree, prompt=prompt)


def _approvals(prompts: Prompts, name: str, tree: Schema) -> Iterator[ExpressionSite]:
    """Yield the conditions and questions of an agent's tools, which also see `args`, the arguments."""
    agent = prompts.agents.get(name)
    for keys_of, tool in () if agent is None else doc.called_tools(agent):
        if not isinstance(tool.approve, doc.Approval):
            continue
        names, path = (
            {**(tree or {}).get("properties", {}), "args": prompts.arguments(tool) or {}},
            ("agents", name, *keys_of, "approve"),
        )
        seen = {**(tree or {}), "properties": names, "required": [*names]}
        if tool.approve.when is not None:
            yield ExpressionSite((*path, "when"), tool.approve.when, seen, logic=True, expect="bool")
        if tool.approve.message is not None:
            yield ExpressionSite((*path, "message"), tool.approve.message, seen)
        if isinstance(tool.approve.deadline_s, doc.TimeLimit):
            yield _seconds(tool.approve.deadline_s, (*path, "deadline_s"), seen)


def _seconds(limit: doc.TimeLimit, path: Path, tree: Schema) -> ExpressionSite:
    return ExpressionSite((*path, "value"), limit.value, tree, logic=True, expect="number")


def _with_text_before(tree: Schema) -> Schema:
    """Return the names in scope, with a text as `previous`."""
    known = tree or {}
    return {**known, "properties": {**known.get("properties", {}), "previous": {"type": "string"}}}


def _value(value: Any, path: Path, tree: Schema) -> Iterator[ExpressionSite]:
    for below, text in texts(value):
        yield ExpressionSite((*path, *below), text, tree)
