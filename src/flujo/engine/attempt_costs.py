"""The usage of an attempt, however it ended.

    describe:unfinished   decision: output = "paused", "aborted" or "interrupted"; usage and transcript

An attempt that ends without a result and without a failure has no entry of its own: the step has not
completed, and no retry is used up. A record beside the step has its usage. It is committed together with the
question, or with the end or the release of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import TRANSCRIPT, UNFINISHED, EntryKind, new_entry
from flujo.domain.paths import unfinished
from flujo.domain.usage import NOTHING, Usage
from flujo.engine.transcripts import causes, encoded_detail, transcript_of
from flujo.exceptions import PausedException, PipelineAbortSignal

if TYPE_CHECKING:
    from flujo.domain.journal import Unfinished
    from flujo.engine.attempt import Attempt


def spent(error: BaseException | None) -> Usage:
    """Return the usage that an agent has left on the error that ended it."""
    found = (vars(each).get("usage") for each in causes(error))
    return next((usage for usage in found if isinstance(usage, Usage)), NOTHING)


def take_over(error: BaseException) -> Usage:
    """Return the usage that an agent has left on an error, which has none from now on."""
    usage = spent(error)
    if usage:
        error.usage = NOTHING  # type: ignore[attr-defined]  # exceptions take attributes
    return usage


def used(attempt: Attempt, error: BaseException) -> Usage:
    """Return the usage of an attempt that `error` has ended.

    Code that was abandoned leaves no usage on the error; the attempt's meter has counted its requests.
    """
    known = attempt.usage + spent(error)
    return known if attempt.meter is None else known + attempt.meter.used.beyond(known)


def note_unfinished(attempt: Attempt, signal: BaseException) -> None:
    """Record with the next commit an attempt that has a usage or a transcript, and no entry of its own."""
    frame, usage = attempt.frame, used(attempt, signal)
    if attempt.meter is not None:
        attempt.meter.close(usage)
    detail: dict[str, Any] = {**(attempt.detail or {}), "attempt": attempt.number, "kind": attempt.step.kind}
    if (said := transcript_of(signal)) is not None:
        detail[TRANSCRIPT] = said
    if not usage and (TRANSCRIPT not in detail or frame.run.transcripts == "off"):
        return
    journal = frame.run.journal
    record = new_entry(
        path=unfinished(attempt.path),
        kind=EntryKind.DECISION,
        attempt=journal.last_seq + 1,  # a number that no earlier record has, without reading them
        fingerprint=UNFINISHED,
        output=canonical.encode(_end(signal)),
        usage=usage,
        detail=encoded_detail(detail, frame.run),
        started_at=attempt.started_at,
        ended_at=frame.run.clock.now(),
    )
    journal.append_deferred(record, of=attempt.path)


def _end(signal: BaseException) -> Unfinished:
    match signal:
        case PausedException():
            return "paused"
        case PipelineAbortSignal():
            return "aborted"
        case _:
            return "interrupted"
