"""A run: its states and their legal moves, who executes it, what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flujo.domain.acts import Act
from flujo.domain.fast_dataclass import record
from flujo.domain.journal import Entry, RunId
from flujo.domain.ledger import Hold
from flujo.domain.paths import StepPath
from flujo.domain.usage import NOTHING, Usage


class RunStatus(StrEnum):
    """Where a run is in its life."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARKED = "parked"

    @property
    def is_settled(self) -> bool:
        """Whether nothing moves this run any more without somebody asking for it."""
        return self in (RunStatus.COMPLETED, RunStatus.CANCELLED)

    def can_become(self, other: RunStatus) -> bool:
        """Return whether a run may move from this state to `other`."""
        return other in LEGAL_MOVES[self]


_S = RunStatus
LEGAL_MOVES: Mapping[RunStatus, frozenset[RunStatus]] = {
    _S.ACCEPTED: frozenset({_S.RUNNING, _S.INTERRUPTED, _S.CANCELLED, _S.FAILED, _S.PARKED}),
    _S.RUNNING: frozenset(
        {_S.RUNNING, _S.PAUSED, _S.INTERRUPTED, _S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.PARKED}
    ),
    _S.PAUSED: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED}),
    _S.INTERRUPTED: frozenset({_S.RUNNING, _S.CANCELLED}),
    _S.FAILED: frozenset({_S.RUNNING, _S.CANCELLED}),  # running again only by `--retry-failed`
    _S.PARKED: frozenset({_S.RUNNING, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
}


PURGEABLE = (
    RunStatus.COMPLETED,
    RunStatus.FAILED,
    RunStatus.CANCELLED,
    RunStatus.INTERRUPTED,
    RunStatus.PARKED,
    RunStatus.PAUSED,
)
"""The statuses of runs that may be purged: no process executes one, or resumes it unasked."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a run's owner is to do: `cancel`, so far. The owner fulfils it, whichever process wrote it."""

    what: str
    by: str
    at: float
    """Seconds since the epoch, by the store's clock."""


class PauseKind(StrEnum):
    """What a run waits for."""

    QUESTION = "question"
    """A `hitl` step asks a human."""
    DOUBT = "doubt"
    """A call with an effect was made, and its end is not recorded."""


@record(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What is known of a run when it is accepted. Values are canonical JSON bytes."""

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


@record(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as the database has it."""

    run_id: RunId
    pipeline: str
    status: RunStatus
    closure: str
    input: bytes
    context: bytes
    """The context at the start: what a walk through the journal begins with."""
    context_now: bytes | None = None
    """The whole context as of the last pause or the end; None before either."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    user_id: str | None = None
    lock_digest: str | None = None
    fence: int = 0
    """Grows at each claim; a write with an older fence is refused."""
    owner: str | None = None
    lease_left_s: float | None = None
    """Seconds until the lease lapses, by the database's clock; None when nobody holds it."""
    claims: int = 0
    recoveries: int = 0
    """How often the run was taken over from a dead owner since it last made progress."""
    output: bytes | None = None
    error: bytes | None = None
    usage: Usage = NOTHING
    entries: int = 0
    """How many journal entries the run had at its last move."""
    created_at: float = 0.0
    updated_at: float = 0.0
    deadline_at: float | None = None
    """The earliest deadline among its open questions; a claim does not say it."""
    wish: Wish | None = None
    """What another process wishes that the run's owner does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A question to a human. Its id is the path of the step that asks; of a doubt, `path!doubt[n]`."""

    pause_id: StepPath
    message: str
    answer_schema: bytes | None = None
    deadline_s: float | None = None
    """How long it may stay open: said when it is asked; from then on there is `deadline_at`."""
    deadline_at: float | None = None
    """Seconds since the epoch, by the database's clock."""
    asked_at: float | None = None
    answer: bytes | None = None
    answered_at: float | None = None
    """When it was settled: without an `answer`, because the deadline passed."""
    void: bool = False
    """Whether the question no longer matters, because the run went on or ended without it."""
    kind: PauseKind = PauseKind.QUESTION
    by: str | None = None
    """Whose answer it is."""

    @property
    def is_expired(self) -> bool:
        """Whether its deadline passed before anybody answered."""
        return self.answer is None and self.answered_at is not None

    @property
    def is_settled(self) -> bool:
        """Whether the step that asks can go on: with an answer, or with what its deadline says."""
        return self.answered_at is not None

    @property
    def is_open(self) -> bool:
        """Whether somebody may still answer."""
        return not self.is_settled and not self.void


class IntentState(StrEnum):
    """What is known of a call that was announced."""

    SENT = "sent"
    DONE = "done"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A call with an effect outside, recorded before it is made. Values are canonical JSON bytes."""

    key: str
    """The same for every sending of the same call: what a service needs to tell a repetition."""
    path: StepPath
    tool: str
    """`module:callable`."""
    state: IntentState
    input: bytes
    """What it was called with."""
    attempt: int = 1
    """The attempt of the step that it belongs to."""
    sends: int = 1
    """How often the step at this path has sent a call, this time included."""
    result: bytes | None = None
    sent_at: float | None = None
    """Seconds since the epoch, by the store's clock once it is stored."""


@record(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of the run's own row, in the same commit as the entries it belongs to."""

    status: RunStatus
    output: bytes | None = None
    error: bytes | None = None
    context: bytes | None = None
    """The whole context now; kept as `context_now`, never instead of the one at the start."""
    usage: Usage | None = None
    entries: int | None = None
    closure: str | None = None
    """Another pinned closure (`--accept-changes`)."""
    release: bool = True
    """Whether the lease is given back."""


@record(frozen=True, slots=True, kw_only=True)
class Write:
    """What becomes true in one commit, if the fence still holds."""

    run_id: RunId
    fence: int
    entries: tuple[Entry, ...] = ()
    pauses: tuple[Pause, ...] = ()
    """Questions to open. One that is open or answered already stays as it is; one that is void or whose
    deadline has passed is asked anew."""
    voids: tuple[StepPath, ...] = ()
    """Questions that no longer matter, by id; one that is answered stays as it is."""
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    """Content-addressed bytes (digest → bytes) that must be there before the rest is true."""
    intents: tuple[Intent, ...] = ()
    """Calls that are about to be made, or how they ended; each replaces the one with its key."""
    holds: tuple[Hold, ...] = ()
    """What is held back of the budget from now on; each replaces the one of its path and number."""
    move: Move | None = None
    acts: tuple[Act, ...] = ()
    """Who changed the run with this write."""

    @property
    def is_empty(self) -> bool:
        """Whether this only asks whose the run is, and renews its lease when it is the writer's."""
        return self.is_append and not self.entries

    @property
    def is_append(self) -> bool:
        """Whether this brings nothing but entries."""
        return self.move is None and not (
            self.pauses or self.voids or self.blobs or self.holds or self.intents or self.acts
        )

    @property
    def is_move(self) -> bool:
        """Whether this changes nothing but the run's own row."""
        return self.move is not None and not (self.entries or self.pauses or self.holds or self.intents)


@record(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, read at once."""

    last_seq: int = 0
    """The `seq` of the newest entry, 0 when there is none."""
    usage: Usage = NOTHING
    """The sum over all entries, failed attempts included."""
    first: tuple[Entry, ...] = ()
    """The entries right below the run: where every walk begins."""
    pauses: tuple[Pause, ...] = ()
    """All questions, in the order in which they were asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs to list: every condition that is given must hold. Newest first."""

    statuses: tuple[RunStatus, ...] = ()
    pipeline: str | None = None
    user_id: str | None = None
    metadata: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    """Keys are `[A-Za-z_][A-Za-z0-9_]{0,62}`; each must equal the run's metadata at the top level."""
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What waits for any process that is alive: a look at the database, true at that moment."""

    questions: tuple[tuple[RunId, StepPath], ...] = ()
    """Open questions whose deadline has passed."""
    runs: tuple[RunId, ...] = ()
    """Runs that nobody executes and that can go on: accepted, cut off, answered; the longest idle first."""


@dataclass(frozen=True, slots=True)
class Purged:
    """How much a purge has deleted, or would delete."""

    runs: int = 0
    contents: int = 0
    """Blueprints, prompts and large values that no run names any more; not counted by a dry run."""
    answers: int = 0
    """Expired cached answers."""
