"""`map`: runs a body once for each item of a list, concurrently; the results are in the order of the list."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain.outcomes import Success
from flujo.domain.paths import branch, indexed
from flujo.domain.steps import CallableRef
from flujo.engine.batches import spread
from flujo.engine.branches import come_out, merge_into
from flujo.engine.decisions import decide_items, limit_of, listed
from flujo.engine.fanout import Branch, doubt_among, run_each, stopped_by
from flujo.engine.ranges import Keeping, Kept, Ranges

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.steps import BaseStep, MapStep
    from flujo.engine.frame import Frame, RunBody


async def run(step: MapStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return what the map keeps of its items: by default the list of outputs.

    Raises:
        ExpressionFailed: `over` is not a list, or `max_concurrency` is out of its range.
        JournalConflict: `over` gives other items than before the run was resumed.
        MergeConflict: two items wrote one field of the context and `merge` does not decide.
    """
    keeping = Keeping(step.keep, step.on_error, merges=step.merge != "no_merge")
    limit = limit_of(step.max_concurrency, frame, what=f"`max_concurrency` of map {step.name!r}")
    if step.config.is_spread:
        found = await spread(step, step.over, keeping, frame, path, limit=limit)
        return await _ended(step, frame, path, found) if isinstance(found, Kept) else found
    only = _only_step(step.body)
    ranges = Ranges(step, keeping, frame, path, ahead=limit, only=only)
    await ranges.load()

    async def branches() -> AsyncGenerator[Branch, None]:
        if frame.first is None:
            given = decide_items(step.over, frame, path, ranges, what=f"`over` of map {step.name!r}")
        else:
            given = listed(frame, path, ranges, frame.previous, start=frame.first)
        async with aclosing(given) as numbered:
            async for index, item in numbered:
                ranges.begin(index, item)
                named = {step.item_name: item} if step.item_name else {}
                names = {"item": item, "index": index, **named}
                yield Branch(str(index), indexed(path, index), step.body, item, names, only)

    fails = step.on_error == "fail"
    await run_each(
        frame if step.keep == "outputs" else replace(frame, is_listed=False),
        step.kind,
        branches(),
        run_body,
        ranges.arrive,
        limit=limit,
        stop_at_failure=fails,
    )
    results = ranges.open_results()
    stopped = stopped_by(frame, results, failures_stop=fails)
    if stopped is None and step.on_error == "skip":
        stopped = doubt_among(results)
    if stopped is not None:
        return stopped
    kept = ranges.kept()
    if frame.first is not None:
        return Success(kept.to_json(keeping))
    return await _ended(step, frame, path, kept)


async def _ended(step: MapStep, frame: Frame, path: StepPath, kept: Kept) -> StepOutcome:
    """Merge the writes of the items, and return the output of the map."""
    if isinstance(step.merge, CallableRef):
        await frame.run.journal.load_at([branch(path, "merge")])
    await merge_into(frame, step, path, kept.patches, step.merge)
    given = None if step.keep == "none" else kept.output
    return come_out(frame, path, step.output, given, kept.failed)


def _only_step(body: Pipeline) -> BaseStep | None:
    """Return the step with which an item begins and ends; None if more than that step decides its outcome."""
    first, *others = body.steps
    return None if others or first.when is not None else first
