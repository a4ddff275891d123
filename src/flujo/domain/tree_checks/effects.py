"""Checks of what a step declares about its call: its effect, its record, and what happens in doubt."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from flujo.domain.agents import AgentSpec
from flujo.domain.steps import BaseStep, GranularStep, Step
from flujo.domain.tools import Known, called_tools
from flujo.domain.transactions import CONNECTION
from flujo.domain.tree_checks.findings import Finding, Knows, Place, Site
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator


_ABOUT_CALLS = {"effect": "unsafe", "enforce_idempotency": False, "in_doubt": "pause", "reconcile": None}
"""The fields that describe a call's effect, with their defaults."""


def changed_fields(_place: Place, step: BaseStep) -> Collection[str]:
    """Return the fields about a call that differ from their defaults."""
    return [key for key, default in _ABOUT_CALLS.items() if getattr(step, key, default) != default]


def declared_effects(site: Site, step: Step, written: Collection[str]) -> Iterator[Finding]:
    """Check a step's declarations about its call, and warn of effects that a retry may repeat."""
    given = [key for key in _ABOUT_CALLS if key in written]
    if step.call is None:
        for key in given:
            message = f"step {site.path!r} asks an agent, and `{key}` is about calls"
            has_tools = isinstance(step.agent, AgentSpec) and step.agent.tools
            hint = "write `kind: granular`, which records each tool call" if has_tools else "remove it"
            yield Finding("FLJ265", site.place, message, hint, (key,), at_key=True)
        return
    if not step.enforce_idempotency:
        yield from never_in_doubt(site, given)
    else:
        yield from reconciled(site, step)
    if step.config.max_retries:
        yield from _retried_effect(site, step, is_declared="effect" in given)


def _retried_effect(site: Site, step: Step, *, is_declared: bool) -> Iterator[Finding]:
    """Warn of a retry that may repeat an effect, or that a doubt prevents."""
    where = f"step {site.path!r}"
    if step.enforce_idempotency and step.effect in ("unsafe", "transactional") and step.in_doubt == "pause":
        message = (
            f"a retry of {where} follows harmless failures only; after any other failure it asks a human"
        )
        hint = (
            "set `effect: idempotent` if the other system recognizes repetitions by key, raise "
            "`flujo.NotSent` where nothing was sent, or do not retry; `flujo explain BLUEPRINT` lists the "
            "harmless failures"
        )
    elif not step.enforce_idempotency and step.effect == "unsafe" and is_declared:
        message = f"a retry of {where} may repeat its effect"
        hint = "set `effect: idempotent` if the other system recognizes repetitions by key, or do not retry"
    else:
        return
    at = ("config", "max_retries")
    yield Finding("FLJ267", site.place, message, hint, at, at_key=True, is_warning=True)


IF_IT_RECOGNIZES = (
    "declare the effect `idempotent` if the other system recognizes the key, or write another `in_doubt`: "
    "`pause`, `reconcile` or `fail`"
)


def repeated_call(site: Site, step: Step, written: Collection[str], knows: Knows) -> Iterator[Finding]:
    """Check that a call in doubt is not repeated although it is declared unsafe.

    If neither the step nor its callable declares an effect, `retry_same_key` says itself that the other
    system recognizes the key.
    """
    if step.call is None or not step.enforce_idempotency or step.in_doubt != "retry_same_key":
        return
    found = knows(step.call)
    declared = None if found is None else found.effect
    effect = step.effect if "effect" in written else declared
    if effect == "unsafe":
        message = (
            f"step {site.path!r} has `in_doubt: retry_same_key`, and its call `{step.call.target}` has "
            "`effect: unsafe`: it would be made again although it may have taken effect"
        )
        yield Finding("FLJ433", site.place, message, IF_IT_RECOGNIZES, ("in_doubt",))


def lent(site: Site, knows: Knows) -> Iterator[Finding]:
    """Check that no `call` step has a callable that writes in the transaction of a tool call."""
    step = site.step
    if isinstance(step, Step) and step.call is not None:
        found = knows(step.call)
        error = None if found is None else without_connection(f"step {site.path!r}", step, found)
        if error is not None:
            yield Finding(error.code, site.place, error.message, error.hint, ("call",))


def without_connection(where: str, step: Step, found: Known) -> PipelineError | None:
    """Return the error about a `call` step whose callable takes a connection that only a tool gets."""
    if step.call is None or not found.writes_in_transaction or CONNECTION in (step.arguments or {}):
        return None
    return PipelineError(
        f"{where}: `{step.call.target}` writes on a `{CONNECTION}`, in the transaction of its entry, and "
        "only a tool has one",
        hint="make it a tool of an agent in a `granular` step, or open a connection in the function, and "
        "write `enforce_idempotency: true`",
        code="FLJ447",
    )


def never_in_doubt(site: Site, given: Collection[str]) -> Iterator[Finding]:
    """Report a policy for doubt on a step that records no calls."""
    for key in ("in_doubt", "reconcile"):
        if key in given and not reconciles_a_tool(site.step):
            message = f"step {site.path!r} has `{key}` without `enforce_idempotency`, so it is never in doubt"
            hint = "set `enforce_idempotency` to true"
            yield Finding("FLJ266", site.place, message, hint, (key,), at_key=True)
            return


def reconciled(site: Site, step: Step | GranularStep) -> Iterator[Finding]:
    """Check that a step has `reconcile` if, and only if, its policy for doubt uses it."""
    where = f"step {site.path!r}"
    if step.in_doubt == "reconcile" and step.reconcile is None:
        message, key = f"{where} has `in_doubt: reconcile` without `reconcile`", "in_doubt"
        yield Finding("FLJ266", site.place, message, "add `reconcile`", (key,), at_key=True)
    elif step.reconcile is not None and step.in_doubt != "reconcile" and not reconciles_a_tool(step):
        message, key = f"{where} has `reconcile` without `in_doubt: reconcile`", "reconcile"
        yield Finding("FLJ266", site.place, message, "add `in_doubt: reconcile`", (key,), at_key=True)


def reconciles_a_tool(step: BaseStep) -> bool:
    """Return whether a tool of the step's agents is reconciled in doubt."""
    agents = (agent for agent in step.names() if isinstance(agent, AgentSpec))
    tools = (tool for agent in agents for tool in called_tools(agent.tools))
    return any(tool.in_doubt == "reconcile" for tool in tools)


def is_enforced(step: BaseStep) -> bool:
    """Return whether a step records each of its calls."""
    return bool(getattr(step, "enforce_idempotency", False))
