"""A run: its states and legal transitions, its owner, its questions, and its writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor
from flujo.domain.approvals import digest_in
from flujo.domain.evaluations import Evaluation
from flujo.domain.fast_dataclass import constructor, record
from flujo.domain.journal import Entry, ErrorInfo, RunId
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.outbox import Notice
from flujo.domain.paths import ROOT, StepPath, without_counts
from flujo.domain.queues import Parent, Queued, RunKind, task_id
from flujo.domain.reach import EVERYWHERE, Reach
from flujo.domain.usage import NOTHING, Usage


class RunStatus(StrEnum):
    """The status of a run."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    PAUSED = "paused"
    """A human has to answer."""
    WAITING = "waiting"
    """No human has to answer, and no step can begin before something is due."""
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARKED = "parked"

    @property
    def is_settled(self) -> bool:
        """Whether the run stays in this state until a user acts."""
        return self in (RunStatus.COMPLETED, RunStatus.CANCELLED)

    def can_become(self, other: RunStatus) -> bool:
        """Return whether a run may change from this status to `other`."""
        return other in LEGAL_MOVES[self]


_S = RunStatus
LEGAL_MOVES: Mapping[RunStatus, frozenset[RunStatus]] = {
    _S.ACCEPTED: frozenset({_S.RUNNING, _S.INTERRUPTED, _S.CANCELLED, _S.FAILED, _S.PARKED}),
    _S.RUNNING: frozenset(
        {
            *(_S.RUNNING, _S.PAUSED, _S.WAITING, _S.INTERRUPTED),
            *(_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.PARKED),
        }
    ),
    _S.PAUSED: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED}),
    _S.WAITING: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED}),
    _S.INTERRUPTED: frozenset({_S.RUNNING, _S.CANCELLED}),
    _S.FAILED: frozenset({_S.RUNNING, _S.CANCELLED}),  # running again only by `--retry-failed`
    _S.PARKED: frozenset({_S.RUNNING, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
}

AT_A_PAUSE = (RunStatus.PAUSED, RunStatus.WAITING)
"""The statuses of runs that continue when one of their pauses is settled."""

UNENDED = (RunStatus.ACCEPTED, RunStatus.RUNNING, *AT_A_PAUSE, RunStatus.INTERRUPTED)
"""The statuses of runs that have not ended; the deadline of a run ends it in these."""

ENDS_OF_TASKS = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.PARKED)
"""The statuses in which a background task has ended for the run that waits for it."""

PURGEABLE = (
    RunStatus.COMPLETED,
    RunStatus.FAILED,
    RunStatus.CANCELLED,
    RunStatus.INTERRUPTED,
    RunStatus.PARKED,
    RunStatus.PAUSED,
)
"""The statuses of runs that may be purged: no process executes or resumes such a run by itself."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A request of any process to a run's owner, which carries it out: only `cancel` so far."""

    what: str
    by: str
    at: float
    """Seconds since the epoch, by the store's clock."""


class PauseKind(StrEnum):
    """Why a run is paused."""

    QUESTION = "question"
    """A `hitl` step asks a human."""
    DOUBT = "doubt"
    """A call with an effect was made, and its result is not recorded."""
    APPROVAL = "approval"
    """A tool call waits for the approval of a human."""
    LIMIT = "limit"
    """A `granular` step has reached its limit of turns."""
    BUDGET = "budget"
    """A budget of several runs has no room for the next request."""
    STUB = "stub"
    """A fork would make a call with an effect, and its parent has no result of the same call."""
    SLEEP = "sleep"
    """A `sleep` step waits for its time."""
    EVENT = "event"
    """An `event` step waits for an event from outside."""
    CHILDREN = "children"
    """An `await` step waits for background tasks."""

    @property
    def asks_human(self) -> bool:
        """Whether a human has to answer."""
        return self not in WAITS

    @property
    def name_of_one(self) -> str:
        """What a message calls a pause of this kind: `a question`."""
        return _NAMES[self][0]

    @property
    def name_of_several(self) -> str:
        """What a message calls several of them: `questions`."""
        return _NAMES[self][1]


WAITS = (PauseKind.SLEEP, PauseKind.EVENT, PauseKind.CHILDREN)
"""The kinds that ask no human."""

_NAMES: Mapping[PauseKind, tuple[str, str]] = {
    PauseKind.QUESTION: ("a question", "questions"),
    PauseKind.DOUBT: ("a call in doubt", "calls in doubt"),
    PauseKind.APPROVAL: ("an approval", "approvals"),
    PauseKind.LIMIT: ("a question about a limit of turns", "questions about limits of turns"),
    PauseKind.BUDGET: (
        "a question about a budget of several runs",
        "questions about budgets of several runs",
    ),
    PauseKind.STUB: ("a question about a call of a fork", "questions about calls of a fork"),
    PauseKind.SLEEP: ("a wait, which ends by itself", "waits"),
    PauseKind.EVENT: ("a wait for an event", "waits"),
    PauseKind.CHILDREN: ("a wait for background tasks", "waits"),
}


@record(frozen=True, slots=True, kw_only=True)
class NewRun:
    """The data of a run when it is accepted. Values are canonical JSON bytes."""

    run_id: RunId
    pipeline: str
    """The blueprint's or pipeline's name."""
    closure: str
    """The digest of the pinned closure: files, overrides, lock."""
    input: bytes
    context: bytes
    """The context at the start."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    user_id: str | None = None
    lock_digest: str | None = None
    parent: Parent | None = None
    """Set for a background task."""
    is_case: bool = False
    """Whether it runs one case of a file of cases."""
    queued: Queued | None = None
    """Set for a run in a queue."""
    life_s: float | None = None
    """How long the run may last, from its acceptance."""
    entries: tuple[Entry, ...] = ()
    """The journal that it begins with, numbered from 1: of a fork, what it has in common with its parent."""
    acts: tuple[Act, ...] = ()
    """The acts that lead to it, recorded in the same commit; the runs of the others must exist."""


@record(frozen=True, slots=True, kw_only=True)
class Child:
    """A run that begins with a write of another one: a background task, or the run that continues it."""

    run: NewRun
    """With its `parent`; without one, it is the run that continues the run of the write."""
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    """The blobs that it needs: its closure."""
    hold: Hold | None = None
    """What is held for it of the budget of the run that launches it."""

    @property
    def is_owned(self) -> bool:
        """Whether the store that writes it owns it from the start: a background task without a queue."""
        return self.run.parent is not None and self.run.queued is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launches:
    """What the background tasks of a run have in common with it."""

    pipeline: str
    closure: str
    """The closure of the pipeline, also for the run of a task."""
    blobs: Mapping[str, bytes]
    """The content of the closure."""
    lock_digest: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    user_id: str | None = None
    inside: StepPath = ROOT
    """The path in the tree that the run's own paths are below: that of the body around a task's step."""
    place: Callable[[str, int, bytes], Queued] | None = None
    """Returns the place of a task, from the name of its queue, its priority and its input, which is canonical
    JSON; None where no worker reads the store, so that this process executes every task."""

    def child(
        self,
        run_id: RunId,
        path: StepPath,
        *,
        recorded: StepPath,
        given: bytes,
        context: bytes,
        queued: Queued | None = None,
        lent: Usage | None = None,
        kind: RunKind = RunKind.TASK,
    ) -> Child:
        """Return the task that the step at `path` of a run launches, or the batch of a map.

        Args:
            run_id: the run.
            path: the step.
            recorded: its path in the journal of the run, which names the task.
            given: what the step reads, canonical JSON.
            context: a copy of the context, canonical JSON.
            queued: its place in a queue; None for a task that this process executes.
            lent: what is held for it of the budget of the run.
            kind: what it is.
        """
        place = without_counts(path)
        entry = StepPath(f"{self.inside}/{place}") if self.inside else place
        closure, manifest = pinned_entry(self.closure, entry)
        return Child(
            run=NewRun(
                run_id=task_id(run_id, recorded, 1),
                pipeline=self.pipeline,
                closure=closure,
                input=given,
                context=context,
                metadata=self.metadata,
                user_id=self.user_id,
                lock_digest=self.lock_digest,
                parent=Parent(run_id=run_id, path=recorded, entry=entry, kind=kind),
                queued=queued,
            ),
            blobs={**self.blobs, closure: manifest},
            hold=None if lent is None else Hold(path=path, number=1, state=HoldState.LENT, usage=lent),
        )


@lru_cache(maxsize=256)
def pinned_entry(closure: str, entry: str) -> tuple[str, bytes]:
    """Return the digest and the manifest that a task pins: one step of the closure of its parent.

    Versions without background tasks cannot load it, so none of them executes the task as its whole pipeline.
    """
    manifest = canonical.encode({"task": closure, "entry": entry})
    return canonical.digest(manifest), manifest


@lru_cache(maxsize=256)
def pinned_stubs(closure: str) -> tuple[str, bytes]:
    """Return the digest and the manifest that a fork pins whose calls with effects are stubbed.

    Versions without stubs cannot load it, so none of them makes the calls of such a fork.
    """
    manifest = canonical.encode({"stubbed": closure})
    return canonical.digest(manifest), manifest


@record(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run in the database."""

    run_id: RunId
    pipeline: str
    status: RunStatus
    closure: str
    input: bytes
    context: bytes
    """The context at the start, from which a replay of the journal begins."""
    context_now: bytes | None = None
    """The whole context as of the last pause or the end; None before either."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    user_id: str | None = None
    lock_digest: str | None = None
    fence: int = 0
    """Increased by each claim; a write with an older fence is refused."""
    owner: str | None = None
    lease_left_s: float | None = None
    """Seconds until the lease expires, by the database's clock; None when there is no lease."""
    claims: int = 0
    recoveries: int = 0
    """How often the run was claimed from a dead owner that executed it alone, since it last made progress."""
    suspicions: int = 0
    """The same for an owner that executed other runs as well: any of them may have ended it."""
    output: bytes | None = None
    error: bytes | None = None
    usage: Usage = NOTHING
    entries: int = 0
    """The number of journal entries at the last change of status."""
    created_at: float = 0.0
    updated_at: float = 0.0
    """When the run last changed hands, status, or by a person: accepted, claimed, moved, answered, cancelled.

    Steps and renewals of a lease do not count: they belong to a claim, and a move ends it.
    """
    deadline_at: float | None = None
    """The earliest deadline among its open questions; not set in the result of a claim."""
    is_answered: bool = False
    """Whether a pause was settled since the newest claim, so that the run can continue."""
    wish: Wish | None = None
    """A request of another process to the run's owner."""
    pauses: tuple[Pause, ...] | None = None
    """All questions, in the order in which they were opened; only in the result of a claim with an answer."""
    parent: Parent | None = None
    is_case: bool = False
    """Whether it runs one case of a file of cases."""
    queued: Queued | None = None
    ends_by: float | None = None
    """The deadline of the whole run."""

    @property
    def kind(self) -> RunKind:
        """What the run is."""
        if self.parent is not None:
            return self.parent.kind
        return RunKind.CASE if self.is_case else RunKind.RUN

    @property
    def is_handled(self) -> bool:
        """Whether it has failed and its `on_failure` has ended, so that no step is tried again."""
        if self.status is not RunStatus.FAILED or self.error is None:
            return False
        return ErrorInfo.from_json(canonical.decode(self.error)).is_handled

    @property
    def is_new(self) -> bool:
        """Whether nothing is recorded yet: under its first claim, unless it began with copied entries."""
        return self.claims == 1 and self.entries == 0


new_run_record = constructor(RunRecord)
"""Creates `RunRecord`."""


@record(frozen=True, slots=True, kw_only=True)
class Pause:
    """A question to a human, or a wait.

    Its id is a step's path, or `path!doubt[n]`, `path!limit[n]`, `path!budget[n]`, `path!stub`.
    """

    pause_id: StepPath
    message: str
    answer_schema: bytes | None = None
    deadline_s: float | None = None
    """How long it may stay open; set when it is opened, and stored as `deadline_at`."""
    deadline_at: float | None = None
    """When it expires: seconds since the epoch, by the database's clock. A new pause has one of the two."""
    asked_at: float | None = None
    answer: bytes | None = None
    answered_at: float | None = None
    """When it was settled; without an `answer`, its deadline passed."""
    void: bool = False
    """Whether the question no longer matters, because the run continued or ended without it."""
    kind: PauseKind = PauseKind.QUESTION
    by: str | None = None
    """The author of the answer."""
    event: str | None = None
    """The name of the event that is waited for."""
    event_key: str | None = None
    """The key with which any run's event may come; None when only events to this run count."""

    @property
    def awaits_tasks(self) -> bool:
        """Whether it ends with background tasks."""
        return self.kind is PauseKind.CHILDREN

    @property
    def tasks(self) -> frozenset[str]:
        """The ids of the background tasks that it waits for."""
        if not self.awaits_tasks or self.answer_schema is None:
            return frozenset()
        return frozenset(canonical.decode(self.answer_schema)["tasks"])

    @property
    def digest(self) -> str | None:
        """The digest that the answer to an approval must have; None for other questions."""
        return digest_in(self.answer_schema) if self.kind is PauseKind.APPROVAL else None

    @property
    def is_expired(self) -> bool:
        """Whether its deadline passed before an answer arrived."""
        return self.answer is None and self.answered_at is not None

    @property
    def is_settled(self) -> bool:
        """Whether the asking step can continue, with an answer or with its `on_deadline`."""
        return self.answered_at is not None

    @property
    def is_open(self) -> bool:
        """Whether it is neither settled nor void."""
        return not self.is_settled and not self.void

    @property
    def needs_answer(self) -> bool:
        """Whether a human has to answer it."""
        return self.is_open and self.kind.asks_human


new_pause = constructor(Pause)
"""Creates `Pause`."""


@record(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """An answer to a question, and its author."""

    pause_id: StepPath
    value: bytes
    """Canonical JSON."""
    actor: Actor | None = None
    seen: str | None = None
    """The `questions.seen_digest` of the question that was answered; None for the one that is open."""


class IntentState(StrEnum):
    """The state of an announced call."""

    SENT = "sent"
    DONE = "done"
    NOT_SENT = "not_sent"
    """The call has not reached the other side, so its key is unused."""
    FAILED = "failed"
    """The other side has refused the call."""
    IN_DOUBT = "in_doubt"


UNRESOLVED = (IntentState.SENT, IntentState.IN_DOUBT)
"""The states of a call that may have taken effect, unless its process is still making it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A call with an external effect, recorded before it is made. Values are canonical JSON bytes."""

    key: str
    """The same for every sending of one call, so that a service can recognize a repetition."""
    path: StepPath
    tool: str
    """`module:callable`."""
    state: IntentState
    input: bytes
    """The arguments of the call."""
    attempt: int = 1
    """The attempt of the step that made it."""
    sends: int = 1
    """How often the step at this path has sent a call, including this one."""
    result: bytes | None = None
    sent_at: float | None = None
    """Seconds since the epoch, by the store's clock once it is stored."""


@record(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of the run's own row, in the same commit as its journal entries."""

    status: RunStatus
    output: bytes | None = None
    error: bytes | None = None
    context: bytes | None = None
    """The whole current context; stored as `context_now`, beside the context at the start."""
    usage: Usage | None = None
    entries: int | None = None
    closure: str | None = None
    """A new pinned closure (`--accept-changes`)."""
    release: bool = True
    """Whether to release the lease."""
    rest_s: float | None = None
    """For a run of a queue that could not start: how long no worker takes it. Counts as one of its tries."""
    notices: tuple[Notice, ...] = ()
    """Messages about this move."""
    evaluations: tuple[Evaluation, ...] = ()
    """The scores with which a run that evaluates another one ends."""

    def counted(self, entries: int, usage: Usage) -> Move:
        """Set the number of entries and the usage of the run, and return the move."""
        self.entries, self.usage = entries, usage  # type: ignore[misc]  # frozen for type checkers only
        return self


@record(frozen=True, slots=True, kw_only=True)
class Write:
    """The changes of one commit, which needs a valid fence."""

    run_id: RunId
    fence: int
    entries: tuple[Entry, ...] = ()
    pauses: tuple[Pause, ...] = ()
    """Questions to open. An open or answered question stays unchanged; a void or expired one is
    opened again."""
    voids: tuple[StepPath, ...] = ()
    """Ids of questions to mark as void; answered ones stay unchanged."""
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    """Content-addressed bytes (digest → bytes), stored before the rest."""
    intents: tuple[Intent, ...] = ()
    """Calls before they are made, or their results; each replaces the intent with its key."""
    holds: tuple[Hold, ...] = ()
    """Reservations in the budget; each replaces the hold with its path and number."""
    move: Move | None = None
    acts: tuple[Act, ...] = ()
    """The acts of users in this write."""
    children: tuple[Child, ...] = ()
    """Background tasks to launch, or the run that continues this one; what exists already stays unchanged."""

    @property
    def is_empty(self) -> bool:
        """Whether this only checks the owner of the run, and renews the writer's lease."""
        return not self.entries and self.is_append

    @property
    def is_append(self) -> bool:
        """Whether this contains only entries."""
        return self.move is None and not (
            self.pauses
            or self.voids
            or self.blobs
            or self.holds
            or self.intents
            or self.acts
            or self.children
        )

    @property
    def is_move(self) -> bool:
        """Whether this changes only the run's own row."""
        others = self.entries or self.pauses or self.holds or self.intents or self.children
        return self.move is not None and not others


new_write = constructor(Write)
"""Creates `Write`."""


@record(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run, from one read."""

    last_seq: int = 0
    """The `seq` of the newest entry, 0 when there is none."""
    usage: Usage = NOTHING
    """The sum over all entries, failed attempts included."""
    first: tuple[Entry, ...] = ()
    """The entries directly below the run, with which a replay begins."""
    pauses: tuple[Pause, ...] = ()
    """All questions, in the order in which they were opened."""
    acts: tuple[Act, ...] = ()
    """The acts that steer its next execution: how it was forked, and limits that were set."""


class RunCondition(StrEnum):
    """What a run's status alone does not tell."""

    ORPHANED = "orphaned"
    """Running, without a living owner: its process died, or released it."""
    ANSWERED = "answered"
    """Paused, without an open question: no process has resumed it yet."""
    IN_DOUBT = "in_doubt"
    """Paused, and a human has to say how a call ended."""


class RunOrder(StrEnum):
    """The order of a list of runs."""

    NEWEST = "newest"
    """By start, the newest first."""
    OLDEST = "oldest"
    """By start, the oldest first."""
    UPDATED = "updated"
    """By last change, the newest first. A run that changes between two pages changes its place."""


class RunGroup(StrEnum):
    """What runs are counted by."""

    STATUS = "status"
    BLUEPRINT = "blueprint"
    USER = "user"


@dataclass(frozen=True, slots=True)
class RunCursor:
    """The place of one run in an order of runs."""

    order: RunOrder
    at: float
    """The run's start or last change, whichever decides the order."""
    run_id: str

    @classmethod
    def of(cls, record: RunRecord, order: RunOrder) -> RunCursor:
        """Return the place of a run."""
        at = record.updated_at if order is RunOrder.UPDATED else record.created_at
        return cls(order, at, record.run_id)

    def __str__(self) -> str:
        return f"{self.order}:{self.at!r}:{self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """A filter for runs: all given conditions must match."""

    statuses: tuple[RunStatus | RunCondition, ...] = ()
    """One of which must apply; none for any."""
    pipeline: str | None = None
    user_id: str | None = None
    queue: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Conditions on the run's metadata by key: an equal value, a list of values of which one is equal,
    comparisons (`{">=": 100}`), or a mapping of conditions on nested keys. Keys are
    `[A-Za-z_][A-Za-z0-9_]{0,62}`."""
    pause: StepPath | None = None
    """The question that is open."""
    reach: Reach = EVERYWHERE
    """What the one who asks is limited to."""
    kinds: tuple[RunKind, ...] | None = None
    """What it may be. None: not a background task, unless `parent` is given."""
    parent: RunId | None = None
    """The run that has launched it."""
    chain: RunId | None = None
    """The first run of the chain that it is part of."""
    since: float | None = None
    """The earliest time, in seconds since the epoch: of the start, or of the last change in that order."""
    until: float | None = None
    """The time before which it must be."""
    order: RunOrder = RunOrder.NEWEST
    after: RunCursor | None = None
    """Only runs that come after this place, which is one of the same order."""
    limit: int = 100


def kinds_of(query: RunQuery) -> tuple[RunKind, ...]:
    """Return the kinds of runs that a query lists."""
    if query.kinds is not None:
        return query.kinds
    return (RunKind.RUN,) if query.parent is None else tuple(RunKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Work for any running process, as of one read of the database."""

    questions: tuple[tuple[RunId, StepPath], ...] = ()
    """Open questions whose deadline has passed."""
    runs: tuple[RunId, ...] = ()
    """Resumable runs without an owner (accepted, interrupted or answered), the longest idle first."""
    suspects: frozenset[RunId] = frozenset()
    """Those of them that were cut off together with other runs, and then once more: better executed alone."""
    overdue: tuple[RunId, ...] = ()
    """Runs without a living owner whose own deadline has passed before they ended."""


@dataclass(frozen=True, slots=True)
class Purged:
    """The number of rows that a purge has deleted, or would delete."""

    runs: int = 0
    contents: int = 0
    """Blueprints, prompts and large values without a run; not counted by a dry run."""
    answers: int = 0
    """Expired cached answers."""
    messages: int = 0
    """Messages that were delivered or given up long ago; not counted by a dry run."""
    events: int = 0
    """Events that no run took in time; not counted by a dry run."""
