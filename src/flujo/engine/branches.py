"""Branches that run at once, and what becomes of several arms: one patch of what they wrote, one output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.agents import Ask
from flujo.domain.journal import EntryKind, branch
from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.steps import CallableRef
from flujo.engine import context_isolation
from flujo.engine.decisions import decision, foreign
from flujo.engine.fanout import Arm, fan_out, stopped_by
from flujo.exceptions import MergeConflict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

    from flujo.domain.journal import Entry, StepPath
    from flujo.domain.steps import BaseStep, MapStep, ParallelStep, Value
    from flujo.engine.fanout import Arrival
    from flujo.engine.frame import Frame, RunBody


async def run_branches(
    step: ParallelStep, frame: Frame, path: StepPath, run_body: RunBody, chosen: Collection[str]
) -> StepOutcome:
    """Run the chosen branches at once, in the order of declaration, and merge what they wrote.

    Raises:
        MergeConflict: two branches wrote one field of the context and `merge` does not decide.
    """

    async def arms() -> AsyncGenerator[Arm, None]:
        for name, body in step.branches.items():
            if name in chosen:
                yield Arm(name, branch(path, name), body, frame.previous)

    fails = step.on_branch_failure == "fail"
    limit = step.max_concurrency or len(chosen)
    arrivals = await fan_out(frame, step.kind, arms(), run_body, limit=limit, stop_at_failure=fails)
    stopped = stopped_by(frame, arrivals, failures_stop=fails)
    if stopped is not None:
        return stopped
    await merge_into(frame, step, path, arrivals, step.field_mapping)
    if step.on_branch_failure == "collect":
        given = {arrival.name: arrival.collected() for arrival in arrivals}
    else:
        given = {arrival.name: arrival.output for arrival in arrivals if arrival.ok}
    return come_out(frame, path, step.output, given, arrivals)


def come_out(frame: Frame, path: StepPath, output: Value, given: Any, arrivals: Sequence[Arrival]) -> Success:
    """Return what the arms gave, or what `output` makes of it; there it is `previous`."""
    facts = {"failed": sum(not arrival.ok for arrival in arrivals)}
    if output is None:
        return Success(given, facts=facts)
    return Success(frame.inside(path, previous=given).render(output), facts=facts)


async def merge_into(
    frame: Frame,
    step: ParallelStep | MapStep,
    path: StepPath,
    arrivals: Sequence[Arrival],
    mapping: Mapping[str, Sequence[str]] = merge.NO_FIELDS,
) -> None:
    """Make what the arms wrote visible in the frame, as `merge` says.

    Raises:
        MergeConflict: two arms wrote one field and the strategy does not decide.
        OutputRejected: the merged context does not fit its type.
    """
    patches = {arrival.name: arrival.patch for arrival in arrivals if arrival.ok}
    if isinstance(step.merge, CallableRef):
        patch = await _by_callable(frame, path, patches, step.merge)
    else:
        folded = merge.fold(frame.zone.tree, patches, merge.MergeStrategy(step.merge), mapping)
        if isinstance(folded, merge.Conflict):
            raise _conflict(step, folded)
        patch = folded
    frame.zone.tree = context_isolation.accepted(frame, patch, what=f"step {step.name!r}")


async def _by_callable(
    frame: Frame, path: StepPath, patches: Mapping[str, merge.Patch], rule: CallableRef
) -> merge.Patch:
    """Return what a callable makes of the context at the fork and of each arm's; its answer is a decision.

    What no arm wrote is one copy in all the contexts, so that many arms over a large context stay affordable.
    """
    here = branch(path, "merge")

    async def ask() -> Entry:
        fork = canonical.normalise(frame.zone.tree)
        contexts = {name: merge.apply(fork, canonical.normalise(patch)) for name, patch in patches.items()}
        ask = Ask(arguments={"fork": fork, "branches": contexts}, resources=frame.run.resources)
        with foreign(rule):
            reply = await frame.run.binding.agent(rule).ask(ask)
        merged = canonical.normalise(reply.output, what=f"context merged by `{rule.target}`")
        frame.zone.type.check(merged, what=f"context merged by `{rule.target}`")
        return decision(frame, here, 1, merge.diff(frame.zone.tree, merged))

    entry = await frame.run.journal.once(here, EntryKind.DECISION, ask)
    patch: merge.Patch = canonical.decode(entry.output or b"[]")
    return patch


def _conflict(step: BaseStep, conflict: merge.Conflict) -> MergeConflict:
    *others, last = [repr(name) for name in conflict.branches]
    what = "items" if step.kind == "map" else "branches"
    return MergeConflict(
        f"{what} {', '.join(others)} and {last} of step {step.name!r} wrote the same field, "
        f"`context.{conflict.field}`",
        field=conflict.field,
        branches=conflict.branches,
    )
