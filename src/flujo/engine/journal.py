"""The engine's only access to storage: reads recorded entries, and records new ones.

A resumed run loads the journal a level at a time, and only for composites that have not completed; a new run
loads nothing. Entries that nothing depends on yet (decisions by pure expressions, `done`) wait for the next
one that must be durable and are committed with it, in order.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.acts import Verb
from flujo.domain.journal import CodeFrame, Entry, EntryKind, EntryStatus, ErrorInfo, new_entry
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.outcomes import Success
from flujo.domain.paths import ROOT, StepPath, is_inside, ranges_of, shown
from flujo.domain.run import Intent, Move, Pause, Progress, RunRecord, Write, new_write
from flujo.domain.run_forks import Forked
from flujo.domain.transactions import TransactionalStore
from flujo.domain.usage import NOTHING, Usage
from flujo.engine.error_info import error_info, foreign_text, safe_text
from flujo.exceptions import JournalConflict, StateError, StepFailed
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from flujo.domain.differences import Cause
    from flujo.domain.journal import RunId
    from flujo.domain.ledger import Ledger
    from flujo.domain.migrations import Migrations
    from flujo.domain.ports import Locate, Observer
    from flujo.domain.run import Child
    from flujo.domain.run_forks import Stub
    from flujo.domain.store import JournalStore
    from flujo.domain.transactions import Transaction
    from flujo.engine.context_isolation import ContextScope

STOPS_THE_WALK = (StateError, JournalConflict)
"""Errors that are not failures of a step: `on_failure` and retries ignore them."""

MAX_WAITING = 256
"""The maximum number of entries that wait for a commit under `durability: exit`, or without persistence."""

MAX_FLYING = 4
"""The maximum number of such writes in progress before the run waits for the database."""

_NO_PATHS: frozenset[StepPath] = frozenset()
"""One for all runs: each `frozenset()` is an object of 216 bytes."""

RESULTS = (EntryKind.WORK, EntryKind.ANSWER, EntryKind.DONE)
"""The kinds of entries that complete a step."""


class Journal:
    """One run's journal under one claim: its entries, and writes with the claim's fence."""

    __slots__ = (
        "_announced",
        "_asked",
        "_attached",
        "_begin",
        "_below",
        "_blobs",
        "_children",
        "_fence",
        "_first",
        "_halted",
        "_handed",
        "_holder",
        "_holds",
        "_in_flight",
        "_intents",
        "_is_durable",
        "_known",
        "_locate",
        "_made_here",
        "_migrations",
        "_observer",
        "_open",
        "_pauses",
        "_restored_at",
        "_resumed",
        "_run_id",
        "_seq",
        "_store",
        "_stubs",
        "_used",
        "_voids",
        "_waiting",
        "broken",
        "is_blank",
        "is_stubbed",
        "usage",
    )

    def __init__(
        self,
        store: JournalStore,
        record: RunRecord,
        start: Progress,
        *,
        is_durable: bool = True,
        is_stubbed: bool = False,
        begin: Callable[[RunId, RunId, str | None], None] | None = None,
        locate: Locate | None = None,
        observer: Observer | None = None,
        migrations: Migrations | None = None,
    ) -> None:
        self._store = store
        self._migrations = migrations
        """Converts the paths of the pipeline, which this class has, and those of the store; None if they are
        the same."""
        self._locate = locate
        """Finds the code of the user in an error; None records no places in code."""
        self._observer = observer
        self._begin = begin
        """Called with each background task of this process, and this run, once the launch is committed."""
        self._children: tuple[Child, ...] = ()
        self._is_durable = is_durable
        """Whether the store outlives the process: otherwise entries may wait for each other."""
        self.is_stubbed = is_stubbed
        """Whether recorded results replace calls with effects: the run is a fork."""
        self._stubs: dict[tuple[str, str, str], Stub] | None = None
        self._run_id = record.run_id
        self._fence = record.fence
        self._seq = start.last_seq
        self._resumed = start.last_seq > 0 or record.claims > 1
        self._first: Sequence[Entry] | None = self._as_read(start.first)
        self._known: dict[EntryKind, dict[StepPath, list[Entry]]] = {}
        self._below: dict[StepPath, set[StepPath]] = {}
        """The paths of the loaded entries of each level."""
        self._pauses = self._questions(start.pauses)
        self.is_blank = not self._pauses
        """Whether nothing is known of any step, so that none has to look for its result or its question."""
        self._attached: dict[StepPath, Entry] = {}
        """The entries of this execution that name contents."""
        self._waiting: list[Entry] = []
        self._asked: list[Pause] = []
        self._open = _NO_PATHS
        self._voids: list[StepPath] = []
        self._announced: list[Intent] = []
        self._blobs: dict[str, bytes] = {}
        """Blobs that wait for the next commit, by their digests."""
        self._holds: dict[tuple[StepPath, int], Hold] = {}
        self._intents: dict[StepPath, Intent] | None = None
        self._made_here: dict[StepPath, None] = {}  # a set that is empty takes three times the memory
        """The steps whose calls were announced under this claim."""
        self._restored_at: float | None = None
        """When the database was restored; 0 for never, None until it is queried."""
        self._in_flight: list[asyncio.Future[bool]] = []
        self._handed = 0
        """How many writes have been in `_in_flight`."""
        self._halted: asyncio.Future[None] | None = None
        """Set while nothing is submitted, because a transaction of a tool is committed, or has the writer."""
        self._holder: object = None
        """The attempt that has halted the journal."""
        self.broken: BaseException | None = None
        """The error of a failed write. Later ones fail with it, because the journal would have a gap."""
        self._used: dict[StepPath, Usage] = {}
        self.usage = start.usage
        """The usage of the run so far, including failed attempts."""

    @property
    def last_seq(self) -> int:
        """The number of the newest entry; 0 when there is none."""
        return self._seq

    async def load_level(self, path: StepPath) -> None:
        """Load the entries directly below `path`, when this run has been executed before."""
        entries = await self.level(path)
        for entry in entries:
            self.learn(entry)
            self._below.setdefault(path, set()).add(entry.path)
        if self._observer is not None and entries:
            self._observer.learned(entries)

    async def load_at(self, paths: Sequence[StepPath]) -> None:
        """Load the entries at some paths, when this run has been executed before."""
        if self._resumed:
            stored = [self.stored_path(path) for path in paths]
            for entry in self._as_read(await self._store.entries(self._run_id, paths=stored)):
                self.learn(entry)

    async def read(self, paths: Sequence[StepPath]) -> Sequence[Entry]:
        """Return the entries at some paths from the store, also those of this execution."""
        await self.flush()
        asked = {self.stored_path(path): path for path in paths}
        found = await self._store.entries(self._run_id, paths=[*asked])
        return (
            [replace(entry, path=asked[entry.path]) for entry in found]
            if self._migrations is not None
            else found
        )

    def forget(self, path: StepPath) -> None:
        """Drop the loaded entries of a completed item of a map, because nothing reads them again."""
        for known in self._known.values():
            known.pop(path, None)
        for each in [each for each in self._attached if is_inside(each, path)]:
            del self._attached[each]
        for inner in self._below.pop(path, ()):
            self.forget(inner)

    def learn(self, entry: Entry) -> None:
        """Take an entry as one that is recorded at its path."""
        self.is_blank = False
        known = self._known.setdefault(entry.kind, {})
        others = [each for each in known.get(entry.path, ()) if each.attempt != entry.attempt]
        known[entry.path] = sorted([*others, entry], key=lambda each: each.attempt) if others else [entry]

    async def level(self, path: StepPath) -> Sequence[Entry]:
        """Return the entries of a level, without loading them; none in the run's first execution."""
        if not self._resumed:
            return ()
        first, self._first = self._first, None
        if path == ROOT and first is not None:
            return first  # read at the start of the execution
        found = await self._store.entries(self._run_id, parent=self.stored_path(path))
        if self._migrations is not None and (moved := self._migrations.moved_into(path)):
            found = [*found, *await self._store.entries(self._run_id, paths=moved)]
        return self._as_read(found)

    async def ranges(self, path: StepPath, *, after: int = 0) -> Sequence[Entry]:
        """Return the entries about ranges of items of the map at `path`, without loading them.

        `after` stands for those with a greater `seq`.
        """
        if not after or not self._resumed:
            return await self.level(ranges_of(path))
        level = self.stored_path(ranges_of(path))
        return self._as_read(await self._store.entries(self._run_id, parent=level, after=after))

    def stored_path(self, path: StepPath) -> StepPath:
        """Return the path under which the store has `path`: another one below a step that was renamed."""
        return path if self._migrations is None else self._migrations.old(path)

    def stored_pause(self, pause: Pause) -> Pause:
        """Return a question with the path under which the store has it, by which it is answered."""
        return self._migrations.written_pause(pause) if self._migrations is not None else pause

    async def ledger(self) -> Ledger:
        """Return what the run has used until now, by the paths of the pipeline."""
        found = await self._store.ledger(self._run_id)
        return found if self._migrations is None else self._migrations.read_ledger(found)

    def _as_read(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        return [*map(self._migrations.read_entry, entries)] if self._migrations is not None else entries

    def _questions(self, pauses: Sequence[Pause]) -> dict[StepPath, Pause]:
        read = map(self._migrations.read_pause, pauses) if self._migrations is not None else pauses
        return {pause.pause_id: pause for pause in read}

    def attempts(self, path: StepPath, kind: EntryKind) -> list[Entry]:
        """Return the entries at `path`, in the order of attempts."""
        known = self._known.get(kind)
        return known.get(path, []) if known else []

    def decision(self, path: StepPath, attempt: int = 1) -> Entry | None:
        """Return the decision recorded at `path`, or None."""
        known = self.attempts(path, EntryKind.DECISION)
        return next((entry for entry in known if entry.attempt == attempt), None)

    def result(self, path: StepPath, fingerprint: str) -> Entry | None:
        """Return the final entry of the step at `path`, or None when it has not completed.

        Raises:
            JournalConflict: the record belongs to another kind of step.
        """
        for kind in RESULTS:
            recorded = self.attempts(path, kind)
            if recorded and recorded[-1].status is EntryStatus.COMPLETED:
                return self._same(recorded[-1], fingerprint)
        return None

    def recorded(self, path: StepPath, kind: str, scope: ContextScope) -> Success | None:
        """Return the recorded outcome of the step at `path` and apply its patch; None if there is none.

        Raises:
            JournalConflict: the record belongs to another kind of step.
        """
        entry = None if self.is_blank else self.result(path, kind)
        if entry is None:
            return None
        if entry.patch is not None:
            scope.tree = merge.apply(scope.tree, canonical.decode(entry.patch))
        return success(entry)

    def differs(self, conflict: JournalConflict) -> None:
        """Raise `conflict`; a replay may collect it instead, and continue with the recorded value."""
        raise conflict

    def keeps(
        self, path: StepPath, recorded: bytes | None, given: Callable[[], bytes], cause: Cause = "prompt"
    ) -> bool:
        """Return whether a record is used although the step at `path` gets something else now.

        A resumed run does not ask: it uses what it has. A replay compares the two, and uses the record.
        """
        del path, recorded, given, cause
        return False

    def continues(self, path: StepPath) -> bool:
        """Return whether a replayed record continues at `path`, after a limit that ended an execution."""
        del path
        return False

    async def once(
        self, path: StepPath, kind: EntryKind, work: Callable[[], Awaitable[Entry]], *, attempt: int = 1
    ) -> Entry:
        """Return the recorded entry of (`path`, `kind`, `attempt`), or do `work` and record it durably."""
        for entry in self.attempts(path, kind):
            if entry.attempt == attempt:
                return entry
        if not self.may_begin():
            await self.renew_lease()
        return await self.record(replace(await work(), path=path, kind=kind, attempt=attempt))

    def may_begin(self) -> bool:
        """Return whether the lease is valid; if not, work begins only after `renew_lease`.

        So a process that was frozen or disconnected starts no work in a run that another process has claimed
        meanwhile. No process can claim a run of a store that ends with this one.
        """
        return not self._is_durable or self._store.may_begin(self._run_id)

    async def renew_lease(self) -> None:
        """Return when the store has renewed the lease.

        Raises:
            Fenced: another process executes this run now.
            StateBackendUnavailable: the database does not answer.
        """
        try:
            await self._store.write(Write(run_id=self._run_id, fence=self._fence))
        except StateError as error:
            self.broken = self.broken or error
            raise

    async def require_lease(self) -> None:
        """Renew the lease if it is not valid; see `renew_lease`."""
        if not self.may_begin():
            await self.renew_lease()

    async def record(self, entry: Entry, *, wait: bool = True) -> Entry:
        """Append an entry and return it as recorded; it is committed unless `wait` is false.

        In a store that ends with this process, a commit would save nothing: entries are written in groups.

        Raises:
            Fenced: another process executes this run now.
            StateBackendUnavailable: the entry is not recorded; the run can be resumed.
        """
        entry = self.append_deferred(entry)
        if not self.keeps_back(wait=wait):
            await self.commit(wait=wait)
        return entry

    def keeps_back(self, *, wait: bool) -> bool:
        """Return whether appended entries may stay uncommitted for now; if not, `commit` must follow."""
        return not (wait and self._is_durable) and len(self._waiting) < MAX_WAITING

    def commit(self, *, wait: bool, together: bool = False) -> Awaitable[None]:
        """Submit all waiting entries, and return when they are committed.

        Without `wait`, or in a store that ends with this process, return once few writes are in progress.
        With `together`, the entries are submitted with those of other branches in this turn of the loop.
        """
        if not (wait and self._is_durable):
            return self._submit_ahead()
        return self._flush_together() if together else self.flush()

    async def _submit_ahead(self) -> None:
        """Submit all waiting entries; wait only while many writes are in progress."""
        self._submit()
        if len(self._in_flight) >= MAX_FLYING:
            await self._committed()

    async def attach(self, entry: Entry, contents: Mapping[str, bytes]) -> None:
        """Append an entry that names contents by their digests; all of it is committed when this returns."""
        self._blobs |= contents
        self._attached[entry.path] = self.append_deferred(entry)
        self.is_blank = False
        await self.flush()

    def attached(self, path: StepPath) -> Entry | None:
        """Return the newest entry at `path` that names contents, or None."""
        recorded = self.attempts(path, EntryKind.DECISION)
        return self._attached.get(path) or (recorded[-1] if recorded else None)

    def contents(self, digests: Collection[str]) -> Awaitable[Mapping[str, bytes]]:
        """Return contents of the run by their digests.

        Raises:
            CorruptState: one is missing, or its bytes have another digest.
        """
        return self._store.blobs(list(digests))

    def append_deferred(self, entry: Entry, *, of: StepPath | None = None) -> Entry:
        """Append an entry, to be committed together with the next one that is waited for.

        Args:
            entry: the entry.
            of: the step that has used its usage. Default: the step at its path.

        Raises:
            SecretInValue: a value in it contains a known secret.
        """
        if GATE.knows_secrets:
            _admit(entry)
        self._seq += 1
        entry = entry.numbered(self._seq)
        if entry.usage is not NOTHING:
            self._count(entry, of or entry.path)
        self._waiting.append(entry)
        if self._observer is not None:
            self._observer.recorded(entry)
        return entry

    def _count(self, entry: Entry, step: StepPath) -> None:
        self.usage += entry.usage
        self._used[step] = self._used.get(step, NOTHING) + entry.usage

    def append_done(
        self,
        path: StepPath,
        kind: str,
        output: bytes,
        patch: merge.Patch,
        *,
        now: float,
        facts: Mapping[str, Any],
    ) -> None:
        """Append the completion of a composite or of one iteration: its output and its net patch."""
        failed = self.attempts(path, EntryKind.DONE)
        self.append_deferred(
            new_entry(
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

    def launch(self, child: Child) -> None:
        """Launch a background task with the next commit, which is that of the entry appended next.

        A run that continues this one is accepted with the commit that ends this one.
        """
        self._children += (child,)
        if child.hold is not None:
            self.hold(child.hold)

    async def task(self, task_id: RunId) -> RunRecord:
        """Return a background task of this run, whose launch is committed.

        Raises:
            RunNotFound: there is no such run.
            StepFailed: it is not a task of this run.
        """
        found = await self._store.run(task_id)
        if found.parent is None or not await self._is_family(found.parent.run_id):
            raise StepFailed(
                f"{task_id!r} is not a background task of this run",
                hint="pass the `task_id` of a step of this run with `execution_mode: background`",
            )
        return found

    async def _is_family(self, run_id: RunId) -> bool:
        """Return whether a run is this one, or one that this one was forked from, at any distance."""
        here: RunId | None = self._run_id
        while here is not None and here != run_id:
            forked = Forked.of(await self._store.acts(here))
            here = None if forked is None else forked.parent
        return here is not None

    async def stub(self, path: StepPath, tool: str, sent: bytes) -> Stub | None:
        """Return the recorded result that replaces a call of this fork, or None."""
        if self._stubs is None:
            forked = Forked.of(await self._store.acts(self._run_id))
            known = () if forked is None or forked.stubs is None else forked.stubs
            self._stubs = {each.key: each for each in known}
        return self._stubs.get((self.stored_path(path), tool, canonical.digest(sent)))

    def take_usage(self, path: StepPath) -> Usage:
        """Return the usage of the attempts at `path` since the last call."""
        return self._used.pop(path, NOTHING)

    def hold(self, hold: Hold) -> None:
        """Write or settle a hold of the run's budget with the next commit."""
        self._holds[hold.path, hold.number] = hold

    async def reserve(self, hold: Hold) -> None:
        """Reserve a request in the budgets of several runs; its hold is committed when this returns.

        Raises:
            SharedBudgetExceeded: one of them has no room; the hold is not written.
            Fenced: another process executes this run now.
        """
        await self.flush()
        if self._migrations is not None:
            hold = replace(hold, path=self._migrations.old(hold.path))
        await self._store.reserve(self._run_id, self._fence, hold)
        await self.require_lease()

    async def begin_time(self, path: StepPath) -> None:
        """Commit that the time of the body at `path` counts from now on, also when this process dies."""
        self.hold(Hold(path=path, number=self._fence, state=HoldState.TIMED))
        await self.flush()

    def keep(self, data: bytes) -> str:
        """Write a blob with the next commit, and return its digest, for the `detail` of an entry."""
        digest = canonical.digest(data)
        self._blobs[digest] = data
        return digest

    def error_info(self, error: BaseException, path: StepPath) -> ErrorInfo:
        """Return an error for the journal, with secrets masked; the next commit writes its traceback."""
        info = error_info(error, path)
        found = None if self._locate is None else self._locate(error)
        if found is None:
            return info
        frame, text = found
        masked = CodeFrame(
            foreign_text(frame.file), frame.line, foreign_text(frame.function), foreign_text(frame.source)
        )
        return replace(info, frame=masked, traceback=self.keep(safe_text(text).encode()))

    def ask(self, pause: Pause) -> Pause:
        """Open a question and return it with secrets masked; it becomes visible with the next commit."""
        if (message := safe_text(pause.message)) != pause.message:
            pause = replace(pause, message=message)
        self._asked.append(pause)
        self._open |= {pause.pause_id}
        return pause

    def void_below(self, path: StepPath) -> None:
        """Void the questions of steps inside `path`."""
        known = {each.pause_id for each in self._pauses.values() if each.is_open}
        self._void([each for each in sorted(self._open | known) if is_inside(each, path)])

    def void(self, pauses: Sequence[Pause]) -> None:
        """Void questions that no longer matter, because the composite that contains them has failed."""
        self._void([pause.pause_id for pause in pauses])

    def _void(self, ids: Sequence[StepPath]) -> None:
        self._asked = [pause for pause in self._asked if pause.pause_id not in ids]
        self._open -= frozenset(ids)
        self._voids += ids
        known = [self._pauses[each] for each in ids if each in self._pauses]
        self._pauses |= {pause.pause_id: replace(pause, void=True) for pause in known if pause.is_open}

    def pause(self, path: StepPath) -> Pause | None:
        """Return the question of the step at `path`, answered or not, or None."""
        return self._pauses.get(path)

    def record_intent(self, intent: Intent) -> None:
        """Record the announcement or the result of a call with the next commit."""
        self._announced.append(intent)
        self._intents = {**(self._intents or {}), intent.path: intent}
        self._made_here[intent.path] = None

    @property
    def may_have_called(self) -> bool:
        """Whether a call was announced in this process, or may have been in an earlier one."""
        return self._resumed or bool(self._intents)

    async def intent(self, path: StepPath) -> Intent | None:
        """Return the latest call of the step at `path`, or None."""
        if self._intents is None:
            stored = await self._store.intents(self._run_id) if self._resumed else []
            if self._migrations is not None:
                stored = [*map(self._migrations.read_intent, stored)]
            self._intents = {intent.path: intent for intent in sorted(stored, key=lambda each: each.sends)}
        return self._intents.get(path)

    async def is_unknown_since_restore(self, path: StepPath) -> bool:
        """Return whether the step at `path` may have made a call that the restored database does not show."""
        if not self._resumed or path in self._made_here:
            return False
        if self._restored_at is None:
            acts = await self._store.acts(self._run_id)
            restored = [act.at or 0.0 for act in acts if act.verb is Verb.AFTER_RESTORE]
            self._restored_at = max(restored, default=0.0)
        intent = await self.intent(path)
        sent_at = 0.0 if intent is None or intent.sent_at is None else intent.sent_at
        return sent_at < self._restored_at

    def was_asked(self, path: StepPath) -> bool:
        """Return whether the step at `path`, or one inside it, has asked a human."""
        return any(asked == path or is_inside(asked, path) for asked in self._pauses)

    async def reload(self) -> None:
        """Commit waiting entries; from now on, entries of this execution are read like earlier ones."""
        await self.flush()
        self._resumed, self._first, self.is_blank = True, None, False
        self._pauses = self._questions(await self._store.pauses(self._run_id))

    async def flush(self) -> None:
        """Commit all waiting entries.

        Concurrent parts of a run share writes, so each waits for all earlier writes. A failed write fails
        every later one, because the journal would have a gap.
        """
        while self._halted is not None:
            await _ended(self._halted)
        self._submit()
        if self._in_flight or self.broken is not None:
            await self._committed()

    async def _flush_together(self) -> None:
        """Commit in one write what the branches of a run append in this turn of the event loop."""
        await asyncio.sleep(0)  # the first branch that continues submits the entries of all
        await self.flush()

    async def announce(self) -> None:
        """Commit what announces a call or a request; it is made when this returns.

        The lease may end during the commit. After another process has taken over the run, this one makes no
        call that the other one may have settled or repeated.

        Raises:
            Fenced: another process executes this run now.
        """
        await self.flush()
        await self.require_lease()

    def _submit(self) -> None:
        """Give everything that waits to the store."""
        if self._halted is None and (self._waiting or self._waits_beside_entries()):
            self._hand_over(None)

    def _waits_beside_entries(self) -> bool:
        """Return whether anything but entries waits for the next commit."""
        return bool(
            self._asked or self._voids or self._announced or self._holds or self._blobs or self._children
        )

    async def end(self, move: Move) -> bool:
        """Commit all waiting entries together with the end of this execution.

        Returns:
            Whether a question of the run was settled meanwhile.
        """
        while self._halted is not None:
            await _ended(self._halted)
        await self._committed()
        last = self._hand_over(move.counted(self._seq, self.usage))
        await self._committed()
        return last.result()

    def _hand_over(self, move: Move | None) -> asyncio.Future[bool]:
        write = self._next_write(move)
        written = self._store.write(
            self._migrations.written(write) if self._migrations is not None else write
        )
        flying = written if isinstance(written, asyncio.Future) else asyncio.ensure_future(written)
        if write.children:
            flying.add_done_callback(partial(self._begin_tasks, write.children))
        if flying.done() and not flying.cancelled() and flying.exception() is None:
            return flying  # a store in memory: nothing to wait for
        if isinstance(flying, asyncio.Task):  # of a store whose `write` is a coroutine
            flying.add_done_callback(_look_at)
        self._in_flight.append(flying)
        self._handed += 1
        return flying

    def _begin_tasks(self, children: Sequence[Child], committed: asyncio.Future[Any]) -> None:
        """Begin to execute the tasks of a committed write here, or report those of a queue.

        Called for each write, also when the waiter of the launch is cancelled: this process has their leases.
        """
        if not committed.cancelled() and committed.exception() is None and self._begin is not None:
            for child in (each for each in children if each.run.parent is not None):
                queued = child.run.queued
                self._begin(child.run.run_id, self._run_id, None if queued is None else queued.queue)

    def _next_write(self, move: Move | None) -> Write:
        """Return a write of everything that waits, which waits no longer."""
        entries, self._waiting = tuple(self._waiting), []
        if not self._waits_beside_entries():
            write = new_write(run_id=self._run_id, fence=self._fence, entries=entries, move=move)
        else:
            write = new_write(
                run_id=self._run_id,
                fence=self._fence,
                entries=entries,
                move=move,
                pauses=tuple(self._asked),
                voids=tuple(self._voids),
                intents=tuple(self._announced),
                holds=tuple(self._holds.values()),
                blobs=self._blobs,
                children=self._children,
            )
            self._asked, self._voids, self._announced, self._holds, self._blobs = [], [], [], {}, {}
            self._children = ()
        return write

    # Transactions of tools -------------------------------------------------------------------------------

    @property
    def transactional(self) -> TransactionalStore | None:
        """The store, if its database can be written to by a tool."""
        return self._store if isinstance(self._store, TransactionalStore) else None

    async def begin(self, store: TransactionalStore, timeout_s: float | None) -> Transaction:
        """Begin a transaction for a tool call. Nothing may be submitted while it has the writer."""
        if not self.may_begin():
            await self.renew_lease()
        return await store.begin(self._run_id, timeout_s)

    async def halt(self, holder: object) -> None:
        """Commit what waits, and submit nothing until `go_on`, so that entries are numbered without a gap.

        Idempotent for one holder.
        """
        if self._holder is holder:
            return
        await self.flush()
        while self._halted is not None or self._waiting or self._waits_beside_entries():
            await self.flush()
        self._halted, self._holder = asyncio.get_running_loop().create_future(), holder

    def go_on(self, holder: object) -> None:
        """Submit entries again, if `holder` has halted the journal."""
        if self._halted is not None and self._holder is holder:
            self._halted.set_result(None)
            self._halted = self._holder = None

    async def commit_in(self, transaction: Transaction, entry: Entry, intent: Intent, holder: object) -> None:
        """Commit the entry of a call, and what waits, in the transaction that the tool has written in.

        `holder` has halted the journal. A cancelled waiter does not undo the commit.

        Raises:
            Fenced: another process executes this run now.
            StateBackendUnavailable: whether it is committed is unknown; a resumed run finds out.
            TransactionRefused: the database has refused the commit; nothing is committed.
        """
        self.record_intent(intent)
        self._seq += 1
        self._waiting.append(entry.numbered(self._seq))
        write = self._next_write(None)
        stored = self._migrations.written(write) if self._migrations is not None else write
        committing = asyncio.ensure_future(transaction.commit(stored))
        committing.add_done_callback(partial(self._has_committed, write, holder))
        await _ended(committing)
        committing.result()

    def _has_committed(self, write: Write, holder: object, committing: asyncio.Future[None]) -> None:
        """Count the entry of a committed call, or take back everything that was to be committed with it."""
        *earlier, entry = write.entries
        error = asyncio.CancelledError() if committing.cancelled() else committing.exception()
        if error is None:
            self._count(entry, entry.path)
            if self._observer is not None:
                self._observer.recorded(entry)
            self._begin_tasks(write.children, committing)
        elif isinstance(error, StateError):
            self.broken = self.broken or error
        else:
            self._seq -= 1
            later = [each.numbered(each.seq - 1) for each in self._waiting]
            *intents, mine = write.intents
            self._waiting = [*earlier, *later]
            self._asked, self._voids = [*write.pauses, *self._asked], [*write.voids, *self._voids]
            self._announced = [*intents, *self._announced]
            self._intents = {path: each for path, each in (self._intents or {}).items() if each is not mine}
            self._holds = {(each.path, each.number): each for each in write.holds} | self._holds
            self._blobs = {**write.blobs, **self._blobs}
            self._children = write.children + self._children
        self.go_on(holder)

    async def _committed(self) -> None:
        """Wait until every submitted write is committed.

        Waits for the newest write first. The others have ended by then, so that a hundred concurrent parts
        of a run do not each wait for every write.
        """
        until = self._handed
        if self._in_flight:
            await _ended(self._in_flight[-1])
        while self._in_flight and self._handed - len(self._in_flight) < until:
            oldest = self._in_flight[0]
            if not oldest.done():
                await _ended(oldest)
                continue
            del self._in_flight[0]
            self.broken = self.broken or oldest.exception()
        if self.broken is not None:
            raise self.broken

    def _same(self, entry: Entry, fingerprint: str) -> Entry:
        if entry.fingerprint != fingerprint:
            raise JournalConflict(
                f"the journal has a step of kind {entry.fingerprint!r} at `{shown(entry.path)}`, "
                f"and the blueprint has a step of kind {fingerprint!r}",
                path=entry.path,
                recorded=entry.fingerprint,
                now=fingerprint,
            )
        return entry


def _admit(entry: Entry) -> None:
    for value in (entry.input, entry.output, entry.patch, entry.detail):
        if value is not None:
            GATE.admit(value, f"a value of `{shown(entry.path)}`")


def encoded(value: Any, what: str) -> bytes:
    """Return a value of the run, encoded for the journal.

    Raises:
        NotJournalable: it is not JSON.
        SecretInValue: it contains a known secret.
    """
    data = canonical.encode(value, what=what)
    return GATE.admit(data, what) if GATE.knows_secrets else data


def success(entry: Entry) -> Success:
    """Return the outcome of a step, from its final entry."""
    facts = canonical.decode(entry.detail) if entry.kind is EntryKind.DONE and entry.detail else {}
    return Success(canonical.decode(entry.output or b"null"), facts=facts)


async def _ended(write: asyncio.Future[Any]) -> None:
    """Wait until a write has ended, with or without an error; cancelling this does not affect others."""
    if not write.done():
        # The same as `asyncio.shield` at half the cost, because it is called for every step.
        ended = write.get_loop().create_future()
        write.add_done_callback(partial(_wake, ended))
        await ended


def _wake(ended: asyncio.Future[None], _: asyncio.Future[bool]) -> None:
    if not ended.done():
        ended.set_result(None)


def _look_at(write: asyncio.Future[bool]) -> None:
    """Retrieve the result of a write, because all of its waiters may have been cancelled."""
    if not write.cancelled():
        write.exception()
