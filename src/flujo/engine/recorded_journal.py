"""The journal of a recorded run, for a replay: it is only read, and the walk is compared with it.

To the walk it looks like the journal of a new run. So composites are walked inside although they have ended,
and each decision, each end of a composite and each answer is computed once more. What is missing in the
record is either a difference, or the place where the run had come to: see `missing`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from flujo.domain import canonical, merge
from flujo.domain.differences import Cause, Difference
from flujo.domain.journal import EntryKind, EntryStatus
from flujo.domain.paths import bounds, indexed, is_inside, level, ranges_of, without_counts
from flujo.domain.run import Progress, RunStatus
from flujo.domain.usage import NOTHING
from flujo.engine.journal import Journal, success
from flujo.engine.recording import EndOfRecord, question_of
from flujo.exceptions import AgentChanged, FlujoError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.outcomes import Success
    from flujo.domain.paths import StepPath
    from flujo.domain.run import Child, Pause, RunRecord
    from flujo.domain.store import JournalStore
    from flujo.domain.transactions import TransactionalStore
    from flujo.domain.usage import Usage
    from flujo.engine.context_isolation import ContextScope
    from flujo.engine.recording import Recording
    from flujo.exceptions import JournalConflict

_RESULTS = (EntryKind.WORK, EntryKind.ANSWER)


class RecordedJournal(Journal):
    """Reads the record of a run, writes nothing, and tells each difference.

    Args:
        recording: the record.
        tell: called with each difference; it may raise, or collect them.
        until: the walk ends after the step at this path.
        servers: the MCP servers whose tools are known; the tools of others are not compared.
        absent: the tools whose code is not here; they are not compared.
    """

    __slots__ = (
        "_absent",
        "_beyond",
        "_ended",
        "_is_over",
        "_known_at",
        "_recording",
        "_servers",
        "_tell",
        "_until",
        "failed",
        "missing",
        "seen",
    )

    def __init__(
        self,
        recording: Recording,
        tell: Callable[[Difference], None],
        until: StepPath | None = None,
        servers: Collection[str] = (),
        absent: Collection[str] = (),
    ) -> None:
        # Its store is never called: every method that would is below.
        start = Progress(usage=recording.run.usage, pauses=tuple(recording.pauses))
        super().__init__(cast("JournalStore", None), recording.run, start, is_durable=False)
        self.is_blank = False
        self._recording = recording
        self._tell = tell
        self._until = until
        self._servers = servers
        self._absent = absent
        self._is_over = False
        self._beyond: set[StepPath] = set()
        """The items at which the record of an iterator ends."""
        self._intents = {
            intent.path: intent for intent in sorted(recording.intents, key=lambda one: one.sends)
        }
        self._known_at: dict[StepPath, dict[EntryKind, list[Entry]]] = {}
        for entry in recording.entries:
            self._known_at.setdefault(entry.path, {}).setdefault(entry.kind, []).append(entry)
        for kinds in self._known_at.values():
            for known in kinds.values():
                known.sort(key=lambda entry: entry.attempt)
        self._ended: dict[StepPath, Entry] = {}
        """What the walk has computed and the record lacks."""
        self.seen: set[StepPath] = set()
        """The paths to which the walk has come."""
        self.missing: list[StepPath] = []
        """The paths at which the record has nothing, in the order of the walk."""
        self.failed: list[StepPath] = []
        """The steps that have failed in the record as well."""

    # What the walk reads -----------------------------------------------------------------------------------

    @property
    def run(self) -> RunRecord:
        """The recorded run."""
        return self._recording.run

    def stored_path(self, path: StepPath) -> StepPath:
        """Return the path under which the run has recorded `path`: keys and ids of tasks are made from it."""
        return self._recording.applied.old(path)

    @property
    def is_whole(self) -> bool:
        """Whether the run has completed, so that its record says everything."""
        return self.run.status is RunStatus.COMPLETED

    @property
    def is_over(self) -> bool:
        """Whether the walk has come to the end of `until`."""
        return self._is_over

    def attempts(self, path: StepPath, kind: EntryKind) -> list[Entry]:
        """Return the decisions at `path`; of a step, the failed attempts before its success or its failure.

        The failures of a composite that has succeeded are left out, because the walk goes through it once.
        """
        known = self._at(path, kind)
        if kind is EntryKind.DECISION or "!" in path:
            return list(known)
        failed = [entry for entry in known if entry.status is EntryStatus.FAILED]
        if kind is EntryKind.DONE and failed and len(failed) < len(known) and not _is_instead(known[-1]):
            return []
        return failed

    def decision(self, path: StepPath, attempt: int = 1) -> Entry | None:
        """Return the decision recorded at `path`; of an unended iterator, one item more than it gave.

        Raises:
            EndOfRecord: for that item.
        """
        found = super().decision(path, attempt)
        if found is None and path in self._beyond:
            raise EndOfRecord
        if found is None and attempt == 1 and (items := self._items(path)):
            self._beyond.add(indexed(path, len(items)))
            return replace(items[0], path=path, output=canonical.encode(len(items) + 1))
        return found

    def _items(self, path: StepPath) -> Sequence[Entry]:
        """Return the decisions about the items that an iterator gave."""
        items: list[Entry] = []
        while known := self._at(indexed(path, len(items)), EntryKind.DECISION):
            items.append(known[0])
        return items

    def ended(self, path: StepPath) -> Entry | None:
        """Return the entry with which a leaf step ended: its result, otherwise its last failed attempt."""
        known = [entry for kind in _RESULTS for entry in self._at(path, kind)]
        done = [entry for entry in known if entry.status is EntryStatus.COMPLETED]
        return done[-1] if done else known[-1] if known else None

    def copied(self, path: StepPath, kind: EntryKind = EntryKind.WORK) -> Entry | None:
        """Return the last entry at `path` that a fork has in common with its parent."""
        known = [entry for entry in self._at(path, kind) if entry.seq <= self._recording.copied]
        return known[-1] if known else None

    def pause(self, path: StepPath) -> Pause | None:
        """Return the question of the step at `path`: also one that the parent of a fork had."""
        own = super().pause(path)
        entry = self.copied(path, EntryKind.ANSWER) if own is None and "!" not in path else None
        return own if entry is None else question_of(entry)

    def asked(self, path: StepPath) -> Pause | None:
        """Return the open question of the step at `path`, also one about a call or a limit."""
        own = (each for each in self._recording.pauses if each.is_open)
        return next((each for each in own if each.pause_id.partition("!")[0] == path), None)

    def recorded(self, path: StepPath, kind: str, scope: ContextScope) -> Success | None:
        """Return the outcome of a step whose answer came from a cache; None for all others: they are walked.

        Raises:
            EndOfRecord: the step at `until` has ended before.
        """
        del kind
        if self._is_over:
            raise EndOfRecord
        self.seen.add(path)
        done = self._at(path, EntryKind.DONE)
        if not done or not _is_cached(done[-1]):
            return None
        if done[-1].patch is not None:
            scope.tree = merge.apply(scope.tree, canonical.decode(done[-1].patch))
        self.end_at(path)
        return success(done[-1])

    def written(self, path: StepPath) -> merge.Patch:
        """Return what the step at `path` wrote to the context."""
        for kind in (*_RESULTS, EntryKind.DONE):
            for entry in self._at(path, kind):
                if entry.status is EntryStatus.COMPLETED and entry.patch is not None:
                    patch: merge.Patch = canonical.decode(entry.patch)
                    return patch
        return []

    def end_at(self, path: StepPath) -> None:
        """Note that the step at `path` has ended."""
        self._is_over = self._is_over or path == self._until

    def continues(self, path: StepPath) -> bool:
        """Return whether the record has an entry at `path`."""
        return path in self._known_at

    def spend(self, path: StepPath) -> None:
        """Count the usage of all attempts at `path` for the result of its step."""
        used: Usage = NOTHING
        for kinds in self._known_at.get(path, {}).values():
            for entry in kinds:
                used += entry.usage
        if used:
            self._used[path] = used

    def attached(self, path: StepPath) -> Entry | None:
        """Return the newest entry at `path` that names contents.

        Raises:
            EndOfRecord: there is none, and nothing is read from disk.
        """
        known = self._at(path, EntryKind.DECISION)
        if not known:
            self.miss(path)
            raise EndOfRecord
        return known[-1]

    async def read(self, paths: Sequence[StepPath]) -> Sequence[Entry]:
        """Return the entries at some paths, also those with which a step has ended beyond the record."""
        found = [kinds for path in paths for kinds in self._known_at.get(path, {}).values()]
        ended = [self._ended[path] for path in paths if path in self._ended]
        return [*(entry for entries in found for entry in entries), *ended]

    async def contents(self, digests: Collection[str]) -> Mapping[str, bytes]:
        """Return contents of the run by their digests.

        Raises:
            CorruptState: one is missing, or its bytes have another digest.
        """
        return await self._recording.blobs.blobs(list(digests))

    async def once(self, path: StepPath, kind: EntryKind, work: object, *, attempt: int = 1) -> Entry:
        """Return the recorded entry.

        Raises:
            EndOfRecord: there is none, and nothing is called.
        """
        del work
        for entry in self._at(path, kind):
            if entry.attempt == attempt:
                return entry
        self.miss(path)
        raise EndOfRecord

    def _at(self, path: StepPath, kind: EntryKind) -> Sequence[Entry]:
        return self._known_at.get(path, {}).get(kind, ())

    # What the walk computes --------------------------------------------------------------------------------

    def append_deferred(self, entry: Entry, *, of: StepPath | None = None) -> Entry:
        """Compare an entry with the recorded one; a failure is compared where it ends the run."""
        del of
        self.seen.add(entry.path)
        if entry.status is EntryStatus.FAILED:
            return entry
        before = self._before(entry)
        if before is None:
            self._ended[entry.path] = entry
            if bounds(entry.path) is None:  # a range is a summary, and the run may have made others
                self.miss(entry.path)
            return entry
        if entry.status is not before.status:
            self.tell(entry.path, "decision", str(before.status), str(entry.status))
        if entry.kind is EntryKind.WORK:
            self.compare(entry.path, "input", before.input, entry.input)
        self.compare(entry.path, "output", before.output, entry.output)
        self.compare(entry.path, "context", before.patch, entry.patch)
        if entry.kind is EntryKind.DONE and bounds(entry.path) is None:
            self.compare(entry.path, "output", before.detail, entry.detail)
        self.end_at(entry.path)
        return entry

    def _before(self, entry: Entry) -> Entry | None:
        known = self._at(entry.path, entry.kind)
        if entry.kind is EntryKind.DECISION:
            return next((one for one in known if one.attempt == entry.attempt), None)
        return next((one for one in reversed(known) if one.status is not EntryStatus.FAILED), None)

    def compare(self, path: StepPath, cause: Cause, before: bytes | None, now: bytes | None) -> None:
        """Tell a difference between two canonical values."""
        if before != now:
            self.tell(path, cause, _json(before), _json(now))

    def tell(self, path: StepPath, cause: Cause, before: Any, now: Any, expression: str = "") -> None:
        """Tell a difference."""
        self._tell(Difference(path, cause, before, now, expression))

    def differs(self, conflict: JournalConflict) -> None:
        """Tell a decision that is another one now, or an agent that has changed."""
        path = cast("StepPath", conflict.path)
        if not isinstance(conflict, AgentChanged):
            told = conflict.facts.get("expression", "")
            self.tell(path, "decision", conflict.recorded, conflict.now, told)
            return
        for name in conflict.changed:
            key, _, tool = name.partition(" ")
            before, now = ((each or {}).get("tools", {}) if tool else each for each in _both(conflict))
            server = before.get(tool, {}).get("server") if tool else None
            is_unknown = server is not None and server not in self._servers
            if tool not in now and (is_unknown or tool in self._absent):
                continue
            self.tell(path, _CAUSES.get(key, "schema"), before.get(tool or key), now.get(tool or key))

    def keeps(
        self, path: StepPath, recorded: bytes | None, given: Callable[[], bytes], cause: Cause = "prompt"
    ) -> bool:
        """Compare what the step at `path` gets now with the record, and use the record."""
        self.compare_given(path, cause, recorded, given)
        return True

    def compare_given(
        self, path: StepPath, cause: Cause, before: bytes | None, given: Callable[[], bytes]
    ) -> None:
        """Compare what a step gets; that it cannot be computed any more is a difference as well."""
        try:
            now = given()
        except FlujoError as error:
            self.tell(path, cause, _json(before), {"error": error.message})
        else:
            self.compare(path, cause, before, now)

    def miss(self, path: StepPath) -> None:
        """Note that the record has nothing at `path`, which is a difference when the run has completed.

        It is none at a composite into which recorded steps have moved.
        """
        self.seen.add(path)
        if without_counts(path) in self._recording.applied.shells:
            return
        self.missing.append(path)
        if self.is_whole:
            self.tell(path, "new step", None, path)

    # What the walk would write ------------------------------------------------------------------------------

    def ask(self, pause: Pause) -> Pause:
        """Return a question, and open none."""
        if self.pause(pause.pause_id) is None:
            self.miss(pause.pause_id)
        return pause

    def keeps_back(self, *, wait: bool) -> bool:
        """Return that nothing must be committed."""
        del wait
        return True

    async def flush(self) -> None:
        """Commit nothing."""

    async def reload(self) -> None:
        """Read nothing again."""

    async def load_level(self, path: StepPath) -> None:
        """Load nothing: everything is loaded."""

    async def load_at(self, paths: Sequence[StepPath]) -> None:
        """Load nothing: everything is loaded."""

    async def level(self, path: StepPath) -> Sequence[Entry]:
        """Return no entries, so that a map goes through each item of its ranges."""
        del path
        return ()

    async def ranges(self, path: StepPath, *, after: int = 0) -> Sequence[Entry]:
        """Return the entries about ranges of items of the map at `path`."""
        found = [entry for entry in self._recording.entries if level(entry.path) == ranges_of(path)]
        return [entry for entry in found if entry.seq > after]

    def forget(self, path: StepPath) -> None:
        """Keep the entries."""

    def keep(self, data: bytes) -> str:
        """Return the digest of a blob, which is not written."""
        return canonical.digest(data)

    def launch(self, child: Child) -> None:
        """Launch nothing."""

    def void_below(self, path: StepPath) -> None:
        """Close no question."""

    def void(self, pauses: Sequence[Pause]) -> None:
        """Close no question."""

    @property
    def transactional(self) -> TransactionalStore | None:
        """A database that takes the transactions of every tool; it is not used."""
        return cast("TransactionalStore", _Any())

    # Afterwards ---------------------------------------------------------------------------------------------

    def lost(self) -> list[StepPath]:
        """Return the recorded steps to which the walk has not come, in the order of the record.

        A composite that has failed is not walked inside, and the failure of a concurrent step may come before
        steps that had begun earlier.
        """
        closed = [path for path in self._known_at if self.attempts(path, EntryKind.DONE)]
        failed = {path.partition("/")[0].partition("[")[0].partition(":")[0] for path in self.failed}
        return list(
            dict.fromkeys(
                entry.path
                for entry in self._recording.entries
                if _is_step(entry)
                and entry.path not in self.seen
                and not any(is_inside(entry.path, path) for path in closed)
                and not any(is_inside(entry.path, cast("StepPath", path)) for path in failed)
            )
        )


class _Any:
    lends_writer = False


_CAUSES: Mapping[str, Cause] = {"model": "model", "instructions": "instructions", "tool": "tools"}
"""The cause of each part of an agent that differs."""


def _both(conflict: JournalConflict) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return conflict.recorded, conflict.now


def _is_step(entry: Entry) -> bool:
    """Return whether a step has ended with an entry: not an iteration, an item, a turn or a question."""
    name = entry.path.rpartition("/")[2]
    is_end = entry.kind is not EntryKind.DECISION and entry.status is not EntryStatus.FAILED
    return is_end and not any(mark in name for mark in "[:!")


def _facts(entry: Entry) -> Any:
    return canonical.decode(entry.detail) if entry.detail else {}


def _is_cached(entry: Entry) -> bool:
    return entry.status is EntryStatus.COMPLETED and _facts(entry).get("cached") is True


def _is_instead(entry: Entry) -> bool:
    """Return whether a completed composite has failed, and its `on_failure` or `on_error` gave the output."""
    return not _facts(entry).keys().isdisjoint(("failed", "error"))


def _json(value: bytes | None) -> Any:
    return None if value is None else canonical.decode(value)
