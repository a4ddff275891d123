"""The record of a run, as a replay reads it, and the end of a record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.journal import EntryStatus
from flujo.domain.migrated_values import named
from flujo.domain.migrations import NONE, Migrations
from flujo.domain.outcomes import Paused
from flujo.domain.run import Pause
from flujo.exceptions import ControlSignal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.ledger import Ledger
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import Intent, RunRecord
    from flujo.domain.store import BlobStore


class EndOfRecord(ControlSignal):
    """The run had not come further than here; the walk treats it like a pause."""


def end_of_record(path: StepPath) -> Paused:
    """Return the outcome of a step to which the run had not come."""
    return Paused((Pause(pause_id=path, message="the record of the run ends here"),))


def question_of(entry: Entry) -> Pause:
    """Return the settled question that an entry answers, as far as the entry knows it.

    A fork has the entries of its parent, and not the questions.
    """
    is_late = entry.status is EntryStatus.FAILED or b'"deadline":"passed"' in (entry.detail or b"")
    return Pause(
        pause_id=entry.path,
        message="" if entry.input is None else canonical.decode(entry.input),
        asked_at=entry.started_at,
        answer=None if is_late else entry.output,
        answered_at=entry.started_at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Everything that is recorded of one run."""

    run: RunRecord
    entries: Sequence[Entry]
    pauses: Sequence[Pause]
    intents: Sequence[Intent]
    ledger: Ledger
    blobs: BlobStore
    """Has the contents that entries name."""
    copied: int = 0
    """How many entries a fork has in common with its parent: the first ones."""
    applied: Migrations = NONE
    """The migrations that have converted it."""

    def migrated(self, pipeline: Pipeline) -> Recording:
        """Return the record as it is for a pipeline which has renamed or moved some of its parts."""
        found = self.migrations(pipeline)
        if not found:
            return self
        return replace(
            self,
            run=replace(self.run, error=found.read_error(self.run.error)),
            entries=[*map(found.read_entry, self.entries)],
            pauses=[*map(found.read_pause, self.pauses)],
            intents=[*map(found.read_intent, self.intents)],
            applied=found,
        )

    def migrations(self, pipeline: Pipeline) -> Migrations:
        """Return the migrations of a pipeline that apply to the run."""
        if not pipeline.migrations or self.run.parent is not None:
            return NONE
        return Migrations.of(pipeline, [*self.paths, *self.named])

    @property
    def paths(self) -> list[StepPath]:
        """The paths of everything that is recorded."""
        made = [*(entry.path for entry in self.entries), *(intent.path for intent in self.intents)]
        held = [each.path for each in (*self.ledger.holds, *self.ledger.tasks)]
        used = [each.path for each in self.ledger.spendings]
        return [*made, *(pause.pause_id for pause in self.pauses), *held, *used]

    @property
    def named(self) -> list[StepPath]:
        """The paths of the branches and states that decisions name, whether they have begun or not."""
        return [path for entry in self.entries for path in named(entry)]
