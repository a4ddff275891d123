"""The storage protocols, by concern: runs, journals, questions, feeds, blobs, caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from flujo.domain.providers import RequestStore
from flujo.domain.questions import CLAIMED_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

    from flujo.domain.access import Session, Token
    from flujo.domain.acts import Act, Actor, ActQuery
    from flujo.domain.erasure import Family, Proof, Subject
    from flujo.domain.evaluations import Evaluation, EvaluationQuery
    from flujo.domain.feed import FeedLine
    from flujo.domain.figures import Figure, FigureQuery
    from flujo.domain.journal import Entry, RunId
    from flujo.domain.key_counts import KeyCounts, Rotated
    from flujo.domain.ledger import Hold, Ledger
    from flujo.domain.outbox import Message, MessageState, Tried
    from flujo.domain.paths import StepPath
    from flujo.domain.questions import OpenQuestion, QuestionClaim, QuestionQuery
    from flujo.domain.queues import ClaimOrder, QueueState, WorkerRecord, WorkerState
    from flujo.domain.recorded_run import RecordedRun
    from flujo.domain.run import (
        Due,
        GivenAnswer,
        Intent,
        NewRun,
        Pause,
        Progress,
        Purged,
        RunGroup,
        RunQuery,
        RunRecord,
        RunStatus,
        Write,
    )
    from flujo.domain.schedule_records import Changed, ScheduleChange, Schedules
    from flujo.domain.sent_events import Delivery, NewEvent, SentEvent
    from flujo.domain.shared_budgets import Counted


class RunStore(Protocol):
    """Accepts runs, and decides which process executes one."""

    def accept(self, run: NewRun, blobs: Mapping[str, bytes], *, claim: bool = True) -> Awaitable[RunRecord]:
        """Record a run and the blobs it needs (digest → bytes); committed when the awaitable returns.

        With `claim` the caller owns the run at once (status `running`, a lease, fence 1), otherwise the run
        is `accepted` and free to be claimed. A returned record with `owner` of this store is claimed.

        The entries and acts of the new run are recorded in the same commit.

        Raises:
            RunNotFound: there is no run that one of its acts is on.
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
        answer: GivenAnswer | None = None,
    ) -> Awaitable[RunRecord]:
        """Claim a run: status `running`, a new lease, the fence increased by one.

        A run can be claimed when it has no owner, when its owner's lease has expired, or when its owner is
        known to be dead on this host.

        Args:
            run_id: the run.
            statuses: the accepted statuses of the run.
            recovering: whether recovery, not a user, makes this claim. `recoveries` of the record counts such
                claims from a dead owner since the run's journal last grew; other claims set the count to 0.
            act: the user's act that leads to this claim, recorded with it.
            answer: recorded in the same commit, before the claim, as `answer` does. It is recorded as well
                when the claim is refused. The returned record has the run's `pauses`.

        Raises:
            RunNotFound: there is no such run, or no such question.
            ResumeConflict: a living owner holds it (`owner`, `lease_left_s`), this store included; or its
                status is not one of `statuses` (`status`). With `won`, the answer was refused, and nothing
                is changed.
        """
        ...

    async def cancel(self, run_id: RunId, actor: Actor) -> RunRecord:
        """Record a request to cancel a run; its owner carries it out. The first request stays.

        This does not fence off the owner. A run without a living owner keeps the request until a store claims
        it.

        Raises:
            RunNotFound: there is no such run.
            ResumeConflict: it has already ended.
        """
        ...

    def on_wish(self, run_id: RunId, callback: Callable[[], None]) -> None:
        """Call `callback` in this event loop when there is a request for a run that this store owns.

        Removed when the run is released or let go. A request from before the claim is in the claimed record.
        """
        ...

    def let_go(self, run_id: RunId) -> None:
        """Give up a run whose release could not be written.

        This store may claim it again at once, other stores after the lease.
        """
        ...

    async def run(self, run_id: RunId) -> RunRecord:
        """Return a run.

        Raises:
            RunNotFound: there is none.
        """
        ...

    async def find(self, text: str) -> RunRecord:
        """Return the run for an id, a unique prefix of an id, or `@last`.

        A prefix of the ids of one chain means its first run, or the earliest one that is there. So does the
        id of a first run that is purged.

        Raises:
            RunNotFound: none or several match; the message lists the candidates.
        """
        ...

    async def find_with_progress(self, text: str) -> tuple[RunRecord, Progress | None]:
        """Return the run that `find` returns, and its progress when it has no owner; one read.

        The run is read before its progress. So the progress stays true, apart from its questions, until a
        claim increases the fence of the returned run.

        Raises:
            RunNotFound: none or several match.
        """
        ...

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Return the runs that match, in the order of the query; runs of one moment by their ids.

        Raises:
            SettingsError: a condition that cannot be compared, or a cursor of another order.
        """
        ...

    async def count_runs(self, query: RunQuery, by: RunGroup) -> Mapping[str | None, int]:
        """Return how many runs match, in each group. The limit of the query does not count.

        Raises:
            SettingsError: as `runs`.
        """
        ...

    async def due(
        self, *, pipeline: str | None = None, without: Collection[str] = (), limit: int = 100
    ) -> Due:
        """Return expired questions and runs without a living owner, by the store's clock; none of a queue.

        Args:
            pipeline: only runs of this pipeline; None for any. Does not filter questions.
            without: excludes runs that have pinned one of these closures.
            limit: the maximum number of questions, and of runs.
        """
        ...


class QuestionSource(Protocol):
    """Reads the questions that runs ask humans."""

    async def pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions of a run, in the order in which they were opened."""
        ...


class QuestionStore(QuestionSource, Protocol):
    """Settles questions: the first answer or the deadline wins."""

    async def answer(
        self,
        run_id: RunId,
        pause_id: StepPath,
        answer: bytes,
        *,
        actor: Actor | None = None,
        seen: str | None = None,
    ) -> Pause:
        """Record an answer and the act of its author; the first answer wins.

        Args:
            run_id: the run.
            pause_id: the question.
            answer: canonical JSON.
            actor: who answers.
            seen: the `questions.seen_digest` of the question that was answered, which is compared in the
                transaction of the answer. None for the question that is open then.

        Raises:
            RunNotFound: no such question (`hint` lists the open ones).
            QuestionChanged: the run has asked again since, so this is not the question that was `seen`.
            ResumeConflict: it has another answer already, is void, or has expired. The same answer again
                is not an error.
        """
        ...

    async def answer_all(self, answers: Sequence[tuple[RunId, GivenAnswer]]) -> list[Pause]:
        """Record the answers to questions of several runs in one commit: all of them, or none.

        Raises:
            RunNotFound | ResumeConflict: as `answer`, for the first one that cannot be recorded; none is.
        """
        ...

    async def open_questions(self, query: QuestionQuery) -> list[OpenQuestion]:
        """Return the questions of all runs that wait for a human and match, the most urgent first.

        Those that were escalated come first, then those with a deadline by it, then the longest open.

        Raises:
            SettingsError: a condition that cannot be compared, or a limit out of bounds.
        """
        ...

    async def claim_question(
        self, run_id: RunId, pause_id: StepPath, by: str, *, lives_s: float = CLAIMED_S, take: bool = False
    ) -> QuestionClaim:
        """Claim a question for a person if it has no claim of another one, or with `take` in any case.

        The claim ends after `lives_s` seconds by the store's clock; the same person renews it. Others may
        answer nevertheless. Of two claims at the same time, one counts.

        Returns:
            The claim that counts now; its `by` says whose it is.

        Raises:
            RunNotFound: no such question.
        """
        ...

    async def release_question(self, run_id: RunId, pause_id: StepPath, by: str) -> bool:
        """End the claim of this person; return whether there was one."""
        ...

    async def escalate_question(self, run_id: RunId, pause_id: StepPath, by: str, reason: str) -> None:
        """End the claim of a question and put it before all others, for someone who can decide it.

        Raises:
            RunNotFound: no such question.
        """
        ...

    async def expire(self, run_id: RunId, pause_id: StepPath) -> Pause:
        """Settle a question whose deadline has passed; an earlier answer stays.

        Returns:
            The question as stored: expired, answered, void, or still open before its deadline.

        Raises:
            RunNotFound: no such question.
        """
        ...


class EventStore(Protocol):
    """Gives events from outside to the waits of runs."""

    async def send_event(self, event: NewEvent) -> Delivery:
        """Give an event to the wait that it is for, and record the act; keep it when there is no such wait.

        An event with a key goes to the longest open wait for its name and key whose schema it fits, or with
        `to_all` to every such wait. A kept event is taken by the write that opens a wait for it, and settles
        that wait in the same commit. An event that was sent before does nothing.

        Raises:
            RunNotFound: there is no such run.
            EventRefused: the run has ended.
            EventConflict: the id is taken by an event with another content.
            InputRejected: there are waits for it, and the payload fits none of them; it is not kept.
        """
        ...

    async def kept_events(self, run_id: RunId, *, limit: int = 100) -> list[SentEvent]:
        """Return the events that no run has taken, and that are to this run or for its open waits."""
        ...

    async def event_waits(self, name: str, key: str, *, limit: int = 100) -> list[tuple[RunId, Pause]]:
        """Return the open waits for a name and a key, the longest open first."""
        ...

    async def delete_old_events(self, older_than_s: float, *, limit: int) -> int:
        """Delete events of at least this age that no stored run has taken; return how many, up to `limit`."""
        ...

    def on_settled(self, callback: Callable[[RunId], None]) -> Callable[[], None]:
        """Call `callback` in this event loop when a wait of a run is settled, or elsewhere a question.

        A question that this process answers is left out, because who answers here decides who resumes the
        run. It is a hint: calls may be missing or superfluous, so what waits also looks by itself. Other
        processes are heard only on a database that tells them, a moment after the first call of this.

        Returns:
            What ends the calls.
        """
        ...


class JournalSource(QuestionSource, Protocol):
    """Reads the records of runs, without a claim."""

    async def entries(
        self,
        run_id: RunId,
        *,
        parent: StepPath | None = None,
        paths: Collection[StepPath] | None = None,
        after: int = 0,
    ) -> list[Entry]:
        """Return the journal in order: all of it, the level `parent`, the entries at `paths`, or later ones.

        At most one of the three is given, or `parent` and `after`, which stands for the entries with a
        greater `seq`.

        The level of an entry is `flujo.domain.paths.level` of its path: that of a step is its parent, and the
        ranges of a map have the level `map[..]`.

        Raises:
            CorruptState: an entry's digest differs, or (for the whole journal and `after`) one is missing.
        """
        ...

    async def progress(self, run_id: RunId) -> Progress:
        """Return the progress of a run: the end of its journal, its usage, and its first level of entries."""
        ...

    async def ledger(self, run_id: RunId) -> Ledger:
        """Return the usage and times of each attempt, and the holds of the run's budget."""
        ...

    async def intents(self, run_id: RunId) -> list[Intent]:
        """Return the announced calls of a run, ordered by their last sending."""
        ...

    async def acts(self, run_id: RunId) -> list[Act]:
        """Return the acts on a run, in order."""
        ...


class BlobStore(Protocol):
    """Reads content by its digest."""

    async def blobs(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return content-addressed blobs.

        Raises:
            CorruptState: a blob is missing or its bytes differ from its digest.
        """
        ...


class RunSource(JournalSource, BlobStore, Protocol):
    """Reads everything that is recorded of a run: a state store, or a file with an exported run."""

    async def run(self, run_id: RunId) -> RunRecord:
        """Return a run.

        Raises:
            RunNotFound: there is none.
        """
        ...


class JournalStore(RunSource, Protocol):
    """Reads and writes the journal of a run that this store has claimed."""

    async def reserve(self, run_id: RunId, fence: int, hold: Hold) -> None:
        """Write the hold of a request, if the budgets of several runs in its `shares` have room for it.

        All stores of the database count in the same budgets. A hold that is reserved once more is counted
        with its newest usage. A `write` with a hold of an ended attempt counts what it has used instead, in
        the windows of the reservation. Cancelling the waiter does not cancel it.

        Raises:
            SharedBudgetExceeded: one of them has no room; nothing was written.
            Fenced: the fence is no longer the run's; nothing was written.
            StateBackendUnavailable | StateBackendFull: nothing was written.
        """
        ...

    def write(self, write: Write) -> Awaitable[bool]:
        """Enqueue a write; the awaitable returns when it is committed. Writes of one run keep their order.

        Cancelling the waiter does not cancel the write.

        The end of a background task settles the waits of its parent whose tasks have all ended, in the same
        commit. A wait that is opened after that is settled at once. The cancellation of a run leaves a wish
        to cancel for each of its tasks that has not ended.

        Returns:
            For a write with a `move`: whether a question of the run was settled since the claim, so that
            a run that has just paused can resume at once.

        Raises (from the awaitable):
            Fenced: the fence is no longer the run's; nothing was written.
            StateBackendUnavailable | StateBackendFull: nothing was written.
        """
        ...

    async def budget_counters(self) -> list[Counted]:
        """Return every counter of budgets that several runs share, by name, scope and window."""
        ...

    async def now(self) -> float:
        """Return the time by the clock that begins windows of budgets: seconds since the epoch."""
        ...

    async def open_pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions and waits of a run that are open, in the order in which they were opened."""
        ...

    async def probe(self) -> None:
        """Return when the database answers; without trying again, and before reads that wait for it.

        Raises:
            StateError: it does not answer, or has another schema.
        """
        ...

    def may_begin(self, run_id: RunId) -> bool:
        """Return whether work of a run may start: by this process's own clock, its lease is still valid.

        If not, another process may own the run. An empty `write` decides that: it renews the lease, or raises
        `Fenced`.
        """
        ...


class QueueStore(Protocol):
    """Hands the runs of queues to workers, and lists both."""

    async def claim_next(self, order: ClaimOrder) -> list[RunRecord]:
        """Claim the next runs of queues, in one commit, by their `rank`.

        Runs that another store is claiming are left to it. A run can be claimed when it is accepted, or at a
        pause whose question was settled, or running without a living owner, and its time has come. The limits
        of its queue hold over all stores: what a living owner executes counts, so nothing has to be given
        back when an owner dies. `recoveries` and `suspicions` count as for `RunStore.claim` with
        `recovering`.

        Returns:
            At most `order.limit` runs, claimed.
        """
        ...

    async def next_available(
        self, queues: Sequence[str], *, without: Collection[str] = (), suspects: bool | None = None
    ) -> float | None:
        """Return in how many seconds the next run of these queues can be claimed, apart from limits.

        0 for now; None when there is none. Excludes runs that have pinned a closure of `without`. With
        `suspects`, True or False, only those that `ClaimOrder.suspects` means, or only the others.
        """
        ...

    def on_queued(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` in this event loop when a run has come into a queue.

        It is a hint: calls may be missing or superfluous. Other processes are heard only on a database that
        tells them.

        Returns:
            A function that ends the calls.
        """
        ...

    async def queue_states(self) -> list[QueueState]:
        """Return the queues that have runs which have not ended, by name."""
        ...

    async def report_worker(self, worker: WorkerRecord) -> WorkerState:
        """Record a sign of life of a worker, whose `owner` is this store's.

        Returns:
            Its state: that of `worker` at the first report and when that is `draining`, otherwise what
            `set_worker_state` has set.
        """
        ...

    async def set_worker_state(self, owner: str, state: WorkerState) -> bool:
        """Set the state of a worker, which it reads with its next report; return whether there is one."""
        ...

    async def forget_worker(self) -> None:
        """Remove this store's worker from the list."""
        ...

    async def workers(self) -> list[WorkerRecord]:
        """Return the living workers with the runs that they execute, by their start."""
        ...


class Outbox(Protocol):
    """Keeps the messages that moves of runs have written (`Move.notices`) until they are delivered."""

    async def messages(
        self,
        *,
        states: Collection[MessageState] = (),
        target: str | None = None,
        run_id: RunId | None = None,
        ids: Collection[int] | None = None,
        limit: int = 100,
    ) -> list[Message]:
        """Return the messages that match, the newest first; without conditions, all.

        Raises:
            CorruptState: a row is corrupt.
        """
        ...

    async def take_messages(self, targets: Collection[str], *, lease_s: float, limit: int) -> list[Message]:
        """Take messages to these targets that are due, the oldest first.

        Each is counted as tried, and no other store takes it before `lease_s` has passed.
        """
        ...

    async def settle_message(self, message: Message, tried: Tried) -> bool:
        """Record the result of a try; return False when the message was taken or settled since then.

        A message that is gone is not an error.
        """
        ...

    async def redeliver(self, ids: Collection[int]) -> int:
        """Make messages due at once, with as many tries as new ones have; return how many there are."""
        ...


class ScheduleStore(Protocol):
    """Keeps schedules, and starts their runs."""

    async def schedules(self) -> Schedules:
        """Return every schedule, by name, and the store's time."""
        ...

    async def change_schedule(self, change: ScheduleChange) -> Changed:
        """Make a change of one schedule, its act and its run one commit, if the schedule is as it was read.

        A run whose id exists already is not accepted again, and the change is made. A change whose commit is
        not acknowledged may have been made; then the schedule is not as it was read.

        Raises:
            NotJournalable | SettingsError: the run cannot be stored; see `RunStore.accept`.
        """
        ...


class EvaluationStore(Protocol):
    """Keeps the scores of outputs. The end of a run that evaluates writes its own (`Move.evaluations`)."""

    async def add_evaluations(self, evaluations: Sequence[Evaluation], *, acts: Sequence[Act] = ()) -> None:
        """Record scores, and the acts that lead to them, in one commit.

        A score whose `key` is there already replaces the earlier one, without a second act: so a commit
        whose acknowledgement was lost is repeated.

        Raises:
            RunNotFound: there is no run that one of the acts is on; nothing is recorded.
        """
        ...

    async def evaluations(self, query: EvaluationQuery) -> list[Evaluation]:
        """Return the evaluations that match, the newest first. They outlive the runs that they score."""
        ...


class FigureSource(Protocol):
    """Adds up what runs and model calls have used, and how long they took."""

    async def figures(self, query: FigureQuery) -> list[Figure]:
        """Return the figures, by period and then by name. A group without a run in a period has none.

        Raises:
            SettingsError: a condition that cannot be compared.
        """
        ...


class ActStore(Protocol):
    """Keeps who did what, over all runs."""

    async def recorded_acts(self, query: ActQuery) -> list[Act]:
        """Return the acts that match, the newest first: those on a run, and those on none."""
        ...

    async def record_act(self, act: Act) -> None:
        """Record an act that changes nothing else, such as a login that was refused.

        Raises:
            RunNotFound: there is no run that it is on.
        """
        ...


class TokenStore(Protocol):
    """Keeps the tokens of the API."""

    async def add_token(self, token: Token, actor: Actor, *, lives_s: float | None = None) -> Token:
        """Record a token and the act; it expires after `lives_s` seconds by the store's clock.

        Raises:
            TokenExists: a token has this name, also a revoked one.
        """
        ...

    async def revoke_token(self, name: str, actor: Actor) -> Token:
        """Revoke a token and record the act; one that is revoked already stays as it is.

        Raises:
            TokenRefused: there is none of this name.
        """
        ...

    async def token(self, digest: bytes) -> Token | None:
        """Return the token with this digest if it is valid now, by the store's clock."""
        ...

    async def tokens(self) -> list[Token]:
        """Return every token by name, revoked and expired ones too."""
        ...


class SessionStore(Protocol):
    """Keeps who has logged in."""

    async def begin_session(
        self, session: Session, actor: Actor, *, lives_s: float, details: bytes | None = None
    ) -> Session:
        """Record a login and the act; it expires after `lives_s` seconds by the store's clock.

        A session with the same digest stays as it is, so a commit whose answer was lost is repeated.

        Args:
            session: whose login it is.
            actor: who logs in.
            lives_s: how long it is valid.
            details: what the act has as `after`: canonical JSON.
        """
        ...

    async def session(self, digest: bytes) -> Session | None:
        """Return the session with this digest if it has neither ended nor expired, by the store's clock."""
        ...

    async def end_session(self, digest: bytes, actor: Actor) -> None:
        """Delete a session and record the act; of one that has ended, nothing is recorded."""
        ...


class RunImporter(Protocol):
    """Takes over runs that were recorded in another database."""

    async def import_runs(self, runs: Sequence[RecordedRun], *, actor: Actor, origin: str) -> list[RunId]:
        """Store runs as `RecordedRun.pulled` returns them, each with an act `pull`, in one commit.

        A run that is here already with the same content stays unchanged. When the answer to the commit is
        lost, the runs may be here although none is returned.

        Args:
            runs: the runs.
            actor: who pulls them.
            origin: where they come from, for the act; without a password.

        Returns:
            The ids of the runs that were not here before.

        Raises:
            RunConflict: the id of one is taken by a run with other content; nothing is written.
            CorruptState: the bytes of a content are not those of its digest; nothing is written.
        """
        ...


class FeedStore(Protocol):
    """Keeps what the owners of runs tell those who follow them: all of it may be lost; none is exported."""

    async def watch(self, run_id: RunId) -> None:
        """Ask the owner of a run to write its feed for `flujo.domain.feed.WATCH_S` seconds from now.

        Nothing happens for a run that has ended or does not exist. It is tried once.

        Raises:
            StateError: the database cannot be written.
        """
        ...

    def on_watched(self, run_id: RunId, callback: Callable[[bool], None]) -> None:
        """Call `callback` in this event loop with whether a run that this store owns is watched.

        It is called when that changes, about a second later, and at once when the run is known to be watched.
        The calls end when the run is released or let go.
        """
        ...

    async def add_to_feed(self, run_id: RunId, fence: int, lines: Sequence[FeedLine]) -> None:
        """Add lines to the feed of a run, which numbers them; tried once.

        Nothing is written once the fence is no longer the run's, and no write of the run waits for this one.
        Of the lines of a run the newest `flujo.domain.feed.MAX_LINES` are kept.

        Raises:
            StateError: nothing was written.
        """
        ...

    async def feed(self, run_id: RunId, *, after: int = 0) -> list[FeedLine]:
        """Return the feed of a run behind a number, in order; tried once.

        Raises:
            StateError: the database cannot be read.
        """
        ...

    async def delete_old_feeds(self) -> None:
        """Delete the feeds of runs whose owners have left them for `flujo.domain.feed.KEPT_S`; tried once.

        Raises:
            StateError: nothing was deleted.
        """
        ...


class StateStore(
    RunStore,
    JournalStore,
    QuestionStore,
    QueueStore,
    Outbox,
    EventStore,
    ScheduleStore,
    EvaluationStore,
    FigureSource,
    ActStore,
    TokenStore,
    SessionStore,
    RunImporter,
    RequestStore,
    FeedStore,
    Protocol,
):
    """Stores runs and their journals; `flujo.testing.StateStoreSuite` tests an implementation."""

    async def aclose(self) -> None:
        """Commit the enqueued writes, release every lease, and close. Idempotent."""
        ...


class CacheBackend(Protocol):
    """Stores cached answers of all runs. An exception counts as a miss: a cache never fails a run."""

    async def get(self, key: str) -> bytes | None:
        """Return the bytes stored under `key`; None when they are missing or expired."""
        ...

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Store a value, replacing the one under the same key.

        Args:
            key: a digest in hexadecimal.
            value: the bytes to return later.
            ttl_s: the seconds after which it expires; None for no expiry.
        """
        ...


class DurableStore(StateStore, Protocol):
    """A store that outlives the process; it also has a cache, and deletes old data."""

    def cache(self) -> CacheBackend:
        """Return a cache in the same database; usable until the store is closed."""
        ...

    async def take_turn(self, duty: str, every_s: float) -> bool:
        """Return whether this store does a duty now that all processes together do once in `every_s`."""
        ...

    async def count_purgeable(self, statuses: Sequence[RunStatus], older_than_s: float) -> int:
        """Return how many runs `purge` would delete."""
        ...

    def purge(
        self, statuses: Sequence[RunStatus], older_than_s: float, *, batch: int, actor: Actor | None = None
    ) -> AsyncIterator[Purged]:
        """Delete old runs, expired cached answers, old messages and events, and blobs without a run.

        Args:
            statuses: the statuses of the runs to delete, each in `PURGEABLE`.
            older_than_s: the least number of seconds since a run last changed.
            batch: the maximum number of runs per transaction, with 50 times as many entries; a run with more
                is hidden from all readers first and then deleted in parts.
            actor: the author of the purge; each transaction that deletes runs records it with their ids.

        Yields:
            The totals after each batch.
        """
        ...

    async def values_by_key(self) -> KeyCounts:
        """Count the values of the database by the key that has encrypted them."""
        ...

    def rotate_keys(self, *, batch: int, actor: Actor) -> AsyncIterator[Rotated]:
        """Encrypt each value with the first key that is encrypted with another key, or with none.

        Other processes may work meanwhile. Transactions that are committed stay when it is interrupted.

        Args:
            batch: the maximum number of rows per transaction.
            actor: who rotates; recorded at the end with the counts.

        Yields:
            The totals after each transaction.

        Raises:
            KeyMissing | WrongKey: a value cannot be decrypted with the keys of this store.
        """
        ...

    async def overwrite_freed_space(self, *, vacuum_full: bool) -> bool:
        """Rewrite the files, so that no remains of changed or deleted values are in them.

        Args:
            vacuum_full: rewrite the tables of a server too; a SQLite file is always rewritten.

        Returns:
            Whether they were rewritten.

        Raises:
            StateError: the database cannot be rewritten now.
        """
        ...

    async def families_of(self, subject: Subject) -> list[Family]:
        """Return the runs of a person with their tasks, evaluations, chains and forks, by families."""
        ...

    async def erase_runs(
        self, subject: Subject, run_ids: Sequence[RunId], *, actor: Actor, cancel_paused: bool
    ) -> int:
        """Delete runs of a person with all that belongs to them; return how many.

        A transaction deletes at most 10,000 entries. A run with more is hidden from all readers first, then
        deleted in parts. Another erasure of the person finishes what is left.

        Raises:
            ErasureRefused: one of them is executed, or waits and is not to be cancelled; with at most 10,000
                entries in all, none was deleted.
        """
        ...

    async def finish_erasure(self, subject: Subject, *, actor: Actor, vacuum_full: bool) -> Proof:
        """Delete what names a person and belongs to no run, overwrite freed space, and record the proof.

        Args:
            subject: the person.
            actor: who erases.
            vacuum_full: rewrite the tables of a server too; a SQLite file is always rewritten.

        Raises:
            StateError: the database cannot be rewritten now; no proof was recorded.
        """
        ...
