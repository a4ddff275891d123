"""Checks of tools that consist of steps: they are recorded, and not nested too deeply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import BaseStep, GranularStep, Step
from flujo.domain.steps.tools import composed_tools
from flujo.domain.tree_checks.findings import Finding, Site

if TYPE_CHECKING:
    from collections.abc import Iterator


MAX_TOOL_DEPTH = 4
"""How deep calls of tools that consist of steps may be inside each other."""


def tool_steps(site: Site) -> Iterator[Finding]:
    """Check that the steps of tools are recorded, and that tools are not nested too deeply."""
    step, where = site.step, f"step {site.path!r}"
    if isinstance(step, GranularStep):
        if step.enforce_idempotency:
            yield from _unrecorded_inside(site, step)
        if _tool_depth(step) > MAX_TOOL_DEPTH:
            message = f"{where}: its tools call agents and blueprints more than {MAX_TOOL_DEPTH} deep"
            hint = "let an agent further up have the tool itself"
            yield Finding("FLJ456", site.place, message, hint, ("agent",))
        return
    for agent in step.names():
        for tool in composed_tools(agent):
            message = f"{where}: tool `{tool.name}` consists of steps, which a `{step.kind}` does not record"
            yield Finding("FLJ457", site.place, message, "write `kind: granular`", ("agent",))


def _unrecorded_inside(site: Site, step: GranularStep) -> Iterator[Finding]:
    """Check that a step with announced calls has no tool whose steps make other ones."""
    for name, inside in step.composed.items():
        for path, inner in Pipeline((inside,)).walk():
            is_call = isinstance(inner, Step) and inner.call is not None and inner.effect not in _REPEATABLE
            has_tools = isinstance(inner, GranularStep) and inner is not inside
            if (is_call or has_tools) and not getattr(inner, "enforce_idempotency", False):
                message = (
                    f"step {site.path!r} has `enforce_idempotency`, and step {path!r} of its tool `{name}` "
                    "may have an effect that is not recorded"
                )
                hint = "write `enforce_idempotency: true` there, or `effect: read` if it has none"
                yield Finding("FLJ464", site.place, message, hint, ("enforce_idempotency",), at_key=True)
                break


_REPEATABLE = ("read", "idempotent")


def _tool_depth(step: BaseStep) -> int:
    """Return how many calls of tools that consist of steps may be inside each other, below a step."""
    if not isinstance(step, GranularStep):
        inside = (inner for body in step.bodies().values() for inner in body.steps)
        return max(map(_tool_depth, inside), default=0)
    return max((1 + _tool_depth(each) for each in step.composed.values()), default=0)
