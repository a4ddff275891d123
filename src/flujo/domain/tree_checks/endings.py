"""Checks of steps that end the run."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import TYPE_CHECKING

from flujo.domain.steps import EndStep
from flujo.domain.tree_checks.findings import Finding, Site

if TYPE_CHECKING:
    from collections.abc import Iterator


def ending_inside(site: Site) -> Iterator[Finding]:
    """Check that no step inside this one ends the run where other work of the run is not finished."""
    is_background = site.step.config.execution_mode == "background"
    if site.step.shape in _ONE_AT_A_TIME and not is_background:
        return
    what = "runs in the background" if is_background else f"is of `kind: {site.step.kind}`"
    for inner in _in_turn(site):
        if inner.step.ends == "blueprint" and site.step.imported is None:
            message = f"step {inner.path!r} ends the blueprint, inside step {site.path!r}, which {what}"
            hint = "write `of: body`, which ends the steps around it, and end the blueprint in a later step"
            yield Finding("FLJ313", inner.place, message, hint, ("kind",), other=(site.place, what))
        if inner.step.ends_run:
            message = f"step {inner.path!r} ends the run, inside step {site.path!r}, which {what}"
            hint = "move it to the steps of the pipeline, or of a branch, a loop or a state"
            yield Finding("FLJ311", inner.place, message, hint, ("kind",), other=(site.place, what))


_ONE_AT_A_TIME = ("choice", "loop", "states")
"""The shapes of steps that execute one body of the run at a time."""


def _in_turn(site: Site) -> Iterator[Site]:
    """Yield the steps inside a step, and those inside steps that execute one body at a time."""
    for name, pipeline in site.inside():
        for inner in site.below(name, pipeline):
            yield inner
            if inner.step.shape in _ONE_AT_A_TIME:
                yield from _in_turn(inner)


def never_reached(steps: Collection[Site]) -> Iterator[Finding]:
    """Report the step that follows one which always ends the run."""
    for site, following in pairwise(steps):
        ends = "ends the run" if site.step.ends_run else site.step.summary()
        if (site.step.ends_run or isinstance(site.step, EndStep)) and site.step.when is None:
            message = f"step {following.path!r} is never executed: {site.step.name!r} before it {ends}"
            hint = f"remove it, or give {site.step.name!r} a condition, `when`"
            yield Finding("FLJ312", following.place, message, hint, ("name",), is_warning=True)
