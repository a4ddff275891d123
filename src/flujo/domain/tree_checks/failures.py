"""Checks of `on_failure` of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.paths import FAILURE, ROOT, branch, child
from flujo.domain.tree_checks.findings import Finding, Site, all_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.domain.pipeline import Pipeline


def after_failure(handler: Pipeline) -> list[Site]:
    """Return the steps of the `on_failure` of a pipeline."""
    path = branch(ROOT, FAILURE)
    return [
        Site(step, (FAILURE, index), child(path, str(step.name))) for index, step in enumerate(handler.steps)
    ]


def handler_steps(sites: Sequence[Site]) -> Iterator[Finding]:
    """Check that no step of `on_failure` ends the run, or is not finished when the run ends."""
    inner = (each for site in sites for each in (site, *(inside for inside, _ in all_inside(site))))
    for site in inner:
        if site.step.ends_run:
            what = "begins a new run"
        elif site.step.kind == "end" and site.step.ends != "body":
            what = "ends the blueprint"
        elif site.step.config.execution_mode == "background":
            what = "runs in the background"
        else:
            continue
        message = f"step {site.path!r} {what}, and the run has failed already"
        hint = "remove it: after the last step of `on_failure` the run ends as failed"
        yield Finding("FLJ315", site.place, message, hint, ("name",))


def unhandled_inside(site: Site) -> Iterator[Finding]:
    """Check that no pipeline with `on_failure` is imported or a tool, where it would not be executed."""
    if site.step.imported is not None and site.step.imported.pipeline.on_failure is not None:
        message = (
            f"step {site.path!r} runs a pipeline with `on_failure`, which is executed only when a run of "
            "that pipeline fails"
        )
        hint = "move `on_failure` to this pipeline; or move the steps that both need into a third blueprint"
        yield Finding("FLJ314", site.place, message, hint, ("blueprint",))
