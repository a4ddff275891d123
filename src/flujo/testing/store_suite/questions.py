"""Questions to humans: created once, answered once, void when no longer needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.acts import Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.questions import seen_digest
from flujo.domain.run import GivenAnswer, Pause, RunStatus, Write
from flujo.exceptions import (
    QuestionChanged,
    ResumeConflict,
    RunNotFound,
)
from flujo.testing.store_suite.examples import (
    RUN,
    OpenStore,
    ask,
    move,
    new_run,
    won,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


class QuestionsSuite:
    """The first answer wins."""

    async def test_questions_are_listed_in_order_of_creation(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "zebra", "apple")
        await ask(store, run, "mango")
        asked = await store.pauses(RUN)
        assert [pause.pause_id for pause in asked] == ["zebra", "apple", "mango"]
        assert all(pause.is_open and pause.asked_at for pause in asked)
        assert all(pause.deadline_at == pytest.approx((pause.asked_at or 0) + 4e9, abs=1) for pause in asked)
        assert asked[0].answer_schema == b"{}"
        assert await store.pauses(RunId("nobody")) == []

    async def test_questions_with_equal_timestamps_keep_their_order(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        names = [f"q{number:02}" for number in reversed(range(30))]
        for name in names:
            await ask(store, run, name)
        assert [pause.pause_id for pause in await store.pauses(RUN)] == names

    async def test_the_first_answer_wins_and_repeating_it_is_accepted(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await ask(mine, run, "approve")
        answered = await other.answer(RUN, StepPath("approve"), b"true")
        assert (answered.answer, answered.is_open) == (b"true", False)
        await ask(mine, run, "later")
        assert [pause.pause_id for pause in await other.open_pauses(RUN)] == ["later"]
        assert (await mine.answer(RUN, StepPath("approve"), b"true")).answered_at == answered.answered_at
        with pytest.raises(ResumeConflict):
            await mine.answer(RUN, StepPath("approve"), b"false")
        assert (await mine.pauses(RUN))[0].answer == b"true"

    async def test_exactly_one_of_many_different_answers_wins(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        run = await stores[0].accept(new_run(), {})
        await ask(stores[0], run, "approve")
        tries = [
            store.answer(RUN, StepPath("approve"), canonical.encode(number))
            for number, store in enumerate(stores * 3)
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        winners = [result for result in results if isinstance(result, Pause)]
        assert len(winners) == 1
        assert (await stores[0].pauses(RUN))[0].answer == winners[0].answer

    async def test_an_answer_to_a_question_that_was_opened_again_is_refused(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await ask(mine, run, "approve")
        [first] = await mine.pauses(RUN)
        seen = seen_digest(RUN, first)
        await mine.write(Write(run_id=RUN, fence=run.fence, voids=(StepPath("approve"),)))
        again = Pause(pause_id=StepPath("approve"), message="And now?")
        await mine.write(Write(run_id=RUN, fence=run.fence, pauses=(again,)))
        late = GivenAnswer(pause_id=StepPath("approve"), value=b"true", seen=seen)
        with pytest.raises(QuestionChanged) as refused:
            await other.answer(RUN, late.pause_id, late.value, seen=seen)
        assert refused.value.won == "run"
        with pytest.raises(QuestionChanged):
            await other.answer_all([(RUN, late)])
        await mine.write(move(run, RunStatus.PAUSED))
        with pytest.raises(QuestionChanged):
            await other.claim(RUN, statuses=[RunStatus.PAUSED], answer=late)
        [now] = await other.pauses(RUN)
        assert (now.answer, now.is_open) == (None, True)
        answered = await other.answer(RUN, now.pause_id, b"true", seen=seen_digest(RUN, now))
        assert await mine.answer(RUN, now.pause_id, b"true", seen=seen_digest(RUN, now)) == answered

    async def test_asking_an_open_or_answered_question_again_changes_nothing(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "approve")
        before = await store.pauses(RUN)
        again = Pause(pause_id=StepPath("approve"), message="something else?")
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(again,)))
        assert await store.pauses(RUN) == before
        await store.answer(RUN, StepPath("approve"), b"true")
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(again,)))
        assert (await store.pauses(RUN))[0].answer == b"true"

    async def test_the_end_or_failure_of_a_run_voids_its_open_questions_and_a_retry_may_ask_them_again(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "one", "two")
        await store.answer(RUN, StepPath("one"), b"1")
        await store.write(move(run, RunStatus.FAILED))
        one, two = await store.pauses(RUN)
        assert (one.answer, one.void, two.void) == (b"1", False, True)
        with pytest.raises(ResumeConflict):
            await store.answer(RUN, StepPath("two"), b"2")
        retried = await store.claim(RUN, statuses=[RunStatus.FAILED])
        await ask(store, retried, "two")
        assert (await store.answer(RUN, StepPath("two"), b"2")).answer == b"2"

    async def test_a_write_closes_the_open_questions_it_names_and_no_others(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        asked = [Pause(pause_id=StepPath(name), message=f"{name}?") for name in ("a", "b", "c")]
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=tuple(asked)))
        await store.answer(RUN, StepPath("b"), b"1")
        voids = (StepPath("a"), StepPath("b"), StepPath("nobody"))
        await store.write(Write(run_id=RUN, fence=run.fence, voids=voids))
        states = {pause.pause_id: (pause.void, pause.is_open) for pause in await store.pauses(RUN)}
        assert states == {"a": (True, False), "b": (False, False), "c": (False, True)}
        with pytest.raises(ResumeConflict):
            await store.answer(RUN, StepPath("a"), b"1")

    async def test_an_answer_to_an_unknown_question_lists_the_open_ones(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "approve")
        with pytest.raises(RunNotFound) as caught:
            await store.answer(RUN, StepPath("aprove"), b"true")
        assert "approve" in (caught.value.hint or "")

    async def test_a_claim_records_its_answer_and_returns_all_questions(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await ask(mine, run, "one", "two")
        assert not await mine.write(move(run, RunStatus.PAUSED))
        await mine.answer(RUN, StepPath("one"), b"1")
        claimed = await other.claim(RUN, statuses=[RunStatus.PAUSED], answer=given("two", b"2"))
        assert (claimed.status, claimed.fence) == (RunStatus.RUNNING, run.fence + 1)
        assert claimed.pauses == tuple(await mine.pauses(RUN))
        assert [(pause.answer, pause.by) for pause in claimed.pauses or ()] == [(b"1", None), (b"2", "ada")]
        assert [(act.verb, act.object) for act in await mine.acts(RUN)] == [(Verb.ANSWER, "two")]
        assert not await other.write(move(claimed, RunStatus.PAUSED))  # the claim has seen both answers

    async def test_a_claim_with_a_second_answer_changes_nothing(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "one", "two")
        await store.write(Write(run_id=RUN, fence=run.fence, voids=(StepPath("two"),)))
        await store.write(move(run, RunStatus.PAUSED))
        await store.answer(RUN, StepPath("one"), b"1")
        before, questions = await store.run(RUN), await store.pauses(RUN)
        for name, winner in (("one", "answer"), ("two", "run")):
            with pytest.raises(ResumeConflict) as refused:
                await store.claim(RUN, statuses=[RunStatus.PAUSED], answer=given(name, b"2"))
            assert refused.value.won == winner
        with pytest.raises(RunNotFound):
            await store.claim(RUN, statuses=[RunStatus.PAUSED], answer=given("three", b"3"))
        assert (await store.run(RUN), await store.pauses(RUN)) == (before, questions)
        assert await store.acts(RUN) == []
        again = await store.claim(RUN, statuses=[RunStatus.PAUSED], answer=given("one", b"1"))
        assert again.fence == run.fence + 1
        assert await store.acts(RUN) == []

    async def test_an_answer_is_kept_although_its_claim_is_refused(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await ask(mine, run, "approve")
        with pytest.raises(ResumeConflict) as refused:
            await other.claim(
                RUN, statuses=[RunStatus.RUNNING, RunStatus.PAUSED], answer=given("approve", b"true")
            )
        assert (refused.value.won, refused.value.status) == (None, RunStatus.RUNNING)
        [pause] = await mine.pauses(RUN)
        assert (pause.answer, pause.by) == (b"true", "ada")
        assert [act.verb for act in await mine.acts(RUN)] == [Verb.ANSWER]
        assert await mine.write(move(run, RunStatus.PAUSED))  # its owner continues at once

    async def test_exactly_one_of_many_claims_with_an_answer_wins(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        run = await stores[0].accept(new_run(), {})
        await ask(stores[0], run, "approve")
        await stores[0].write(move(run, RunStatus.PAUSED))
        claims = [
            store.claim(RUN, statuses=[RunStatus.PAUSED], answer=given("approve", canonical.encode(number)))
            for number, store in enumerate(stores * 3)
        ]
        [winner] = won(await asyncio.gather(*claims, return_exceptions=True))
        assert winner.pauses == tuple(await stores[0].pauses(RUN))
        assert len(await stores[0].acts(RUN)) == 1

    async def test_a_run_is_found_with_its_progress_while_it_has_no_owner(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "approve")
        found, progress = await store.find_with_progress(RUN)
        assert (found.fence, progress) == (run.fence, None)
        await store.write(move(run, RunStatus.PAUSED))
        for text in (RUN, RUN[:3], "@last"):
            found, progress = await store.find_with_progress(text)
            assert found == await store.find(text)
            assert progress is not None
            assert progress == await store.progress(RUN)
            assert progress.pauses == tuple(await store.pauses(RUN))
        with pytest.raises(RunNotFound):
            await store.find_with_progress("nobody")


def given(name: str, value: bytes) -> GivenAnswer:
    """Return an answer of Ada's to a question."""
    return GivenAnswer(pause_id=StepPath(name), value=value, actor=Actor("ada", Via.API))
