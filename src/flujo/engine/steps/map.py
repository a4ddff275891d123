"""`map`: runs a body once for each item of a list, concurrently; the results are in the order of the list."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from flujo.domain.paths import indexed
from flujo.engine.branches import come_out, merge_into
from flujo.engine.decisions import decide_items
from flujo.engine.fanout import Branch, doubt_among, fan_out, stopped_by

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import MapStep
    from flujo.engine.frame import Frame, RunBody


async def run(step: MapStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return the list of outputs, or the result of each item (`on_error: collect`).

    Raises:
        ExpressionFailed: `over` is not a list.
        MergeConflict: two items wrote one field of the context and `merge` does not decide.
    """
    await frame.run.journal.load_level(path)
    items: list[Any] = []

    async def branches() -> AsyncGenerator[Branch, None]:
        given = decide_items(step.over, frame, path, what=f"`over` of map {step.name!r}")
        async with aclosing(given) as numbered:
            async for index, item in numbered:
                items.append(item)
                named = {step.item_name: item} if step.item_name else {}
                names = {"item": item, "index": index, **named}
                yield Branch(str(index), indexed(path, index), step.body, item, names)

    fails = step.on_error == "fail"
    results = await fan_out(
        frame, step.kind, branches(), run_body, limit=step.max_concurrency, stop_at_failure=fails
    )
    stopped = stopped_by(frame, results, failures_stop=fails)
    if stopped is None and step.on_error == "skip":
        stopped = doubt_among(results)
    if stopped is not None:
        return stopped
    await merge_into(frame, step, path, results, step.merge)
    given: list[Any]
    if step.on_error == "collect":
        pairs = enumerate(zip(items, results, strict=True))
        given = [{"index": index, "item": item, **one.collected()} for index, (item, one) in pairs]
    else:
        given = [result.output for result in results if result.ok]
    return come_out(frame, path, step.output, given, results)
