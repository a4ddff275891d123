"""The log of a run, line by line: the entries of its journal, and what its owner reports beside them.

Lines of the journal are committed. Those of the feed are provisional: each has a place between two entries,
and is left out when the entry of its attempt has come before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from flujo.domain import canonical
from flujo.domain.feed import WATCH_S, FeedKind
from flujo.domain.journal import CACHE_MISS, FILES, UNFINISHED, Entry, EntryKind, EntryStatus, ErrorInfo
from flujo.domain.paths import END, ROOT, StepPath, parent
from flujo.domain.run import ENDS_OF_TASKS, RunStatus
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import StateBackendUnavailable, StateError
from flujo.governance.events import read_error
from flujo.governance.logs import logger
from flujo.governance.sink import GATE
from flujo.services.inspection.tasks import has_living_owner
from flujo.services.project.system import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from flujo.domain.feed import FeedLine
    from flujo.domain.journal import RunId
    from flujo.domain.run import Pause, RunRecord

log = logger("flujo.follow")

_CLOCK = SystemClock()
_NOBODY = "no process executes the run; it continues once one resumes it"

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
    """A tool call that runs steps; `text` is the tool. Provisional: an attempt of a step, or a tool call."""
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
    RETRIED = "retried"
    """Provisional: a failed attempt; `value` is `{"delay_s": …}`, the seconds until the next one."""
    LOGGED = "logged"
    """Provisional: code of the run has logged `text`; `value` is `{"level": …, "logger": …}`."""
    TEXT = "text"
    """Provisional: a model has written `text`; the next line of the attempt continues it."""
    DROPPED = "dropped"
    """Provisional: the owner could not write `value` lines fast enough, and they are missing here."""
    LOST = "lost"
    """Provisional: the run has lost its owner, and continues once a process resumes it."""


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
    provisional: bool = False
    """Whether the journal does not have it, so that another reader of the log may not see it."""
    number: int = 0
    """Of a provisional line its number in the feed of the run, otherwise 0."""


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

    async def watch(self, run_id: RunId) -> None:
        """Ask the owner of a run to write its feed."""
        ...

    async def feed(self, run_id: RunId, *, after: int = 0) -> list[FeedLine]:
        """Return the feed of a run behind a number."""
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
    record: RunRecord | None = None
    """The run at the last look."""
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
        before, self.record = self.record, await self.source.run(self.run_id)
        record = self.record
        if before is not None and _is_untouched(before, record):
            return []
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


class Follower:
    """Reads the log of a live run: what the journal has, and what the owner of the run reports beside it.

    Args:
        source: has the run.
        run_id: the run.
        offset: as for `Reader`.
        number: the number of the last provisional line that is known.
    """

    def __init__(self, source: FollowedSource, run_id: RunId, offset: int = 0, number: int = 0) -> None:
        self.reader = Reader(source, run_id, offset)
        self._source = source
        self._run_id = run_id
        self._since = offset
        self._number = number
        self._held: list[FeedLine] = []
        """Lines behind an entry that is not committed yet, or was committed after the journal was read."""
        self._ended: set[tuple[StepPath, int]] = set()
        """The attempts that have ended."""
        self._is_lost = False
        self._has_feed = True

    async def look(self) -> list[LogLine]:
        """Return the lines since the last look; see `Reader.look`. The status is the last of them."""
        lines = await self.reader.look()
        self._ended |= {(line.path, line.attempt) for line in lines if line.kind in _ENDS}
        moved = [line for line in lines if line.kind is LogKind.STATUS]
        journaled = [line for line in lines if line.kind is not LogKind.STATUS]
        found, lost = self._loss()
        return [*found, *_merged(journaled, await self.provisional()), *moved, *lost]

    async def provisional(self) -> list[LogLine]:
        """Return the new lines of the feed that tell more than the journal.

        Lines behind an entry that the journal did not have yet are returned by the next call.
        """
        if not self._has_feed:
            return []
        try:
            found = await self._source.feed(self._run_id, after=self._number)
        except StateError as error:
            if not (isinstance(error, StateBackendUnavailable) and error.retryable):
                self._has_feed = False  # such as a standby of Postgres, which does not have this table
            log.debug("the feed of run %s was not read: %s", self._run_id, error)
            return []
        if found:
            self._number = found[-1].number
        first = next((at for at, line in enumerate(found) if line.after > self.reader.offset), len(found))
        first = len(found) if self.reader.has_ended else first
        known, self._held = [*self._held, *found[:first]], found[first:]
        return [
            _provisional(line, min(line.after, self.reader.offset))
            for line in known
            if line.after >= self._since
            and not (line.kind in _OF_ATTEMPT and (line.path, line.attempt) in self._ended)
        ]

    def _loss(self) -> tuple[list[LogLine], list[LogLine]]:
        """Return the line about a run that has an owner again, or the one about a run that has lost it."""
        record = self.reader.record
        assert record is not None  # noqa: S101 - for the type checker: the run was just read
        was_lost, self._is_lost = (
            self._is_lost,
            record.status is RunStatus.RUNNING and not has_living_owner(record),
        )
        offset = self.reader.offset
        if was_lost and record.status is RunStatus.RUNNING and not self._is_lost:
            return [_status(record, offset)], []
        if self._is_lost and not was_lost:
            lost = LogLine(offset=offset, at=_CLOCK.now(), kind=LogKind.LOST, text=_NOBODY, provisional=True)
            return [], [lost]
        return [], []


async def follow(
    source: FollowedSource, run_id: RunId, *, after: int = 0, after_number: int = 0
) -> AsyncGenerator[LogLine, None]:
    """Yield the log of a run from an offset on, until the run ends.

    While it is followed, the owner of the run writes its feed. On a read-only database that is not possible,
    and the lines are those of the journal. When a database goes away after the first look, the look is
    repeated until it answers.

    Args:
        source: has the run.
        run_id: the run.
        after: the offset of the last line that is known.
        after_number: the number of the last provisional line that is known.

    Raises:
        RunNotFound: the run does not exist, or was purged meanwhile.
        CorruptState: an entry is damaged or missing.
        StateBackendUnavailable: the database does not answer at the first look.
    """
    follower, rest_s = Follower(source, run_id, after, after_number), _SOON_S
    reader = follower.reader
    watching = asyncio.create_task(_watch(source, run_id), name=f"flujo-follow-{run_id}")
    try:
        while True:
            is_first = reader.status is None
            try:
                lines = await follower.look()
            except StateBackendUnavailable as error:
                if is_first or not error.retryable:
                    raise
                log.warning("the log of run %s stands still, trying again: %s", run_id, error.message)
                lines = []
            if reader.has_ended and not is_first:  # its owner may still write its last lines
                await asyncio.sleep(_SOON_S)
                lines[-1:-1] = await follower.provisional()
            for line in lines:
                yield line
            if reader.has_ended:
                return
            rest_s = _SOON_S if lines else min(rest_s * 2, _LATER_S)
            await asyncio.sleep(_until_next(rest_s))
    finally:
        watching.cancel()


async def _watch(source: FollowedSource, run_id: RunId) -> None:
    """Report again and again that a run is followed; a database that does not take it may do so later."""
    is_heard = True
    while True:
        try:
            await source.watch(run_id)
            is_heard = True
        except StateError as error:
            if is_heard:
                log.warning(
                    "run %s is followed by its journal alone, without starts, log lines and text: %s",
                    run_id,
                    error.message,
                )
            is_heard = False
        await asyncio.sleep(_until_next(WATCH_S / 4))


def _until_next(period_s: float) -> float:
    """Return how long it is until the next multiple of a period.

    All followers of a process look then, so that a database answers them together.
    """
    return period_s - asyncio.get_running_loop().time() % period_s


def _is_untouched(before: RunRecord, now: RunRecord) -> bool:
    """Return whether a run was not executed between two looks, so that its journal is the same.

    A run without an owner takes no entries and opens no questions, and a claim makes its fence grow.
    """
    return before.owner is None and (before.fence, before.status, None) == (now.fence, now.status, now.owner)


_ENDS = (LogKind.COMPLETED, LogKind.FAILED, LogKind.SKIPPED, LogKind.STOPPED, LogKind.ANSWERED)
"""The lines that end an attempt."""
_OF_ATTEMPT = (FeedKind.STARTED, FeedKind.TEXT)
"""The lines of a feed that tell nothing new once the attempt has ended."""


def _merged(lines: Sequence[LogLine], provisional: Sequence[LogLine]) -> Iterator[LogLine]:
    """Yield the lines of the journal, and each provisional one behind the entry that precedes it."""
    waiting = deque(provisional)
    for line in lines:
        # A question stands behind the entry of its offset, and behind the provisional lines after it.
        first = line.offset + (line.kind in (LogKind.ASKED, LogKind.WAITING))
        while waiting and waiting[0].offset < first:
            yield waiting.popleft()
        yield line
    yield from waiting


def _provisional(line: FeedLine, offset: int) -> LogLine:
    return LogLine(
        offset=offset,
        at=line.at,
        kind=LogKind(line.kind),
        path=line.path,
        attempt=line.attempt,
        value=line.value,
        text=GATE.text(line.text),
        provisional=True,
        number=line.number,
    )


def _asked(pause: Pause, offset: int) -> LogLine:
    kind = LogKind.ASKED if pause.kind.asks_human else LogKind.WAITING
    text = GATE.text(pause.message)
    return LogLine(offset=offset, at=pause.asked_at or 0.0, kind=kind, path=pause.pause_id, text=text)


def _status(record: RunRecord, offset: int) -> LogLine:
    error = None if record.error is None else read_error(record.error, record.run_id)
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
        attempt = 1 if path == END else attempt  # there, the number counts what follows
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
        return LogKind.STARTED if entry.attempt == 0 and entry.path != END else LogKind.DECIDED
    return LogKind.ANSWERED if entry.kind is EntryKind.ANSWER and not is_wait else LogKind.COMPLETED
