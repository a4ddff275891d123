"""Making it true: a finished step is recorded first, and visible to the steps after it only then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.journal import Entry, EntryKind, StepPath
from flujo.domain.outcomes import Success
from flujo.domain.run import IntentState
from flujo.domain.usage import NOTHING, Usage
from flujo.engine import context_isolation
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from flujo.domain.run import Intent, Pause
    from flujo.domain.steps import BaseStep
    from flujo.engine.budget import StepMeter
    from flujo.engine.frame import Frame


@dataclass(slots=True)
class Draft:
    """What a step has brought: everything that its entry needs except its place in the journal."""

    output: Any
    input: bytes | None = None
    patch: merge.Patch | None = None
    usage: Usage = NOTHING
    detail: dict[str, Any] | None = None
    attempt: int = 1
    intent: Intent | None = None
    """The call that was announced for it, when `enforce_idempotency` is set."""
    limit: asyncio.Timeout | None = None
    """The attempt's clock, which stands still while somebody slow is told what the attempt says."""
    meter: StepMeter | None = None
    """What the attempt's requests are reserved with; None when nothing is limited."""
    is_settled: bool = False
    """Whether the attempt's entry is in the journal: whatever happens then, it is not another one."""


def encoded(value: Any, what: str) -> bytes:
    """Return a value of the run as it is journaled.

    Raises:
        NotJournalable: JSON cannot hold it.
        SecretInValue: it contains a known secret.
    """
    return GATE.admit(canonical.encode(value, what=what), what)


async def settle(
    step: BaseStep, frame: Frame, entry: Callable[..., Entry], draft: Draft, *, wait: bool = True
) -> Success:
    """Record that a leaf step has finished, with its output and what it wrote, then make that visible.

    `entry` makes the entry out of what the draft brings: everything else is in it already. The output is
    encoded before anything awaits, and the run goes on with what a reader of the journal would see.

    Raises:
        NotJournalable: the output is nothing that JSON can hold.
        SecretInValue: the output, or what the step wrote, contains a known secret.
        OutputRejected: what the step wrote does not fit the context.
    """
    output = encoded(draft.output, f"output of step {step.name!r}")
    value = canonical.decode(output)
    patch = [*(draft.patch or []), *await context_isolation.saved(step, frame, value)]
    after = context_isolation.accepted(frame, patch, what=f"step {step.name!r}")
    written = encoded(patch, f"what step {step.name!r} saved") if patch else None
    draft.is_settled = True
    if draft.intent is not None:
        frame.run.journal.record_intent(replace(draft.intent, state=IntentState.DONE, result=output))
    if draft.meter is not None:
        draft.meter.close(draft.usage)
    await frame.run.journal.record(
        entry(
            input=draft.input,
            output=output,
            patch=written,
            usage=draft.usage,
            detail=canonical.encode(draft.detail) if draft.detail else None,
            ended_at=frame.run.clock.now(),
        ),
        wait=wait and step is not frame.last and step.config.durability != "exit",
    )
    frame.scope.tree = after
    return Success(value)


def answer_entry(step: BaseStep, frame: Frame, asked: Pause) -> Callable[..., Entry]:
    """Return what makes the entry of a settled question; one that was asked again has a further attempt."""
    return partial(
        Entry,
        path=asked.pause_id,
        kind=EntryKind.ANSWER,
        attempt=len(frame.run.journal.attempts(asked.pause_id, EntryKind.ANSWER)) + 1,
        fingerprint=step.kind,
        started_at=asked.asked_at or frame.run.clock.now(),
    )


async def settle_answer(step: BaseStep, frame: Frame, asked: Pause) -> Success:
    """Record that a step has finished with what a human answered."""
    entry = answer_entry(step, frame, asked)
    answer = canonical.decode(asked.answer or b"null")
    return await settle(step, frame, entry, Draft(answer, input=canonical.encode(asked.message)))


async def finish(step: BaseStep, frame: Frame, path: StepPath, success: Success, before: Any) -> Success:
    """Record that a composite has finished: its output and its net patch since `before`."""
    output = encoded(success.output, f"output of step {step.name!r}")
    value = canonical.decode(output)
    patch = await context_isolation.saved(step, frame, value)
    frame.scope.tree = context_isolation.accepted(frame, patch, what=f"step {step.name!r}")
    _done(frame, path, step.kind, output, before, success.facts)
    if success.facts.get("cached") is True and step.config.durability != "exit":
        await frame.run.journal.flush()  # a cache may have forgotten the answer by the next time
    return Success(value, facts=success.facts)


def finish_turn(
    frame: Frame, path: StepPath, kind: str, output: Any, before: Any, facts: Mapping[str, Any]
) -> None:
    """Record that one iteration of a composite has finished."""
    _done(frame, path, kind, canonical.encode(output), before, facts)


def _done(
    frame: Frame, path: StepPath, kind: str, output: bytes, before: Any, facts: Mapping[str, Any]
) -> None:
    patch = merge.diff(before, frame.scope.tree)
    now, failed = frame.run.clock.now(), frame.run.journal.attempts(path, EntryKind.DONE)
    frame.run.journal.append_deferred(
        Entry(
            path=path,
            kind=EntryKind.DONE,
            attempt=failed[-1].attempt + 1 if failed else 1,
            fingerprint=kind,
            output=output,
            patch=canonical.encode(patch) if patch else None,
            detail=canonical.encode(facts) if facts else None,
            started_at=now,
            ended_at=now,
        )
    )


def recorded(frame: Frame, path: StepPath, kind: str) -> Success | None:
    """Return how the step at `path` came out before, with what it wrote applied; None when it did not finish.

    Raises:
        JournalConflict: the journal holds another kind of step there.
    """
    entry = frame.run.journal.result(path, kind)
    if entry is None:
        return None
    if entry.patch is not None:
        frame.scope.tree = merge.apply(frame.scope.tree, canonical.decode(entry.patch))
    return success(entry)


def success(entry: Entry) -> Success:
    """Return how a step came out, from the entry that finished it."""
    facts = canonical.decode(entry.detail) if entry.kind is EntryKind.DONE and entry.detail else {}
    return Success(canonical.decode(entry.output or b"null"), facts=facts)
