"""Rules about calls with an effect outside: what would repeat one, and what would never be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, rule
from flujo.blueprint.language import models as doc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic

_CALL = "steps:\n  - name: pay\n    call: skills.bank:pay\n    with: {amount: 5}\n"
ENFORCED_AGENT = rule(
    "FLJ265",
    "effect-of-no-call",
    "What is said of a call, on a step that calls nothing",
    finds="`effect`, `enforce_idempotency`, `in_doubt` or `reconcile` on a step that asks an agent.",
    why="They say what calling a function does to the world; asking a model does nothing to it.",
    example="steps:\n  - {name: sort, agent: sorter, enforce_idempotency: true}",
    instead=_CALL + "    enforce_idempotency: true",
)
NOT_ENFORCED = rule(
    "FLJ266",
    "in-doubt-not-enforced",
    "What happens in doubt, on a call that is never in doubt",
    finds="`in_doubt` or `reconcile` without `enforce_idempotency: true`, `reconcile` without `in_doubt: "
    "reconcile`, or `in_doubt: reconcile` without `reconcile`.",
    why="A call that is not announced is simply made again after a crash, and nobody is asked.",
    example=_CALL + "    in_doubt: fail",
    instead=_CALL + "    enforce_idempotency: true\n    in_doubt: fail",
)
REPEATED_EFFECT = rule(
    "FLJ267",
    "repeated-effect",
    "A retry that may do something twice",
    finds="`max_retries` on a call that declares `effect: unsafe`, or that enforces its idempotency and "
    "declares no other effect.",
    why="An attempt that failed may have taken effect before it failed. The next one is another call, with "
    "another key.",
    example=_CALL + "    effect: unsafe\n    config: {max_retries: 2}",
    instead=_CALL + "    effect: idempotent\n    enforce_idempotency: true\n    config: {max_retries: 2}",
)

_ABOUT_CALLS = ("effect", "enforce_idempotency", "in_doubt", "reconcile")


def effects(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse what would never happen, and warn of what may happen twice."""
    step = visit.step
    if not isinstance(step, doc.Step):
        return
    said = [key for key in _ABOUT_CALLS if key in step.model_fields_set]
    if step.call is None:
        for key in said:
            yield ENFORCED_AGENT.at(
                unit.span(*visit.path, key, key=True),
                f"step {step.name!r} asks an agent, and `{key}` is about calls",
                hint="take it out",
            )
        return
    yield from _never_in_doubt(unit, visit, step, said)
    if step.config.max_retries and step.effect == "unsafe" and ("effect" in said or step.enforce_idempotency):
        yield REPEATED_EFFECT.at(
            unit.span(*visit.path, "config", "max_retries", key=True),
            f"a retry of step {step.name!r} may do what it does a second time",
            hint="say `effect: idempotent` if the other side knows a repetition by its key, or do not retry",
            severity=Severity.WARNING,
        )


def _never_in_doubt(unit: Unit, visit: Visit, step: doc.Step, said: list[str]) -> Iterator[Diagnostic]:
    for key in ("in_doubt", "reconcile"):
        if key in said and not step.enforce_idempotency:
            yield NOT_ENFORCED.at(
                unit.span(*visit.path, key, key=True),
                f"step {step.name!r} has `{key}` and is never in doubt",
                hint="add `enforce_idempotency: true`",
            )
            return
    if (step.in_doubt == "reconcile") != (step.reconcile is not None):
        key, missing = (
            ("in_doubt", "reconcile: module:callable")
            if step.reconcile is None
            else (
                "reconcile",
                "in_doubt: reconcile",
            )
        )
        yield NOT_ENFORCED.at(
            unit.span(*visit.path, key, key=True),
            f"step {step.name!r} has `{key}` and not `{missing}`",
            hint=f"add `{missing}`",
        )
