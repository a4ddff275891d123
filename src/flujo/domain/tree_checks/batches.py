"""Checks of `executor: queue`: which step can be spread over workers, and in which batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.pipeline import MAX_BATCH_SIZE
from flujo.domain.tree_checks.findings import Finding, Site, all_inside

if TYPE_CHECKING:
    from collections.abc import Iterator


def over_workers(site: Site, *, is_stand_in: bool) -> Iterator[Finding]:
    """Check the settings of a map over workers, and that none of its steps needs the run of the map."""
    config, where = site.step.config, f"step {site.path!r}"
    if config.batch_size is not None and not config.is_spread:
        message, hint = (
            f"{where} has `batch_size`, and no `executor: queue`",
            "add `executor: queue`, or remove it",
        )
        yield Finding("FLJ332", site.place, message, hint, ("config", "batch_size"), at_key=True)
    if config.is_spread and (why := _why_not(site, is_stand_in=is_stand_in)):
        message, hint = why
        yield Finding("FLJ331", site.place, f"{where} {message}", hint, ("config", "executor"), at_key=True)
    if not config.is_spread:
        return
    if config.batch_size is not None and not 1 <= config.batch_size <= MAX_BATCH_SIZE:
        message = f"{where} has `batch_size` {config.batch_size}"
        hint = f"use a whole number from 1 to {MAX_BATCH_SIZE}"
        yield Finding("FLJ332", site.place, message, hint, ("config", "batch_size"))
    for inner, _ in all_inside(site):
        if inner.step.joins is not None:
            thread = inner.step.joins
            message = f"step {inner.path!r} is in the thread {thread!r} of the run, and workers execute it"
            hint = "remove `thread`: a batch cannot read the messages of the run that launched it"
            yield Finding("FLJ333", inner.place, message, hint, ("thread",), at_key=True)


def _why_not(site: Site, *, is_stand_in: bool) -> tuple[str, str] | None:
    """Return why a step cannot have its executor, and what to do."""
    config = site.step.config
    if not site.step.has_items:
        message = f"is of `kind: {site.step.kind}`, and has no items that workers could execute"
        return message, "only a map has `executor: queue`; another step has `execution_mode: background`"
    if config.execution_mode == "background":
        message = "runs in the background, and lets workers execute its items"
        return message, "remove one of `execution_mode` and `executor`"
    if is_stand_in:
        return "is the inner step of another one, and cannot have an executor", "remove `executor`"
    return None
