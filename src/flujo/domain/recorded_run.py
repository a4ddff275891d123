"""Everything that is recorded of one run: what an export contains, and what another database takes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flujo.domain import canonical
from flujo.domain.acts import Act, Verb
from flujo.domain.journal import FILES as FILES_OF_STEP
from flujo.domain.journal import TRANSCRIPT, Entry, EntryKind, EntryStatus, RunId
from flujo.domain.ledger import Hold, Ledger, Spending
from flujo.domain.queues import TASK_ID, task_id
from flujo.domain.run import Intent, Pause, RunRecord, RunStatus
from flujo.domain.usage import NOTHING

_CONTINUED_BY_ITSELF = (RunStatus.ACCEPTED, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.WAITING)
"""The statuses of runs that a process may execute without a user who asks for it."""

_LOCAL: Mapping[str, Any] = {
    "owner": None,
    "lease_left_s": None,
    "recoveries": 0,
    "suspicions": 0,
    "deadline_at": None,
    "is_answered": False,
    "wish": None,
    "pauses": None,
    "queued": None,
    "ends_by": None,
}
"""The fields of a run that belong to the processes of its database, and their values elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run, its journal, and the contents that it names."""

    record: RunRecord
    entries: Sequence[Entry] = ()
    """The whole journal, in order."""
    pauses: Sequence[Pause] = ()
    """In the order in which they were opened."""
    intents: Sequence[Intent] = ()
    acts: Sequence[Act] = ()
    holds: Sequence[Hold] = ()
    """The open holds of requests."""
    times: Sequence[Spending] = ()
    """The times of bodies under a limit, in earlier claims."""
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    """The contents that the run names: its closure, files, transcripts (digest → bytes)."""

    @property
    def run_id(self) -> RunId:
        """The run's id."""
        return self.record.run_id

    @property
    def ledger(self) -> Ledger:
        """What each attempt used, and the open holds; as a store returns it."""
        return Ledger((*map(_spending, filter(_is_spent, self.entries)), *self.times), tuple(self.holds))

    def pulled(self) -> RecordedRun:
        """Return the run as another database takes it over: no process there executes it by itself.

        A run that has not ended becomes `interrupted`, and its open questions are void: a resume opens them
        again. It has no queue and no deadline there.
        """
        record = replace(self.record, **_LOCAL, entries=max(self.record.entries, len(self.entries)))
        if record.status in _CONTINUED_BY_ITSELF:
            spent = sum((entry.usage for entry in self.entries), NOTHING)
            record = replace(record, status=RunStatus.INTERRUPTED, usage=spent)
        pauses = [replace(pause, void=True) if pause.is_open else pause for pause in self.pauses]
        return replace(self, record=record, pauses=pauses)

    def difference(self, other: RecordedRun) -> str:
        """Return what of `other`, a run with the same id, is not as in this one; empty if nothing is.

        Fields that belong to the processes of a database do not count, and acts of pulling do not either.
        """
        pairs = {
            "state": (replace(self.record, **_LOCAL), replace(other.record, **_LOCAL)),
            "journal": (tuple(self.entries), tuple(other.entries)),
            "questions": (tuple(self.pauses), tuple(other.pauses)),
            "calls": (tuple(self.intents), tuple(other.intents)),
            "acts": (_without_pulls(self.acts), _without_pulls(other.acts)),
            "budget": (self.ledger, other.ledger),
        }
        return ", ".join(f"another {name}" for name, (ours, theirs) in pairs.items() if ours != theirs)


def _is_spent(entry: Entry) -> bool:
    return entry.kind is EntryKind.WORK or bool(entry.usage)


def _spending(entry: Entry) -> Spending:
    return Spending(entry.path, entry.usage, entry.started_at, entry.ended_at)


def times_in(ledger: Ledger, entries: Sequence[Entry]) -> Sequence[Spending]:
    """Return the times of bodies in a ledger: they come after the usage of the run's entries."""
    return ledger.spendings[sum(map(_is_spent, entries)) :]


def _without_pulls(acts: Sequence[Act]) -> tuple[Act, ...]:
    return tuple(act for act in acts if act.verb is not Verb.PULL)


def closures_of(record: RunRecord, acts: Sequence[Act]) -> list[str]:
    """Return the closures of a run, by digest: the one that it has pinned, and those before changes."""
    accepted = (act.before for act in acts if act.verb is Verb.ACCEPT_CHANGES and act.before is not None)
    return list(dict.fromkeys([record.closure, *map(canonical.decode, accepted)]))


def contents_of(entries: Sequence[Entry]) -> set[str]:
    """Return the digests of the contents that a journal names: transcripts, and files that steps send."""
    named: set[str] = set()
    for entry in entries:
        if entry.detail is not None:
            transcript = canonical.decode(entry.detail).get(TRANSCRIPT)
            named |= {transcript} if transcript else set()
        if entry.kind is EntryKind.DECISION and entry.fingerprint == FILES_OF_STEP and entry.output:
            named |= {file["sha256"] for file in canonical.decode(entry.output)}
    return named


def launched_by(run_id: RunId, entries: Sequence[Entry]) -> list[RunId]:
    """Return the ids of the background tasks that a run has launched, in the order of its journal."""
    begin = f'{{"task_id":"{TASK_ID}'.encode()
    launched = []
    for entry in entries:
        is_done = entry.kind is EntryKind.WORK and entry.status is EntryStatus.COMPLETED
        if is_done and entry.output is not None and entry.output.startswith(begin):
            task = task_id(run_id, entry.path, 1)
            if canonical.decode(entry.output) == {"task_id": task}:
                launched.append(task)
    return launched
