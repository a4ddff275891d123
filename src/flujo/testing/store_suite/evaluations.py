"""Evaluations: written with the end of the run that makes them, or with an act; read by conditions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.evaluations import Evaluation, EvaluationQuery
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import Parent, RunKind
from flujo.domain.run import Child, RunStatus, Write
from flujo.exceptions import Fenced, RunNotFound
from flujo.testing.store_suite.examples import RUN, OpenStore, listed, move, new_run

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

EVALUATING = RunId("e-1")


def _evaluation(key: str = "k", **changes: Any) -> Evaluation:
    made = Evaluation(
        key=key,
        run_id=RUN,
        pipeline="triage",
        closure="c" * 64,
        evaluator="polite",
        version="v",
        score=0.5,
        by="skills:polite",
    )
    return replace(made, **changes)


def _act(run_id: str = RUN) -> Act:
    return Act(verb=Verb.RATE, actor=Actor("ana", Via.API), run_id=RunId(run_id), object="polite")


async def _found(store: StateStore, **conditions: Any) -> list[str]:
    return [each.key for each in await store.evaluations(EvaluationQuery(**conditions))]


class EvaluationsSuite:
    """A score is written once, and found again."""

    async def test_an_evaluation_is_read_as_it_was_added(self, open_store: OpenStore) -> None:
        store, other = await open_store(), await open_store()
        whole = _evaluation(
            path=StepPath("draft"),
            user_id="u1",
            lock_digest="l" * 64,
            reason="ça va: 5 €",
            cost_micro_usd=12,
        )
        failed = _evaluation("f", score=None, error="no answer")
        await store.add_evaluations([whole, failed])
        found = {each.key: each for each in await other.evaluations(EvaluationQuery())}
        assert {key: replace(each, created_at=0.0) for key, each in found.items()} == {
            "k": whole,
            "f": failed,
        }
        assert all(each.created_at > 0 for each in found.values())

    async def test_an_evaluation_with_a_key_that_is_there_replaces_it(self, store: StateStore) -> None:
        await store.accept(new_run(), {})
        for score in (0.1, 0.9):
            await store.add_evaluations([_evaluation(score=score)], acts=[_act()])
        assert [each.score for each in await store.evaluations(EvaluationQuery())] == [0.9]
        assert [act.verb for act in await store.acts(RUN)] == [Verb.RATE]

    async def test_two_stores_that_add_one_key_at_once_leave_one_evaluation(
        self, open_store: OpenStore
    ) -> None:
        stores = [await open_store() for _ in range(4)]
        await asyncio.gather(*(store.add_evaluations([_evaluation()]) for store in stores))
        assert await _found(stores[0]) == ["k"]

    async def test_a_rating_of_an_unknown_run_records_nothing(self, store: StateStore) -> None:
        with pytest.raises(RunNotFound):
            await store.add_evaluations([_evaluation()], acts=[_act("none")])
        assert await _found(store) == []

    async def test_evaluations_are_found_by_every_condition(self, store: StateStore) -> None:
        await store.add_evaluations([_evaluation("old", score=0.2, lock_digest="abc")])
        await store.add_evaluations(
            [
                _evaluation(
                    "new",
                    run_id=RunId("run-2"),
                    path=StepPath("draft"),
                    pipeline="other",
                    evaluator="short",
                    lock_digest="a_c",
                    score=0.9,
                )
            ]
        )
        await store.add_evaluations([_evaluation("error", score=None, error="no", run_id=RunId("run-3"))])
        assert await _found(store) == ["error", "new", "old"]
        assert await _found(store, limit=1) == ["error"]
        assert await _found(store, run_id=RUN) == ["old"]
        assert await _found(store, path=StepPath("draft")) == ["new"]
        assert await _found(store, pipeline="other") == ["new"]
        assert await _found(store, evaluator="short") == ["new"]
        assert await _found(store, lock="a_") == ["new"]
        assert await _found(store, below=0.5) == ["old"]
        assert await _found(store, below=0.2) == []
        assert await _found(store, since=4e9) == []
        assert await _found(store, until=1.0) == []

    async def test_a_move_and_its_evaluations_are_written_together_or_not_at_all(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        await store.write(move(run, RunStatus.FAILED, evaluations=(_evaluation(score=None, error="no"),)))
        again = await store.claim(RUN, statuses=[RunStatus.FAILED])
        with pytest.raises(Fenced):
            await store.write(move(run, RunStatus.COMPLETED, evaluations=(_evaluation("other"),)))
        await store.write(move(again, RunStatus.COMPLETED, evaluations=(_evaluation(score=1.0),)))
        found = await store.evaluations(EvaluationQuery())
        assert [(each.key, each.score, each.error) for each in found] == [("k", 1.0, None)]

    async def test_a_run_that_evaluates_begins_with_the_end_of_the_run_that_it_scores(
        self, store: StateStore
    ) -> None:
        run = await store.accept(new_run(), {})
        parent = Parent(run_id=RUN, path=StepPath(""), entry="evaluate:polite", kind=RunKind.EVAL)
        child = Child(run=new_run(EVALUATING, parent=parent, closure="d" * 64))
        ended = move(run, RunStatus.COMPLETED, output=b"1")
        write = Write(run_id=RUN, fence=run.fence, move=ended.move, children=(child,))
        await store.write(write)
        there = await store.run(EVALUATING)
        assert (there.kind, there.parent, there.status) == (RunKind.EVAL, parent, RunStatus.RUNNING)
        assert await listed(store) == [RUN]
        assert await listed(store, kinds=(RunKind.EVAL,)) == [EVALUATING]
        assert await listed(store, kinds=(RunKind.TASK,), parent=RUN) == []
