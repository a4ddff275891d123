"""Questions, waits and events of the memory store: the same rules as in a database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain.questions import CLAIMED_S, Escalation
from flujo.domain.run import GivenAnswer
from flujo.state import events, rules
from flujo.state.memory_claims import fits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.acts import Act, Actor
    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath
    from flujo.domain.questions import OpenQuestion, QuestionClaim, QuestionQuery
    from flujo.domain.run import Pause, RunQuery, RunRecord
    from flujo.domain.sent_events import Delivery, NewEvent, SentEvent
    from flujo.state.memory_runs import MemoryDatabase, StoredRun


class MemoryQuestions:
    """The part of `MemoryStateStore` that is about questions, waits, and the events that settle them."""

    database: MemoryDatabase
    _now: Callable[[], float]
    _check_open: Callable[[], None]
    _stored: Callable[[RunId], StoredRun]
    _listed: Callable[[StoredRun], RunRecord]
    _matching: Callable[[RunQuery], list[StoredRun]]
    _act: Callable[[StoredRun, Act], None]

    async def pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions of a run, in the order in which they were opened."""
        stored = self.database.runs.get(run_id)
        return list(stored.pauses.values()) if stored else []

    async def open_pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions and waits of a run that are open."""
        return [pause for pause in await self.pauses(run_id) if pause.is_open]

    async def answer(
        self,
        run_id: RunId,
        pause_id: StepPath,
        answer: bytes,
        *,
        actor: Actor | None = None,
        seen: str | None = None,
    ) -> Pause:
        """Record an answer; the first one wins."""
        self._check_open()
        given = GivenAnswer(pause_id=pause_id, value=answer, actor=actor, seen=seen)
        return self._answer(self._stored(run_id), given)

    async def answer_all(self, answers: Sequence[tuple[RunId, GivenAnswer]]) -> list[Pause]:
        """Record the answers to questions of several runs, or none; see the port."""
        self._check_open()
        for run_id, given in answers:
            asked = [*self._stored(run_id).pauses.values()]
            rules.answered(run_id, asked, given)
        return [self._answer(self._stored(run_id), given) for run_id, given in answers]

    async def open_questions(self, query: QuestionQuery) -> list[OpenQuestion]:
        """Return the open questions of all runs; see the port."""
        rules.check_questions(query)
        claims, now = self.database.claims, self._now()
        found = [
            claims.question(self._listed(stored), pause, now)
            for stored in self._matching(query.runs)
            for pause in stored.pauses.values()
            if pause.needs_answer
        ]
        chosen = [question for question in found if fits(question, query)]
        return sorted(chosen, key=lambda question: question.place(query.order).key)[: query.limit]

    async def claim_question(
        self, run_id: RunId, pause_id: StepPath, by: str, *, lives_s: float = CLAIMED_S, take: bool = False
    ) -> QuestionClaim:
        """Claim a question for a person; see the port."""
        self._require_asked(run_id, pause_id)
        return self.database.claims.claim((run_id, pause_id), by, self._now(), lives_s, take=take)

    async def release_question(self, run_id: RunId, pause_id: StepPath, by: str) -> bool:
        """End the claim of this person; see the port."""
        return self.database.claims.release((run_id, pause_id), by)

    async def escalate_question(self, run_id: RunId, pause_id: StepPath, by: str, reason: str) -> None:
        """Put a question before all others; see the port."""
        self._require_asked(run_id, pause_id)
        self.database.claims.escalate((run_id, pause_id), Escalation(by, self._now(), reason))

    def _require_asked(self, run_id: RunId, pause_id: StepPath) -> None:
        if run_id not in self.database.runs or pause_id not in self.database.runs[run_id].pauses:
            raise rules.no_question(run_id, pause_id)

    async def send_event(self, event: NewEvent) -> Delivery:
        """Give an event to the wait that it is for, or keep it; see the port."""
        self._check_open()
        runs = self.database.runs.values()
        addressed = None if event.run_id is None else self._stored(event.run_id)
        there = self.database.events.known(event)
        if there is not None:
            return there
        if addressed is not None:
            events.require_going(addressed.record.run_id, addressed.record.status, event.name)
        waits = [
            (stored.record.run_id, pause)
            for stored in (runs if addressed is None else [addressed])
            for pause in stored.pauses.values()
            if events.waits_for(pause, event)
        ]
        waits.sort(key=lambda wait: wait[1].asked_at or 0.0)
        takers = events.takers(waits, event)
        delivery = self.database.events.send(event, takers, self._now())
        for run_id, pause in takers:
            self._act(self._stored(run_id), events.send_act((run_id, pause), event))
            self._settle(self._stored(run_id), pause, event.payload, by=event.actor.by)
        return delivery

    async def kept_events(self, run_id: RunId, *, limit: int = 100) -> list[SentEvent]:
        """Return the events that are kept for a run; see the port."""
        waits = [pause for pause in await self.pauses(run_id) if pause.is_open and pause.event is not None]
        return self.database.events.kept(run_id, waits)[:limit]

    async def event_waits(self, name: str, key: str, *, limit: int = 100) -> list[tuple[RunId, Pause]]:
        """Return the open waits for a name and a key; see the port."""
        waits = [
            (stored.record.run_id, pause)
            for stored in self.database.runs.values()
            for pause in stored.pauses.values()
            if pause.is_open and (pause.event, pause.event_key) == (name, key)
        ]
        return sorted(waits, key=lambda wait: wait[1].asked_at or 0.0)[:limit]

    async def delete_old_events(self, older_than_s: float, *, limit: int) -> int:
        """Delete events that no run has taken; see the port."""
        self._check_open()
        return self.database.events.delete_old(self._now() - older_than_s, self.database.runs, limit)

    async def expire(self, run_id: RunId, pause_id: StepPath) -> Pause:
        """Settle a question whose deadline has passed; see the port."""
        self._check_open()
        stored = self._stored(run_id)
        pause = rules.asked(run_id, list(stored.pauses.values()), pause_id)
        return self._settle(stored, pause, None) if self._is_overdue(pause) else pause

    def _open(self, stored: StoredRun, pause: Pause) -> None:
        there = stored.pauses.get(pause.pause_id)
        if there is not None and not there.void and not there.is_expired:
            return
        stored.pauses.pop(pause.pause_id, None)
        now = self._now()
        deadline_at = pause.deadline_at if pause.deadline_s is None else now + pause.deadline_s
        fresh = replace(pause, deadline_s=None, answer=None, answered_at=None, void=False, by=None)
        opened = replace(fresh, asked_at=now, deadline_at=deadline_at)
        stored.pauses[pause.pause_id] = opened
        event = self.database.events.take(stored.record.run_id, opened, now) if opened.event else None
        if event is not None:
            self._act(stored, events.send_act((stored.record.run_id, opened), event))
            self._settle(stored, opened, event.payload, by=event.actor.by)

    def _answer(self, stored: StoredRun, given: GivenAnswer) -> Pause:
        run_id, actor = stored.record.run_id, given.actor
        pause = rules.answered(run_id, list(stored.pauses.values()), given)
        if pause.is_settled:
            return pause
        if actor is None:
            return self._settle(stored, pause, given.value)
        self._act(stored, rules.answer_act(run_id, pause, given.value, actor))
        return self._settle(stored, pause, given.value, by=actor.by)

    def _settle(
        self, stored: StoredRun, pause: Pause, answer: bytes | None, *, by: str | None = None
    ) -> Pause:
        now = self._now()
        stored.answered, stored.record = True, replace(stored.record, updated_at=now)
        settled = replace(pause, answer=answer, answered_at=now, by=by)
        stored.pauses[pause.pause_id] = settled
        if not pause.kind.asks_human:
            self.database.wakes.tell([stored.record.run_id])
        if stored.record.queued is not None:
            self.database.queues.ring()
        return settled

    def _is_overdue(self, pause: Pause) -> bool:
        return pause.is_open and pause.deadline_at is not None and pause.deadline_at <= self._now()
