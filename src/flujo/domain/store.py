"""The port to storage by concern: runs, journals, questions, blobs. SQL and memory implement all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

    from flujo.domain.acts import Act, Actor
    from flujo.domain.journal import Entry, RunId
    from flujo.domain.ledger import Ledger
    from flujo.domain.paths import StepPath
    from flujo.domain.run import (
        Due,
        Intent,
        NewRun,
        Pause,
        Progress,
        Purged,
        RunQuery,
        RunRecord,
        RunStatus,
        Write,
    )


class RunStore(Protocol):
    """Accepts runs, and decides which process executes one."""

    def accept(self, run: NewRun, blobs: Mapping[str, bytes], *, claim: bool = True) -> Awaitable[RunRecord]:
        """Record a run and the blobs it needs (digest → bytes); committed when the awaitable returns.

        With `claim` the caller owns the run at once (status `running`, a lease, fence 1), otherwise the run
        is `accepted` and free to be claimed. A returned record with `owner` of this store is claimed.

        Raises:
            RunConflict: the id is taken by a run with another closure or input.
            ResumeConflict: the id is taken by a run with this closure and input; `record` has it.
        """
        ...

    def claim(
        self,
        run_id: RunId,
        *,
        statuses: Sequence[RunStatus],
        recovering: bool = False,
        act: Act | None = None,
    ) -> Awaitable[RunRecord]:
        """Take the run over: status `running`, a lease, the fence one higher.

        A run without an owner is free at once, and so is one whose owner's lease has lapsed or whose owner is
        provably dead on this host.

        Args:
            run_id: the run.
            statuses: the statuses in which the caller takes it.
            recovering: no user asked for this claim. `recoveries` of the record counts such claims from a
                dead owner since the run's journal last grew; any other claim sets the count to 0.
            act: who made the user's wish that leads to this claim, recorded with it.

        Raises:
            RunNotFound: there is no such run.
            ResumeConflict: a living owner holds it (`owner`, `lease_left_s`), this store included; or its
                status is none of `statuses` (`status`).
        """
        ...

    async def cancel(self, run_id: RunId, actor: Actor) -> RunRecord:
        """Record the wish that a run be cancelled; its owner fulfils it. The first wish stays.

        The owner of a run is never fenced off by this. A run without a living owner keeps the wish until a
        store claims it.

        Raises:
            RunNotFound: there is no such run.
            ResumeConflict: it has ended already.
        """
        ...

    def on_wish(self, run_id: RunId, callback: Callable[[], None]) -> None:
        """Call `callback` in this event loop once there is a wish for a run that this store owns.

        Forgotten when the run is released or let go. A wish from before the claim is in the claimed record.
        """
        ...

    def let_go(self, run_id: RunId) -> None:
        """Stop holding a run whose release could not be written.

        This store may claim it again at once, any other one after the lease.
        """
        ...

    async def run(self, run_id: RunId) -> RunRecord:
        """Return a run.

        Raises:
            RunNotFound: there is none.
        """
        ...

    async def find(self, text: str) -> RunRecord:
        """Return the run that a user means: an id, a unique prefix of one, or `@last`.

        Raises:
            RunNotFound: none or several match; the message lists the candidates.
        """
        ...

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Return the runs that match, newest first.

        Raises:
            SettingsError: a metadata key that is not an identifier.
        """
        ...

    async def due(
        self, *, closures: Collection[str] | None = None, without: Collection[str] = (), limit: int = 100
    ) -> Due:
        """Return expired questions and runs without a living owner, by the store's clock.

        Args:
            closures: only runs that have pinned one of these; None for any. Questions are of all runs.
            without: no runs that have pinned one of these.
            limit: at most so many questions, and so many runs.
        """
        ...


class QuestionSource(Protocol):
    """Reads the questions that runs ask humans."""

    async def pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions of a run, in the order in which they were asked."""
        ...


class QuestionStore(QuestionSource, Protocol):
    """Settles questions: the first answer or the deadline wins."""

    async def answer(
        self, run_id: RunId, pause_id: StepPath, answer: bytes, *, actor: Actor | None = None
    ) -> Pause:
        """Record an answer, and the act of who gave it; the first one wins.

        Raises:
            RunNotFound: no such question (`hint` lists the open ones).
            ResumeConflict: it is answered already with another value, void, or its deadline has passed and
                was acted on. The same answer again is fine.
        """
        ...

    async def expire(self, run_id: RunId, pause_id: StepPath) -> Pause:
        """Settle a question whose deadline has passed; an answer that came first stays.

        Returns:
            The question as it is now: `is_expired`, or answered, void, or open because it is not time yet.

        Raises:
            RunNotFound: no such question.
        """
        ...


class JournalSource(QuestionSource, Protocol):
    """Reads what runs have recorded; needs no right to write."""

    async def entries(self, run_id: RunId, *, parent: StepPath | None = None) -> list[Entry]:
        """Return the journal in order: all of it, or the level right below `parent`.

        Raises:
            CorruptState: an entry's digest differs, or (for the whole journal) one is missing.
        """
        ...

    async def progress(self, run_id: RunId) -> Progress:
        """Return how far the run is: where its journal ends, its usage, and what a walk reads first."""
        ...

    async def ledger(self, run_id: RunId) -> Ledger:
        """Return what each attempt used and when, and what is held back of the run's budget."""
        ...

    async def intents(self, run_id: RunId) -> list[Intent]:
        """Return the calls that a run has announced, in the order in which they were sent last."""
        ...

    async def acts(self, run_id: RunId) -> list[Act]:
        """Return who changed a run, in order."""
        ...


class JournalStore(JournalSource, Protocol):
    """Reads and writes the journal of a run that this store has claimed."""

    def write(self, write: Write) -> Awaitable[bool]:
        """Enqueue a write; the awaitable returns when it is committed. Writes of one run keep their order.

        Cancelling the waiter does not take the write back.

        Returns:
            For a write with a `move`: whether a question of the run was settled since it was claimed, so
            that a run which just paused can resume at once.

        Raises (from the awaitable):
            Fenced: the fence is no longer the run's; nothing was written.
            StateBackendUnavailable | StateBackendFull: nothing was written.
        """
        ...

    def may_begin(self, run_id: RunId) -> bool:
        """Return whether work of a run may begin at once: by this process's own clock its lease still lasts.

        If not, another process may own the run. An empty `write` finds out: it renews the lease, or is
        refused as `Fenced`.
        """
        ...


class BlobStore(Protocol):
    """Reads content by its digest."""

    async def blobs(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return content-addressed blobs.

        Raises:
            CorruptState: a blob is missing or its bytes differ from its digest.
        """
        ...


class StateStore(RunStore, JournalStore, QuestionStore, BlobStore, Protocol):
    """Where runs and their journals are kept; `flujo.testing.StateStoreSuite` tests an implementation."""

    async def aclose(self) -> None:
        """Write what is enqueued, release every lease, close. Idempotent."""
        ...


class CacheBackend(Protocol):
    """Where answers are kept beyond a run. An exception is a miss: a cache never fails a run."""

    async def get(self, key: str) -> bytes | None:
        """Return the value that was put under `key`, byte for byte; None when it is missing or expired."""
        ...

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Keep a value, replacing the one under the same key.

        Args:
            key: a digest in hexadecimal.
            value: the bytes to return later.
            ttl_s: the seconds after which it expires; None for as long as there is room.
        """
        ...


class DurableStore(StateStore, Protocol):
    """A store that outlives the process: it also keeps cached answers, and deletes what is old."""

    def cache(self) -> CacheBackend:
        """Return a cache in the same database; usable until the store is closed."""
        ...

    async def count_purgeable(self, statuses: Sequence[RunStatus], older_than_s: float) -> int:
        """Return how many runs `purge` would delete."""
        ...

    def purge(
        self, statuses: Sequence[RunStatus], older_than_s: float, *, batch: int, actor: Actor | None = None
    ) -> AsyncIterator[Purged]:
        """Delete old runs, expired cached answers, and blobs that no run names any more.

        Args:
            statuses: of the runs to delete, each in `PURGEABLE`.
            older_than_s: how many seconds ago a run was touched last.
            batch: how many rows of a kind one transaction deletes.
            actor: who purges; each transaction that deletes runs records it with their ids.

        Yields:
            The totals after each batch.
        """
        ...
