"""`map`: runs a body for each item, several at a time; results keep the order of the items."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import Field

from flujo.cli.exit_codes import ExitCode, of_run
from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.models import PipelineContext
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Expr, ImportStep, MapStep, Save, Step, StepConfig, Text
from flujo.domain.steps import HumanInTheLoopStep as Ask
from flujo.exceptions import AnswerUnbounded, FlujoError, PriceUnknown
from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from support import COUNTER_SCHEMA, World, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def world() -> World:
    return World()


def mapping(world: World, work: Callable[[Any], Any] = lambda n: n * 10, **more: Any) -> MapStep:
    body = pipeline(call("work", world.add("work", work)))
    return MapStep(**{"name": "m", "over": Expr("input"), "body": body, **more})


def fail_on(bad: Any) -> Callable[[Any], Any]:
    def work(data: Any) -> Any:
        if data == bad:
            raise ValueError(f"no {data}")
        return data * 10

    return work


async def test_results_are_listed_in_the_order_of_the_items(
    store: MemoryStateStore,
) -> None:
    second_is_done = asyncio.Event()

    async def work(data: int) -> int:
        if data == 1:
            await second_is_done.wait()
        second_is_done.set()
        return data * 10

    step = MapStep(name="m", over=Expr("input"), body=pipeline(call("w", CallableRef("x:work", work))))
    assert (await start(pipeline(step), store, [1, 2, 3])).output == [10, 20, 30]
    shown = (await TaskClient(store).get_task("run")).trace.at("m")
    assert [item.path for item in shown.children] == ["m[0]", "m[1]", "m[2]"]


async def test_an_empty_list_gives_an_empty_list(store: MemoryStateStore, world: World) -> None:
    assert (await start(pipeline(mapping(world)), store, [])).output == []


async def test_item_index_and_the_name_of_as_are_in_scope(store: MemoryStateStore, world: World) -> None:
    said = Text("{{ item }} {{ clause }} {{ index }} {{ previous }}")
    body = pipeline(call("work", world.add("work"), input=said))
    step = MapStep(name="m", over=Expr("input"), item_name="clause", body=body)
    assert (await start(pipeline(step), store, ["a", "b"])).output == ["a a 0 a", "b b 1 b"]


async def test_item_is_the_innermost_and_as_names_an_outer_item(
    store: MemoryStateStore, world: World
) -> None:
    said = Text("{{ row }}{{ item }}")
    inner = MapStep(
        name="cells",
        over=Expr("['x', 'y']"),
        body=pipeline(call("work", world.add("work"), input=said)),
    )
    outer = MapStep(name="rows", over=Expr("input"), item_name="row", body=pipeline(inner))
    assert (await start(pipeline(outer), store, [1, 2])).output == [["1x", "1y"], ["2x", "2y"]]


async def test_output_replaces_the_list_of_results(store: MemoryStateStore, world: World) -> None:
    step = mapping(world, output={"all": Text("{{ previous }}")})
    assert (await start(pipeline(step), store, [1, 2])).output == {"all": [10, 20]}


async def test_over_has_to_be_a_list(store: MemoryStateStore, world: World) -> None:
    for number, over in enumerate((Expr("input"), CallableRef("x:over", lambda data: {"a": data}))):
        result = await start(pipeline(mapping(world, over=over)), store, "text", run_id=f"run-{number}")
        assert result.error is not None
        assert result.error.message == f"`over` of map 'm' is {['a text', 'a map'][number]}, not a list"


async def test_max_concurrency_limits_the_items_in_progress(store: MemoryStateStore) -> None:
    running = peak = 0

    async def work(data: Any) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    body = pipeline(call("w", CallableRef("x:work", work)))
    await start(
        pipeline(MapStep(name="m", over=Expr("input"), body=body, max_concurrency=3)), store, [0] * 20
    )
    assert peak == 3


class TestErrors:
    async def test_a_failed_item_fails_the_map_and_a_retry_reuses_completed_ones(
        self, store: MemoryStateStore, world: World
    ) -> None:
        bad = [2]
        tree = pipeline(mapping(world, lambda n: fail_on(bad[0])(n), max_concurrency=1))
        result = await start(tree, store, [1, 2, 3])
        assert result.error is not None
        assert result.error.path == "m[1]/work"
        assert world.calls == ["work"] * 2
        bad[0] = -1
        assert (await resume(tree, store, retry_failed=True)).output == [10, 20, 30]
        assert world.calls == ["work"] * 4

    async def test_skip_omits_failed_items_and_counts_them(
        self, store: MemoryStateStore, world: World
    ) -> None:
        tree = pipeline(
            mapping(world, fail_on(2), on_error="skip"),
            output={"out": Text("{{ previous }}"), "failed": Text("{{ steps.m.failed }}")},
        )
        assert (await start(tree, store, [1, 2, 3])).output == {"out": [10, 30], "failed": 1}

    async def test_collect_returns_the_outcome_of_each_item(
        self, store: MemoryStateStore, world: World
    ) -> None:
        output = (
            await start(pipeline(mapping(world, fail_on("b"), on_error="collect")), store, ["a", "b"])
        ).output
        assert output[0] == {"index": 0, "item": "a", "ok": True, "output": "a" * 10, "error": None}
        assert {k: output[1][k] for k in ("index", "item", "ok", "output")} == {
            "index": 1,
            "item": "b",
            "ok": False,
            "output": None,
        }
        assert output[1]["error"]["message"] == "ValueError: no b"


class TestContext:
    def tree(self, world: World, **more: Any) -> Any:
        body = pipeline(call("w", world.add("w"), save={"log": Save(Expr("output"), append=True)}))
        step = MapStep(name="m", over=Expr("input"), body=body, **more)
        return pipeline(step, context_schema=COUNTER_SCHEMA, output=Text("{{ context.log }}"))

    async def test_context_writes_of_items_are_dropped_without_merge(
        self, store: MemoryStateStore, world: World
    ) -> None:
        assert (await start(self.tree(world), store, [1, 2, 3])).output == []

    async def test_appended_values_are_joined_in_the_order_of_the_items(
        self, store: MemoryStateStore, world: World
    ) -> None:
        tree = self.tree(world, merge="context_update")
        assert (await start(tree, store, [1, 2, 3])).output == [1, 2, 3]

    async def test_two_items_that_write_one_field_are_a_conflict(
        self, store: MemoryStateStore, world: World
    ) -> None:
        body = pipeline(call("w", world.add("w"), save={"total": Save(Expr("output"))}))
        step = MapStep(name="m", over=Expr("input"), body=body, merge="context_update")
        result = await start(pipeline(step, context_schema=COUNTER_SCHEMA), store, [1, 2])
        assert result.error is not None
        assert result.error.code == "FLJ411"
        assert "items '0' and '1'" in result.error.message


class TestCallablesAsOver:
    async def test_a_list_from_a_callable_is_computed_once(
        self, store: MemoryStateStore, world: World
    ) -> None:
        asked = []

        def over(data: Any) -> list[int]:
            asked.append(data)
            return [data, data + 1]

        body = pipeline(Ask(name="ok", message=Text("{{ item }}?")))
        tree = pipeline(MapStep(name="m", over=CallableRef("x:over", over), body=body))
        assert len((await start(tree, store, 5)).pauses) == 2
        await answer(store, "m[0]/ok", "a")
        await answer(store, "m[1]/ok", "b")
        assert (await resume(tree, store)).output == ["a", "b"]
        assert asked == [5]

    @pytest.mark.parametrize("is_async", [True, False])
    async def test_items_of_an_iterator_are_recorded_before_they_run(
        self, store: MemoryStateStore, world: World, *, is_async: bool
    ) -> None:
        closed = []

        async def some(data: int) -> AsyncIterator[int]:
            for n in range(data):
                yield n
            closed.append("async")

        def others(data: int) -> Iterator[int]:
            yield from range(data)
            closed.append("sync")

        over = CallableRef("x:over", some if is_async else others)
        tree = pipeline(mapping(world, over=over, max_concurrency=1))
        result = await start(tree, store, 3)
        assert result.output == [0, 10, 20]
        told = [(e.path, e.kind) for e in await store.entries(result.run_id) if e.kind is not EntryKind.DONE]
        assert told[:4] == [
            ("m[0]", EntryKind.DECISION),
            ("m[0]/work", EntryKind.WORK),
            ("m[1]", EntryKind.DECISION),
            ("m[1]/work", EntryKind.WORK),
        ]
        assert told[-1] == ("m", EntryKind.DECISION)
        assert closed == ["async" if is_async else "sync"]

    async def test_an_exhausted_iterator_is_not_called_again(
        self, store: MemoryStateStore, world: World
    ) -> None:
        asked = []

        async def over(data: Any) -> AsyncIterator[str]:
            asked.append(data)
            yield "a"
            yield "b"

        body = pipeline(Ask(name="ok", message=Text("{{ item }}?")))
        tree = pipeline(MapStep(name="m", over=CallableRef("x:over", over), body=body))
        await start(tree, store, 1)
        await answer(store, "m[0]/ok", 1)
        await answer(store, "m[1]/ok", 2)
        assert (await resume(tree, store)).output == [1, 2]
        assert asked == [1]

    async def test_an_interrupted_iterator_restarts_in_the_same_order(
        self, store: MemoryStateStore, world: World
    ) -> None:
        items, closed = ["a", "b", "c"], []

        async def over(data: Any) -> AsyncIterator[str]:
            try:
                for item in items:
                    yield item
            finally:
                closed.append(1)

        bad = ["b"]
        work = world.add("work", lambda item: fail_on(bad[0])(item))
        step = MapStep(
            name="m", over=CallableRef("x:over", over), body=pipeline(call("w", work)), max_concurrency=1
        )
        assert (await start(pipeline(step), store)).status is RunStatus.FAILED
        assert closed == [1]
        bad[0] = ""
        items[0] = "other"
        result = await resume(pipeline(step), store, retry_failed=True)
        assert result.error is not None
        assert (result.error.code, "item number 0" in result.error.message) == ("FLJ402", True)
        items[0] = "a"
        result = await resume(pipeline(step), store, retry_failed=True)
        assert result.output == ["a" * 10, "b" * 10, "c" * 10]
        assert world.calls == ["work"] * 4

    async def test_an_iterator_that_raises_fails_the_map_after_the_started_items(
        self, store: MemoryStateStore, world: World
    ) -> None:
        async def over(data: Any) -> AsyncIterator[str]:
            yield "a"
            raise OSError("no more")

        result = await start(pipeline(mapping(world, over=CallableRef("x:over", over))), store)
        assert result.error is not None
        assert result.error.path == "m"
        assert "`x:over` raised OSError: no more" in result.error.message
        assert world.calls == ["work"]


class Library(PipelineContext):
    label: str = ""
    shelf: list[dict[str, str]] = Field(default_factory=list)
    found: list[int] = Field(default_factory=list)


async def test_a_map_over_a_large_context_does_not_copy_it_for_each_item() -> None:
    shelf = [{"title": f"book {n}", "text": "x" * 100} for n in range(8_000)]
    assert len(canonical.encode(shelf)) > 1_000_000

    def work(data: int, context: Library) -> str:
        context.found.append(data)
        return f"{context.label} {data}"

    step = MapStep(
        name="m",
        over=Expr("input"),
        body=pipeline(call("w", CallableRef("x:work", work))),
        merge="context_update",
    )
    async with Flujo[Any, Any, Library](
        pipeline(step), context_model=Library, store=MemoryStateStore()
    ) as runner:
        tracemalloc.start()
        try:
            result = await runner.run_result_async(
                [*range(1_000)], initial_context_data={"label": "L", "shelf": shelf}
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert result.output == [f"L {n}" for n in range(1_000)]
    assert result.context is not None
    assert result.context.found == [*range(1_000)]
    assert peak < 64 * 2**20


@pytest.mark.parametrize("on_error", ["collect", "skip", "fail"])
@pytest.mark.parametrize("kind", [PriceUnknown, AnswerUnbounded])
async def test_a_request_without_a_price_fails_the_map_whatever_on_error_is(
    store: MemoryStateStore, world: World, on_error: str, kind: type[FlujoError]
) -> None:
    def work(data: str) -> str:
        if data == "b":
            raise kind("model 'in-house-7' has no price")
        if data == "a":
            raise ValueError("no a")
        return data

    result = await start(pipeline(mapping(world, work, on_error=on_error)), store, ["c", "b", "a"])
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.code == (kind.code if on_error != "fail" else result.error.code)
    assert of_run(str(result.status), kind.code) is ExitCode.BUDGET


async def test_the_wait_before_a_retry_leaves_its_place_to_another_item(store: MemoryStateStore) -> None:
    order: list[str] = []
    running = most = 0

    async def work(data: str) -> str:
        nonlocal running, most
        order.append(data)
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0.01)
        running -= 1
        if data in ("a", "b") and order.count(data) < 3:
            raise ConnectionError(f"no {data}")
        return data

    retrying = StepConfig(max_retries=3, retry=RetryPolicy(backoff="fixed", initial_s=0.2))
    body = pipeline(Step(name="work", call=CallableRef("test:work", work), config=retrying))
    step = MapStep(name="m", over=Expr("input"), body=body, max_concurrency=2)
    result = await start(pipeline(step), store, ["a", "b", "c", "d", "e"])
    assert result.output == ["a", "b", "c", "d", "e"]
    assert order[:5] == ["a", "b", "c", "d", "e"], "c, d and e ran while a and b waited"
    assert most == 2


async def test_a_wait_that_is_cut_off_frees_no_more_than_its_own_place(store: MemoryStateStore) -> None:
    running = most = 0

    async def work(data: str) -> str:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0.02)
        running -= 1
        if data == "a":
            raise ConnectionError("no a")
        return data

    retrying = StepConfig(max_retries=3, retry=RetryPolicy(backoff="fixed", initial_s=30))
    inner = Step(name="work", call=CallableRef("test:work", work), config=retrying)
    limited = ImportStep("inner", pipeline(inner), config=StepConfig(timeout_s=1))
    step = MapStep(name="m", over=Expr("input"), body=pipeline(limited), max_concurrency=1, on_error="skip")
    result = await start(pipeline(step), store, ["a", *"bcdefgh"])
    assert result.output == list("bcdefgh")
    assert most <= 2, "the branch that is cut off may end beside another one"
