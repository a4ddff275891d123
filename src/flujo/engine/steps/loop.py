"""`loop`: repeats a body until a condition is true or a limit is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.paths import indexed
from flujo.engine.decisions import decide, decide_flag, limit_of
from flujo.exceptions import LoopLimitReached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.paths import StepPath
    from flujo.domain.steps import LoopStep
    from flujo.engine.frame import Frame, RunBody


async def run(step: LoopStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return the output of the last iteration, or the value of `output` in its scope.

    A completed iteration is one entry: its output, its net patch, whether the loop ends with it, and the
    carried variables. A resumed loop continues at the interrupted iteration.

    Raises:
        LoopLimitReached: `max_iterations` is reached and `on_limit` is `fail`.
        ExpressionFailed: `max_iterations` is out of its range.
    """
    await frame.run.journal.load_level(path)
    carried = {name: frame.render(carry.initial) for name, carry in step.carry.items()}
    previous = frame.previous
    facts: Mapping[str, Any] = {"ends": False}
    limit = limit_of(step.max_iterations, frame, what=f"`max_iterations` of loop {step.name!r}")
    for index in range(limit):
        here = indexed(path, index)
        finished = frame.recorded(here, step.kind)
        if finished is None:
            before = frame.scope.tree
            inner = frame.inside(here, previous=previous, names={"loop": {"index": index, **carried}})
            outcome = await run_body(step.body, inner)
            if not isinstance(outcome, Success):
                return outcome
            facts = await _facts(step, inner, here, outcome.output, last=index == limit - 1)
            inner.append_done(here, step.kind, canonical.encode(outcome.output), before, facts)
            finished = Success(outcome.output, facts=facts)
        previous, facts = finished.output, finished.facts
        if facts["ends"]:
            break
        carried = facts.get("carried", carried)
    if not facts["ends"] and step.on_limit == "fail":
        raise LoopLimitReached(
            f"loop {step.name!r} ran {limit} times and its `until` was never true",
            limit=limit,
        )
    return Success(facts.get("output", previous), facts={"exhausted": not facts["ends"]})


async def _facts(
    step: LoopStep, inner: Frame, here: StepPath, output: Any, *, last: bool
) -> Mapping[str, Any]:
    """Return the results of an iteration: whether it was the last, the output, and the carried variables."""
    inner.previous = output
    ends = await decide_flag(step.until, inner, here, what=f"`until` of loop {step.name!r}")
    facts: dict[str, Any] = {"ends": ends}
    if (ends or last) and step.output is not None:
        facts["output"] = inner.render(step.output)
    if not ends and step.carry:
        # `until` is the iteration's first decision; those of carried variables follow it.
        facts["carried"] = {
            name: await decide(carry.next, inner, here, attempt=number)
            for number, (name, carry) in enumerate(step.carry.items(), start=2)
        }
    return facts
