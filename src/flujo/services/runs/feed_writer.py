"""Writes the feed of a run while it is followed: starts, retries, log lines, and text of models.

It changes nothing of the run. No code of the run waits for the database here; what the database does not take
in time is dropped, and the count of dropped lines is a line.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain.events import Chunk, StepRetried, StepStarted
from flujo.domain.feed import FeedKind, FeedLine
from flujo.exceptions import StateError
from flujo.governance.log_lines import plain_text, step_of
from flujo.governance.logs import is_alone, logger
from flujo.governance.sink import GATE
from flujo.services.runs.run_log import log as run_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.current_step import CurrentStep
    from flujo.domain.events import Event
    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath
    from flujo.domain.store import StateStore
    from flujo.engine.frame import Run

EVERY_S = 0.25
"""How often the lines that wait are written, at most."""
MOST_LINES, MOST_CHARACTERS = 200, 8000
"""How many lines wait to be written, and how long the text of one is."""

log = logger("flujo.feed")


class RunFeed:
    """The feed of one execution of a run; without a follower it does nothing.

    Args:
        store: has the feed, and tells when the run is followed.
        run: the run, whose `feed` is set while it is followed.
        fence: that of its claim.
    """

    __slots__ = ("_fence", "_is_over", "_run", "_store", "_writer")  # each run that waits holds one

    def __init__(self, store: StateStore, run: Run, fence: int) -> None:
        self._store = store
        self._run = run
        self._fence = fence
        self._writer: _Writer | None = None
        self._is_over = False
        store.on_watched(run.id, self._set_watched)

    def end(self) -> None:
        """Write what is left, without waiting for it; the execution has ended. Idempotent."""
        self._is_over = True
        if self._writer is not None:
            self._writer.end()

    def _set_watched(self, is_watched: bool) -> None:
        if is_watched and not self._is_over:
            if self._writer is None:
                self._writer = _Writer(self._store, self._run, self._fence)
            self._writer.begin()
        elif self._writer is not None:
            self._writer.pause()


class _Writer:
    """Collects the lines of a followed run, and writes them in a task of its own."""

    def __init__(self, store: StateStore, run: Run, fence: int) -> None:
        self._store = store
        self._run = run
        self._fence = fence
        self._lines = _Lines()
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Task[None] | None = None
        self._last: asyncio.Task[None] | None = None
        """Writes what is left at the end; held here, because a loop does not hold its tasks."""

    def begin(self) -> None:
        """Collect lines from now on, and write them."""
        self._run.feed = self._note
        _LOGS.attach(self._run.id, self)
        if self._writing is None or self._writing.done():
            writing = self._write_often(self._run.called)
            self._writing = self._loop.create_task(writing, name=f"flujo-feed-{self._run.id}")

    def pause(self) -> None:
        """Collect no more lines."""
        self._run.feed = None
        _LOGS.detach(self._run.id, self)

    def end(self) -> None:
        """Collect no more lines, and write those that wait, without waiting for it. Idempotent."""
        if self._writing is None:
            return
        self.pause()
        self._writing.cancel()
        self._writing = None
        if not self._loop.is_closed():
            self._last = self._loop.create_task(self._write())

    def logged(self, record: logging.LogRecord, path: StepPath, attempt: int) -> None:
        """Note a log record that was made in the run; called in any thread."""
        where = {"level": record.levelname.lower(), "logger": record.name}
        line = self._line(FeedKind.LOGGED, path, attempt, plain_text(record))
        self._lines.add(replace(line, at=record.created, value=where))

    def _note(self, event: Event) -> None:
        match event:
            case StepStarted(path=path, attempt=attempt, tool=tool):
                self._lines.add(self._line(FeedKind.STARTED, path, attempt, tool or ""))
            case StepRetried(path=path, attempt=attempt, delay_s=delay_s):
                line = self._line(FeedKind.RETRIED, path, attempt)
                self._lines.add(replace(line, value={"delay_s": round(delay_s, 3)}))
            case Chunk(path=path, attempt=attempt, text=text):
                self._lines.add(self._line(FeedKind.TEXT, path, attempt, text))
            case _:
                pass  # the journal has it

    def _line(self, kind: FeedKind, path: StepPath, attempt: int, text: str = "") -> FeedLine:
        journal = self._run.journal
        return FeedLine(
            at=self._run.clock.now(),
            kind=kind,
            after=journal.last_seq,
            path=journal.stored_path(path),
            attempt=attempt,
            text=text,
        )

    async def _write_often(self, begun: CurrentStep | None) -> None:
        try:
            await self._note_begun(begun)
            await self._store.delete_old_feeds()
        except StateError as error:
            log.debug("the feed of run %s begins late: %s", self._run.id, error)
        while self._run.feed is not None:
            await self._write()
            await asyncio.sleep(EVERY_S)
        await self._write()

    async def _note_begun(self, step: CurrentStep | None) -> None:
        """Note the attempt that began before the run was followed, unless it has ended."""
        if step is None:
            return
        line = self._line(FeedKind.STARTED, step.path, step.attempt)
        entries = await self._store.entries(self._run.id, paths=[line.path])
        if not any(entry.attempt >= step.attempt for entry in entries):
            self._lines.add_first(line)

    async def _write(self) -> None:
        lines = self._lines.take()
        if not lines:
            return
        try:
            await self._store.add_to_feed(self._run.id, self._fence, lines)
        except StateError as error:
            self._lines.drop(lines)
            log.debug("%d lines of the feed of run %s were not written: %s", len(lines), self._run.id, error)


class _Lines:
    """The lines that wait to be written.

    Each method may be called in any thread, because code of a run logs in threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[FeedLine] = deque()
        self._dropped = 0

    def add(self, line: FeedLine) -> None:
        """Add a line, or add its text to the last one; without room, drop the oldest."""
        with self._lock:
            last = self._waiting[-1] if self._waiting else None
            if last is not None and _continues(line, last):
                self._waiting[-1] = replace(last, text=last.text + line.text)
                return
            self._waiting.append(line)
            if len(self._waiting) > MOST_LINES:
                self._waiting.popleft()
                self._dropped += 1

    def add_first(self, line: FeedLine) -> None:
        """Add a line before the others."""
        with self._lock:
            self._waiting.appendleft(line)

    def drop(self, lines: Sequence[FeedLine]) -> None:
        """Count lines that were taken and could not be written."""
        with self._lock:
            self._dropped += sum(line.value if line.kind is FeedKind.DROPPED else 1 for line in lines)

    def take(self) -> list[FeedLine]:
        """Return the lines, after one that counts those which were dropped before them."""
        with self._lock:
            if not self._waiting:
                return []
            lines, dropped = list(self._waiting), self._dropped
            self._waiting.clear()
            self._dropped = 0
        if dropped:
            first = lines[0]
            lines.insert(0, FeedLine(at=first.at, kind=FeedKind.DROPPED, after=first.after, value=dropped))
        # Of joined pieces, because a secret may be in several of them.
        return [replace(line, text=GATE.text(line.text)[:MOST_CHARACTERS]) for line in lines]


def _continues(line: FeedLine, last: FeedLine) -> bool:
    """Return whether a line is more text of the attempt that the last one is about."""
    return (
        line.kind is FeedKind.TEXT
        and last.kind is FeedKind.TEXT
        and (line.path, line.attempt) == (last.path, last.attempt)
        and len(last.text) + len(line.text) <= MOST_CHARACTERS
    )


class _FeedLogs(logging.Handler):
    """Gives the log records of followed runs to their feeds; the root logger has it while there are any."""

    def __init__(self) -> None:
        super().__init__()
        self._feeds: dict[RunId, _Writer] = {}

    def attach(self, run_id: RunId, feed: _Writer) -> None:
        """Begin to give the records of a run to a feed."""
        if not self._feeds:
            logger("root").addHandler(self)
        self._feeds[run_id] = feed

    def detach(self, run_id: RunId, feed: _Writer) -> None:
        """Give no more records of a run to a feed. Idempotent."""
        if self._feeds.get(run_id) is feed:
            del self._feeds[run_id]
            if not self._feeds:
                logger("root").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Give a record to the feed of its run."""
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and is_alone(self, record.name):
            last.handle(record)  # as if this handler did not exist
        if record.name in _SILENT or (step := step_of(record)) is None:
            return
        feed = self._feeds.get(step.run_id)
        if feed is not None:
            try:
                feed.logged(record, step.path, max(1, step.attempt))
            except Exception:  # noqa: BLE001 - a message that does not fit its arguments, say
                self.handleError(record)


_SILENT = (run_log.name, log.name)
"""Loggers whose lines are about what the journal has, or about the feed itself."""

_LOGS = _FeedLogs()
