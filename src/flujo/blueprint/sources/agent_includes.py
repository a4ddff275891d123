"""Resolves `include`, `extends` and `defaults` of agents: complete agents, with the place of each key.

Later rules and the compiler see complete agents in `Blueprint.agents` and do not know about sharing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from flujo.blueprint.diagnostics import rule, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.roles import Role, roles
from flujo.blueprint.reading.reader import read

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.reading.source_map import Document

Path = tuple[str | int, ...]
Layers: TypeAlias = "tuple[tuple[Document, Path], ...]"

MAX_EXTENDS = 16
"""The maximum length of a chain of `extends`."""

_REVIEWER = "agents:\n  reviewer: {model: a:b, instructions: Review the text.}\n"
UNKNOWN_BASE = rule(
    "FLJ270",
    "unknown-base",
    "An agent extends an unknown agent",
    finds="An `extends:` that does not name an agent of the same file or of a file that it includes.",
    why="Names are resolved in the file that uses them: a file of agents does not see the including file.",
    example=_REVIEWER + "  legal: {extends: reviewr, instructions_file: legal.md}",
    instead=_REVIEWER + "  legal: {extends: reviewer, instructions_file: legal.md}",
)
ENDLESS_EXTENDS = rule(
    "FLJ272",
    "endless-extends",
    "Agents that extend each other in a cycle, or too deeply",
    finds=f"An agent that extends itself, directly or through others, or a chain of more than "
    f"{MAX_EXTENDS} agents that extend each other.",
    why="A cycle has no first agent, and the result of a long chain is hard to read.",
    example="agents:\n  reviewer: {extends: legal}\n  legal: {extends: reviewer}",
    instead=_REVIEWER + "  legal: {extends: reviewer}",
)
DUPLICATE_AGENT = rule(
    "FLJ273",
    "duplicate-agent",
    "Two agents have the same name",
    finds="An agent with the name of an included agent, or two included files with an agent of the same "
    "name.",
    why="A step that uses the name could mean either agent. The choice must not depend on the order of "
    "files.",
    example="# common.yaml has an agent `reviewer`\ninclude: [./common.yaml]\n"
    "agents: {reviewer: {model: a:b}}",
    instead="# common.yaml has an agent `reviewer`\ninclude: [./common.yaml]\n"
    "agents: {strict_reviewer: {extends: reviewer, model: a:b}}",
)
INCLUDE_CYCLE = rule(
    "FLJ274",
    "include-cycle",
    "Files of agents that include each other in a cycle",
    finds="A file of agents that includes itself, directly or through others.",
    why="A cycle has no first file to read.",
    example='# common.yaml\nversion: "1"\ninclude: [./common.yaml]',
    instead='# common.yaml\nversion: "1"\ninclude: [./base.yaml]',
)
WRONG_FILE = rule(
    "FLJ275",
    "wrong-kind-of-file",
    "A file of agents in place of a blueprint, or the reverse",
    finds="An `include:` that names a blueprint, or an import (or a command) that names a file of agents.",
    why="A blueprint is run and does not share its agents. A file of agents is included and has no steps.",
    example="include: [./answer.yaml]   # a blueprint",
    instead="include: [./agents/common.yaml]   # version, agents, and no steps",
)


@dataclass(frozen=True, slots=True)
class Declared:
    """A complete agent: with its own keys and the inherited ones."""

    agent: doc.Agent
    layers: Layers
    """The places of its keys: its own entry, then those it extends, nearest first, then the defaults."""
    is_whole: bool = True
    """Whether everything that it inherits from was found."""

    def place(self, keys: Path) -> tuple[Document, Path]:
        """Return the file and the path of one of its values."""
        own = keys[:2] if keys[:1] == ("model_settings",) else keys[:1]
        for document, path in self.layers:
            if document.node((*path, *own)) is not None:
                return document, (*path, *keys)
        document, path = self.layers[0]
        return document, (*path, *keys)

    @property
    def file(self) -> str:
        """The file of its own entry."""
        return self.layers[0][0].file


@dataclass(slots=True)
class AgentRegistry:
    """The agents that a file can use: its own and the included ones."""

    agents: dict[str, Declared] = field(default_factory=dict)
    files: dict[int, set[str]] = field(default_factory=dict)
    """By index in `include`: that file, and the files that it includes."""
    is_whole: bool = True
    """Whether every included file could be read."""
    twice: set[str] = field(default_factory=set)
    """Names of more than one agent."""

    def add(self, other: AgentRegistry) -> Iterator[tuple[Declared, Declared]]:
        """Add an included file's agents; yield each pair with the same name."""
        for name, declared in other.agents.items():
            known = self.agents.setdefault(name, declared)
            if known.layers[0] != declared.layers[0]:
                self.twice.add(name)
                yield known, declared


def is_agents_file(data: Any) -> bool:
    """Return whether data is a file of agents, not a blueprint."""
    return isinstance(data, dict) and not {"steps", "name"} & data.keys() and "agents" in data


def holds_agents(data: bytes, path: str) -> bool:
    """Return whether a YAML file is a file of agents; most files need no parsing for that."""
    return not re.search(rb"^(steps|name)\s*:", data, re.MULTILINE) and is_agents_file(read(data, path).data)


# Include -------------------------------------------------------------------------------------------------


def duplicates(pairs: Iterable[tuple[Declared, Declared]]) -> Iterator[Diagnostic]:
    """Report agents with the same name: one finding per pair of files, at the first such name."""
    met: dict[tuple[str, str], list[tuple[Declared, Declared]]] = {}
    for known, declared in pairs:
        met.setdefault((known.file, declared.file), []).append((known, declared))
    for (file, _), ((known, declared), *more) in met.items():
        document, path = declared.layers[0]
        other, there = known.layers[0]
        yield DUPLICATE_AGENT.at(
            document.span(path, key=True),
            f"the name {path[-1]!r} is already used by an agent of {file}"
            + (f", and so are {len(more)} more of this file" if more else ""),
            hint="rename one of them",
            related=((other.span(there, key=True), "the other one"),),
        )


def declare(
    document: Document, own: Mapping[str, doc.Agent], roster: AgentRegistry, gaps: Collection[Path] = ()
) -> Iterator[Diagnostic]:
    """Add a file's own agents, with inherited keys, to the included ones in `roster`.

    Agents in `gaps` lost a part in error recovery.
    """
    included = dict(roster.agents)
    family = _Family(document, own, included, roster.is_whole, frozenset(gaps))
    yield from family.circles()
    for name in own:
        roster.agents[name], found = family.declared(name)
        yield from found
    roster.twice |= own.keys() & included.keys()
    yield from duplicates((included[name], roster.agents[name]) for name in own if name in included)


# Extends -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Family:
    """The agents of one file, and those that they can extend."""

    document: Document
    own: Mapping[str, doc.Agent]
    included: Mapping[str, Declared]
    knows_all: bool
    gaps: frozenset[Path] = frozenset()

    def declared(self, name: str) -> tuple[Declared, list[Diagnostic]]:
        """Return an agent with everything that it extends, and the findings about that."""
        line = self._line(name)
        wanted = self.own[line[-1]].extends
        base = None if wanted in self.own else self.included.get(wanted or "")
        agent = None if base is None else base.agent
        for each in reversed(line):
            agent = self.own[each] if agent is None else over(agent, self.own[each])
        layers: Layers = tuple((self.document, ("agents", each)) for each in line)
        layers += base.layers if base is not None else ()
        is_whole = wanted is None if base is None else base.is_whole
        found: list[Diagnostic] = []
        if wanted not in self.own and len(layers) == MAX_EXTENDS + 1:
            found = [self._too_long(name)]
        elif wanted is not None and len(line) == 1 and not is_whole and self.knows_all:
            found = [self._unknown(name, wanted)] if wanted not in self.own and base is None else []
        is_whole = is_whole and not any(("agents", each) in self.gaps for each in line)
        return Declared(agent or self.own[name], layers, is_whole), found

    def _line(self, name: str) -> list[str]:
        """Return the agents of this file that `name` extends, itself first; a cycle only once."""
        line = [name]
        while (wanted := self.own[line[-1]].extends) is not None:
            if wanted not in self.own or wanted in line or len(line) > MAX_EXTENDS:
                break
            line.append(wanted)
        return line

    def circles(self) -> Iterator[Diagnostic]:
        """Report agents that extend each other in a cycle, one finding per cycle, at its first agent."""
        place = {name: index for index, name in enumerate(self.own)}
        seen: dict[str, str] = {}
        for start in self.own:
            here: str | None = start
            line: list[str] = []
            while here is not None and here in self.own and here not in seen:
                seen[here] = start
                line.append(here)
                here = self.own[here].extends
            if here is not None and seen.get(here) == start:
                circle = line[line.index(here) :]
                first = circle.index(min(circle, key=place.__getitem__))
                yield self._circle([*circle[first:], *circle[:first]])

    def _circle(self, circle: list[str]) -> Diagnostic:
        shown = circle if len(circle) < 8 else [*circle[:4], "…", circle[-1]]
        return ENDLESS_EXTENDS.at(
            self.document.span(("agents", circle[0], "extends")),
            f"agents extend each other in a cycle: {' → '.join((*shown, circle[0]))}",
            hint="remove `extends` from one of them",
            related=tuple(
                (self.document.span(("agents", each, "extends")), "and this one continues the cycle")
                for each in circle[1:4]
            ),
        )

    def _too_long(self, name: str) -> Diagnostic:
        return ENDLESS_EXTENDS.at(
            self.document.span(("agents", name, "extends")),
            f"agent {name!r} extends a chain of {MAX_EXTENDS} others; at most {MAX_EXTENDS - 1} are allowed",
            hint="combine the keys of several of them in one agent",
        )

    def _unknown(self, name: str, wanted: str) -> Diagnostic:
        known = [one for one in (*self.own, *self.included) if one != name]
        return UNKNOWN_BASE.at(
            self.document.span(("agents", name, "extends")),
            f"agent {name!r} extends {wanted!r}, which this file neither defines nor includes",
            hint=suggest(wanted, known, what="known agents") or "add it to `agents:`, or `include` its file",
        )


# Precedence of keys --------------------------------------------------------------------------------------

_TEXT = frozenset({"instructions", "instructions_file"})
_SHAPE = frozenset({"output_schema", "output_type"})
_ABOUT_TEXT = _TEXT | {"template", "trust"}


def over(below: doc.Agent | doc.AgentDefaults, agent: doc.Agent) -> doc.Agent:
    """Return `agent` with the keys that it does not set taken from `below`.

    A key replaces the whole inherited value, but `model_settings` are merged one by one. An agent with
    instructions does not inherit `template` and `trust`; one with `output_schema` or `output_type`
    inherits neither of the two.
    """
    said = agent.model_fields_set
    taken = below.model_fields_set - said - {"extends"}
    if said & _TEXT:
        taken -= _ABOUT_TEXT
    if said & _SHAPE:
        taken -= _SHAPE
    update = {key: getattr(below, key) for key in taken}
    if below.model_settings:
        update["model_settings"] = {**below.model_settings, **agent.model_settings}
    return agent.model_copy(update=update) if update else agent


# Defaults ------------------------------------------------------------------------------------------------


def whole(document: Document, blueprint: doc.Blueprint, roster: AgentRegistry) -> doc.Blueprint:
    """Return a blueprint with complete agents and steps; the places of defaults are added to `roster`."""
    defaults = blueprint.defaults.agent
    place = (document, ("defaults", "agent"))
    for name, declared in roster.agents.items():
        agent = over(defaults, declared.agent)
        roster.agents[name] = Declared(agent, (*declared.layers, place), declared.is_whole)
    changed: dict[str, Any] = {"agents": {name: one.agent for name, one in roster.agents.items()}}
    if blueprint.defaults.config.model_fields_set:
        changed["steps"] = _configured(blueprint.steps, blueprint.defaults.config)
        changed["on_failure"] = _configured(blueprint.on_failure, blueprint.defaults.config)
        changed["finally_"] = _configured(blueprint.finally_, blueprint.defaults.config)
    return blueprint.model_copy(update=changed)


_Part = TypeVar("_Part")


def _configured(part: _Part, config: doc.Config) -> _Part:
    """Return a part of a blueprint in which every step with an agent or a call inherits `config`."""
    changed: Any = part
    match part:
        case list():
            changed = [_configured(item, config) for item in part]
        case dict():
            changed = {key: _configured(value, config) for key, value in part.items()}
        case doc.Strict():
            bodies = {key for key, role in roles(type(part)).items() if role is Role.STEPS}
            below = {key: getattr(part, key) for key in part.model_fields_set & bodies}
            update: dict[str, Any] = {key: _configured(value, config) for key, value in below.items()}
            if isinstance(part, doc.BaseStep) and "agent" in type(part).model_fields:
                own = {key: getattr(part.config, key) for key in part.config.model_fields_set}
                update["config"] = config.model_copy(update=own)
            changed = part.model_copy(update=update)
        case _:
            pass
    return changed  # type: ignore[no-any-return]  # the type does not change
