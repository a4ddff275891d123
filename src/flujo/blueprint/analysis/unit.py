"""One blueprint file with what it names, and what follows from it: scopes, expressions, its output."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from flujo.blueprint.analysis.expression_sites import ExpressionSite, Prompts, places, places_at_top
from flujo.blueprint.analysis.inference import schema_of
from flujo.blueprint.analysis.scopes import Visit, Walk
from flujo.blueprint.language.traversal import Path, asked
from flujo.blueprint.sources.agent_includes import AgentRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from flujo.blueprint.analysis.scope import Scope
    from flujo.blueprint.diagnostics import Span
    from flujo.blueprint.language import models as doc
    from flujo.blueprint.language.error_recovery import PartialDocument
    from flujo.blueprint.reading.source_map import Document
    from flujo.blueprint.schemas.algebra import Schema
    from flujo.blueprint.sources.signatures import Module
    from flujo.blueprint.sources.type_stubs import ModuleTypes


@dataclass
class Unit:
    """One blueprint file, as far as it fits the language, with what it names."""

    document: Document
    blueprint: doc.Blueprint
    imports: Mapping[str, Unit] = field(default_factory=dict)
    """Imported blueprints by the text that names them; those that could not be read are not here."""
    roster: AgentRegistry = field(default_factory=AgentRegistry)
    """Where the agents of `blueprint` stand, which may be in other files."""
    prompts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Per agent with an `instructions_file`: its project path and its text."""
    is_bounded: bool = False
    """Whether something outside of this file bounds what a run may use."""
    allow: Sequence[str] = ()
    module: Callable[[str], Module | None] = lambda _name: None
    """Gives what the project's source says of a module."""
    types: Callable[[str], ModuleTypes | None] = lambda _name: None
    """Gives what `flujo types` has written down of a module."""
    kept: PartialDocument[doc.Blueprint] | None = None
    """What was kept of the file, where something did not fit."""

    @property
    def is_whole(self) -> bool:
        """Whether all that the file says fits the language. If not, it is never run."""
        return self.kept is None or self.kept.is_whole

    @property
    def gaps(self) -> Collection[Path]:
        """The steps and agents that say more than is known, by their places; `()` is the blueprint."""
        return self.kept.gaps if self.kept is not None else ()

    def knows(self, step: doc.BaseStep, path: Path) -> bool:
        """Return whether all that was said of a step, and of what it asks or imports, fits the language."""
        agents = [self.roster.agents.get(name) for _, name in asked(step)]
        if path in self.gaps or not all(agent is None or agent.is_whole for agent in agents):
            return False
        child = self.imports.get(step.imports or "")
        return step.imports is None or (child is not None and child.is_whole and () not in self.gaps)

    def is_wrong(self, span: Span) -> bool:
        """Return whether something does not fit the language there, from which follows what a rule finds."""
        wrong = self.kept.wrong if self.kept is not None else ()
        return any(one.file == span.file and one.overlaps(span) for one in wrong)

    @cached_property
    def walked(self) -> tuple[Scope, list[Visit]]:
        """The scope at the end, and every step with its scope."""
        is_open = () in self.gaps
        walk = Walk(self.blueprint, self._imported, self.typed, self.knows, is_open=is_open)
        return walk.run(), walk.visits

    @property
    def end(self) -> Scope:
        """The scope in which the blueprint's `output` is filled in."""
        return self.walked[0]

    @property
    def visits(self) -> list[Visit]:
        """Every step with its scope; steps inside a composite come before it."""
        return self.walked[1]

    @cached_property
    def visit_at(self) -> Mapping[Path, Visit]:
        """Every step by its place."""
        return {visit.path: visit for visit in self.visits}

    @cached_property
    def places(self) -> Mapping[Path, Sequence[ExpressionSite]]:
        """Every expression and text, by the place of the step that says it; the top's under `()`."""
        prompts = Prompts(self.blueprint.agents, self.prompts)
        sites: dict[Path, Sequence[ExpressionSite]] = {
            visit.path: tuple(places(prompts, visit)) for visit in self.visits
        }
        return {**sites, (): tuple(places_at_top(self.blueprint, self.end))}

    @cached_property
    def output(self) -> Schema:
        """The schema of what comes out."""
        if self.blueprint.output is None:
            return self.end.previous
        return schema_of(self.blueprint.output, self.end.tree())

    def typed(self, target: str) -> Schema:
        """Return the schema of a class, or of what a function returns, as far as the source tells."""
        place, _, name = target.partition(":")
        written = self.types(place)
        if written is not None and written.changed is None and name in written.types:
            return written.types[name]
        module = self.module(place)
        signature = module.names.get(name) if module is not None else None
        return None if signature is None else signature.returns

    def span(self, *path: str | int, key: bool = False) -> Span:
        """Return where a value (or its key) stands."""
        document, place = self.place(path)
        return document.span(place, key=key)

    def place(self, path: Path) -> tuple[Document, Path]:
        """Return the file and the keys of a value; what was included or is a default stands elsewhere."""
        match path:
            case ("agents", str(name), *keys) if name in self.roster.agents:
                return self.roster.agents[name].place(tuple(keys))
            case (*_, "config", str(key)) if self.document.node(path) is None:
                default = ("defaults", "config", key)
                return self.document, default if self.document.node(default) is not None else path
            case _:
                return self.document, path

    def is_own(self, name: str) -> bool:
        """Return whether an agent's entry stands in this file."""
        return name in self.roster.agents and self.roster.agents[name].file == self.document.file

    def _imported(self, blueprint: str) -> Schema:
        child = self.imports.get(blueprint)
        return child.output if child else None
