"""The log of a run, line by line: the entries of its journal, also while another process adds to them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from flujo.domain import canonical
from flujo.domain.journal import CACHE_MISS, FILES, UNFINISHED, Entry, EntryKind, EntryStatus, ErrorInfo
from flujo.domain.paths import ROOT, StepPath, parent
from flujo.domain.run import ENDS_OF_TASKS, RunStatus
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import StateBackendUnavailable
from flujo.governance.events import read_error
from flujo.governance.logs import logger
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.run import Pause, RunRecord

log = logger("flujo.follow")

_SOON_S, _LATER_S = 0.25, 1.0
"""How long a follower rests between two looks at a run: after news, and at most."""
_SILENT = (CACHE_MISS, FILES, "granular")
"""The fingerprints of decisions about how a step is executed: its cache key, its files, its agent."""


class LogKind(StrEnum):
    """What a line of the log is about."""

    ACCEPTED = "accepted"
    """The run; `text` is its pipeline."""
    STATUS = "status"
    """The run; `text` is its status."""
    STARTED = "started"
    """A tool call that runs steps; `text` is the tool."""
    DECIDED = "decided"
    """A composite step; `value` is its decision."""
    COMPLETED = "completed"
    FAILED = "failed"
    """An attempt of a step, which may be retried."""
    SKIPPED = "skipped"
    STOPPED = "stopped"
    """An attempt without a result; `text` says how it ended: `paused`, `aborted` or `interrupted`."""
    ASKED = "asked"
    """A question to a human; `text` is the question."""
    WAITING = "waiting"
    """A wait for a time, an event or background tasks; `text` says for what."""
    ANSWERED = "answered"
    """A question; `value` is its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of the log of a run."""

    offset: int
    """The `seq` of the journal entry; for a line about something else, that of the last entry before it."""
    at: float
    """Seconds since the epoch; of a step, when it ended."""
    kind: LogKind
    path: StepPath = ROOT
    attempt: int = 1
    seconds: float = 0.0
    """How long the attempt took."""
    usage: Usage = NOTHING
    error: ErrorInfo | None = None
    value: Any = None
    text: str = ""


class FollowedSource(Protocol):
    """Reads what a log needs; each state store does."""

    async def run(self, run_id: RunId) -> RunRecord:
        """Return a run."""
        ...

    async def entries(self, run_id: RunId, *, after: int = 0) -> list[Entry]:
        """Return the journal behind a `seq`, in order."""
        ...

    async def pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions and waits of a run."""
        ...


@dataclass(slots=True)
class Reader:
    """Reads the log of a run from an offset on; each look returns what is new.

    Args:
        source: has the run.
        run_id: the run.
        offset: the `seq` of the last entry that is known; 0 for the whole log.
    """

    source: FollowedSource
    run_id: RunId
    offset: int = 0
    status: RunStatus | None = None
    """The status at the last look; None before the first."""
    _shown: set[tuple[StepPath, float | None]] = field(default_factory=set)

    @property
    def has_ended(self) -> bool:
        """Whether the run had ended at the last look."""
        return self.status in ENDS_OF_TASKS

    async def look(self) -> list[LogLine]:
        """Return the lines since the last look.

        A question without an answer is the last line before the status. Others stand before their answers,
        because the clock of the database is not that of the entries.

        Raises:
            RunNotFound: the run does not exist, or no longer.
            CorruptState: an entry is damaged or missing.
        """
        # In this order: the entries of a run that has ended are complete, and what precedes a pause is there.
        record = await self.source.run(self.run_id)
        pauses = await self.source.pauses(self.run_id)
        entries = await self.source.entries(self.run_id, after=self.offset)
        lines = list(self._lines(record, entries, pauses))
        self.offset = entries[-1].seq if entries else self.offset
        if record.status is not self.status:
            self.status = record.status
            if record.status is not RunStatus.ACCEPTED:
                lines.append(_status(record, self.offset))
        return lines

    def _lines(
        self, record: RunRecord, entries: Sequence[Entry], pauses: Sequence[Pause]
    ) -> Iterator[LogLine]:
        offset, is_whole = self.offset, self.status is None and self.offset == 0
        if is_whole:
            yield LogLine(offset=0, at=record.created_at, kind=LogKind.ACCEPTED, text=record.pipeline)
        settled = {entry.path for entry in entries if entry.kind is not EntryKind.DECISION}
        new = {
            pause.pause_id: pause
            for pause in pauses
            if (pause.pause_id, pause.asked_at) not in self._shown
            and (pause.pause_id in settled or (not pause.void if is_whole else pause.is_open))
        }
        self._shown |= {(pause.pause_id, pause.asked_at) for pause in new.values()}
        waits = {pause.pause_id for pause in pauses if not pause.kind.asks_human}
        for entry in entries:
            if entry.kind is not EntryKind.DECISION and entry.path in new:
                yield _asked(new.pop(entry.path), offset)
            offset = entry.seq
            if not (entry.kind is EntryKind.DECISION and entry.fingerprint in _SILENT):
                yield _line(entry, is_wait=entry.path in waits)
        for pause in new.values():
            yield _asked(pause, offset)


async def follow(source: FollowedSource, run_id: RunId, *, after: int = 0) -> AsyncGenerator[LogLine, None]:
    """Yield the log of a run from an offset on, until the run ends.

    When a database goes away after the first look, the look is repeated until it answers.

    Raises:
        RunNotFound: the run does not exist, or was purged meanwhile.
        CorruptState: an entry is damaged or missing.
        StateBackendUnavailable: the database does not answer at the first look.
    """
    reader, rest_s = Reader(source, run_id, after), _SOON_S
    while True:
        try:
            lines = await reader.look()
        except StateBackendUnavailable as error:
            if reader.status is None or not error.retryable:
                raise
            log.warning("the log of run %s stands still, trying again: %s", run_id, error.message)
            lines = []
        for line in lines:
            yield line
        if reader.has_ended:
            return
        rest_s = _SOON_S if lines else min(rest_s * 2, _LATER_S)
        await asyncio.sleep(rest_s)


def _asked(pause: Pause, offset: int) -> LogLine:
    kind = LogKind.ASKED if pause.kind.asks_human else LogKind.WAITING
    text = GATE.text(pause.message)
    return LogLine(offset=offset, at=pause.asked_at or 0.0, kind=kind, path=pause.pause_id, text=text)


def _status(record: RunRecord, offset: int) -> LogLine:
    error = None if record.error is None else read_error(record.error)
    return LogLine(
        offset=offset,
        at=record.updated_at,
        kind=LogKind.STATUS,
        usage=record.usage,
        error=error,
        text=str(record.status),
    )


def _line(entry: Entry, *, is_wait: bool) -> LogLine:
    """Return the line of an entry; that of an unfinished attempt has the path and number of the attempt."""
    detail: dict[str, Any] = canonical.decode(entry.detail) if entry.detail else {}
    kind, path, attempt, value, text = _kind(entry, is_wait=is_wait), entry.path, entry.attempt, None, ""
    if kind is LogKind.STOPPED:
        path, attempt = parent(path), detail["attempt"]
        text = canonical.decode(entry.output or b'""')
    elif kind is LogKind.STARTED:
        attempt, text = 1, detail.get("tool", "")
    elif kind in (LogKind.DECIDED, LogKind.ANSWERED):
        value = canonical.decode(entry.output or b"null")
    return LogLine(
        offset=entry.seq,
        at=entry.ended_at,
        kind=kind,
        path=path,
        attempt=attempt,
        seconds=max(0.0, entry.ended_at - entry.started_at),
        usage=entry.usage,
        error=None if entry.error is None else read_error(entry.error),
        value=value,
        text=text,
    )


def _kind(entry: Entry, *, is_wait: bool) -> LogKind:
    if entry.status is not EntryStatus.COMPLETED:
        return LogKind.FAILED if entry.status is EntryStatus.FAILED else LogKind.SKIPPED
    if entry.kind is EntryKind.DECISION:
        if entry.fingerprint == UNFINISHED:
            return LogKind.STOPPED
        return LogKind.STARTED if entry.attempt == 0 else LogKind.DECIDED
    return LogKind.ANSWERED if entry.kind is EntryKind.ANSWER and not is_wait else LogKind.COMPLETED
