"""Rules about `with:` of tools: the values of parameters that no model sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.diagnostics import Severity, rule, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.rules.callables import CALLABLE_ARGUMENTS, signature_of
from flujo.blueprint.sources.signatures import FILLED_IN
from flujo.domain.transactions import CONNECTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

_TELLER = "agents: {teller: {model: a:b, tools: [{call: skills.bank:pay, with: {key: %s}}]}}\n"
_SERVE = "steps:\n  - {kind: granular, name: serve, agent: teller}"
SECRET_NOT_SET = rule(
    "FLJ465",
    "secret-not-set",
    "A secret that is not set",
    finds="`{secret: NAME}` in `with:` of a tool, if the environment has no variable of this name, or a "
    "value that is too short to be hidden.",
    why="The tool cannot be called without it. `flujo run` refuses to begin; `flujo validate` warns, because "
    "it may run where no secret is.",
    example=_TELLER % "{secret: BANK_KEY}" + _SERVE,
    instead="# export BANK_KEY=…\n" + _TELLER % "{secret: BANK_KEY}" + _SERVE,
)


_BOOK = "agents: {clerk: {model: a:b, tools: [{call: skills.seats:book, effect: transactional}]}}\n"
NOT_TRANSACTIONAL = rule(
    "FLJ466",
    "tool-without-connection",
    "A transactional tool that cannot write in the transaction",
    finds="A tool with the effect `transactional` whose function has no parameter `connection`.",
    why="What a transactional tool writes is committed together with the entry of its call, so it must write "
    "on the connection that it gets.",
    example="# skills/seats.py: def book(seat): …\n" + _BOOK + _SERVE.replace("teller", "clerk"),
    instead="# skills/seats.py: def book(seat, connection): …\n" + _BOOK + _SERVE.replace("teller", "clerk"),
)


def _bound(unit: Unit) -> Iterator[tuple[Path, doc.Tool]]:
    """Yield the tools with `with:`, each with the keys to it."""
    for name, agent in unit.blueprint.agents.items():
        for path, tool in doc.callable_tools(agent):
            if tool.with_:
                yield ("agents", name, *path[:2], "with"), tool


def bound_parameters(unit: Unit) -> Iterator[Diagnostic]:
    """Report values for parameters that the callable does not have, and texts that are not filled in."""
    for path, tool in _bound(unit):
        signature = signature_of(unit, tool.call or "")
        takes = [] if signature is None else [one for one in signature.parameters if one not in FILLED_IN]
        effect = tool.effect or (None if signature is None else signature.effect)
        lent = (CONNECTION,) if effect == "transactional" else ()
        for name, value in tool.with_.items():
            if name in (*FILLED_IN, *lent):
                yield CALLABLE_ARGUMENTS.at(
                    unit.span(*path, name, key=True), f"Flujo fills in `{name}` itself", hint="remove it"
                )
            elif signature is not None and name not in takes and not signature.open_ended:
                yield CALLABLE_ARGUMENTS.at(
                    unit.span(*path, name, key=True),
                    f"`{tool.call}` has no parameter {name!r}",
                    hint=suggest(name, takes, what="parameters") or "it has no parameters",
                )
            if _looks_filled_in(value):
                yield CALLABLE_ARGUMENTS.at(
                    unit.span(*path, name),
                    f"`{name}` gets this text as it is: `{{{{ … }}}}` is not filled in for a tool",
                    hint="remove it from `with`, so that the model passes a value",
                    severity=Severity.WARNING,
                )


def _looks_filled_in(value: Any) -> bool:
    match value:
        case str():
            return "{{" in value
        case dict():
            return any(map(_looks_filled_in, value.values()))
        case list():
            return any(map(_looks_filled_in, value))
        case _:
            return False


def unset_secret(unit: Unit) -> Iterator[Diagnostic]:
    """Report secrets that the environment does not have."""
    for path, tool in _bound(unit):
        for inside, name in doc.references(tool.with_):
            if (why := unit.project.secret_problem(name)) is not None:
                yield SECRET_NOT_SET.at(
                    unit.span(*path, *inside, "secret"),
                    f"tool `{tool.call}` needs a secret, and {why}",
                    hint=f"set {name} where Flujo runs",
                    severity=Severity.WARNING,
                )


def tool_without_connection(unit: Unit) -> Iterator[Diagnostic]:
    """Report transactional tools that take no connection."""
    for name, agent in unit.blueprint.agents.items():
        for path, tool in doc.callable_tools(agent):
            signature = signature_of(unit, tool.call or "")
            if signature is None or (tool.effect or signature.effect) != "transactional":
                continue
            if CONNECTION not in signature.parameters:
                yield NOT_TRANSACTIONAL.at(
                    unit.span("agents", name, *path),
                    f"`{tool.call}` is transactional, but has no parameter `{CONNECTION}`",
                    hint=f"execute its statements on a parameter `{CONNECTION}`, or declare another effect",
                )
