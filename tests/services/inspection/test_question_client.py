"""`TaskClient` for the people who answer: lists, claims, and answers to one or several questions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.client import TaskClient
from flujo.domain import canonical
from flujo.domain.access import Principal, Role
from flujo.domain.acts import Verb
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.personal_data import Rules
from flujo.domain.reach import Reach
from flujo.domain.run import Pause, PauseKind, RunStatus, Write
from flujo.exceptions import (
    AccessDenied,
    FlujoError,
    InputRejected,
    QuestionChanged,
    QuestionClaimed,
    ResumeConflict,
    RunNotFound,
    SettingsError,
)
from flujo.governance.sink import GATE
from flujo.services.inspection.questions import QuestionAnswer
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.store_suite import move, new_run

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

BOOL = canonical.encode({"type": "boolean"})
ASK = Pause(pause_id=StepPath("ask"), message="Refund the order?", answer_schema=BOOL)


async def opened(store: StateStore, run_id: str, *pauses: Pause, **facts: Any) -> None:
    run = await store.accept(new_run(run_id, **facts), {})
    await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=pauses or (ASK,)))
    await store.write(move(run, RunStatus.PAUSED))


@pytest.fixture
async def store() -> MemoryStateStore:
    """A store with a question in each of three runs."""
    found = MemoryStateStore()
    await opened(found, "a")
    await opened(found, "b", replace(ASK, message="Send it?"), pipeline="mail")
    await opened(found, "c", replace(ASK, kind=PauseKind.DOUBT, answer_schema=b"{}"))
    return found


def person(
    store: StateStore, name: str, role: Role = Role.ANSWERER, reach: Reach | None = None
) -> TaskClient:
    return TaskClient(store, principal=Principal(name, role, reach or Reach()))


async def names(client: TaskClient, **conditions: Any) -> list[str]:
    return [question.run_id for question in await client.questions(**conditions)]


async def test_questions_are_found_by_words_kind_blueprint_and_claim(store: MemoryStateStore) -> None:
    ada = person(store, "ada")
    assert await names(ada) == ["a", "b", "c"]
    assert await names(ada, words="REFUND order") == ["a", "c"]
    assert await names(ada, words="refund send") == []
    assert await names(ada, words="mail") == ["b"]
    assert await names(ada, kind=["doubt", "approval"]) == ["c"]
    assert await names(ada, blueprint="mail") == ["b"]
    await ada.claim_question("a", "ask")
    assert await names(ada, claimed_by="ada") == ["a"]
    assert await names(ada, unclaimed=True) == ["b", "c"]
    [first] = await ada.questions(limit=1)
    assert await names(ada, cursor=first.cursor, words="ask") == ["b", "c"]
    for wrong in ({"kind": "sleep"}, {"cursor": "x"}, {"limit": 0}, {"blueprint": 1}):
        with pytest.raises(SettingsError):
            await names(ada, **wrong)


async def test_a_search_does_not_find_masked_text(store: MemoryStateStore) -> None:
    GATE.know(["hunter2-hunter2"], "KEY")
    await opened(store, "d", replace(ASK, message="key hunter2-hunter2"))
    assert await names(person(store, "ada"), words="hunter2") == []


async def test_a_person_sees_and_answers_only_what_its_role_and_reach_allow(store: MemoryStateStore) -> None:
    limited = person(store, "ada", reach=Reach(blueprints=("mail",)))
    assert await names(limited) == ["b"]
    with pytest.raises(RunNotFound):
        await limited.question("a", "ask")
    viewer = person(store, "eve", Role.VIEWER)
    assert (await viewer.question("a", "ask")).pause.message == "Refund the order?"
    denied = [
        viewer.answer_question("a", "ask", True),
        viewer.claim_question("a", "ask"),
        viewer.release_question("a", "ask"),
        viewer.escalate_question("a", "ask", "why"),
    ]
    for call in denied:
        with pytest.raises(AccessDenied):
            await call
    [outcome] = await viewer.answer_questions([QuestionAnswer("a", "ask", True)])
    assert (outcome.is_recorded, type(outcome.error)) == (False, AccessDenied)


async def test_an_answer_is_bound_to_the_question_that_was_shown(store: MemoryStateStore) -> None:
    ada, bob = person(store, "ada"), person(store, "bob")
    seen = (await ada.question("a", "ask")).digest
    with pytest.raises(QuestionChanged):
        await ada.answer_question("a", "ask", True, seen="d0")
    with pytest.raises(InputRejected):
        await ada.answer_question("a", "ask", "perhaps", seen=seen)
    result = await ada.answer_question("a", "ask", True, seen=seen)
    assert "the answer is recorded" in str(result.note)
    answered = (await bob.question("a", "ask")).pause
    assert (answered.answer, answered.by) == (b"true", "ada")
    with pytest.raises(ResumeConflict) as late:
        await bob.answer_question("a", "ask", False, seen=seen)
    assert late.value.won == "answer"
    doubt = await ada.answer_question("c", "ask", {"resolution": "fail"})
    assert "recorded" in str(doubt.note)
    with pytest.raises(RunNotFound, match="no question 'other'"):
        await ada.question("a", "other")


async def test_a_claim_is_taken_over_on_purpose_and_others_may_answer_nevertheless(
    store: MemoryStateStore,
) -> None:
    ada, bob = person(store, "ada"), person(store, "bob")
    claim = await ada.claim_question("a", "ask")
    assert (await bob.question("a", "ask")).claim == claim
    with pytest.raises(QuestionClaimed, match="ada has claimed") as refused:
        await bob.claim_question("a", "ask")
    assert (refused.value.by, refused.value.until) == ("ada", claim.until)
    with pytest.raises(QuestionClaimed):
        await bob.answer_question("a", "ask", True, over_claim=False)
    assert (await bob.claim_question("a", "ask", take=True)).by == "bob"
    assert not await ada.release_question("a", "ask")
    assert await bob.release_question("a", "ask")
    await ada.claim_question("a", "ask")
    await bob.answer_question("a", "ask", True)
    with pytest.raises(ResumeConflict, match="is not open"):
        await ada.claim_question("a", "ask")


async def test_an_escalated_question_comes_first_with_its_reason(store: MemoryStateStore) -> None:
    ada = person(store, "ada")
    await ada.claim_question("b", "ask")
    with pytest.raises(SettingsError):
        await ada.escalate_question("b", "ask", " ")
    await ada.escalate_question("b", "ask", "above my limit")
    [first, *_] = await ada.questions()
    assert (first.run_id, first.claim) == ("b", None)
    assert first.escalation is not None
    assert (first.escalation.by, first.escalation.reason) == ("ada", "above my limit")


def outcome_of(outcome: Any) -> tuple[bool, type[FlujoError] | None]:
    return outcome.is_recorded, None if outcome.error is None else type(outcome.error)


async def test_who_sees_the_personal_data_of_a_question_is_recorded(
    store: MemoryStateStore,
) -> None:
    GATE.hide_personal_data(Rules(entities=("email",)))
    await opened(store, "mail", replace(ASK, message="Write to ada@example.com?"))
    with pytest.raises(AccessDenied):
        await person(store, "bob").reveal_question("mail", "ask")
    assert await store.acts(RunId("mail")) == []
    assert "ada@" in await person(store, "eve", Role.OPERATOR).reveal_question("mail", "ask")
    [act] = await store.acts(RunId("mail"))
    assert (act.verb, act.object, act.actor.by) == (Verb.REVEAL, "ask", "eve")


async def test_several_answers_are_checked_first_and_recorded_together_or_one_by_one(
    store: MemoryStateStore,
) -> None:
    ada = person(store, "ada")
    seen = {run: (await ada.question(run, "ask")).digest for run in ("a", "b")}
    given = [QuestionAnswer(run, "ask", True, digest) for run, digest in seen.items()]
    wrong = QuestionAnswer("c", "ask", {"resolution": "perhaps", "result": 1}, "d0")
    outcomes = await ada.answer_questions([*given, wrong], dry_run=True)
    assert [outcome_of(each) for each in outcomes] == [(False, None), (False, None), (False, QuestionChanged)]
    outcomes = await ada.answer_questions([*given, wrong], together=True)
    assert [outcome_of(each) for each in outcomes] == [(False, None), (False, None), (False, QuestionChanged)]
    assert await names(ada) == ["a", "b", "c"]
    outcomes = await ada.answer_questions([*given, wrong])
    assert [outcome_of(each) for each in outcomes] == [(True, None), (True, None), (False, QuestionChanged)]
    late = [replace(given[0], answer=False), QuestionAnswer("c", "ask", {"resolution": "fail"})]
    outcomes = await ada.answer_questions(late, together=True)
    assert [outcome_of(each) for each in outcomes] == [(False, ResumeConflict), (False, None)]
    assert (await store.pauses(RunId("c")))[0].is_open


async def test_an_answer_that_came_between_check_and_commit_undoes_the_others(
    store: MemoryStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, record = person(store, "ada"), store.answer_all

    async def late(answers: Any) -> Any:
        await store.answer(RunId("b"), ASK.pause_id, b"false")
        return await record(answers)

    monkeypatch.setattr(store, "answer_all", late)
    outcomes = await ada.answer_questions(
        [QuestionAnswer(run, "ask", True) for run in ("a", "b")], together=True
    )
    assert [outcome_of(each) for each in outcomes] == [(False, None), (False, ResumeConflict)]
    assert await names(ada) == ["a", "c"]
