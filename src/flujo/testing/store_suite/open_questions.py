"""The open questions of all runs by urgency, and their claims."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.acts import Actor, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.questions import QuestionCursor, QuestionOrder, QuestionQuery
from flujo.domain.queues import RunKind
from flujo.domain.reach import Reach
from flujo.domain.run import GivenAnswer, Pause, PauseKind, RunCondition, RunQuery, RunStatus, Write
from flujo.exceptions import ResumeConflict, RunNotFound, SettingsError
from flujo.testing.store_suite.examples import OpenStore, move, new_run

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

ADA = Actor("ada", Via.WEB)
ASK = StepPath("ask")


async def opened(store: StateStore, run_id: str, *pauses: Pause, **facts: Any) -> None:
    """Begin a run that pauses with these questions."""
    run = await store.accept(new_run(run_id, **facts), {})
    await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=pauses))
    await store.write(move(run, RunStatus.PAUSED))


async def places(store: StateStore, **conditions: Any) -> list[str]:
    """Return the open questions that match as `run:question`."""
    found = await store.open_questions(QuestionQuery(**conditions))
    return [f"{each.run.run_id}:{each.pause.pause_id}" for each in found]


def runs(**conditions: Any) -> RunQuery:
    """Return conditions on runs of every kind."""
    return RunQuery(kinds=tuple(RunKind), **conditions)


def question(pause_id: str = ASK, **changes: Any) -> Pause:
    """Return a question to open."""
    return replace(Pause(pause_id=StepPath(pause_id), message=f"{pause_id}?", answer_schema=b"{}"), **changes)


class OpenQuestionsSuite:
    """The most urgent question comes first. A claim belongs to one person; others may answer nevertheless."""

    async def test_questions_of_all_runs_come_by_urgency_in_pages(self, store: StateStore) -> None:
        await opened(store, "old", question())
        await opened(
            store,
            "late",
            question(deadline_s=900.0),
            question("wait", kind=PauseKind.SLEEP, deadline_s=1.0),
            question("said"),
        )
        await store.answer(RunId("late"), StepPath("said"), b"1")
        await opened(store, "soon", question(deadline_s=60.0), question("doubt", kind=PauseKind.DOUBT))
        await opened(store, "ended", question())
        await store.write(
            move(await store.claim(RunId("ended"), statuses=[RunStatus.PAUSED]), RunStatus.FAILED)
        )
        await opened(store, "left", question())
        await store.escalate_question(RunId("left"), ASK, "bob", "above my limit")
        expected = ["left:ask", "soon:ask", "late:ask", "old:ask", "soon:doubt"]
        assert await places(store) == expected
        assert await places(store, kinds=(PauseKind.DOUBT,)) == ["soon:doubt"]
        got, after = [], None
        while page := await store.open_questions(QuestionQuery(limit=2, after=after)):
            got += [f"{each.run.run_id}:{each.pause.pause_id}" for each in page]
            after = QuestionCursor.parse(str(page[-1].place()))
        assert got == expected
        by_risk = ["left:ask", "soon:doubt", "soon:ask", "late:ask", "old:ask"]
        got, after = [], None
        while page := await store.open_questions(
            QuestionQuery(limit=2, after=after, order=QuestionOrder.RISK)
        ):
            got += [f"{each.run.run_id}:{each.pause.pause_id}" for each in page]
            after = QuestionCursor.parse(str(page[-1].place(QuestionOrder.RISK)))
        assert got == by_risk
        [first, *_] = await store.open_questions(QuestionQuery(limit=1))
        assert first.escalation is not None
        assert (first.escalation.by, first.escalation.reason) == ("bob", "above my limit")
        assert first.pause == (await store.pauses(RunId("left")))[0]
        with pytest.raises(SettingsError):
            await store.open_questions(QuestionQuery(limit=0))

    async def test_the_conditions_on_a_run_choose_its_questions(self, store: StateStore) -> None:
        await opened(store, "a", question(), user_id="ann", metadata={"team": "north"})
        await opened(store, "b", question(), pipeline="report", metadata={"team": "south"})
        assert await places(store, runs=runs(pipeline="report")) == ["b:ask"]
        assert await places(store, runs=runs(user_id="ann")) == ["a:ask"]
        assert await places(store, runs=runs(metadata={"team": "south"})) == ["b:ask"]
        assert await places(store, runs=runs(reach=Reach(blueprints=("triage",)))) == ["a:ask"]
        assert await places(store, runs=runs(queue="none")) == []
        assert await places(store, runs=runs(pause=ASK, chain=RunId("a"))) == ["a:ask"]
        assert await places(store, runs=runs(statuses=(RunCondition.IN_DOUBT, RunStatus.RUNNING))) == []

    async def test_a_claim_is_of_one_person_until_it_ends_or_is_taken(self, open_store: OpenStore) -> None:
        store, other = await open_store(), await open_store()
        await opened(store, "a", question(), question("free"))
        run = RunId("a")
        claim = await store.claim_question(run, ASK, "ada")
        assert claim.by == "ada"
        assert claim.until - claim.at == pytest.approx(900.0, abs=5.0)
        assert (await other.claim_question(run, ASK, "bob")) == claim
        assert await places(other, claimed_by="ada") == ["a:ask"]
        assert await places(other, claimed_by="bob") == []
        assert await places(other, unclaimed=True) == ["a:free"]
        assert not await other.release_question(run, ASK, "bob")
        assert (await other.claim_question(run, ASK, "bob", take=True)).by == "bob"
        assert await other.release_question(run, ASK, "bob")
        assert await places(store, unclaimed=True) == ["a:ask", "a:free"]
        await store.claim_question(run, ASK, "ada", lives_s=0.0)
        assert await places(store, unclaimed=True) == ["a:ask", "a:free"]
        assert (await store.claim_question(run, ASK, "bob")).by == "bob"
        await store.escalate_question(run, ASK, "bob", "too large")
        assert await places(store, unclaimed=True) == ["a:ask", "a:free"]

    async def test_of_two_claims_at_once_one_counts(self, open_store: OpenStore) -> None:
        stores = await open_store(), await open_store()
        await opened(stores[0], "a", question())
        claims = await asyncio.gather(
            *(store.claim_question(RunId("a"), ASK, f"p{number}") for number, store in enumerate(stores))
        )
        assert len({claim.by for claim in claims}) == 1

    async def test_a_question_that_is_not_asked_cannot_be_claimed(self, store: StateStore) -> None:
        await opened(store, "a", question())
        for run_id, pause_id in (("a", "other"), ("nobody", "ask")):
            place = RunId(run_id), StepPath(pause_id)
            with pytest.raises(RunNotFound):
                await store.claim_question(*place, "ada")
            with pytest.raises(RunNotFound):
                await store.escalate_question(*place, "ada", "why")
            assert not await store.release_question(*place, "ada")

    async def test_several_answers_are_recorded_together_or_not_at_all(self, store: StateStore) -> None:
        for run_id in ("a", "b", "c"):
            await opened(store, run_id, question())
        given = GivenAnswer(pause_id=ASK, value=b"true", actor=ADA)
        await store.answer(RunId("c"), ASK, b"false")
        with pytest.raises(ResumeConflict, match="run c"):
            await store.answer_all([(RunId(run_id), given) for run_id in ("a", "b", "c")])
        with pytest.raises(RunNotFound):
            await store.answer_all(
                [(RunId("a"), given), (RunId("b"), replace(given, pause_id=StepPath("x")))]
            )
        assert await places(store) == ["a:ask", "b:ask"]
        answered = await store.answer_all([(RunId(run_id), given) for run_id in ("a", "b")])
        assert [(pause.answer, pause.by) for pause in answered] == [(b"true", "ada")] * 2
        assert await places(store) == []
        assert [act.object for act in await store.acts(RunId("a"))] == ["ask"]
        claimed = await store.claim(RunId("b"), statuses=[RunStatus.PAUSED])
        assert claimed.status is RunStatus.RUNNING
