"""Claims and escalations of questions, in this process's memory: the same rules as in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.questions import OpenQuestion, QuestionClaim

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.questions import Escalation, QuestionQuery
    from flujo.domain.run import Pause, RunRecord

    Place = tuple[str, StepPath]


class MemoryClaims:
    """The claims and escalations of a database in memory, by run and question."""

    def __init__(self) -> None:
        self._claims: dict[Place, QuestionClaim] = {}
        self._escalations: dict[Place, Escalation] = {}

    def claim(self, place: Place, by: str, now: float, lives_s: float, *, take: bool) -> QuestionClaim:
        """Claim a question if it is free, this person's, or `take` is set; return the claim that counts."""
        there = self._claims.get(place)
        if there is None or take or there.by == by or there.until <= now:
            self._claims[place] = QuestionClaim(by, now, now + lives_s)
        return self._claims[place]

    def release(self, place: Place, by: str) -> bool:
        """End the claim of a person; return whether there was one."""
        if place not in self._claims or self._claims[place].by != by:
            return False
        del self._claims[place]
        return True

    def escalate(self, place: Place, escalation: Escalation) -> None:
        """End the claim of a question, and note who has left it to others, and why."""
        self._claims.pop(place, None)
        self._escalations[place] = escalation

    def question(self, run: RunRecord, pause: Pause, now: float) -> OpenQuestion:
        """Return a question with what is known of it here; an escalation counts until it is opened again."""
        place = (run.run_id, pause.pause_id)
        claim, escalation = self._claims.get(place), self._escalations.get(place)
        return OpenQuestion(
            run,
            pause,
            claim if claim is not None and claim.until > now else None,
            escalation if escalation is not None and escalation.at >= (pause.asked_at or 0.0) else None,
        )


def fits(question: OpenQuestion, query: QuestionQuery) -> bool:
    """Return whether a question fulfils the conditions that are not on its run."""
    return (
        (not query.kinds or question.pause.kind in query.kinds)
        and (
            query.claimed_by is None or (question.claim is not None and question.claim.by == query.claimed_by)
        )
        and not (query.unclaimed and question.claim is not None)
        and (query.after is None or question.place(query.order).key > query.after.key)
    )
