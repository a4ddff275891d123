"""The part of `TaskClient` for the people who answer: open questions of all runs, claims, and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain import chains, paths
from flujo.domain.access import Right
from flujo.domain.acts import Act, Verb
from flujo.domain.questions import OpenQuestion, QuestionQuery, require_seen
from flujo.domain.queues import RunKind
from flujo.domain.run import PauseKind, RunQuery
from flujo.exceptions import FlujoError, QuestionClaimed, ResumeConflict, RunNotFound, SettingsError
from flujo.governance.sink import GATE
from flujo.services.given import text, text_or_none
from flujo.services.inspection.client_base import ClientBase
from flujo.services.inspection.questions import (
    AnswerOutcome,
    QuestionAnswer,
    listed_questions,
    question_of,
    question_query,
)
from flujo.services.runs.answers import checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.models import PipelineResult
    from flujo.domain.questions import QuestionClaim
    from flujo.domain.run import GivenAnswer, Pause, RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.inspection.questions import Question


@dataclass(frozen=True, slots=True)
class _Checked:
    """An answer that fits its question, or why it does not."""

    answer: QuestionAnswer
    record: RunRecord | None = None
    given: GivenAnswer | None = None
    error: FlujoError | None = None


class QuestionClient(ClientBase):
    """Lists, claims and answers the open questions of all runs."""

    async def questions(
        self,
        *,
        blueprint: str | None = None,
        queue: str | None = None,
        user_id: str | None = None,
        metadata_filter: Mapping[str, Any] | None = None,
        kind: str | Sequence[str] | None = None,
        run_id: str | None = None,
        words: str | None = None,
        claimed_by: str | None = None,
        unclaimed: bool = False,
        order: str = "urgency",
        limit: int = 100,
        cursor: str | None = None,
    ) -> list[Question]:
        """Return a page of the open questions of all runs; all conditions must hold.

        Questions that were escalated come first, then those with a deadline by it, then the longest open.
        With `order="risk"` the risk decides before the deadline.

        Args:
            blueprint: the name of the run's blueprint or pipeline.
            queue: the queue that the run was submitted to.
            user_id: the user of the run.
            metadata_filter: conditions by key, as for `list_tasks`.
            kind: `question`, `approval`, `doubt`, `limit`, `budget` or `stub`, or several of them.
            run_id: the run, or the one that continues it: an id, a unique prefix of one, or `@last`.
            words: words that the message, the step, the blueprint, the user or the run's id has, all of them.
            claimed_by: who has claimed it.
            unclaimed: whether only questions without a claim are listed.
            order: `urgency` or `risk`.
            limit: the maximum number of questions in a page, up to 10,000.
            cursor: the `cursor` of the last question of the page before.

        Raises:
            SettingsError: an argument has the wrong type or an unknown value.
            RunNotFound: there is no run `run_id`.
        """
        reach, store = self._reach(), await self._store()
        asking = None if run_id is None else await store.find(await self._allowed(Right.READ, run_id))
        query = question_query(
            blueprint=blueprint,
            queue=queue,
            user_id=user_id,
            metadata_filter=metadata_filter,
            kind=kind,
            run=None if asking is None else asking.run_id,
            claimed_by=claimed_by,
            unclaimed=unclaimed,
            order=order,
            limit=limit,
            cursor=cursor,
            reach=reach,
        )
        return await listed_questions(store, query, text_or_none(words, "words"))

    async def question(self, run_id: str, pause_id: str) -> Question:
        """Return a question, open or not.

        Raises:
            RunNotFound: there is no such run or question.
        """
        record, pause = await self._asked(Right.READ, run_id, pause_id)
        return question_of(await self._with_claim(record, pause))

    async def reveal_question(self, run_id: str, pause_id: str, *, by: str | None = None) -> str:
        """Return the message of a question with its personal data, and record who has seen it.

        Secrets stay masked. In an approval the message has the arguments of the call.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            pause_id: the id of the question.
            by: who sees it, instead of the client's `by`.

        Raises:
            AccessDenied: the principal may not operate runs.
            RunNotFound: there is no such run or question.
        """
        record, pause = await self._asked(Right.OPERATE, run_id, pause_id)
        store, who = await self._store(), self._actor(by)
        seen = Act(verb=Verb.REVEAL, actor=who, run_id=record.run_id, object=pause.pause_id)
        await store.record_act(seen)
        return GATE.unmasked(pause.message)

    async def answer_question(
        self,
        run_id: str,
        pause_id: str,
        answer: Any,
        *,
        seen: str | None = None,
        over_claim: bool = True,
        by: str | None = None,
    ) -> PipelineResult[Any, Any]:
        """Record the answer to a question of any kind, also the outcome of a call in doubt.

        The run is not executed here: the result's `note` says who continues it.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            pause_id: the id of the question.
            answer: JSON data that fits the question's `answer_schema`; to a call in doubt
                `{"resolution": …, "result": …}`.
            seen: the `digest` of the question that was shown.
            over_claim: whether the answer is recorded although another person has claimed the question.
            by: who answers, instead of the client's `by`.

        Raises:
            QuestionChanged: another question than `seen` is open.
            QuestionClaimed: another person has claimed it, and `over_claim` is not set.
            RunNotFound | InputRejected | ResumeConflict: see `services.runs.answers`.
        """
        record, pause = await self._asked(Right.ANSWER, run_id, pause_id)
        who = self._actor(by)
        if pause.needs_answer:
            require_seen(record.run_id, pause, text_or_none(seen, "seen"))
            if not over_claim:
                _require_unclaimed((await self._with_claim(record, pause)).claim, who)
        kind = PauseKind.DOUBT if pause.kind is PauseKind.DOUBT else PauseKind.QUESTION
        actions = await self._actions()
        return await actions.settle(
            kind, record.run_id, answer, pause.pause_id, shown=pause, actor=who, detach=True
        )

    async def answer_questions(
        self,
        answers: Sequence[QuestionAnswer],
        *,
        together: bool = False,
        dry_run: bool = False,
        by: str | None = None,
    ) -> list[AnswerOutcome]:
        """Record the answers to several questions, and return what became of each, in their order.

        Args:
            answers: the answers.
            together: whether all of them are recorded in one commit, or none.
            dry_run: whether they are only checked.
            by: who answers, instead of the client's `by`.
        """
        store, who = await self._store(), self._actor(by)
        found = [await self._checked(each, who) for each in answers]
        fits = all(each.error is None for each in found)
        if dry_run or (together and not fits):
            return [AnswerOutcome(each.answer, is_recorded=False, error=each.error) for each in found]
        if together:
            return await _recorded_together(store, found)
        return [await _recorded(store, each) for each in found]

    async def claim_question(
        self, run_id: str, pause_id: str, *, take: bool = False, by: str | None = None
    ) -> QuestionClaim:
        """Claim an open question for 15 minutes; a further claim of the same person renews it.

        A claim tells others who works on the question. They may answer it nevertheless.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            pause_id: the id of the question.
            take: whether to take it over from another person.
            by: who claims, instead of the client's `by`.

        Raises:
            RunNotFound: there is no such run or question.
            QuestionClaimed: another person has claimed it, and `take` is not set.
            ResumeConflict: the question is not open.
        """
        record, pause = await self._open(run_id, pause_id)
        who, store = self._actor(by), await self._store()
        claim = await store.claim_question(record.run_id, pause.pause_id, who.by, take=take)
        _require_unclaimed(claim, who)
        return claim

    async def release_question(self, run_id: str, pause_id: str, *, by: str | None = None) -> bool:
        """End the claim of this person; return whether there was one.

        Raises:
            RunNotFound: there is no such run or question.
        """
        record, pause = await self._asked(Right.ANSWER, run_id, pause_id)
        who, store = self._actor(by), await self._store()
        return await store.release_question(record.run_id, pause.pause_id, who.by)

    async def escalate_question(
        self, run_id: str, pause_id: str, reason: str, *, by: str | None = None
    ) -> None:
        """Leave an open question to someone else who can decide it: it comes first in the list of all.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            pause_id: the id of the question.
            reason: why, for those who decide.
            by: who escalates, instead of the client's `by`.

        Raises:
            RunNotFound: there is no such run or question.
            SettingsError: the reason is empty.
            ResumeConflict: the question is not open.
        """
        record, pause = await self._open(run_id, pause_id)
        if not text(reason, "reason").strip():
            raise SettingsError("`reason` is empty", hint="say why someone else should decide")
        who, store = self._actor(by), await self._store()
        await store.escalate_question(record.run_id, pause.pause_id, who.by, reason.strip())

    # What the methods share --------------------------------------------------------------------------------

    async def _asked(self, right: Right, run_id: Any, pause_id: Any) -> tuple[RunRecord, Pause]:
        """Return a run and its question, open or not."""
        allowed, store = await self._allowed(right, run_id), await self._store()
        record = await store.find(allowed)
        pauses = await store.pauses(record.run_id)
        meant = paths.find(text(pause_id, "pause_id"), [pause.pause_id for pause in pauses])
        for pause in pauses:
            if pause.pause_id == meant and pause.kind.asks_human:
                return record, pause
        raise RunNotFound(
            f"run {record.run_id} has no question {pause_id!r}",
            hint="the inbox, or `flujo tasks list --status paused`, shows the open questions",
            run_id=record.run_id,
        )

    async def _open(self, run_id: Any, pause_id: Any) -> tuple[RunRecord, Pause]:
        """Return a run and its open question."""
        record, pause = await self._asked(Right.ANSWER, run_id, pause_id)
        if not pause.needs_answer:
            raise ResumeConflict(
                f"the question at `{paths.shown(pause.pause_id)}` of run {record.run_id} is not open",
                run_id=record.run_id,
            )
        return record, pause

    async def _with_claim(self, record: RunRecord, pause: Pause) -> OpenQuestion:
        """Return a question with its claim and its escalation while it is open."""
        if pause.needs_answer:
            of_chain = RunQuery(
                kinds=tuple(RunKind), chain=chains.first_of(record.run_id), pause=pause.pause_id
            )
            for found in await (await self._store()).open_questions(QuestionQuery(runs=of_chain)):
                if (found.run.run_id, found.pause.pause_id) == (record.run_id, pause.pause_id):
                    return found
        return OpenQuestion(record, pause)

    async def _checked(self, answer: QuestionAnswer, who: Actor) -> _Checked:
        """Check one of several answers."""
        try:
            record, pause = await self._asked(Right.ANSWER, answer.run_id, answer.pause_id)
            require_seen(record.run_id, pause, answer.seen)
            kind = PauseKind.DOUBT if pause.kind is PauseKind.DOUBT else PauseKind.QUESTION
            given = checked(record, [pause], pause.pause_id, answer.answer, who, kind=kind)
        except FlujoError as error:
            return _Checked(answer, error=error)
        if not pause.needs_answer and pause.answer != given.value:
            return _Checked(answer, error=_late(record, pause))
        return _Checked(answer, record, given)


def _require_unclaimed(claim: QuestionClaim | None, who: Actor) -> None:
    """Return if no other person has claimed a question.

    Raises:
        QuestionClaimed: another one has.
    """
    if claim is not None and claim.by != who.by:
        raise QuestionClaimed(
            f"{claim.by} has claimed this question, and may be about to answer it",
            by=claim.by,
            until=claim.until,
        )


def _late(record: RunRecord, pause: Pause) -> ResumeConflict:
    """Return why an answer comes too late."""
    how = (
        "has no answer any more"
        if pause.answer is None
        else f"was answered before by {pause.by or 'somebody'}"
    )
    return ResumeConflict(
        f"the question at `{paths.shown(pause.pause_id)}` of run {record.run_id} {how}",
        run_id=record.run_id,
        won="answer" if pause.answer is not None else "run",
    )


async def _recorded(store: StateStore, found: _Checked) -> AnswerOutcome:
    """Record one of several answers."""
    if found.record is None or found.given is None:
        return AnswerOutcome(found.answer, is_recorded=False, error=found.error)
    given = found.given
    try:
        await store.answer(
            found.record.run_id, given.pause_id, given.value, actor=given.actor, seen=given.seen
        )
    except FlujoError as error:
        return AnswerOutcome(found.answer, is_recorded=False, error=error)
    return AnswerOutcome(found.answer, is_recorded=True)


async def _recorded_together(store: StateStore, found: Sequence[_Checked]) -> list[AnswerOutcome]:
    """Record several answers that fit, in one commit."""
    together = [
        (each.record.run_id, each.given)
        for each in found
        if each.record is not None and each.given is not None
    ]
    refused: ResumeConflict | RunNotFound | None = None
    try:
        await store.answer_all(together)
    except (ResumeConflict, RunNotFound) as error:
        refused = error
    outcomes = []
    for each, (run_id, _) in zip(found, together, strict=True):
        own = refused if refused is not None and refused.run_id == run_id else None
        outcomes.append(AnswerOutcome(each.answer, is_recorded=refused is None, error=own))
    return outcomes
