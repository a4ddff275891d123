"""The open questions of all runs: their order, who has claimed one, and what an answer is bound to."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from flujo.domain import approvals
from flujo.domain.queues import RunKind
from flujo.domain.run import RunQuery

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.domain.run import Pause, PauseKind, RunRecord

CLAIMED_S = 900.0
"""How long a question stays claimed by one person, in seconds."""

NO_DEADLINE = 1e300
"""Stands for the deadline of a question without one: it comes after all others."""


@dataclass(frozen=True, slots=True)
class QuestionClaim:
    """The person who works on a question. Others may answer it nevertheless."""

    by: str
    at: float
    """When, in seconds since the epoch, by the store's clock."""
    until: float


@dataclass(frozen=True, slots=True)
class Escalation:
    """A person has looked at a question and left it to others who can decide it."""

    by: str
    at: float
    """When, in seconds since the epoch, by the store's clock."""
    reason: str


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question that waits for a human, and its run."""

    run: RunRecord
    pause: Pause
    claim: QuestionClaim | None = None
    """The claim that has not ended."""
    escalation: Escalation | None = None

    @property
    def place(self) -> QuestionCursor:
        """Its place in the order of urgency."""
        return QuestionCursor(
            is_escalated=self.escalation is not None,
            deadline_at=NO_DEADLINE if self.pause.deadline_at is None else self.pause.deadline_at,
            asked_at=self.pause.asked_at or 0.0,
            run_id=self.run.run_id,
            pause_id=self.pause.pause_id,
        )


@dataclass(frozen=True, slots=True)
class QuestionCursor:
    """A place in the order of urgency: escalated ones, then by deadline, then the longest open."""

    is_escalated: bool
    deadline_at: float
    asked_at: float
    run_id: str
    pause_id: str

    @property
    def key(self) -> tuple[int, float, float, str, str]:
        """The values that decide the order."""
        return (0 if self.is_escalated else 1, self.deadline_at, self.asked_at, self.run_id, self.pause_id)

    def __str__(self) -> str:
        rank, deadline_at, asked_at, run_id, pause_id = self.key
        return f"{rank}:{deadline_at!r}:{asked_at!r}:{run_id}:{pause_id}"

    @classmethod
    def parse(cls, text: str) -> QuestionCursor:
        """Return what `str` has written.

        Raises:
            ValueError: the text is not a cursor.
        """
        rank, deadline_at, asked_at, run_id, pause_id = text.split(":", 4)
        found = cls(rank == "0", float(deadline_at), float(asked_at), run_id, pause_id)
        if rank not in ("0", "1") or not (isfinite(found.deadline_at) and isfinite(found.asked_at)):
            raise ValueError("not a cursor")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionQuery:
    """A filter for open questions: all given conditions must match."""

    runs: RunQuery = field(default_factory=lambda: RunQuery(kinds=tuple(RunKind)))
    """The conditions on their runs; its order and its limit do not count."""
    kinds: tuple[PauseKind, ...] = ()
    """One of which it must have; none for any."""
    claimed_by: str | None = None
    unclaimed: bool = False
    """Whether only questions without a claim match."""
    after: QuestionCursor | None = None
    """Only questions that come after this place."""
    limit: int = 100


def seen_digest(run_id: RunId | str, pause: Pause) -> str:
    """Return the digest of what a person has seen before the answer: the question, its schema, and its time.

    A question that is opened again has another digest.
    """
    return approvals.digest(
        run=run_id,
        pause=pause.pause_id,
        kind=str(pause.kind),
        message=pause.message,
        schema=None if pause.answer_schema is None else pause.answer_schema.decode(),
        asked_at=pause.asked_at,
    )
