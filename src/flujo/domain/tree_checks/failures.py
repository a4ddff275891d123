"""Checks of `on_failure` and `finally` of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.agents import AgentSpec
from flujo.domain.paths import FAILURE, FINALLY, ROOT, branch, child
from flujo.domain.tools import called_tools
from flujo.domain.tree_checks.findings import Finding, Site, all_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.pipeline import Pipeline

KEYS: Mapping[str, str] = {FAILURE: "on_failure", FINALLY: "finally"}
"""The key of a blueprint for the steps of each branch."""

SEEN: Mapping[str, str] = {FAILURE: "failure", FINALLY: "ended"}
"""The name by which expressions in each branch read how the run has ended."""

_SO_FAR: Mapping[str, str] = {FAILURE: "has failed already", FINALLY: "has ended already"}
_AFTERWARDS: Mapping[str, str] = {FAILURE: "ends as failed", FINALLY: "ends"}


def ending_steps(name: str, ending: Pipeline) -> list[Site]:
    """Return the steps of one of the branches after the steps of a run."""
    path = branch(ROOT, name)
    return [Site(step, (name, index), child(path, str(step.name))) for index, step in enumerate(ending.steps)]


def steps_at_the_end(name: str, sites: Sequence[Site]) -> Iterator[Finding]:
    """Check that no step at the end ends the run or outlives it, and that none of `finally` waits."""
    inner = (each for site in sites for each in (site, *(inside for inside, _ in all_inside(site))))
    for site in inner:
        if site.step.ends_run:
            what = "begins a new run"
        elif site.step.kind == "end" and site.step.ends != "body":
            what = "ends the blueprint"
        elif site.step.config.execution_mode == "background":
            what = "runs in the background"
        elif name == FINALLY and (waits := _waits(site)) is not None:
            yield Finding(
                "FLJ317",
                site.place,
                f"step {site.path!r} {waits}, and `finally` waits for nothing",
                "move it to `steps`, where a run may wait",
                ("name",),
            )
            continue
        else:
            continue
        message = f"step {site.path!r} {what}, and the run {_SO_FAR[name]}"
        hint = f"remove it: after the last step of `{KEYS[name]}` the run {_AFTERWARDS[name]}"
        yield Finding("FLJ315", site.place, message, hint, ("name",))


def _waits(site: Site) -> str | None:
    """Return what a step waits for or may ask a human, in words that follow its name."""
    step = site.step
    if step.only_waits:
        return step.only_waits
    if getattr(step, "on_limit", None) == "pause":
        return "asks a human when its turns are used up"
    for agent in (each for each in step.names() if isinstance(each, AgentSpec)):
        for tool in called_tools(agent.tools):
            if tool.approve is not None:
                return f"asks a human before it calls `{tool.name}`"
    return None


def endings_inside(site: Site) -> Iterator[Finding]:
    """Check that no pipeline with `on_failure` or `finally`, which are of a run, is imported or a tool."""
    imported = site.step.imported
    for name in () if imported is None else imported.pipeline.endings():
        when = "fails" if name == FAILURE else "ends"
        message = (
            f"step {site.path!r} runs a pipeline with `{KEYS[name]}`, which is executed only when a run of "
            f"that pipeline {when}"
        )
        move = f"move `{KEYS[name]}` to this pipeline"
        hint = f"{move}; or move the steps that both need into a third blueprint"
        yield Finding("FLJ314", site.place, message, hint, ("blueprint",))
