"""Walks through pipelines: values between steps, results, and journal entries."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import Field

from flujo.domain.events import RunEnded, RunStarted, StepEnded, StepRetried, StepStarted
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.models import PipelineContext
from flujo.domain.outcomes import Success
from flujo.domain.paths import StepPath
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Carry, TreeSearchStep
from flujo.engine.frame import PlannedStep
from flujo.engine.journal import MAX_WAITING
from flujo.exceptions import PausedException, PipelineAbortSignal, SettingsError
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from support import (
    CALLS,
    COUNTER_SCHEMA,
    EXPECTED,
    ConditionalStep,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    Save,
    StepConfig,
    Text,
    World,
    call,
    everything,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline


NOTHING = CallableRef("builtins:str", str)


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def world() -> World:
    return World()


async def test_every_kind_of_step_in_one_run(store: MemoryStateStore, world: World) -> None:
    result = await start(everything(world), store, 1)
    assert (result.status, result.output) == (RunStatus.COMPLETED, EXPECTED)
    assert world.calls == CALLS
    assert result.success


async def test_a_step_without_input_gets_the_previous_output(store: MemoryStateStore, world: World) -> None:
    tree = pipeline(
        call("a", world.add("a", lambda data: data + 1)), call("b", world.add("b", lambda d: d * 2))
    )
    assert (await start(tree, store, 4)).output == 10


async def test_the_recorded_input_is_the_json_of_the_value_that_the_step_gets(
    store: MemoryStateStore, world: World
) -> None:
    """Equal values, an output that is not the newest one, and values of an enclosing body."""

    def gives(*, output: Any) -> CallableRef:
        return CallableRef("x:gives", lambda _: output)

    outputs: list[Any] = [1, True, 1.0, [1], {"a": [1]}]
    steps = [call(f"s{n}", gives(output=output)) for n, output in enumerate(outputs)]
    inner = pipeline(call("first", world.add("first", lambda data: data)))
    tree = pipeline(
        *steps,
        ImportStep(name="nested", pipeline=inner),
        call("yes", gives(output=True)),
        call("again", world.add("again", lambda data: data), input=Text("{{ steps.s0.output }}")),
        call("last", world.add("last", lambda data: data)),
    )
    await start(tree, store, "given")
    entries = await store.entries(RunId("run"))
    inputs = {entry.path: entry.input for entry in entries if entry.kind is EntryKind.WORK}
    assert inputs == {
        "s0": b'"given"',
        "s1": b"1",
        "s2": b"true",
        "s3": b"1.0",
        "s4": b"[1]",
        "nested/first": b'{"a":[1]}',
        "yes": b'{"a":[1]}',
        "again": b"1",
        "last": b"1",
    }


async def test_an_empty_pipeline_returns_its_input(store: MemoryStateStore) -> None:
    assert (await start(pipeline(), store, {"a": 1})).output == {"a": 1}


async def test_with_passes_keyword_arguments(store: MemoryStateStore) -> None:
    def join(left: str, right: int) -> str:
        return f"{left}-{right}"

    target = CallableRef("x:join", join)
    tree = pipeline(
        call("join", target, arguments={"left": Text("<{{ input.a }}>"), "right": Text("{{ input.b }}")})
    )
    assert (await start(tree, store, {"a": "x", "b": 3})).output == "<x>-3"


async def test_a_skipped_step_passes_on_the_previous_output(store: MemoryStateStore, world: World) -> None:
    tree = pipeline(
        call("a", world.add("a", lambda data: "from a")),
        call("b", world.add("b"), when=Expr("input == 2")),
        call("c", world.add("c")),
    )
    result = await start(tree, store, 1)
    assert result.output == "from a"
    assert world.calls == ["a", "c"]
    assert [(step.path, step.status) for step in result.steps] == [
        ("a", "completed"),
        ("b", "skipped"),
        ("c", "completed"),
    ]


async def test_save_writes_context_fields_that_later_steps_read(
    store: MemoryStateStore, world: World
) -> None:
    tree = pipeline(
        call("a", world.add("a", lambda data: {"n": 5}), save={"total": Save(Expr("output.n + 1"))}),
        call(
            "b",
            world.add("b"),
            input=Text("{{ context.total }}"),
            save={"log": Save(Expr("output"), append=True)},
        ),
        context_schema=COUNTER_SCHEMA,
        output=Text("{{ context }}"),
    )
    assert (await start(tree, store)).output == {"total": 6, "log": [6]}


async def test_a_value_that_does_not_fit_the_context_fails_the_step_and_changes_nothing(
    store: MemoryStateStore, world: World
) -> None:
    tree = pipeline(
        call("a", world.add("a", lambda data: "text"), save={"total": Save(Expr("output"))}),
        context_schema=COUNTER_SCHEMA,
    )
    result = await start(tree, store)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.path == "a"
    assert "total" in result.error.message
    assert result.context is not None
    assert result.context.model_dump(exclude_unset=True) == {"total": 0, "log": []}


class Notes(PipelineContext):
    user_id: str = "nobody"
    notes: list[str] = Field(default_factory=list)


async def test_a_callable_may_change_its_context_parameter(store: MemoryStateStore) -> None:
    def note(data: Any, context: Notes) -> str:
        context.notes.append(data)
        context.user_id = "u1"
        return "done"

    tree = pipeline(call("note", CallableRef("x:note", note)))
    async with Flujo[Any, Any, Notes](tree, context_model=Notes, store=store) as runner:
        result = await runner.run_result_async("hello")
    assert result.context == Notes(user_id="u1", notes=["hello"])


async def test_a_failed_attempt_leaves_no_trace_in_the_context(store: MemoryStateStore) -> None:
    attempts = 0

    def note(context: Notes) -> int:
        nonlocal attempts
        attempts += 1
        context.notes.append(f"attempt {attempts}")
        if attempts == 1:
            raise OSError("once")
        return attempts

    config = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    tree = pipeline(call("note", CallableRef("x:note", note), config=config))
    async with Flujo[Any, Any, Notes](tree, context_model=Notes, store=store) as runner:
        result = await runner.run_result_async(None)
    assert result.context is not None
    assert result.context.notes == ["attempt 2"]


async def test_a_callable_that_changes_its_input_affects_no_other_step(
    store: MemoryStateStore, world: World
) -> None:
    def spoil(data: dict[str, Any]) -> str:
        data["a"] = "spoilt"
        return "x"

    tree = pipeline(
        call("spoil", CallableRef("x:spoil", spoil)), call("b", world.add("b"), input=Text("{{ input }}"))
    )
    assert (await start(tree, store, {"a": "fresh"})).output == {"a": "fresh"}


class TestConditional:
    def tree(self, world: World, **more: Any) -> Pipeline:
        branches = {
            "x": pipeline(call("x", world.add("x", lambda _: "x"))),
            "y": pipeline(call("y", world.add("y", lambda _: "y"))),
        }
        return pipeline(
            ConditionalStep(name="route", form="switch", condition=Expr("input"), branches=branches, **more)
        )

    async def test_switch_runs_the_branch_of_its_value(self, store: MemoryStateStore, world: World) -> None:
        assert (await start(self.tree(world), store, "y")).output == "y"
        assert world.calls == ["y"]

    async def test_switch_without_a_branch_and_without_default_fails_and_names_the_value(
        self, store: MemoryStateStore, world: World
    ) -> None:
        result = await start(self.tree(world), store, "z")
        assert result.status is RunStatus.FAILED
        assert result.error is not None
        assert result.error.code == "FLJ407"
        assert "'z'" in result.error.message
        assert "x, y" in result.error.message

    async def test_switch_falls_back_to_default(self, store: MemoryStateStore, world: World) -> None:
        tree = self.tree(world, default=pipeline(call("d", world.add("d", lambda _: "default"))))
        assert (await start(tree, store, "z")).output == "default"

    async def test_if_without_else_passes_its_input_on(self, store: MemoryStateStore, world: World) -> None:
        step = ConditionalStep(
            name="maybe", condition=Expr("input > 5"), branches={"then": pipeline(call("a", world.add("a")))}
        )
        assert (await start(pipeline(step), store, 3)).output == 3
        assert world.calls == []

    async def test_an_if_that_is_neither_true_nor_false_fails(
        self, store: MemoryStateStore, world: World
    ) -> None:
        step = ConditionalStep(name="maybe", condition=Expr("input"), branches={"then": pipeline()})
        result = await start(pipeline(step), store, "yes")
        assert result.error is not None
        assert "neither true nor false" in result.error.message

    async def test_a_deciding_callable_is_called_once_even_when_the_run_is_resumed(
        self, store: MemoryStateStore
    ) -> None:
        asked = []

        def choose(data: Any) -> str:
            asked.append(data)
            return "ask"

        tree = pipeline(
            ConditionalStep(
                name="route",
                form="switch",
                condition=CallableRef("x:choose", choose),
                branches={"ask": pipeline(HumanInTheLoopStep(name="ok", message=Text("ok?")))},
            )
        )
        assert (await start(tree, store, 7)).status is RunStatus.PAUSED
        assert (await resume(tree, store)).status is RunStatus.PAUSED
        assert asked == [7]

    async def test_output_replaces_the_result_of_the_chosen_branch(
        self, store: MemoryStateStore, world: World
    ) -> None:
        step = ConditionalStep(
            name="maybe",
            condition=Expr("true"),
            branches={"then": pipeline(call("a", world.add("a", lambda _: 4)))},
            output={"n": Text("{{ steps.a.output }}")},
        )
        assert (await start(pipeline(step), store)).output == {"n": 4}


class TestLoop:
    def loop(self, world: World, until: str, **more: Any) -> LoopStep:
        return LoopStep(
            name="loop",
            body=pipeline(call("inc", world.add("inc", lambda n: n + 1))),
            until=Expr(until),
            **more,
        )

    async def test_a_loop_ends_when_until_holds(self, store: MemoryStateStore, world: World) -> None:
        assert (await start(pipeline(self.loop(world, "steps.inc.output >= 3")), store, 0)).output == 3
        assert world.calls == ["inc"] * 3

    async def test_a_loop_fails_at_its_limit(self, store: MemoryStateStore, world: World) -> None:
        result = await start(pipeline(self.loop(world, "false", max_iterations=4)), store, 0)
        assert result.error is not None
        assert (result.error.code, result.error.path) == ("FLJ406", "loop")
        assert "ran 4 times" in result.error.message

    async def test_a_loop_may_continue_at_its_limit_and_reports_how_it_ended(
        self, store: MemoryStateStore, world: World
    ) -> None:
        said = {"n": Text("{{ previous }}"), "full": Text("{{ steps.loop.exhausted }}")}
        for until, expected in (
            ("false", {"n": 4, "full": True}),
            ("loop.index == 1", {"n": 2, "full": False}),
        ):
            tree = pipeline(self.loop(world, until, max_iterations=4, on_limit="continue"), output=said)
            assert (await start(tree, store, 0, run_id=f"run-{expected['n']}")).output == expected

    async def test_a_carried_variable_holds_the_value_of_the_last_iteration(
        self, store: MemoryStateStore, world: World
    ) -> None:
        loop = self.loop(
            world,
            "loop.index == 2",
            carry={"trail": Carry(Text("start"), Expr("loop.trail + '>' + string(steps.inc.output)"))},
            output=Text("{{ loop.trail }} at {{ loop.index }}"),
        )
        assert (await start(pipeline(loop), store, 0)).output == "start>1>2 at 2"

    async def test_the_body_does_not_see_the_previous_iteration(
        self, store: MemoryStateStore, world: World
    ) -> None:
        body = pipeline(
            call("a", world.add("a"), when=Expr("loop.index == 0")),
            call("b", world.add("b"), input=Text("{{ steps.a.output }}")),
        )
        loop = LoopStep(name="loop", body=body, until=Expr("loop.index == 1"))
        result = await start(pipeline(loop), store, "first")
        assert [step.output for step in result.steps if step.path.endswith("/b")] == ["first", None]


class TestImport:
    async def test_the_imported_blueprint_has_its_own_input_and_steps(
        self, store: MemoryStateStore, world: World
    ) -> None:
        result = await start(everything(world), store, 1)
        paths = [step.path for step in result.steps]
        assert "child/double" in paths
        assert result.output == EXPECTED

    async def test_a_failed_import_fails_the_run_unless_it_may_be_skipped(
        self, store: MemoryStateStore, world: World
    ) -> None:
        def boom(data: Any) -> None:
            raise ValueError("no")

        child = pipeline(call("boom", CallableRef("x:boom", boom)), name="child")
        for number, (on_failure, status, output) in enumerate(
            [
                ("fail", "failed", None),
                ("skip", "completed", 1),
                ({"output": Text("instead")}, "completed", "instead"),
            ]
        ):
            step = ImportStep(name="child", blueprint="c.yaml", pipeline=child, on_failure=on_failure)  # type: ignore[call-overload]
            result = await start(pipeline(step), store, 1, run_id=f"r{number}")
            assert (result.status, result.output) == (status, output)

    async def test_the_input_of_an_import_is_checked(self, store: MemoryStateStore) -> None:
        child = pipeline(name="child", input_schema={"type": "object", "required": ["n"]})
        step = ImportStep(name="child", blueprint="c.yaml", pipeline=child, arguments={"m": Text("x")})
        result = await start(pipeline(step), store)
        assert result.error is not None
        assert "input of import 'child'" in result.error.message


class TestHuman:
    tree = pipeline(
        HumanInTheLoopStep(
            name="ok",
            message=Text("Send {{ input }}?"),
            answer_schema={"type": "object", "required": ["yes"], "properties": {"yes": {"type": "boolean"}}},
            save={"total": Save(Expr("output.yes ? 1 : 2"))},
        ),
        context_schema=COUNTER_SCHEMA,
        output=Text("{{ steps.ok.output.yes }}"),
    )

    async def test_the_question_is_committed_when_the_run_pauses(self, store: MemoryStateStore) -> None:
        result = await start(self.tree, store, "it")
        assert result.status is RunStatus.PAUSED
        assert [(pause.pause_id, pause.message) for pause in result.pauses] == [("ok", "Send it?")]
        assert [pause.is_open for pause in await store.pauses(result.run_id)] == [True]

    async def test_the_answer_is_the_output_of_the_step(self, store: MemoryStateStore) -> None:
        result = await start(self.tree, store, "it")
        await store.answer(result.run_id, result.pauses[0].pause_id, b'{"yes":true}')
        finished = await resume(self.tree, store)
        assert (finished.status, finished.output) == (RunStatus.COMPLETED, True)
        assert finished.context is not None
        assert finished.context.total == 1

    async def test_resuming_without_an_answer_asks_the_same_question_again(
        self, store: MemoryStateStore
    ) -> None:
        await start(self.tree, store, "it")
        again = await resume(self.tree, store)
        assert again.status is RunStatus.PAUSED
        assert len(await store.pauses(again.run_id)) == 1

    async def test_raise_on_pause_raises_after_the_pause_is_committed(self, store: MemoryStateStore) -> None:
        runner = Flujo[Any, Any, Any](self.tree, store=store, raise_on_pause=True)
        with pytest.raises(PausedException, match="Send it") as signal:
            await runner.run_result_async("it", run_id="p")
        assert (await store.run(signal.value.facts["run_id"])).status is RunStatus.PAUSED

    async def test_step_code_may_pause_and_gets_the_answer_as_its_output(
        self, store: MemoryStateStore
    ) -> None:
        def ask(data: Any) -> None:
            raise PausedException("which one?")

        tree = pipeline(call("ask", CallableRef("x:ask", ask)))
        result = await start(tree, store)
        assert result.pauses[0].message == "which one?"
        await store.answer(result.run_id, result.pauses[0].pause_id, b'"that one"')
        assert (await resume(tree, store)).output == "that one"


class TestAttempts:
    async def test_a_failure_keeps_earlier_results_and_names_its_place_and_cause(
        self, store: MemoryStateStore, world: World
    ) -> None:
        def boom(data: Any) -> None:
            raise ValueError("no such order")

        tree = pipeline(
            call("a", world.add("a")), call("boom", CallableRef("x:boom", boom)), call("c", world.add("c"))
        )
        result = await start(tree, store, 1)
        assert result.status is RunStatus.FAILED
        assert result.error is not None
        assert (result.error.path, result.error.type) == ("boom", "ValueError")
        assert "no such order" in result.error.message
        assert isinstance(result.cause, ValueError)
        assert world.calls == ["a"]
        assert [entry.status for entry in await store.entries(result.run_id)] == ["completed", "failed"]

    async def test_retry_failed_continues_at_the_failed_step(
        self, store: MemoryStateStore, world: World
    ) -> None:
        broken = [True]

        def flaky(data: Any) -> str:
            if broken[0]:
                raise OSError("down")
            return "up"

        tree = pipeline(call("a", world.add("a")), call("flaky", CallableRef("x:flaky", flaky)))
        assert (await start(tree, store, 1)).status is RunStatus.FAILED
        broken[0] = False
        result = await resume(tree, store, retry_failed=True)
        assert (result.status, result.output) == (RunStatus.COMPLETED, "up")
        assert world.calls == ["a"]
        assert [(entry.path, entry.attempt) for entry in await store.entries(result.run_id)] == [
            ("a", 1),
            ("flaky", 1),
            ("flaky", 2),
        ]

    async def test_retries_are_reported_and_recorded(self, store: MemoryStateStore) -> None:
        tries = []
        seen: list[Any] = []

        def flaky(data: Any) -> int:
            tries.append(data)
            if len(tries) < 3:
                raise OSError("down")
            return len(tries)

        async def sink(event: Any) -> None:
            seen.append(event)

        config = StepConfig(max_retries=2, retry=RetryPolicy(backoff="none"))
        result = await start(pipeline(call("f", CallableRef("x:f", flaky), config=config)), store, sink=sink)
        assert result.output == 3
        assert [type(event) for event in seen] == [
            RunStarted,
            StepStarted,
            StepRetried,
            StepStarted,
            StepRetried,
            StepStarted,
            StepEnded,
            RunEnded,
        ]

    async def test_permanent_errors_are_not_retried(self, store: MemoryStateStore) -> None:
        tries = []

        def bad(data: Any) -> Any:
            tries.append(1)
            return {1, 2}

        config = StepConfig(max_retries=5, retry=RetryPolicy(backoff="none"))
        result = await start(pipeline(call("bad", CallableRef("x:bad", bad), config=config)), store)
        assert result.error is not None
        assert result.error.code == "FLJ405"
        assert tries == [1]

    async def test_a_step_that_exceeds_its_time_limit_fails_with_the_limit(
        self, store: MemoryStateStore
    ) -> None:
        async def slow(data: Any) -> None:
            await asyncio.sleep(60)

        step = call("slow", CallableRef("x:slow", slow), config=StepConfig(timeout_s=0.01))
        result = await start(pipeline(step), store)
        assert result.error is not None
        assert (result.error.code, result.error.path) == ("FLJ403", "slow")
        assert "0.01 s" in result.error.message

    async def test_step_code_may_abort_the_run(self, store: MemoryStateStore, world: World) -> None:
        def stop(data: Any) -> None:
            raise PipelineAbortSignal("nothing to do")

        result = await start(pipeline(call("s", CallableRef("x:s", stop)), call("b", world.add("b"))), store)
        assert result.status is RunStatus.CANCELLED
        assert result.error is not None
        assert result.error.message == "nothing to do"
        assert world.calls == []

    async def test_an_output_is_checked_against_the_steps_schema(
        self, store: MemoryStateStore, world: World
    ) -> None:
        step = call(
            "a",
            world.add("a", lambda _: {"n": "x"}),
            output_schema={"properties": {"n": {"type": "integer"}}},
        )
        result = await start(pipeline(step), store)
        assert result.error is not None
        assert result.error.code == "FLJ304"


@pytest.mark.guarantee("G10")
async def test_cancelling_a_run_leaves_it_resumable(store: MemoryStateStore, world: World) -> None:
    started = asyncio.Event()
    release = [False]

    async def wait(data: Any) -> str:
        started.set()
        if not release[0]:
            await asyncio.sleep(60)
        return "done"

    tree = pipeline(call("a", world.add("a")), call("wait", CallableRef("x:wait", wait)))
    task = asyncio.create_task(start(tree, store, 1))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    record = await store.find("run")
    assert (record.status, record.owner) == (RunStatus.RUNNING, None)
    release[0] = True
    assert (await resume(tree, store)).output == "done"
    assert world.calls == ["a"]


async def test_a_malformed_run_id_is_refused(store: MemoryStateStore) -> None:
    for bad in ("a:b", "", " ", "-x", "a/b", "x" * 129):
        with pytest.raises(SettingsError, match="cannot be a run id"):
            await start(pipeline(), store, run_id=bad)


async def test_a_live_run_sees_the_same_values_as_a_resumed_one(store: MemoryStateStore) -> None:
    def pair(data: Any) -> tuple[int, float]:
        return (1, 2.0)

    def kind(data: Any) -> str:
        return type(data).__name__

    tree = pipeline(call("pair", CallableRef("x:pair", pair)), call("kind", CallableRef("x:kind", kind)))
    assert (await start(tree, store)).output == "list"


@pytest.mark.usefixtures("own_objects")
async def test_each_body_is_planned_once_for_all_runs(store: MemoryStateStore) -> None:
    """A long-lived runner keeps one plan for each body, however many runs it has executed."""

    def planned() -> int:
        return sum(isinstance(each, PlannedStep) for each in gc.get_objects())

    def propose(data: Any) -> list[int]:
        return [1, 2]

    def score(data: Any) -> int:
        return int(data["candidate"])

    search = TreeSearchStep(
        "search",
        propose=CallableRef("x:propose", propose),
        evaluate=CallableRef("x:score", score),
        max_depth=2,
    )
    async with Flujo[Any, Any, Any](pipeline(search, call("last", NOTHING)), store=store) as runner:
        before = planned()
        assert (await runner.run_result_async(1)).success
        after = planned()
        assert after - before == 4, "two steps, and the two questions of the search"
        for _ in range(3):
            assert (await runner.run_result_async(1)).success
        assert planned() == after


async def test_a_run_without_persistence_resumes_after_all_its_steps(world: World) -> None:
    """More steps than one group of entries holds, then a question."""
    steps = [call(f"s{n}", world.add("step", lambda data: data + 1)) for n in range(MAX_WAITING + 10)]
    tree = pipeline(*steps, HumanInTheLoopStep(name="ask", message=Text("continue?")))
    async with Flujo[Any, Any, Any](tree, persist_state=False) as runner:
        paused = await runner.run_result_async(0, run_id="run")
        assert paused.status is RunStatus.PAUSED
        resumed = await runner.resume_async("run", "yes")
    assert (resumed.status, resumed.output) == (RunStatus.COMPLETED, "yes")
    assert len(world.calls) == len(steps)


async def test_a_skipped_step_has_no_output_anywhere(store: MemoryStateStore) -> None:
    events: list[Any] = []

    async def sink(event: Any) -> None:
        events.append(event)

    tree = pipeline(call("a", World().add("a")), call("b", World().add("b"), when=Expr("false")))
    result = await start(tree, store, 7, sink=sink)
    assert result.output == 7, "the output of the step before is passed on"
    assert [(each.status, each.output) for each in result.steps] == [("completed", 7), ("skipped", None)]
    [skipped] = [each for each in events if isinstance(each, StepEnded) and each.path == "b"]
    assert skipped.outcome == Success(None, skipped=True)
    *_, entry = await store.entries(RunId("run"), paths=[StepPath("b")])
    assert entry.output is None
