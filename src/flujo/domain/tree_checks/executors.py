"""Checks of steps that name an executor: whether a callable is there to be executed elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import QUEUE_EXECUTOR
from flujo.domain.tools import callable_tools
from flujo.domain.tree_checks.findings import Finding, Knows, Site, all_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.tools import CallableTool


def executed_elsewhere(site: Site) -> Iterator[Finding]:
    """Check that a step with an executor calls a callable, and that resources have an executor."""
    config, where = site.step.config, f"step {site.path!r}"
    if config.executor is None or config.is_spread:
        if config.resources is not None:
            message = f"{where} has `resources`, and names no executor that could have them"
            hint = "add `executor: NAME`, a table [executors.NAME] of flujo.toml, or remove `resources`"
            yield Finding("FLJ322", site.place, message, hint, ("config", "resources"), at_key=True)
        return
    hint = "remove `executor`: "
    if site.step.has_items:
        if any(_calls(inner) for inner, _ in all_inside(site)):
            return
        message = f"{where} names an executor, and no step in it calls a callable"
        hint += "what steps wait for stays in the process of the run"
    elif _calls(site):
        return
    elif getattr(site.step, "agent", None) is None:
        message = f"{where} names an executor, and `kind: {site.step.kind}` calls no callable"
        hint += "set it on the steps inside that have `call`" if site.step.bodies() else "it has no work"
    else:
        message = f"{where} names an executor, and asks an agent"
        hint += "a request to a model waits, and does not compute"
    yield Finding("FLJ321", site.place, message, hint, ("config", "executor"), at_key=True)


def _calls(site: Site) -> bool:
    """Return whether a step calls a callable."""
    return getattr(site.step, "call", None) is not None


def tools_elsewhere(site: Site, knows: Knows) -> Iterator[Finding]:
    """Check the executors of the tools of a step's agents."""
    for agent in (each for each in site.step.names() if isinstance(each, AgentSpec)):
        for tool in callable_tools(agent.tools):
            which = f"step {site.path!r}: tool `{tool.name}` of agent {agent.name!r}"
            for code, what, hint in _tool_elsewhere(tool, knows):
                yield Finding(code, site.place, f"{which} {what}", hint, ("agent",))


def _tool_elsewhere(tool: CallableTool, knows: Knows) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with the executor of a tool: the code, the words, and the hint."""
    found = knows(tool.call)
    if tool.executor is None:
        if tool.resources is not None:
            what = "has `resources`, and names no executor that could have them"
            yield "FLJ322", what, "add `executor: NAME`, a table [executors.NAME] of flujo.toml"
    elif tool.executor == QUEUE_EXECUTOR:
        what = "has `executor: queue`, and has no items that workers could execute"
        yield "FLJ331", what, "name a table [executors.NAME] of flujo.toml, or remove `executor`"
    elif (tool.effect or (None if found is None else found.effect)) == "transactional":
        what = "names an executor, and writes in the transaction of its entry, which only this process has"
        yield "FLJ325", what, "remove `executor`, or declare another effect and open a connection in the tool"
