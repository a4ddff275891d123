"""`parallel`: concurrent branches, each on its own fork of the context, and the merge of their writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import EntryKind
from flujo.domain.merge import MergeStrategy
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Expr, ParallelStep, Save, StepConfig, Text
from flujo.domain.steps import HumanInTheLoopStep as Ask
from flujo.exceptions import PausedException, PipelineAbortSignal, StateBackendUnavailable
from flujo.state.memory_store import MemoryStateStore
from support import COUNTER_SCHEMA, StoppingStore, World, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def world() -> World:
    return World()


def both(left: Pipeline, right: Pipeline, **more: Any) -> Pipeline:
    """Return a pipeline of one parallel step, `p`, with a context."""
    step = ParallelStep(name="p", branches={"left": left, "right": right}, **more)
    return pipeline(
        step,
        context_schema=COUNTER_SCHEMA,
        output={"out": Text("{{ previous }}"), "context": Text("{{ context }}")},
    )


def raising(error: Exception) -> CallableRef:
    def fail(data: Any) -> None:
        raise error

    return CallableRef("x:fail", fail)


async def test_each_branch_gets_the_input_and_returns_its_output_by_name(
    store: MemoryStateStore, world: World
) -> None:
    tree = both(
        pipeline(call("a", world.add("a", lambda n: n + 1))),
        pipeline(call("b", world.add("b", lambda n: n * 10))),
    )
    result = await start(tree, store, 4)
    assert result.output["out"] == {"left": 5, "right": 40}


async def test_branches_run_at_the_same_time(store: MemoryStateStore) -> None:
    met = asyncio.Barrier(2)

    async def meet(data: Any) -> str:
        await met.wait()
        return "met"

    both_meet = CallableRef("x:meet", meet)
    tree = both(pipeline(call("a", both_meet)), pipeline(call("b", both_meet)))
    assert (await start(tree, store)).output["out"] == {"left": "met", "right": "met"}


async def test_max_concurrency_limits_the_branches_in_progress(store: MemoryStateStore) -> None:
    running = peak = 0

    async def work(data: Any) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    body = pipeline(call("a", CallableRef("x:work", work)))
    branches = {f"b{n}": body for n in range(6)}
    await start(pipeline(ParallelStep(name="p", branches=branches, max_concurrency=2)), store)
    assert peak == 2


async def test_output_replaces_the_result_and_sees_the_merged_context(
    store: MemoryStateStore, world: World
) -> None:
    tree = both(
        pipeline(call("a", world.add("a"), save={"total": Save(Expr("output"))})),
        pipeline(call("b", world.add("b"))),
        output={"left": Text("{{ previous.left }}"), "total": Text("{{ context.total }}")},
    )
    assert (await start(tree, store, 4)).output["out"] == {"left": 4, "total": 4}


async def test_a_branch_does_not_see_the_writes_of_another(store: MemoryStateStore, world: World) -> None:
    tree = both(
        pipeline(call("a", world.add("a"), save={"total": Save(Expr("output"))})),
        pipeline(
            call("wait", world.add("wait")), call("b", world.add("b"), input=Text("{{ context.total }}"))
        ),
        max_concurrency=1,
    )
    assert (await start(tree, store, 4)).output["out"] == {"left": 4, "right": 0}


class TestMerging:
    def tree(self, world: World, left: Save, right: Save, field: str = "log", **more: Any) -> Pipeline:
        return both(
            pipeline(call("a", world.add("a", lambda _: "a"), save={field: left})),
            pipeline(call("b", world.add("b", lambda _: "b"), save={field: right})),
            **more,
        )

    async def test_appended_values_are_joined_in_order_of_declaration(
        self, store: MemoryStateStore, world: World
    ) -> None:
        append = Save(Expr("output"), append=True)
        result = await start(self.tree(world, append, append), store)
        assert result.output["context"]["log"] == ["a", "b"]

    async def test_appending_to_a_field_that_has_no_value_yet_is_joined_as_well(
        self, store: MemoryStateStore, world: World
    ) -> None:
        append = Save(Expr("output"), append=True)
        step = self.tree(world, append, append).steps[0]
        tree = pipeline(step, context_schema={"properties": {"log": {}}}, output=Text("{{ context.log }}"))
        assert (await start(tree, store)).output == ["a", "b"]

    async def test_a_field_written_by_two_branches_is_a_conflict_that_names_both(
        self, store: MemoryStateStore, world: World
    ) -> None:
        result = await start(self.tree(world, Save(Expr("1")), Save(Expr("2")), field="total"), store)
        assert result.status is RunStatus.FAILED
        assert result.error is not None
        assert (result.error.code, result.error.path) == ("FLJ411", "p")
        assert "'left' and 'right'" in result.error.message
        assert "`context.total`" in result.error.message
        assert result.context is not None
        assert result.context.model_dump(exclude_unset=True) == {"total": 0, "log": []}

    @pytest.mark.parametrize(
        ("strategy", "expected"),
        [
            (MergeStrategy.OVERWRITE, [2]),
            (MergeStrategy.KEEP_FIRST, [1]),
            (MergeStrategy.NO_MERGE, []),
            ("keep_first", [1]),
        ],
    )
    async def test_a_strategy_decides_by_the_order_of_declaration(
        self, store: MemoryStateStore, world: World, strategy: str, expected: list[int]
    ) -> None:
        tree = self.tree(world, Save(Expr("[1]")), Save(Expr("[2]")), merge=strategy)
        assert (await start(tree, store)).output["context"]["log"] == expected

    async def test_error_on_conflict_does_not_join_lists(self, store: MemoryStateStore, world: World) -> None:
        append = Save(Expr("output"), append=True)
        tree = self.tree(world, append, append, merge=MergeStrategy.ERROR_ON_CONFLICT)
        result = await start(tree, store)
        assert result.error is not None
        assert result.error.code == "FLJ411"

    async def test_field_mapping_selects_the_branch_for_each_field(
        self, store: MemoryStateStore, world: World
    ) -> None:
        tree = self.tree(
            world, Save(Expr("[1]")), Save(Expr("[2]")), field_mapping={"right": ("log",), "left": ("total",)}
        )
        assert (await start(tree, store)).output["context"]["log"] == [2]

    async def test_a_merge_callable_is_called_once(self, store: MemoryStateStore, world: World) -> None:
        asked: list[Any] = []

        def merge(fork: dict[str, Any], branches: dict[str, Any]) -> dict[str, Any]:
            asked.append((dict(fork), branches))
            fork["log"] = [*branches["right"]["log"], *branches["left"]["log"]]
            return fork

        tree = self.tree(world, Save(Expr("[1]")), Save(Expr("[2]")), merge=CallableRef("x:merge", merge))
        tree = tree >> Ask(name="ok", message=Text("ok?"))
        assert (await start(tree, store)).status is RunStatus.PAUSED
        await answer(store, "ok", True)
        result = await resume(tree, store)
        assert result.output["context"] == {"total": 0, "log": [2, 1]}
        assert asked == [
            (
                {"total": 0, "log": []},
                {"left": {"total": 0, "log": [1]}, "right": {"total": 0, "log": [2]}},
            )
        ]

    async def test_the_result_of_a_merge_callable_has_to_fit_the_context(
        self, store: MemoryStateStore, world: World
    ) -> None:
        merge = CallableRef("x:merge", lambda fork, branches: {**fork, "total": "many"})
        result = await start(self.tree(world, Save(Expr("[1]")), Save(Expr("[2]")), merge=merge), store)
        assert result.error is not None
        assert "total" in result.error.message


class TestFailure:
    def tree(self, world: World, failing: CallableRef, **more: Any) -> Pipeline:
        return both(
            pipeline(call("bad", failing)),
            pipeline(
                call("a", world.add("a")),
                call("b", world.add("b"), save={"total": Save(Expr("output"))}),
            ),
            **more,
        )

    async def test_a_failure_records_the_end_of_siblings_and_drops_their_writes(
        self, store: MemoryStateStore, world: World
    ) -> None:
        result = await start(self.tree(world, raising(ValueError("no"))), store, 3)
        assert result.status is RunStatus.FAILED
        assert result.error is not None
        assert result.error.path == "p:left/bad"
        assert world.calls == ["a", "b"]
        assert result.context is not None
        assert result.context.model_dump(exclude_unset=True) == {"total": 0, "log": []}
        done = [e.path for e in await store.entries(result.run_id) if e.kind is EntryKind.DONE]
        assert done == ["p:right"]

    async def test_after_a_failure_no_further_branch_starts(
        self, store: MemoryStateStore, world: World
    ) -> None:
        await start(self.tree(world, raising(ValueError("no")), max_concurrency=1), store, 3)
        assert world.calls == []

    async def test_retry_failed_reuses_completed_branches(
        self, store: MemoryStateStore, world: World
    ) -> None:
        broken = [True]

        def flaky(data: Any) -> str:
            if broken[0]:
                raise OSError("down")
            return "up"

        tree = self.tree(world, CallableRef("x:flaky", flaky))
        await start(tree, store, 3)
        broken[0] = False
        result = await resume(tree, store, retry_failed=True)
        assert result.output == {
            "out": {"left": "up", "right": 3},
            "context": {"total": 3, "log": []},
        }
        assert world.calls == ["a", "b"]

    async def test_collect_returns_the_outcome_of_each_branch(
        self, store: MemoryStateStore, world: World
    ) -> None:
        tree = self.tree(world, raising(ValueError("no")), on_branch_failure="collect")
        output = (await start(tree, store, 3)).output
        assert output["out"]["right"] == {"ok": True, "output": 3, "error": None}
        left = output["out"]["left"]
        assert (left["ok"], left["output"]) == (False, None)
        assert (left["error"]["path"], left["error"]["message"]) == ("p:left/bad", "ValueError: no")
        assert output["context"]["total"] == 3

    async def test_skip_omits_failed_branches_and_counts_them(
        self, store: MemoryStateStore, world: World
    ) -> None:
        tree = self.tree(world, raising(ValueError("no")), on_branch_failure="skip")
        tree = pipeline(
            *tree.steps,
            context_schema=COUNTER_SCHEMA,
            output={"out": Text("{{ previous }}"), "failed": Text("{{ steps.p.failed }}")},
        )
        assert (await start(tree, store, 3)).output == {"out": {"right": 3}, "failed": 1}

    async def test_an_abort_stops_the_run_whatever_the_branches_do(
        self, store: MemoryStateStore, world: World
    ) -> None:
        tree = self.tree(world, raising(PipelineAbortSignal("enough")), on_branch_failure="skip")
        result = await start(tree, store, 3)
        assert result.status is RunStatus.CANCELLED

    async def test_a_collected_failure_is_not_retried_by_a_resume(self, store: MemoryStateStore) -> None:
        tries = []

        def bad(data: Any) -> Any:
            tries.append(1)
            return {1, 2}

        config = StepConfig(max_retries=3)
        tree = pipeline(
            ParallelStep(
                name="p",
                branches={
                    "bad": pipeline(call("bad", CallableRef("x:bad", bad), config=config)),
                    "ask": pipeline(Ask(name="ok", message=Text("ok?"))),
                },
                on_branch_failure="skip",
            )
        )
        assert (await start(tree, store)).status is RunStatus.PAUSED
        await answer(store, "p:ask/ok", True)
        assert (await resume(tree, store)).output == {"ask": True}
        assert tries == [1]


class TestPauses:
    def tree(self, world: World) -> Pipeline:
        return both(
            pipeline(Ask(name="ok", message=Text("left?")), call("a", world.add("a"))),
            pipeline(Ask(name="ok", message=Text("right?")), call("b", world.add("b"))),
        )

    async def test_each_question_is_answered_by_its_own_id(
        self, store: MemoryStateStore, world: World
    ) -> None:
        tree = self.tree(world)
        result = await start(tree, store)
        assert result.status is RunStatus.PAUSED
        assert [pause.pause_id for pause in result.pauses] == ["p:left/ok", "p:right/ok"]
        await answer(store, "p:right/ok", "R")
        result = await resume(tree, store)
        assert result.status is RunStatus.PAUSED
        assert [pause.pause_id for pause in result.pauses] == ["p:left/ok"]
        assert world.calls == ["b"]
        await answer(store, "p:left/ok", "L")
        result = await resume(tree, store)
        assert result.output["out"] == {"left": "L", "right": "R"}
        assert world.calls == ["b", "a"]

    async def test_a_branch_that_pauses_lets_its_siblings_finish(
        self, store: MemoryStateStore, world: World
    ) -> None:
        tree = both(
            pipeline(Ask(name="ok", message=Text("ok?"))),
            pipeline(call("a", world.add("a")), call("b", world.add("b"))),
        )
        assert (await start(tree, store)).status is RunStatus.PAUSED
        assert world.calls == ["a", "b"]
        await answer(store, "p:left/ok", "yes")
        assert (
            await resume(
                tree,
                store,
            )
        ).output["out"] == {"left": "yes", "right": None}
        assert world.calls == ["a", "b"]

    async def test_step_code_may_pause_in_a_branch(self, store: MemoryStateStore, world: World) -> None:
        tree = both(
            pipeline(call("w", raising(PausedException("wait")))), pipeline(call("a", world.add("a")))
        )
        assert (await start(tree, store)).status is RunStatus.PAUSED
        await answer(store, "p:left/w", 5)
        assert (await resume(tree, store)).output["out"] == {"left": 5, "right": None}

    async def test_a_failure_next_to_a_pause_fails_the_run_and_voids_the_question(
        self, store: MemoryStateStore, world: World
    ) -> None:
        broken = [True]

        def flaky(data: Any) -> str:
            if broken[0]:
                raise OSError("down")
            return "up"

        tree = both(
            pipeline(Ask(name="ok", message=Text("ok?"))),
            pipeline(call("f", CallableRef("x:flaky", flaky))),
        )
        result = await start(tree, store)
        assert result.status is RunStatus.FAILED
        assert [pause.void for pause in await store.pauses(result.run_id)] == [True]
        broken[0] = False
        assert (await resume(tree, store, retry_failed=True)).status is RunStatus.PAUSED
        await answer(store, "p:left/ok", "yes")
        assert (await resume(tree, store)).output["out"] == {"left": "yes", "right": "up"}

    async def test_a_question_in_a_composite_whose_failure_is_collected_is_closed(
        self, store: MemoryStateStore
    ) -> None:
        inner = ParallelStep(
            name="inner",
            branches={
                "asks": pipeline(Ask(name="ok", message=Text("ok?"))),
                "fails": pipeline(call("bad", raising(ValueError("no")))),
            },
        )
        later = Ask(name="later", message=Text("later?"))
        outer = ParallelStep(
            name="outer",
            branches={"one": pipeline(inner), "two": pipeline(call("fine", CallableRef("x:fine", str)))},
            on_branch_failure="collect",
        )
        waiting = await start(pipeline(outer, later), store)
        assert [pause.pause_id for pause in waiting.pauses] == ["later"]
        assert [pause.pause_id for pause in await store.pauses(waiting.run_id) if pause.is_open] == ["later"]
        await answer(store, "later", "yes")
        result = await resume(pipeline(outer, later), store)
        assert (result.status, result.output) == (RunStatus.COMPLETED, "yes")


class TestStopping:
    async def test_cancelling_a_run_ends_every_branch_and_leaves_it_resumable(
        self, store: MemoryStateStore, world: World
    ) -> None:
        before = asyncio.all_tasks()
        waiting, release, ended = asyncio.Barrier(3), [False], []

        async def wait(data: Any) -> str:
            if not release[0]:
                try:
                    await waiting.wait()
                    await asyncio.sleep(60)
                finally:
                    ended.append(1)
            return "done"

        slow = CallableRef("x:wait", wait)
        tree = both(
            pipeline(call("a", world.add("a")), call("w", slow)),
            pipeline(call("b", world.add("b")), call("w", slow)),
        )
        task = asyncio.create_task(start(tree, store, 1))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [1, 1]
        assert asyncio.all_tasks() == before
        record = await store.find("run")
        assert (record.status, record.owner) == (RunStatus.RUNNING, None)
        release[0] = True
        assert (await resume(tree, store)).output["out"] == {"left": "done", "right": "done"}
        assert sorted(world.calls) == ["a", "b"]

    async def test_an_unavailable_database_ends_every_branch_and_the_run_can_be_resumed(
        self, store: MemoryStateStore, world: World
    ) -> None:
        before = asyncio.all_tasks()

        async def wait(data: Any) -> str:
            await asyncio.sleep(60)
            return "done"

        tree = both(
            pipeline(call("a", world.add("a")), call("b", world.add("b"))),
            pipeline(call("w", CallableRef("x:wait", wait))),
        )
        stopping: Any = StoppingStore(store, 1)
        with pytest.raises(StateBackendUnavailable):
            await start(tree, stopping, 1)
        assert asyncio.all_tasks() == before
        assert world.calls == ["a", "b"]
