"""The record of a run, as a replay reads it, and the end of a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.outcomes import Paused
from flujo.domain.run import Pause
from flujo.exceptions import ControlSignal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.paths import StepPath
    from flujo.domain.run import Intent, RunRecord
    from flujo.domain.store import BlobStore


class EndOfRecord(ControlSignal):
    """The run had not come further than here; the walk treats it like a pause."""


def end_of_record(path: StepPath) -> Paused:
    """Return the outcome of a step to which the run had not come."""
    return Paused((Pause(pause_id=path, message="the record of the run ends here"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Everything that is recorded of one run."""

    run: RunRecord
    entries: Sequence[Entry]
    pauses: Sequence[Pause]
    intents: Sequence[Intent]
    blobs: BlobStore
    """Has the contents that entries name."""
