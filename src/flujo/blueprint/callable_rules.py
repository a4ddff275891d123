"""What a blueprint says of callables, held against the project's source as text: nothing is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.blueprint import document as doc
from flujo.blueprint.diagnostics import Severity, nearest, one_of, rule, suggest
from flujo.blueprint.resolver import check_callable_name, is_callable_name
from flujo.blueprint.signatures import HANDED_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.diagnostics import Diagnostic, Span
    from flujo.blueprint.rules import Unit
    from flujo.blueprint.scopes import Path, Visit
    from flujo.blueprint.signatures import Signature

CALLABLE_REFUSED = rule(
    "FLJ250",
    "callable-refused",
    "A callable that this project does not admit",
    finds="A `module:callable` that is misspelt, that no pattern of `allow_callables` in flujo.toml admits, "
    "or that is never admitted (`os`, `subprocess`, `builtins` …).",
    why="A blueprint that names a callable is code. The project says which code it may be.",
    example="steps:\n  - {name: go, call: os:system, with: {command: ls}}",
    instead='# flujo.toml: [blueprints] allow_callables = ["skills.*"]\n'
    "steps:\n  - {name: go, call: skills.files:listing}",
)
UNKNOWN_CALLABLE = rule(
    "FLJ251",
    "unknown-callable",
    "A callable that its module does not define",
    finds="A `module:callable` whose module is a file of the project that defines no such name.",
    why="The run could not start.",
    example="steps:\n  - {name: look, call: skills.crm:lokup}",
    instead="steps:\n  - {name: look, call: skills.crm:lookup}",
)
CALLABLE_ARGUMENTS = rule(
    "FLJ252",
    "callable-arguments",
    "A call that does not give the callable what it takes",
    finds="A key of `with:` that is no parameter of the function, or a parameter without a default that gets "
    "nothing.",
    why="The call would fail when the run comes to it.",
    example="# def lookup(email): …\n"
    "steps:\n  - {name: look, call: skills.crm:lookup, with: {mail: '{{ input }}'}}",
    instead="# def lookup(email): …\n"
    "steps:\n  - {name: look, call: skills.crm:lookup, with: {email: '{{ input }}'}}",
)
CALLABLE_UNCHECKED = rule(
    "FLJ253",
    "callable-not-checked",
    "A callable whose source is not in the project",
    finds="An admitted `module:callable` whose source is no file of the project.",
    why="Whether it exists and what it takes is found only when the blueprint is run.",
    example="steps:\n  - {name: parse, call: some_package.parsing:parse}",
    instead="# a function of the project that calls the package\n"
    "steps:\n  - {name: parse, call: skills.parsing:parse}",
)


@dataclass(frozen=True)
class Named:
    """A callable where it is named; `call` is the step that calls it with arguments of its own."""

    target: str
    path: Path
    call: doc.Step | None = None


def named_in_step(visit: Visit) -> Iterator[Named]:
    """Yield the callables that a step names; those in keys that hold logic are among `places`."""
    match visit.step:
        case doc.Step(call=str(target)) as step:
            yield Named(target, (*visit.path, "call"), step)
        case doc.RouterStep(router=router) if is_callable_name(router):
            yield Named(router, (*visit.path, "router"))
        case _:
            pass
    merge = getattr(visit.step, "merge", "")
    if is_callable_name(merge):
        yield Named(merge, (*visit.path, "merge"))


def named_at_top(unit: Unit) -> Iterator[Named]:
    """Yield the classes and tools that the blueprint and its agents name."""
    if unit.blueprint.context is not None:
        yield Named(unit.blueprint.context, ("context",))
    for name, agent in unit.blueprint.agents.items():
        if agent.output_type is not None:
            yield Named(agent.output_type, ("agents", name, "output_type"))
        for index, tool in enumerate(agent.tools):
            if isinstance(tool, str):
                yield Named(tool, ("agents", name, "tools", index))


def callable_problems(unit: Unit, named: Named) -> Iterator[Diagnostic]:
    """Refuse a callable that is not admitted or not there, and a call that does not fit it."""
    span = unit.span(*named.path)
    problem = check_callable_name(named.target, unit.allow)
    if problem is not None:
        yield CALLABLE_REFUSED.at(span, problem.message, hint=problem.hint)
        return
    place, _, name = named.target.partition(":")
    module = unit.module(place)
    if module is None or (name not in module.names and not module.complete):
        yield CALLABLE_UNCHECKED.at(
            span,
            f"`{named.target}` is not checked: its source is no file of this project",
            hint=f"it would be `{place.replace('.', '/')}.py` beside flujo.toml",
            severity=Severity.INFO,
        )
    elif name not in module.names:
        yield UNKNOWN_CALLABLE.at(
            span,
            f"`{module.path}` defines no `{name}`",
            hint=suggest(name, module.names, what="it defines"),
        )
    elif named.call is not None and (signature := module.names[name]) is not None:
        yield from _arguments(unit, named, named.call, signature, span)


def _arguments(
    unit: Unit, named: Named, step: doc.Step, signature: Signature, span: Span
) -> Iterator[Diagnostic]:
    needed = [name for name in signature.required if name not in HANDED_IN]
    if step.with_ is None:
        # `previous` goes to `data`, or to the only parameter there is.
        if "data" in signature.parameters or len(needed) == 1:
            return
        if needed:
            yield CALLABLE_ARGUMENTS.at(
                span,
                f"`{named.target}` needs {one_of(needed, joined_by='and')}, and the step gives no `with`",
                hint="add `with:` with a value for each",
            )
        return
    takes = [name for name in signature.parameters if name not in ("context", "resources")]
    missing = [name for name in signature.required if name in takes and name not in step.with_]
    for name in step.with_:
        if name not in takes and not signature.open_ended:
            yield CALLABLE_ARGUMENTS.at(
                unit.span(*named.path[:-1], "with", name, key=True),
                f"`{named.target}` takes no {name!r}",
                hint=suggest(name, takes, what="it takes") or "it takes nothing",
            )
            missing = [one for one in missing if one != nearest(name, missing)]
    if missing:
        yield CALLABLE_ARGUMENTS.at(
            unit.span(*named.path[:-1], "with", key=True),
            f"`{named.target}` needs {one_of(missing, joined_by='and')}, and `with` does not give it",
            hint="add it to `with`",
        )
