"""Rules about callables: checked against the project's source text, without importing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Fix, Severity, nearest, one_of, rule, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.roles import Role, roles
from flujo.blueprint.sources.callables import check_callable_name
from flujo.blueprint.sources.signatures import HANDED_IN
from flujo.domain.tools import Known
from flujo.domain.transactions import CONNECTION
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic, Span
    from flujo.blueprint.language.traversal import Path
    from flujo.blueprint.sources.signatures import Signature

CALLABLE_REFUSED = rule(
    "FLJ250",
    "callable-refused",
    "A callable that this project does not allow",
    finds="A `module:callable` that is malformed, that no pattern of `allow_callables` in flujo.toml "
    "matches, or that is never allowed (`os`, `subprocess`, `builtins` …).",
    why="Naming a callable runs code. The project decides which code a blueprint may run.",
    example="steps:\n  - {name: go, call: os:system, with: {command: ls}}",
    instead='# flujo.toml: [blueprints] allow_callables = ["skills.*"]\n'
    "steps:\n  - {name: go, call: skills.files:listing}",
)
UNKNOWN_CALLABLE = rule(
    "FLJ251",
    "unknown-callable",
    "A callable that its module does not define",
    finds="A `module:callable` whose module is missing in a package of the project, or is a file of the "
    "project that does not define the name, or assigns it a number, a text, a list or a mapping.",
    why="The run cannot start.",
    example="steps:\n  - {name: look, call: skills.crm:lokup}",
    instead="steps:\n  - {name: look, call: skills.crm:lookup}",
)
CALLABLE_ARGUMENTS = rule(
    "FLJ252",
    "callable-arguments",
    "A call whose arguments do not fit the callable",
    finds="A key of `with:` that is not a parameter of the function, or a parameter without a default that "
    "gets nothing. In `with:` of a tool also a parameter that Flujo fills in, and (a warning) a text with "
    "`{{ … }}`, which is passed as it is.",
    why="The call would fail at run time.",
    example="# def lookup(email): …\n"
    "steps:\n  - {name: look, call: skills.crm:lookup, with: {mail: '{{ input }}'}}",
    instead="# def lookup(email): …\n"
    "steps:\n  - {name: look, call: skills.crm:lookup, with: {email: '{{ input }}'}}",
)
CALLABLE_UNCHECKED = rule(
    "FLJ253",
    "callable-not-checked",
    "A callable whose source is not in the project",
    finds="An allowed `module:callable` whose source is not a file of the project, or whose module may "
    "define the name dynamically (a star import, a definition inside an `if`).",
    why="Whether it exists and which arguments it takes is known only at run time.",
    example="steps:\n  - {name: parse, call: some_package.parsing:parse}",
    instead="# a function of the project that calls the package\n"
    "steps:\n  - {name: parse, call: skills.parsing:parse}",
)


@dataclass(frozen=True)
class Named:
    """A callable, where it is named, and its arguments if known."""

    target: str
    path: Path
    is_called: bool = False
    given: tuple[str, ...] | None = None
    """The names of its arguments; None when it gets one value, for `data` or its only parameter."""
    values: Path | None = None
    """The path of the mapping with the arguments, if the blueprint has one."""


def named_in_step(visit: Visit) -> Iterator[Named]:
    """Yield the callables that a step names, except those in keys that hold expressions."""
    match visit.step:
        case doc.Step(call=str(target), with_=None):
            yield Named(target, (*visit.path, "call"), is_called=True)
        case doc.Step(call=str(target), with_=dict(values)):
            yield Named(target, (*visit.path, "call"), True, tuple(values), (*visit.path, "with"))
        case _:
            for key, role in roles(type(visit.step)).items():
                name = getattr(visit.step, key) if role is Role.ANSWERER else None
                if isinstance(name, str) and looks_like_target(name):
                    yield Named(name, (*visit.path, key), is_called=True)
    yield from _around(visit.step, visit.path)
    merge = getattr(visit.step, "merge", "")
    if looks_like_target(merge):
        yield Named(merge, (*visit.path, "merge"), True, ("fork", "branches"))


def _around(step: doc.BaseStep, path: Path) -> Iterator[Named]:
    """Yield the processors, validators and `reconcile` of a step, of whatever kind has them."""
    processors = getattr(step, "processors", doc.Processors())
    for key, names in (("input", processors.input), ("output", processors.output)):
        for index, name in enumerate(names):
            yield Named(name, (*path, "processors", key, index), is_called=True)
    for index, name in enumerate(getattr(step, "validators", ())):
        yield Named(name, (*path, "validators", index), is_called=True)
    if (reconcile := getattr(step, "reconcile", None)) is not None:
        yield Named(reconcile, (*path, "reconcile"), is_called=True)


def named_at_top(unit: Unit) -> Iterator[Named]:
    """Yield the classes and tools that the blueprint and its agents name."""
    if unit.blueprint.context is not None:
        yield Named(unit.blueprint.context, ("context",))
    for name, agent in unit.blueprint.agents.items():
        if agent.output_type is not None:
            yield Named(agent.output_type, ("agents", name, "output_type"))
        for path, tool in doc.callable_tools(agent):
            yield Named(tool.call or "", ("agents", name, *path))


def signature_of(unit: Unit, target: str) -> Signature | None:
    """Return the signature of a callable as the project's source has it, or None."""
    place, _, name = target.partition(":")
    module = unit.module(place)
    return module.names.get(name) if module is not None else None


def required(unit: Unit, target: str) -> str:
    """Return what the source of a callable requires of a step; see `domain.tools.requirement`."""
    signature = signature_of(unit, target)
    if signature is None or (signature.effect == "transactional" and CONNECTION in signature.parameters):
        return ""
    if signature.is_enforced:
        return "`enforce_idempotency`"
    return "an `idempotency_key`" if "idempotency_key" in signature.required else ""


def known(unit: Unit, target: str) -> Known | None:
    """Return what the source of a callable says; None if it cannot be read."""
    signature = signature_of(unit, target)
    return None if signature is None else Known(signature.effect or "", CONNECTION in signature.parameters)


def readable_tools(unit: Unit) -> Iterator[tuple[str, Path, doc.Tool, Signature]]:
    """Yield the agents' tools whose source the project has: agent, keys within it, tool and signature."""
    for name, agent in unit.blueprint.agents.items():
        for path, tool in doc.callable_tools(agent):
            if (signature := signature_of(unit, tool.call or "")) is not None:
                yield name, path, tool, signature


def callable_problems(unit: Unit, named: Named) -> Iterator[Diagnostic]:
    """Report a callable that is not allowed or does not exist, and a call that does not fit it."""
    span = unit.span(*named.path)
    problem = check_callable_name(named.target, unit.allow)
    if problem is not None:
        fix = None if problem.meant is None else Fix(span, problem.meant)
        yield CALLABLE_REFUSED.at(span, problem.message, hint=problem.hint, fix=fix)
        return
    place, _, name = named.target.partition(":")
    module = unit.module(place)
    if module is None and (missing := _missing_module(unit, place)) is not None:
        package, there = missing
        near = nearest(place, there)
        yield UNKNOWN_CALLABLE.at(
            span,
            f"there is no module `{place}`: the package `{package}` of this project does not have it",
            hint=f"did you mean `{near}:{name}`?"
            if near
            else f"modules there: {one_of(there, joined_by='and')}",
            fix=Fix(span, f"{near}:{name}") if near else None,
        )
    elif module is None:
        yield CALLABLE_UNCHECKED.at(
            span,
            f"`{named.target}` is not checked: its source is not in this project",
            hint=f"a module of the project would be `{place.replace('.', '/')}.py` beside flujo.toml",
            severity=Severity.INFO,
        )
    elif name not in module.names and not module.complete:
        yield CALLABLE_UNCHECKED.at(
            span,
            f"`{named.target}` is not checked: {module.path} may define it dynamically",
            hint=f"define `{name}` at the top level, outside any `if` or `try`",
            severity=Severity.INFO,
        )
    elif name not in module.names:
        yield UNKNOWN_CALLABLE.at(
            span,
            f"`{module.path}` does not define `{name}`",
            hint=suggest(name, module.names, what="defined there"),
            fix=None if (near := nearest(name, module.names)) is None else Fix(span, f"{place}:{near}"),
        )
    elif name in module.constants:
        yield UNKNOWN_CALLABLE.at(
            span,
            f"`{named.target}` is not callable: {module.path} assigns it a plain value",
            hint="name a function",
        )
    elif named.is_called and (signature := module.names[name]) is not None:
        yield from _arguments(unit, named, signature)


def _missing_module(unit: Unit, module: str) -> tuple[str, Sequence[str]] | None:
    """Return the innermost package of the project around a missing module, with its modules.

    None if the project has no such package, or its folder has something of this name.
    """
    package, _, name = module.rpartition(".")
    while package:
        there = unit.modules(package)
        if there:
            return None if name in there else (package, [f"{package}.{each}" for each in there])
        package, _, name = package.rpartition(".")
    return None


def _arguments(unit: Unit, named: Named, signature: Signature) -> Iterator[Diagnostic]:
    # FLJ447 is about a connection that a transactional callable lacks.
    lent = {CONNECTION} if signature.effect == "transactional" else set[str]()
    needed = [name for name in signature.required if name not in HANDED_IN | lent]
    if named.given is None:
        # `previous` goes to `data`, or to the only parameter there is.
        if needed and "data" not in signature.parameters and len(needed) > 1:
            yield CALLABLE_ARGUMENTS.at(
                unit.span(*named.path),
                f"`{named.target}` needs {one_of(needed, joined_by='and')}, and gets one value",
                hint="add `with:` with a value for each"
                if named.path[-1] == "call"
                else "give it a parameter `data`",
            )
        return
    takes = [name for name in signature.parameters if name not in HANDED_IN or name in ("data", *named.given)]
    missing = [name for name in signature.required if name in takes and name not in {*named.given, *lent}]
    for name in named.given:
        if name not in takes and not signature.open_ended:
            yield CALLABLE_ARGUMENTS.at(
                _span_of(unit, named, name),
                f"`{named.target}` has no parameter {name!r}",
                hint=suggest(name, takes, what="parameters") or "it has no parameters",
            )
            missing = [one for one in missing if one != nearest(name, missing)]
    if missing:
        yield CALLABLE_ARGUMENTS.at(
            _span_of(unit, named),
            f"`{named.target}` needs {one_of(missing, joined_by='and')}, but "
            + ("`with` does not have it" if named.values else "`merge` passes `fork` and `branches`"),
            hint="add it to `with`" if named.values else "give it a default",
        )


def _span_of(unit: Unit, named: Named, *name: str) -> Span:
    """Return where an argument is, or where the callable is named when it gets none."""
    return unit.span(*named.values, *name, key=True) if named.values else unit.span(*named.path)


STRAY_WITH = rule(
    "FLJ203",
    "stray-with",
    "`with` on a step that calls nothing",
    finds="`with:` on a step with an agent.",
    why="`with` passes arguments to a callable by name; an agent has one `input`.",
    example="steps:\n  - {name: sort, agent: sorter, with: {text: '{{ input }}'}}",
    instead="steps:\n  - {name: sort, agent: sorter, input: '{{ input }}'}",
)


def stray_with(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report `with` beside `agent`, and `input` beside `with`."""
    match visit.step:
        case doc.Step(call=None, with_=dict()):
            yield STRAY_WITH.at(
                unit.span(*visit.path, "with", key=True),
                f"step {visit.step.name!r} has an agent, which takes no `with`",
                hint="write `input:` instead",
            )
        case doc.Step(with_=dict()) as step if step.input is not None:
            yield STRAY_WITH.at(
                unit.span(*visit.path, "input", key=True),
                f"step {step.name!r} has both `with` and `input`, but a callable gets only one of them",
                hint="name the parameter in `with`",
            )
