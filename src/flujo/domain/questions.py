"""The open questions of all runs: their order, who has claimed one, and what an answer is bound to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING

from flujo.domain import approvals
from flujo.domain.paths import shown
from flujo.domain.queues import RunKind
from flujo.domain.run import PauseKind, RunQuery
from flujo.exceptions import QuestionChanged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.journal import RunId
    from flujo.domain.run import Pause, RunRecord

CLAIMED_S = 900.0
"""How long a question stays claimed by one person, in seconds."""

NO_DEADLINE = 1e300
"""Stands for the deadline of a question without one: it comes after all others."""


class Risk(StrEnum):
    """What a wrong answer can do."""

    HIGH = "high"
    """It makes a call with an effect, or decides whether one was made."""
    MEDIUM = "medium"
    """It lets the run use more."""
    LOW = "low"

    @property
    def rank(self) -> int:
        """Its place in a list by risk, from 0."""
        return list(Risk).index(self)


RISKS: Mapping[PauseKind, Risk] = {
    PauseKind.DOUBT: Risk.HIGH,
    PauseKind.APPROVAL: Risk.HIGH,
    PauseKind.STUB: Risk.HIGH,
    PauseKind.BUDGET: Risk.MEDIUM,
    PauseKind.LIMIT: Risk.MEDIUM,
    PauseKind.QUESTION: Risk.LOW,
}
"""The risk of each kind of question."""


class QuestionOrder(StrEnum):
    """The order of a list of questions."""

    URGENCY = "urgency"
    """Escalated ones, then by deadline, then the longest open."""
    RISK = "risk"
    """Escalated ones, then by risk, then by deadline, then the longest open."""


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
    def risk(self) -> Risk:
        """What a wrong answer can do."""
        return RISKS[self.pause.kind]

    def place(self, order: QuestionOrder = QuestionOrder.URGENCY) -> QuestionCursor:
        """Return its place in an order."""
        return QuestionCursor(
            order=order,
            is_escalated=self.escalation is not None,
            risk=self.risk.rank if order is QuestionOrder.RISK else 0,
            deadline_at=NO_DEADLINE if self.pause.deadline_at is None else self.pause.deadline_at,
            asked_at=self.pause.asked_at or 0.0,
            run_id=self.run.run_id,
            pause_id=self.pause.pause_id,
        )


@dataclass(frozen=True, slots=True)
class QuestionCursor:
    """A place in a list of questions."""

    order: QuestionOrder
    is_escalated: bool
    risk: int
    """The rank of the risk; 0 where it does not decide."""
    deadline_at: float
    asked_at: float
    run_id: str
    pause_id: str

    @property
    def key(self) -> tuple[int, int, float, float, str, str]:
        """The values that decide the order."""
        rank = 0 if self.is_escalated else 1
        return (rank, self.risk, self.deadline_at, self.asked_at, self.run_id, self.pause_id)

    def __str__(self) -> str:
        rank, risk, deadline_at, asked_at, run_id, pause_id = self.key
        return f"{self.order}:{rank}:{risk}:{deadline_at!r}:{asked_at!r}:{run_id}:{pause_id}"

    @classmethod
    def parse(cls, text: str) -> QuestionCursor:
        """Return what `str` has written.

        Raises:
            ValueError: the text is not a cursor.
        """
        order, rank, risk, deadline_at, asked_at, run_id, pause_id = text.split(":", 6)
        if rank not in ("0", "1") or risk not in map(str, range(len(Risk))):
            raise ValueError("not a cursor")
        found = cls(
            QuestionOrder(order),
            rank == "0",
            int(risk),
            float(deadline_at),
            float(asked_at),
            run_id,
            pause_id,
        )
        if not (isfinite(found.deadline_at) and isfinite(found.asked_at)):
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
    order: QuestionOrder = QuestionOrder.URGENCY
    after: QuestionCursor | None = None
    """Only questions that come after this place of the same order."""
    limit: int = 100


def seen_digest(run_id: RunId | str, pause: Pause) -> str:
    """Return the digest of what a person has seen before the answer: the question, its schema, and its time.

    For an approval it is that of the call, which the answer names too. A question that is opened again has
    another digest.
    """
    if pause.digest is not None:
        return pause.digest
    return approvals.digest(
        run=run_id,
        pause=pause.pause_id,
        kind=str(pause.kind),
        message=pause.message,
        schema=(pause.answer_schema or b"").decode(),  # null would be searched for in the whole message
        asked_at=pause.asked_at or 0.0,
    )


def require_seen(run_id: RunId | str, pause: Pause, seen: str | None) -> None:
    """Return if an answer was given to this question, whose `seen_digest` its author has; None is any.

    Raises:
        QuestionChanged: the question was opened again, with another content or at another time.
    """
    if seen is not None and seen != seen_digest(run_id, pause):
        raise QuestionChanged(
            f"the question at `{shown(pause.pause_id)}` of run {run_id} is not the one that was shown",
            run_id=str(run_id),
            won="run",
        )
