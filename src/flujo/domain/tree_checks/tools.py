"""Checks of the tools of a step's agents: which calls are recorded, and which are not made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flujo.domain.agents import AgentSpec
from flujo.domain.steps import BaseStep, GranularStep, Step
from flujo.domain.tools import CallableTool, CalledTool, InDoubt, callable_tools, called_tools, repeats_unsafe
from flujo.domain.tree_checks.effects import IF_IT_RECOGNIZES, is_enforced
from flujo.domain.tree_checks.findings import Finding, Knows, Requires, Site
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.conversations import Tool


def agent_tools(site: Site) -> Iterator[Finding]:
    """Check the rules of the tools of a step's agents, as far as they depend on the step."""
    for agent in (each for each in site.step.names() if isinstance(each, AgentSpec)):
        for tool in called_tools(agent.tools):
            which = f"step {site.path!r}: tool `{tool.name}` of agent {agent.name!r} has"
            yield from (
                Finding(code, site.place, f"{which} {what}", hint, ("agent",))
                for code, what, hint in _tool(site.step, tool)
            )


def _tool(step: BaseStep, tool: CalledTool) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with a tool in a step: the code, the words, and the hint."""
    if step.kind != "granular" and (tool.is_recorded or tool.effect == "transactional"):
        key = "approve" if tool.approve is not None else "enforce_idempotency"
        key = key if tool.is_recorded else "effect: transactional"
        what = f"`{key}`, and this kind of step does not record tool calls"
        yield "FLJ444", what, "write `kind: granular`, which records each tool call"
    elif tool.in_doubt is not None and not (tool.is_recorded or is_enforced(step)):
        what = "`in_doubt` without `enforce_idempotency`, so it is never in doubt"
        yield "FLJ266", what, "add `enforce_idempotency: true` to the tool"
    elif tool.in_doubt == "reconcile" and getattr(step, "reconcile", None) is None:
        yield (
            "FLJ266",
            "`in_doubt: reconcile`, and the step has no `reconcile`",
            "add `reconcile` to the step",
        )


def unrecorded(site: Site, requires: Requires) -> Iterator[Finding]:
    """Check that a step records the calls of callables that require it."""
    step, where, enforced = site.step, f"step {site.path!r}", "`enforce_idempotency: true`"
    if is_enforced(step):
        return
    has_key = isinstance(step, Step) and "idempotency_key" in (step.arguments or {})
    if isinstance(step, Step) and step.call is not None and not has_key and (needs := requires(step.call)):
        message = f"{where}: `{step.call.target}` requires {needs}, and the step does not record its calls"
        yield Finding("FLJ432", site.place, message, f"add {enforced}", ("call",))
    hint = f"add {enforced}" if step.kind == "granular" else f"write `kind: granular` with {enforced}"
    for agent in (each for each in step.names() if isinstance(each, AgentSpec)):
        for tool in callable_tools(agent.tools):
            is_recorded = tool.is_recorded or tool.effect == "transactional"
            if not is_recorded and (needs := requires(tool.call)):
                which = f"tool `{tool.name}` of agent {agent.name!r}"
                message = f"{where}: {which} requires {needs}, and the step does not record its calls"
                yield Finding("FLJ432", site.place, message, hint, ("agent",))


def sent_again(site: Site, knows: Knows) -> Iterator[Finding]:
    """Check that no recorded call of an unsafe tool is repeated while it is in doubt."""
    by_step = is_enforced(site.step) and getattr(site.step, "in_doubt", None) == "retry_same_key"
    for tool in unsafe_and_repeated(site.step, knows):
        error = repeated_tool(f"step {site.path!r}", tool)
        keys = ("in_doubt",) if by_step else ("agent",)
        yield Finding(error.code, site.place, error.message, error.hint, keys)


def repeated_tool(where: str, tool: str) -> PipelineError:
    """Return the error about an unsafe tool of a step whose calls in doubt would be repeated."""
    return PipelineError(
        f"{where}: its tool `{tool}` is `unsafe`, and with `in_doubt: retry_same_key` a call would be made "
        "again although it may have taken effect",
        hint=IF_IT_RECOGNIZES,
        code="FLJ433",
    )


def unsafe_and_repeated(step: BaseStep, knows: Knows) -> Iterator[str]:
    """Yield the unsafe tools of a step whose recorded calls are made again while they are in doubt."""
    if not isinstance(step, GranularStep):
        return
    enforced, policy = step.enforce_idempotency, step.in_doubt
    for agent in step.names():
        if isinstance(agent, AgentSpec):
            for spec in called_tools(agent.tools):
                effect = spec.effect
                if effect is None and isinstance(spec, CallableTool):
                    found = knows(spec.call)
                    effect = None if found is None else found.effect or "unsafe"
                if (spec.is_recorded or enforced) and repeats_unsafe(effect, spec.in_doubt or policy):
                    yield spec.name
        else:
            tools: Mapping[str, Tool] = getattr(agent.live, "tools", {})
            called = {name: tool for name, tool in tools.items() if name not in step.composed}
            yield from built_and_repeated(called, is_enforced=enforced, in_doubt=policy)


def built_and_repeated(tools: Mapping[str, Tool], *, is_enforced: bool, in_doubt: InDoubt) -> Iterator[str]:
    """Yield the unsafe tools of a built agent whose recorded calls are made again while they are in doubt.

    Args:
        tools: those that do not consist of steps, by name.
        is_enforced: whether the step records each call.
        in_doubt: the policy of the step.
    """
    for name, tool in tools.items():
        is_recorded = is_enforced or tool.enforce_idempotency or tool.approve is not None
        if is_recorded and repeats_unsafe(tool.effect, tool.in_doubt or in_doubt):
            yield name
