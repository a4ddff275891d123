"""What a schema cannot say of a blueprint: names, scopes, what is available; one function a rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flujo.blueprint.analysis.expression_sites import ExpressionSite, places, places_at_top
from flujo.blueprint.analysis.inference import schema_of
from flujo.blueprint.analysis.scopes import Visit, Walk
from flujo.blueprint.diagnostics import one_of, rule
from flujo.blueprint.expressions.evaluators import RESERVED
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.traversal import COMPOSITES, UNNAMED, Path, asked
from flujo.blueprint.sources.agent_includes import AgentRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from flujo.blueprint.analysis.scope import Scope
    from flujo.blueprint.diagnostics import Diagnostic, Span
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
        child = self.imports.get(step.blueprint) if isinstance(step, doc.ImportStep) else None
        is_import = isinstance(step, doc.ImportStep)
        return not is_import or (child is not None and child.is_whole and () not in self.gaps)

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
        said: dict[Path, Sequence[ExpressionSite]] = {
            one.path: tuple(places(self, one)) for one in self.visits
        }
        return {**said, (): tuple(places_at_top(self))}

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

    def _imported(self, step: doc.ImportStep) -> Schema:
        child = self.imports.get(step.blueprint)
        return child.output if child else None


# Names ---------------------------------------------------------------------------------------------------

DUPLICATE_NAME = rule(
    "FLJ210",
    "duplicate-step-name",
    "Two steps of one list have the same name",
    finds="A step's name that an earlier step of the same list has already.",
    why="`steps.NAME` would have two meanings, and the journal one place for two results.",
    example="steps:\n  - {name: sort, call: skills.a:one}\n  - {name: sort, call: skills.a:two}",
    instead="steps:\n  - {name: sort, call: skills.a:one}\n  - {name: check, call: skills.a:two}",
)
SHADOWED_NAME = rule(
    "FLJ211",
    "shadowed-step-name",
    "A step hides one of a list around it",
    finds="A step inside a branch or a loop with the name of a step that came before it in a list around it.",
    why="`steps.NAME` inside would silently mean another step than the same words outside.",
    example="steps:\n  - {name: sort, call: s:a}\n  - {kind: conditional, name: c, if: 'true',\n"
    "     then: [{name: sort, call: s:b}]}",
    instead="steps:\n  - {name: sort, call: s:a}\n  - {kind: conditional, name: c, if: 'true',\n"
    "     then: [{name: again, call: s:b}]}",
)


def repeated_name(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse a name that a step before it in this list, or in one around it, has."""
    if isinstance(visit.step, doc.Fallback) or visit.step.name == UNNAMED:
        return  # it is in no list, or it has another name that cannot be read
    name = visit.step.name
    earlier = visit.scope.places.get(name)
    found = DUPLICATE_NAME
    where = "in this list"
    if earlier is None or earlier[:-1] != visit.path[:-1]:
        earlier = enclosing(unit, visit).get(name, earlier) or _of_a_state(visit)
        found, where = SHADOWED_NAME, "in a list around it"
    if earlier is not None:
        yield found.at(
            unit.span(*visit.path, "name"),
            f"the name {name!r} is taken by another step {where}",
            hint="give one of them another name",
            related=((unit.span(*earlier, "name"), "the other one"),),
        )


def _of_a_state(visit: Visit) -> Path | None:
    """Return the step of a state around this one that has its name; two states may each have one."""
    other = visit.scope.perhaps.get(visit.step.name)
    # …, "states", STATE, "steps", INDEX: up to there, both are in the same machine.
    return None if other is None or other[:-4] == visit.path[:-4] else other


def enclosing(unit: Unit, visit: Visit) -> dict[str, Path]:
    """Return the names of the composites around a step, with their places."""
    around = {}
    for length in range(2, len(visit.path)):
        composite = unit.visit_at.get(visit.path[:length])
        if composite is not None:
            around[composite.step.name] = visit.path[:length]
    return around


RESERVED_NAME = rule(
    "FLJ212",
    "reserved-name",
    "A name that expressions cannot say",
    finds="A step, item, loop variable or context field whose name is a reserved word of CEL, or one that no "
    "expression could say for another reason.",
    why="`steps.in.output` does not parse, because `in` is an operator.",
    example="steps:\n  - {name: in, call: skills.io:read}",
    instead="steps:\n  - {name: read, call: skills.io:read}",
)


def reserved_name(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse names of steps, items and loop variables that no expression can say."""
    if visit.step.name in RESERVED:
        yield _reserved(unit, (*visit.path, "name"), visit.step.name)
    if isinstance(visit.step, doc.MapStep) and visit.step.as_ is not None:
        yield from _item_name(unit, visit, visit.step.as_)
    for name in visit.step.carry if isinstance(visit.step, doc.LoopStep) else ():
        path = (*visit.path, "carry", name)
        if name in RESERVED:
            yield _reserved(unit, path, name, key=True)
        elif name == "index":
            yield RESERVED_NAME.at(
                unit.span(*path, key=True),
                "`loop.index` counts the iterations already",
                hint="give the variable another name",
            )


def _item_name(unit: Unit, visit: Visit, name: str) -> Iterator[Diagnostic]:
    path = (*visit.path, "as")
    if name in RESERVED:
        yield _reserved(unit, path, name)
    elif name in (visit.scope.tree(item=None, index=None, output=None, loop=None).get("properties") or ()):
        yield RESERVED_NAME.at(
            unit.span(*path),
            f"{name!r} is the name of something else here",
            hint="call the item by another name; `item` is always there",
        )


def reserved_context_field(unit: Unit) -> Iterator[Diagnostic]:
    """Refuse names of context fields that no expression can say."""
    schema = unit.blueprint.context_schema or {}
    for name in schema.get("properties") or ():
        path = ("context_schema", "properties", name)
        if name in RESERVED:
            yield _reserved(unit, path, name, key=True)
        elif name.startswith("__") or not name.isidentifier() or not name.isascii():
            yield RESERVED_NAME.at(
                unit.span(*path, key=True),
                f"{name!r} cannot be the name of a context field",
                hint="write ASCII letters, digits and `_`, and not two leading underscores",
            )


def _reserved(unit: Unit, path: Path, name: str, *, key: bool = False) -> Diagnostic:
    return RESERVED_NAME.at(
        unit.span(*path, key=key),
        f"{name!r} is a reserved word of CEL, so no expression could say it",
        hint=f"write `{name}_`, or a word that says more",
    )


# What is available ---------------------------------------------------------------------------------------

NOT_AVAILABLE = rule(
    "FLJ213",
    "not-available-yet",
    "A part of the language that has no body yet",
    finds="A kind of step or a key that the language has, and that this version of Flujo does not execute.",
    why="Ignoring it would run something else than what was written.",
    example="steps:\n  - {name: sort, agent: sorter, config: {execution_mode: background}}",
    instead="steps:\n  - {name: sort, agent: sorter}",
)
AVAILABLE = (
    doc.Step, *COMPOSITES, doc.CacheStep, doc.HitlStep, doc.ImportStep, doc.TreeSearchStep,
)  # fmt: skip

_LATER_ON_AGENTS = ("spec", "capabilities", "trust")


def unavailable_step(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse kinds and keys of a step that are not executed yet."""
    step = visit.step
    if not isinstance(step, AVAILABLE):
        kind = getattr(step, "kind", "")
        kinds = one_of(known for known, model in doc.KINDS.items() if model in AVAILABLE)
        yield NOT_AVAILABLE.at(
            unit.span(*visit.path, "kind"),
            f"`kind: {kind}` is not available yet",
            hint=f"this version runs {kinds}",
        )
        return
    if step.config.execution_mode == "background":
        yield _unavailable(unit, (*visit.path, "config", "execution_mode"), "execution_mode: background")
    if isinstance(step, doc.HitlStep):
        yield from _attempts_of_a_human(unit, visit.path, step)


def _attempts_of_a_human(unit: Unit, path: Path, step: doc.HitlStep) -> Iterator[Diagnostic]:
    """Refuse limits on attempts where there are none: a human is asked once, and has time."""
    for key in ("timeout_s", "max_retries", "retry"):
        if getattr(step.config, key) != type(step.config).model_fields[key].default:
            yield NOT_AVAILABLE.at(
                unit.span(*path, "config", key, key=True),
                f"`{key}` on `kind: {step.kind}` is not available yet",
                hint="a human who is asked has time; set it on the steps around or after",
            )


def unavailable_at_top(unit: Unit) -> Iterator[Diagnostic]:
    """Refuse keys of agents that are not acted on yet."""
    for name, agent in unit.blueprint.agents.items():
        yield from _unavailable_keys(unit, ("agents", name), agent, _LATER_ON_AGENTS)
        for index, tool in enumerate(agent.tools):
            if not isinstance(tool, str):
                path = ("agents", name, "tools", index)
                yield NOT_AVAILABLE.at(
                    unit.span(*path),
                    "a tool in the form of a mapping is not available yet",
                    hint="write `module:callable`",
                )


def _unavailable_keys(unit: Unit, path: Path, model: Any, keys: Sequence[str]) -> Iterator[Diagnostic]:
    for key in keys:
        default = type(model).model_fields[key].default if key in type(model).model_fields else None
        if getattr(model, key, default) != default:
            yield _unavailable(unit, (*path, key), key)


def _unavailable(unit: Unit, path: Path, what: str) -> Diagnostic:
    return NOT_AVAILABLE.at(
        unit.span(*path, key=True), f"`{what}` is not available yet", hint="take it out for now"
    )


# Shapes --------------------------------------------------------------------------------------------------

STRAY_WITH = rule(
    "FLJ203",
    "stray-with",
    "`with` on a step that calls nothing",
    finds="`with:` on a step that asks an agent.",
    why="`with` gives a callable its parameters by name; an agent gets one `input`.",
    example="steps:\n  - {name: sort, agent: sorter, with: {text: '{{ input }}'}}",
    instead="steps:\n  - {name: sort, agent: sorter, input: '{{ input }}'}",
)


def stray_with(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse `with` beside `agent`, and `input` beside `with`."""
    match visit.step:
        case doc.Step(call=None, with_=dict()):
            yield STRAY_WITH.at(
                unit.span(*visit.path, "with", key=True),
                f"step {visit.step.name!r} asks an agent, which takes no `with`",
                hint="write `input:` instead",
            )
        case doc.Step(with_=dict()) as step if step.input is not None:
            yield STRAY_WITH.at(
                unit.span(*visit.path, "input", key=True),
                f"step {step.name!r} has both `with` and `input`, and only one can reach the callable",
                hint="name the parameter in `with`",
            )


ENDLESS_LOOP = rule(
    "FLJ216",
    "loop-without-until",
    "A loop that does not say when it is done",
    finds="A loop without `until:`.",
    why="It would always run to `max_iterations`, and then count as failed.",
    example="steps:\n  - {kind: loop, name: draft, steps: [{name: write, agent: writer}]}",
    instead="steps:\n  - {kind: loop, name: draft, steps: [{name: write, agent: writer}],\n"
    '     until: "steps.write.output.ok"}',
)


def endless_loop(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse a loop without `until`."""
    if isinstance(visit.step, doc.LoopStep) and visit.step.until is None:
        yield ENDLESS_LOOP.at(
            unit.span(*visit.path, "name"),
            f"loop {visit.step.name!r} has no `until`",
            hint="write the condition that ends it; `until: false` runs it `max_iterations` times",
        )
