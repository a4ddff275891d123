"""Keeps the transcript of an attempt: a blob, whose digest is in the detail of the attempt's entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import TRANSCRIPT
from flujo.engine.error_info import safe_text
from flujo.exceptions import NotJournalable
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.engine.frame import Run

_log = logger("flujo.engine")


def encoded_detail(detail: Mapping[str, Any] | None, run: Run, *, is_retried: bool = False) -> bytes | None:
    """Return the detail of an entry as JSON; the transcript in it becomes the digest of a blob.

    Args:
        detail: the detail, with the transcript itself.
        run: the run, whose next commit writes the blob.
        is_retried: whether another attempt follows.
    """
    if not detail:
        return None
    if TRANSCRIPT not in detail:
        return canonical.encode(detail)
    kept = {key: value for key, value in detail.items() if key != TRANSCRIPT}
    if run.transcripts == "full" or (run.transcripts == "last" and not is_retried):
        try:
            # Masked before it is stored: a transcript is text for people, and no run depends on it.
            kept[TRANSCRIPT] = run.journal.keep(canonical.encode(_masked(detail[TRANSCRIPT])))
        except NotJournalable as error:
            _log.warning("a transcript is not kept: %s", error.message)
    return canonical.encode(kept) if kept else None


def transcript_of(error: BaseException | None) -> Mapping[str, Any] | None:
    """Return the transcript that an agent has left on the error that ended it."""
    found = (vars(each).get(TRANSCRIPT) for each in causes(error))
    return next((text for text in found if isinstance(text, dict)), None)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: a timeout ends an agent by a cancellation."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # foreign code may raise an error from itself
        seen.add(id(error))
        yield error
        error = error.__cause__


def _masked(value: Any) -> Any:
    match value:
        case str():
            return safe_text(value)
        case dict():
            return {safe_text(key): _masked(each) for key, each in value.items()}
        case list():
            return [_masked(each) for each in value]
        case _:
            return value
