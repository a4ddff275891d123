"""Background steps under limits: a task has a budget of its own, which is held of that of its run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from flujo.client import TaskClient
from flujo.domain.journal import RunId
from flujo.domain.ledger import HoldState
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.queues import RunKind, task_id
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.steps import (
    AwaitStep,
    CallableRef,
    HumanInTheLoopStep,
    ImportStep,
    MapStep,
    Step,
    StepConfig,
)
from flujo.domain.usage import NOTHING, Usage, UsageLimits
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from flujo.testing import ScriptedAgent
from support import pipeline

if TYPE_CHECKING:
    from flujo.domain.ports import StateStore

RUN = RunId("run")
ONE = Usage(requests=1)
TWO = Usage(requests=2)


def asks(name: str, requests: int = 1, worst: int | None = None, **more: Any) -> Step:
    """Return a step whose one call uses this many requests, and reserves `worst` before."""
    agent: Any = ScriptedAgent(
        lambda ask: ask.data, usage=Usage(requests=requests), worst=Usage(requests=worst or requests)
    )
    return Step(name, CallableRef(f"scripts:{name}", agent), **more)


def lent(requests: int) -> StepConfig:
    """Return the settings of a task with a budget."""
    return StepConfig(execution_mode="background", budget=UsageLimits(requests_limit=requests))


async def run(tree: Pipeline, store: StateStore, requests: int, value: Any = "x") -> Any:
    limits = UsageLimits(requests_limit=requests)
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=limits, recovery=False) as runner:
        return await runner.run_result_async(value, run_id=RUN)


async def spent(store: StateStore) -> int:
    """Return the requests of all runs, of which each is counted once."""
    found = await store.runs(RunQuery(kinds=tuple(RunKind), limit=1000))
    return sum([(await store.ledger(each.run_id)).usage.requests for each in found])


async def test_a_task_spends_of_the_budget_of_its_run(store: StateStore) -> None:
    tree = pipeline(asks("work", config=lent(4)), AwaitStep("done", task="work"), asks("more", 5))
    result = await run(tree, store, 6)
    assert result.status is RunStatus.COMPLETED, result.error
    (hold,) = (await store.ledger(RUN)).tasks
    assert (hold.path, hold.state, hold.usage) == ("work", HoldState.SPENT, ONE)
    assert (result.usage, result.unconfirmed) == (Usage(requests=5), NOTHING)
    assert await spent(store) == 6


async def test_a_launch_without_room_for_the_budget_launches_nothing(store: StateStore) -> None:
    tree = pipeline(asks("first", 2), asks("work", config=lent(4)))
    result = await run(tree, store, 5)
    assert result.status is RunStatus.FAILED
    assert (result.error.code, result.error.path) == ("FLJ421", "work")
    assert await store.runs(RunQuery(parent=RUN)) == []
    assert (await store.ledger(RUN)).tasks == ()
    limits = UsageLimits(requests_limit=6)
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=limits, recovery=False) as runner:
        assert (await runner.resume_async(RUN, retry_failed=True)).status is RunStatus.COMPLETED


async def test_a_task_may_not_spend_more_than_its_budget(store: StateStore) -> None:
    tree = pipeline(asks("work", 3, config=lent(2)), AwaitStep("done", task="work", on_failure="skip"))
    result = await run(tree, store, 9)
    assert result.status is RunStatus.COMPLETED
    task = await store.run(task_id(RUN, StepPath("work"), 1))
    assert task.status is RunStatus.FAILED
    assert b"FLJ421" in (task.error or b"")
    (hold,) = (await store.ledger(RUN)).tasks
    assert (hold.state, hold.usage) == (HoldState.LENT, TWO), "a retry may still spend it"


async def test_what_an_ended_task_has_not_used_is_free_before_its_run_awaits_it(store: StateStore) -> None:
    ended = asyncio.Event()

    async def wait(data: Any) -> Any:
        while (await store.run(task_id(RUN, StepPath("work"), 1))).status is not RunStatus.COMPLETED:  # noqa: ASYNC110 - a database has no events
            await asyncio.sleep(0.01)
        ended.set()
        return data

    tree = pipeline(asks("work", config=lent(4)), Step("until", wait), asks("more", 4))
    result = await run(tree, store, 5)
    assert ended.is_set()
    assert result.status is RunStatus.COMPLETED, result.error
    assert await spent(store) == 5


async def test_what_was_lent_is_known_after_a_pause(store: StateStore) -> None:
    tree = pipeline(
        HumanInTheLoopStep("asked", message="?", config=lent(3)),
        HumanInTheLoopStep("ask", message="?"),
        asks("more", 3),
    )
    limits = UsageLimits(requests_limit=5)
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=limits, recovery=False) as runner:
        assert (await runner.run_result_async("x", run_id=RUN)).status is RunStatus.PAUSED
        result = await runner.resume_async(RUN, "go on")
        assert result.error is not None
        assert (result.error.code, result.error.path) == ("FLJ421", "more")
        task = task_id(RUN, StepPath("asked"), 1)
        assert (await runner.resume_async(task, "yes")).status is RunStatus.COMPLETED
        again = await runner.resume_async(RUN, retry_failed=True)
    assert again.status is RunStatus.COMPLETED, again.error


async def test_a_task_of_a_task_spends_of_the_budget_of_that_task(store: StateStore) -> None:
    inner = Pipeline(
        (asks("deep", 2, config=lent(3)), AwaitStep("got", task="deep"), asks("last", 2)), name="child"
    )
    tree = pipeline(ImportStep("sub", inner, config=lent(4)), AwaitStep("done", task="sub"), asks("more", 2))
    result = await run(tree, store, 6)
    assert result.status is RunStatus.COMPLETED, result.error
    (hold,) = (await store.ledger(RUN)).tasks
    assert (hold.state, hold.usage) == (HoldState.SPENT, Usage(requests=4))
    assert await spent(store) == 6


async def test_a_budget_of_a_part_lends_too_and_gets_back_what_is_left(store: StateStore) -> None:
    part = Pipeline(
        (asks("work", config=lent(3)), AwaitStep("done", task="work"), asks("more", 2)),
        name="child",
        budget=UsageLimits(requests_limit=3),
    )
    result = await run(pipeline(ImportStep("sub", part), asks("after", 2)), store, 5)
    assert result.status is RunStatus.COMPLETED, result.error


async def test_a_budget_limits_a_task_of_a_run_without_limits(store: StateStore) -> None:
    tree = pipeline(asks("work", 3, config=lent(2)), AwaitStep("done", task="work"))
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        result = await runner.run_result_async("x", run_id=RUN)
    assert result.error is not None
    assert "allows 2 requests" in result.error.message
    assert (await store.ledger(RUN)).tasks == ()


async def test_a_cancelled_task_releases_what_it_has_not_used(store: StateStore) -> None:
    tree = pipeline(
        HumanInTheLoopStep("asked", message="?", config=lent(3)), HumanInTheLoopStep("ask", message="?")
    )
    limits = UsageLimits(requests_limit=3)
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=limits, recovery=False) as runner:
        await runner.run_result_async("x", run_id=RUN)
        task = task_id(RUN, StepPath("asked"), 1)
        await TaskClient(store).cancel_task(task)
    (hold,) = (await store.ledger(RUN)).tasks
    assert (hold.state, hold.usage) == (HoldState.SPENT, NOTHING)


PARTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 3), st.integers(0, 2)),
        st.tuples(st.just("launch"), st.integers(1, 3), st.integers(1, 5)),
        st.tuples(st.just("map"), st.integers(1, 2), st.integers(1, 3)),
        st.tuples(st.just("await"), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=7,
)


def tree_of(parts: list[tuple[str, int, int]]) -> Pipeline:
    """Return a pipeline that asks, launches tasks with budgets, and awaits some of them."""
    steps: list[Any] = []
    launched: list[str] = []
    for number, (what, used, more) in enumerate(parts):
        name = f"s{number}"
        if what == "ask":
            steps.append(asks(name, used, used + more))
        elif what == "launch":
            steps.append(asks(name, used, config=lent(more)))
            launched.append(name)
        elif what == "map":
            body = Pipeline((asks(f"{name}i", used, config=lent(more)),))
            steps.append(MapStep(name, over="[1, 2]", body=body))
        elif launched:
            steps.append(AwaitStep(name, task=launched.pop(), on_failure="skip"))
    return pipeline(*steps)


@given(PARTS, st.integers(5, 12))
def test_a_run_and_its_tasks_never_spend_more_than_the_limit(
    parts: list[tuple[str, int, int]], limit: int
) -> None:
    async def work() -> None:
        store = MemoryStateStore()
        result = await run(tree_of(parts), store, limit)
        assert await spent(store) <= limit, result
        assert (await store.ledger(RUN)).most.requests <= limit

    asyncio.run(work())
