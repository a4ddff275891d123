"""One blueprint file with the files that it names, its scopes, its expressions and its output."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from flujo.blueprint.analysis.expression_sites import ExpressionSite, Prompts, places, places_at_top
from flujo.blueprint.analysis.inference import schema_of
from flujo.blueprint.analysis.project_facts import NOTHING_KNOWN, ProjectFacts
from flujo.blueprint.analysis.scopes import Visit, Walk
from flujo.blueprint.language.models import with_helpers
from flujo.blueprint.language.traversal import Path, asked
from flujo.blueprint.schemas.algebra import union
from flujo.blueprint.sources.agent_includes import AgentRegistry
from flujo.blueprint.sources.signatures import FILLED_IN
from flujo.domain.transactions import CONNECTION

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
    """The valid parts of one blueprint file, with the files that it names."""

    document: Document
    blueprint: doc.Blueprint
    imports: Mapping[str, Unit] = field(default_factory=dict)
    """Imported blueprints by the path as written, without those that could not be read."""
    tool_blueprints: Mapping[tuple[str, int], Unit] = field(default_factory=dict)
    """The blueprints that agents have as tools, by the name of the agent and the index in its `tools`."""
    roster: AgentRegistry = field(default_factory=AgentRegistry)
    """The places of the agents, which may be in other files."""
    prompts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The project path and text of each `instructions_file`, by agent."""
    is_bounded: bool = False
    """Whether something outside this file limits what a run may use."""
    allow: Sequence[str] | None = ()
    module: Callable[[str], Module | None] = lambda _name: None
    """Returns a module from the project's source text."""
    modules: Callable[[str], Sequence[str]] = lambda _package: ()
    """Returns the names of the modules and packages in a package's folder; none if it cannot be listed."""
    types: Callable[[str], ModuleTypes | None] = lambda _name: None
    """Returns the types of a module that `flujo types` recorded."""
    unkeyed_resources: str | None = None
    """The class of the project's resources, if it declares no `cache_key`."""
    refuses_unpriced: bool = False
    """Whether a limit outside this file refuses requests of unknown price."""
    project: ProjectFacts = NOTHING_KNOWN
    """What the project's settings say about names in this file."""
    kept: PartialDocument[doc.Blueprint] | None = None
    """The recovered parts of the file, if it is invalid."""

    @property
    def is_whole(self) -> bool:
        """Whether the whole file is valid. If not, it is never run."""
        return self.kept is None or self.kept.is_whole

    @property
    def gaps(self) -> Collection[Path]:
        """The places of the steps and agents that lost a part; `()` is the blueprint."""
        return self.kept.gaps if self.kept is not None else ()

    def knows(self, step: doc.BaseStep, path: Path) -> bool:
        """Return whether a step, its agents and its import are valid as a whole."""
        names = with_helpers((name for _, name in asked(step)), self.blueprint.agents)
        agents = [self.roster.agents.get(name) for name in names]
        if path in self.gaps or not all(agent is None or agent.is_whole for agent in agents):
            return False
        child = self.imports.get(step.imports or "")
        return step.imports is None or (child is not None and child.is_whole and () not in self.gaps)

    def is_wrong(self, span: Span) -> bool:
        """Return whether there is a syntax error at a place, from which the findings of rules follow."""
        wrong = self.kept.wrong if self.kept is not None else ()
        return any(one.file == span.file and one.overlaps(span) for one in wrong)

    @cached_property
    def walked(self) -> tuple[Scope, list[Visit], list[Schema]]:
        """The scope at the end, every step with its scope, and the outputs of early ends."""
        is_open = () in self.gaps
        walk = Walk(self.blueprint, self._imported, self.typed, self.knows, is_open=is_open)
        return walk.run(), walk.visits, walk.ends

    @property
    def end(self) -> Scope:
        """The scope of the blueprint's `output`."""
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
    def visits_named(self) -> Mapping[str, Sequence[Visit]]:
        """The steps of each name, which may occur in several bodies."""
        found: dict[str, list[Visit]] = {}
        for visit in self.visits:
            found.setdefault(visit.step.name, []).append(visit)
        return found

    @cached_property
    def inside(self) -> Mapping[Path, Sequence[Visit]]:
        """The steps inside each composite at any depth, and the composite itself, by its place."""
        found: dict[Path, list[Visit]] = {path: [] for path in self.visit_at}
        for visit in self.visits:
            for length in range(1, len(visit.path) + 1):
                if (around := found.get(visit.path[:length])) is not None:
                    around.append(visit)
        return found

    @cached_property
    def places(self) -> Mapping[Path, Sequence[ExpressionSite]]:
        """Every expression and text, by the place of its step; those of the blueprint under `()`."""
        prompts = Prompts(self.blueprint.agents, self.prompts, self._arguments)
        sites: dict[Path, Sequence[ExpressionSite]] = {
            visit.path: tuple(places(prompts, visit)) for visit in self.visits
        }
        return {**sites, (): tuple(places_at_top(self.blueprint, self.end))}

    def _arguments(self, tool: doc.Tool) -> Schema:
        """Return the schema of the arguments that a model passes to a callable, if its source can be read."""
        place, _, name = (tool.call or "").partition(":")
        module = self.module(place)
        signature = None if module is None else module.names.get(name)
        if signature is None or signature.open_ended:
            return None
        lent = {CONNECTION} if (tool.effect or signature.effect) == "transactional" else set[str]()
        passed = [each for each in signature.parameters if each not in FILLED_IN | lent | tool.with_.keys()]
        return {
            "type": "object",
            "properties": {each: {} for each in passed},
            "required": [each for each in passed if each in signature.required],
            "additionalProperties": False,
        }

    @cached_property
    def output(self) -> Schema:
        """The schema of the output."""
        _, _, early = self.walked
        if self.end.is_over:
            return union(early) if early else None
        if self.blueprint.output is None:
            return union((self.end.previous, *early))
        return union((schema_of(self.blueprint.output, self.end.tree()), *early))

    def typed(self, target: str) -> Schema:
        """Return the schema of a class, or of a function's return value, if known."""
        place, _, name = target.partition(":")
        written = self.types(place)
        if written is not None and written.changed is None and name in written.types:
            return written.types[name]
        module = self.module(place)
        signature = module.names.get(name) if module is not None else None
        return None if signature is None else signature.returns

    def span(self, *path: str | int, key: bool = False) -> Span:
        """Return the span of a value, or of its key."""
        document, place = self.place(path)
        return document.span(place, key=key)

    def place(self, path: Path) -> tuple[Document, Path]:
        """Return the file and the keys of a value, which may be in an included file or under defaults."""
        match path:
            case ("agents", str(name), *keys) if name in self.roster.agents:
                return self.roster.agents[name].place(tuple(keys))
            case (*_, "config", str(key)) if self.document.node(path) is None:
                default = ("defaults", "config", key)
                return self.document, default if self.document.node(default) is not None else path
            case _:
                return self.document, path

    def is_own(self, name: str) -> bool:
        """Return whether an agent's entry is in this file."""
        return name in self.roster.agents and self.roster.agents[name].file == self.document.file

    def _imported(self, blueprint: str) -> Schema:
        child = self.imports.get(blueprint)
        return child.output if child else None
