"""Runs branches concurrently and merges their outputs and context patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.agents import Ask
from flujo.domain.journal import EntryKind
from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.paths import branch
from flujo.domain.steps import CallableRef
from flujo.domain.threads import THREADS, apart
from flujo.engine.decisions import decision, foreign, limit_of
from flujo.engine.fanout import Branch, doubt_among, fan_out, stopped_by
from flujo.exceptions import MergeConflict, ThreadConflict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep, ParallelStep, Value
    from flujo.engine.frame import Frame, RunBody


async def run_branches(
    step: ParallelStep, frame: Frame, path: StepPath, run_body: RunBody, chosen: Collection[str]
) -> StepOutcome:
    """Run the chosen branches at once, in the order of declaration, and merge their writes.

    Raises:
        MergeConflict: two branches wrote one field of the context and `merge` does not decide.
        ExpressionFailed: `max_concurrency` is out of its range.
    """

    async def branches() -> AsyncGenerator[Branch, None]:
        for name, body in step.branches.items():
            if name in chosen:
                yield Branch(name, branch(path, name), body, frame.previous)

    fails = step.on_branch_failure == "fail"
    limit = len(chosen)
    if step.max_concurrency is not None:
        limit = limit_of(step.max_concurrency, frame, what=f"`max_concurrency` of step {step.name!r}")
    results = await fan_out(frame, step.kind, branches(), run_body, limit=limit, stop_at_failure=fails)
    stopped = stopped_by(frame, results, failures_stop=fails)
    if stopped is None and step.on_branch_failure == "skip":
        stopped = doubt_among(results)
    if stopped is not None:
        return stopped
    patches = {result.name: result.patch for result in results if result.ok}
    await merge_into(frame, step, path, patches, step.merge, step.field_mapping)
    if step.on_branch_failure == "collect":
        given = {result.name: result.collected() for result in results}
    else:
        given = {result.name: result.output for result in results if result.ok}
    return come_out(frame, path, step.output, given, sum(not result.ok for result in results))


def come_out(frame: Frame, path: StepPath, output: Value, given: Any, failed: int) -> Success:
    """Return the outputs of the branches, or the value of `output`, in which they are `previous`."""
    facts = {"failed": failed}
    if output is None:
        return Success(given, facts=facts)
    return Success(frame.inside(path, previous=given).render(output), facts=facts)


async def merge_into(
    frame: Frame,
    step: BaseStep,
    path: StepPath,
    patches: Mapping[str, merge.Patch],
    strategy: str | CallableRef,
    mapping: Mapping[str, Sequence[str]] = merge.NO_FIELDS,
) -> None:
    """Apply the merged writes of the successful branches to the frame.

    Raises:
        MergeConflict: two branches wrote one field and the strategy does not decide.
        ThreadConflict: two branches added to one thread, and the strategy does not decide.
        OutputRejected: the merged context does not match its type.
    """
    fields, threads = apart(frame.scope.tree, patches)
    if isinstance(strategy, CallableRef):
        patch = await _by_callable(frame, path, fields, strategy)
    else:
        folded = merge.fold(frame.scope.tree, fields, merge.MergeStrategy(strategy), mapping)
        if isinstance(folded, merge.Conflict):
            raise _conflict(step, folded)
        patch = folded
    if threads:
        patch = [*patch, *_of_threads(step, strategy, threads)]
    _, frame.scope.tree = frame.scope.accepted(patch, what=f"step {step.name!r}")


def _of_threads(
    step: BaseStep, strategy: str | CallableRef, threads: Mapping[str, merge.Patch]
) -> merge.Patch:
    """Return the patch of the threads to which branches added.

    A strategy that chooses one writer of a field chooses one branch of a thread. No strategy mixes two.

    Raises:
        ThreadConflict: two branches added to one thread, and the strategy chooses neither.
    """
    chosen = next((one for one in merge.CHOOSING if one == strategy), merge.MergeStrategy.ERROR_ON_CONFLICT)
    folded = merge.fold({}, threads, chosen)
    if isinstance(folded, merge.Conflict):
        what, named = _who(step, folded)
        raise ThreadConflict(
            f"{what} {named} of step {step.name!r} both added to the thread {folded.field!r}",
            thread=folded.field,
            field=folded.field,
            branches=folded.branches,
        )
    return [["set", [THREADS, *path], paths] for _, path, paths in folded]


async def _by_callable(
    frame: Frame, path: StepPath, patches: Mapping[str, merge.Patch], rule: CallableRef
) -> merge.Patch:
    """Return the merge of a callable, which gets the context at the fork and that of each branch. A decision.

    The contexts share every field that no branch wrote, so many branches over a large context stay cheap.
    """
    here = branch(path, "merge")

    async def ask() -> Entry:
        fork = canonical.normalise(frame.scope.fields)
        contexts = {name: merge.apply(fork, canonical.normalise(patch)) for name, patch in patches.items()}
        ask = Ask(arguments={"fork": fork, "branches": contexts}, resources=frame.run.resources)
        with foreign(rule):
            reply = await frame.ask(path, rule, ask)
        merged = canonical.normalise(reply.output, what=f"context merged by `{rule.target}`")
        merged = frame.scope.type.check(merged, what=f"context merged by `{rule.target}`")
        return decision(frame, here, 1, merge.diff(frame.scope.fields, merged))

    entry = await frame.run.journal.once(here, EntryKind.DECISION, ask)
    patch: merge.Patch = canonical.decode(entry.output or b"[]")
    return patch


def _who(step: BaseStep, conflict: merge.Conflict) -> tuple[str, str]:
    """Return the branches of a conflict in words."""
    *others, last = [repr(name) for name in conflict.branches]
    return "items" if step.kind == "map" else "branches", f"{', '.join(others)} and {last}"


def _conflict(step: BaseStep, conflict: merge.Conflict) -> MergeConflict:
    what, named = _who(step, conflict)
    return MergeConflict(
        f"{what} {named} of step {step.name!r} wrote the same field, `context.{conflict.field}`",
        field=conflict.field,
        branches=conflict.branches,
    )
