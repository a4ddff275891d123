"""Which of several open pauses an answer goes to, and that it goes to none of another kind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo import StepConfig
from flujo.agents.settings import AgentSettings
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.questions import seen_digest
from flujo.domain.run import Pause, PauseKind, RunStatus, Write
from flujo.domain.steps import CallableRef, Expr, HumanInTheLoopStep, ParallelStep, Text
from flujo.exceptions import (
    AmbiguousPause,
    InputRejected,
    QuestionChanged,
    ResumeConflict,
    RunNotFound,
    WrongPauseKind,
)
from flujo.services.binding.binding import PipelineBinding
from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs.runner import Flujo
from support import World, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.run import RunRecord

RUN = RunId("run")


def asking() -> ParallelStep:
    """Return two questions at once."""
    ask = {name: HumanInTheLoopStep(name="ok", message=Text(f"{name}?")) for name in ("left", "right")}
    return ParallelStep(name="both", branches={name: pipeline(step) for name, step in ask.items()})


@pytest.mark.guarantee("G18")
async def test_an_answer_that_names_none_of_several_questions_goes_to_none(store: StateStore) -> None:
    async with Flujo[Any, Any, Any](pipeline(asking()), store=store) as runner:
        await runner.run_result_async(None, run_id=RUN)
        with pytest.raises(AmbiguousPause) as refused:
            await runner.resume_async(RUN, "yes")
        assert refused.value.facts["pauses"] == ("both:left/ok", "both:right/ok")
        assert [pause.answer for pause in await store.pauses(RUN)] == [None, None]
        with pytest.raises(RunNotFound):
            await runner.resume_async(RUN, "yes", pause_id="both:middle/ok")
        half = await runner.resume_async(RUN, "R", pause_id="both:right/ok")
        assert half.status is RunStatus.PAUSED
        done = await runner.resume_async(RUN, "L")  # the only one left needs no name
    assert done.output == {"left": "L", "right": "R"}


@pytest.mark.parametrize(
    ("schema", "given", "kept"),
    [
        ({"type": "number"}, "0.7", 0.7),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "3", 3),
        ({"type": "object", "properties": {"ok": {"type": "boolean"}}}, {"ok": "True"}, {"ok": True}),
        ({"enum": ["approve", "reject"]}, " Approve", "approve"),
    ],
)
async def test_the_types_of_an_answer_are_corrected_where_they_are_certain(
    store: StateStore, schema: Any, given: Any, kept: Any
) -> None:
    ask = HumanInTheLoopStep(name="ok", message=Text("ok?"), answer_schema=schema)
    async with Flujo[Any, Any, Any](pipeline(ask), store=store) as runner:
        await runner.run_result_async(None, run_id=RUN)
        assert (await runner.resume_async(RUN, given)).output == kept


async def test_an_answer_of_an_uncertain_type_is_refused(store: StateStore) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    ask = HumanInTheLoopStep(name="ok", message=Text("ok?"), answer_schema=schema)
    async with Flujo[Any, Any, Any](pipeline(ask), store=store) as runner:
        await runner.run_result_async(None, run_id=RUN)
        with pytest.raises(InputRejected, match="`n` must be `integer`, not a text: 'two'"):
            await runner.resume_async(RUN, {"n": "two"})


# Kinds of pauses ------------------------------------------------------------------------------------------

DOUBT = "both:pay/pay!doubt[0]"
QUESTION = "both:ask/ok"


def asking_and_paying(paid: list[str]) -> Any:
    """Return a question that takes any answer, next to a call that ends in doubt at its first attempt."""

    def pay(data: Any, idempotency_key: str) -> str:
        paid.append(idempotency_key)
        if len(paid) == 1:
            raise TimeoutError
        return "paid"

    pays = call("pay", CallableRef("x:pay", pay), effect="unsafe", enforce_idempotency=True, in_doubt="pause")
    ask = HumanInTheLoopStep(name="ok", message=Text("ok?"))
    return pipeline(ParallelStep(name="both", branches={"ask": pipeline(ask), "pay": pipeline(pays)}))


async def kinds_of_open_pauses(store: StateStore) -> list[PauseKind]:
    return sorted(pause.kind for pause in await store.pauses(RUN) if pause.is_open)


@pytest.mark.guarantee("G18")
async def test_a_verb_of_a_runner_acts_on_its_own_kind_of_pause(store: StateStore) -> None:
    paid: list[str] = []
    async with Flujo[Any, Any, Any](asking_and_paying(paid), store=store) as runner:
        await runner.run_result_async(1, run_id=RUN)
        both = await kinds_of_open_pauses(store)
        assert both == [PauseKind.DOUBT, PauseKind.QUESTION]
        with pytest.raises(WrongPauseKind, match="is a question, not a call in doubt") as refused:
            await runner.resolve_async(RUN, "retry", pause_id=QUESTION)
        assert refused.value.hint == "use `flujo tasks resume run:both:ask/ok --input TEXT`"
        assert (refused.value.facts["kind"], refused.value.facts["pause_id"]) == ("question", QUESTION)
        with pytest.raises(WrongPauseKind, match="is a call in doubt, not a question") as refused:
            await runner.resume_async(RUN, {"resolution": "retry"}, pause_id=DOUBT)
        assert "flujo tasks resolve" in (refused.value.hint or "")
        assert await kinds_of_open_pauses(store) == both
        # Without an id, each verb chooses the only open pause of its own kind.
        half = await runner.resolve_async(RUN, "retry")
        assert [pause.pause_id for pause in half.pauses] == [QUESTION]
        with pytest.raises(WrongPauseKind):
            await runner.resolve_async(RUN, "retry")
        done = await runner.resume_async(RUN, {"resolution": "retry"})
    assert done.output == {"ask": {"resolution": "retry"}, "pay": "paid"}
    assert len(set(paid)) == 1


@pytest.mark.guarantee("G18")
async def test_a_method_of_a_task_client_acts_on_its_own_kind_of_pause(store: StateStore) -> None:
    async with Flujo[Any, Any, Any](asking_and_paying([]), store=store) as runner:
        await runner.run_result_async(1, run_id=RUN)
        client = TaskClient(store, runners=[runner])
        with pytest.raises(WrongPauseKind):
            await client.resolve_task(RUN, "done", pause_id=QUESTION)
        with pytest.raises(WrongPauseKind):
            await client.resume_task(RUN, {"resolution": "done"}, DOUBT)
        half = await client.resume_task(RUN, "yes")
        assert [pause.kind for pause in half.pauses] == [PauseKind.DOUBT]
        with pytest.raises(WrongPauseKind):
            await client.resume_task(RUN, {"resolution": "done"}, detach=True)
        done = await client.resolve_task(RUN, "done", result="by hand")
    assert done.output == {"ask": "yes", "pay": "by hand"}


# An answer that continues its run -----------------------------------------------------------------------------


class Calls:
    """A store that lists the names of its calls, and lets something happen before the next claim."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.names: list[str] = []
        self.before_claim: Callable[[], Awaitable[object]] | None = None

    def claim(self, *arguments: Any, **options: Any) -> Awaitable[RunRecord]:
        self.names.append("claim")
        return self._claim(arguments, options)

    async def _claim(self, arguments: Any, options: Any) -> RunRecord:
        happening, self.before_claim = self.before_claim, None
        if happening is not None:
            await happening()
        return await self._store.claim(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        known = getattr(self._store, name)
        silent = ("may_begin", "on_wish", "on_watched", "on_settled", "let_go", "pseudonyms")
        if name in silent or not callable(known):
            return known

        def called(*arguments: Any, **options: Any) -> Any:
            self.names.append(name)
            return known(*arguments, **options)

        return called


async def test_an_answer_and_the_rest_of_its_run_are_one_read_and_two_commits(store: StateStore) -> None:
    calls = Calls(store)
    tree = pipeline(HumanInTheLoopStep(name="ok", message=Text("ok?")))
    async with Flujo[Any, Any, Any](tree, store=calls, recovery=False) as runner:
        await runner.run_result_async(None, run_id=RUN)
        calls.names.clear()
        assert (await runner.resume_async(RUN, "yes")).output == "yes"
    assert calls.names == ["find_with_progress", "claim", "write"]


async def test_a_resume_without_an_answer_reads_the_progress_once(store: StateStore) -> None:
    calls = Calls(store)
    tree = pipeline(HumanInTheLoopStep(name="ok", message=Text("ok?")))
    async with Flujo[Any, Any, Any](tree, store=calls, recovery=False) as runner:
        await runner.run_result_async(None, run_id=RUN)
        calls.names.clear()
        assert (await runner.resume_async(RUN)).status is RunStatus.PAUSED
    assert calls.names[:3] == ["find", "claim", "progress"]
    assert calls.names.count("progress") == 1


@pytest.mark.guarantee("G5")
async def test_what_another_process_records_before_the_claim_is_read_again(store: StateStore) -> None:
    calls = Calls(store)
    tree = pipeline(asking())
    async with (
        Flujo[Any, Any, Any](tree, store=store, recovery=False) as other,
        Flujo[Any, Any, Any](tree, store=calls, recovery=False) as runner,
    ):
        await runner.run_result_async(None, run_id=RUN)
        calls.before_claim = lambda: other.resume_async(RUN, "L", pause_id="both:left/ok")
        done = await runner.resume_async(RUN, "R", pause_id="both:right/ok")
    assert done.output == {"left": "L", "right": "R"}


async def test_an_answer_to_another_question_before_the_claim_is_not_overlooked(store: StateStore) -> None:
    calls = Calls(store)
    async with Flujo[Any, Any, Any](pipeline(asking()), store=calls, recovery=False) as runner:
        await runner.run_result_async(None, run_id=RUN)
        calls.before_claim = lambda: store.answer(RUN, StepPath("both:left/ok"), b'"L"')
        done = await runner.resume_async(RUN, "R", pause_id="both:right/ok")
    assert done.output == {"left": "L", "right": "R"}


@pytest.mark.guarantee("G18")
async def test_an_answer_that_came_second_neither_wins_nor_continues_the_run(store: StateStore) -> None:
    calls = Calls(store)
    tree = pipeline(HumanInTheLoopStep(name="ok", message=Text("ok?")))
    async with Flujo[Any, Any, Any](tree, store=calls, recovery=False) as runner:
        await runner.run_result_async(None, run_id=RUN)
        calls.before_claim = lambda: store.answer(RUN, StepPath("ok"), b'"first"')
        with pytest.raises(ResumeConflict) as refused:
            await runner.resume_async(RUN, "second")
        assert refused.value.won == "answer"
        assert (await store.run(RUN)).status is RunStatus.PAUSED
        assert (await runner.resume_async(RUN)).output == "first"


async def test_an_answer_is_kept_when_its_run_cannot_be_prepared_here(
    store: StateStore, tmp_path: Path
) -> None:
    class Unprepared(PipelineBinding):
        async def prepare(self) -> None:
            raise RuntimeError("no weights")

    tree = pipeline(HumanInTheLoopStep(name="ok", message=Text("ok?")))
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        await runner.run_result_async(None, run_id=RUN)
        settings = AgentSettings(environment={}, cache_dir=tmp_path)
        binding = Unprepared(allow_callables=(), agent_settings=settings)
        binding.bind(tree)
        async with Flujo[Any, Any, Any](tree, store=store, binding=binding, recovery=False) as other:
            with pytest.raises(RuntimeError, match="no weights"):
                await other.resume_async(RUN, "yes", by="ada")
        [pause] = await store.pauses(RUN)
        assert (pause.answer, pause.by) == (b'"yes"', "ada")
        assert (await runner.resume_async(RUN)).output == "yes"


async def test_an_answer_that_comes_before_its_deadline_fires_wins(store: StateStore) -> None:
    ask = HumanInTheLoopStep(name="ok", message=Text("ok?"), deadline_s=0.001)
    async with Flujo[Any, Any, Any](pipeline(ask), store=store, recovery=False) as runner:
        await runner.run_result_async(None, run_id=RUN)
        await asyncio.sleep(0.02)
        assert (await store.due()).questions == ((RUN, "ok"),)
        assert (await runner.resume_async(RUN, "in time")).output == "in time"


def asked_after(**options: Any) -> Pipeline:
    """Return a step, a question, and a step."""
    world = World()
    ask = HumanInTheLoopStep(name="ok", message=Text("ok?"), **options)
    return pipeline(call("first", world.add("first")), ask, call("last", world.add("last")))


async def test_a_question_is_opened_by_the_commit_of_the_step_before_it(store: StateStore) -> None:
    calls = Calls(store)
    async with Flujo[Any, Any, Any](asked_after(), store=calls, recovery=False) as runner:
        await runner.run_result_async(1, run_id=RUN)
        assert calls.names == ["accept", "write"]
        assert [entry.path for entry in await store.entries(RUN)] == ["first"]
        calls.names.clear()
        assert (await runner.resume_async(RUN, "yes")).output == "yes"
    assert calls.names == ["find_with_progress", "claim", "write", "write"]  # the answer before the next step


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    ("options", "hooks"),
    [
        ({"when": Expr("input == 2")}, []),
        ({"config": StepConfig(durability="exit")}, []),
        ({}, [lambda _: None]),
    ],
    ids=["a question that may be skipped", "an answer that is not awaited", "a watcher"],
)
async def test_a_step_is_committed_before_what_may_follow_at_once(
    store: StateStore, options: Any, hooks: Any
) -> None:
    calls = Calls(store)
    async with Flujo[Any, Any, Any](
        asked_after(**options), store=calls, hooks=hooks, recovery=False
    ) as runner:
        await runner.run_result_async(1, run_id=RUN)
    assert calls.names == ["accept", "write", "write"]


@pytest.mark.parametrize("door", ["resume_task", "answer_question"])
async def test_an_answer_does_not_reach_a_question_that_opened_after_its_check(
    store: StateStore, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Flujo[Any, Any, Any](
        pipeline(HumanInTheLoopStep("ok", Text("Pay 5?"))), store=store
    ) as runner:
        paused = await runner.run_result_async(None, run_id=RUN)
    [first] = await store.pauses(RUN)
    answer = store.answer

    async def late(*arguments: Any, **options: Any) -> Any:
        """Record an answer after the run has asked again."""
        owner = await store.claim(RUN, statuses=[paused.status])
        await store.write(Write(run_id=RUN, fence=owner.fence, voids=(first.pause_id,)))
        again = Pause(pause_id=first.pause_id, message="Pay 500?")
        await store.write(Write(run_id=RUN, fence=owner.fence, pauses=(again,)))
        return await answer(*arguments, **options)

    monkeypatch.setattr(store, "answer", late)
    client = TaskClient(store)
    if door == "resume_task":
        answering = client.resume_task(RUN, "yes", digest=seen_digest(RUN, first))
    else:
        answering = client.answer_question(RUN, first.pause_id, "yes", seen=seen_digest(RUN, first))
    with pytest.raises(QuestionChanged):
        await answering
    assert [(pause.message, pause.answer) for pause in await store.pauses(RUN)] == [("Pay 500?", None)]
