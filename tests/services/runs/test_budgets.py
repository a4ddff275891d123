"""Runs under limits: refused before they cost anything, kept across crashes, shared by all that runs at once."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from flujo import UsageLimits
from flujo.domain.agents import Ask, Reply
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, LoopStep, MapStep, TreeSearchStep
from flujo.domain.usage import Usage
from flujo.exceptions import SettingsError, StateBackendUnavailable
from flujo.services.runs.runner import Flujo
from flujo.testing import ScriptedAgent
from support import (
    DynamicParallelRouterStep,
    Expr,
    ImportStep,
    ParallelStep,
    Step,
    StepConfig,
    StoppingStore,
    Text,
    World,
    answer,
    call,
    pipeline,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.ports import StateStore

USED = Usage(input_tokens=8, output_tokens=2, requests=1, cost_micro_usd=100_000)
WORST = Usage(input_tokens=20, output_tokens=20, requests=1, cost_micro_usd=250_000)


def agent_ref(agent: Any, name: str = "agent") -> CallableRef:
    """Return what names an agent that is an object here."""
    return CallableRef(f"scripts:{name}", agent)


def asks(agent: Any, name: str = "ask", **more: Any) -> Step:
    """Return a step that asks a scripted agent."""
    return Step(name=name, call=agent_ref(agent, name), **more)


def scripted(used: Usage = USED, worst: Usage = WORST) -> ScriptedAgent:
    """Return an agent that answers every request with its input."""
    return ScriptedAgent(lambda ask: ask.data, usage=used, worst=worst)


async def run(
    tree: Pipeline, store: StateStore, value: Any = "x", *, run_id: str = "run", **limits: Any
) -> Any:
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=UsageLimits(**limits)) as runner:
        return await runner.run_result_async(value, run_id=run_id)


async def go_on(
    tree: Pipeline, store: StateStore, *, run_id: str = "run", retry_failed: bool = False, **limits: Any
) -> Any:
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=UsageLimits(**limits)) as runner:
        return await runner.resume_async(run_id, retry_failed=retry_failed)


async def test_a_request_that_may_not_fit_is_not_made(store: StateStore) -> None:
    agent = scripted()
    tree = pipeline(asks(agent, "first"), asks(agent, "second"), asks(agent, "third"))
    result = await run(tree, store, total_cost_usd_limit=0.4)
    assert (result.status, agent.count) == (RunStatus.FAILED, 2)
    assert result.error.code == "FLJ421"
    assert result.error.path == "third"
    assert "`first` $0.10, `second` $0.10" in result.error.message
    assert "--retry-failed" in (result.error.hint or "")
    assert [step.status for step in result.steps] == ["completed", "completed", "failed"]
    assert result.usage == USED + USED


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("limits", [{}, {"requests_limit": 5}])
async def test_the_absurd_usage_of_an_agent_does_not_end_the_run(
    store: StateStore, limits: Mapping[str, Any]
) -> None:
    absurd = Usage(input_tokens=10**30, output_tokens=-(10**30), requests=1)
    tree = pipeline(asks(scripted(absurd), "a"), asks(scripted(absurd), "b"))
    result = await run(tree, store, **limits)
    assert result.status is RunStatus.COMPLETED
    assert result.usage == Usage(input_tokens=2**63 - 1, requests=2)


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"total_cost_usd_limit": 0.35}, 2),
        ({"total_tokens_limit": 50}, 2),
        ({"requests_limit": 1}, 1),
        ({"requests_limit": 3}, 3),
        ({"tool_calls_limit": 1}, 3),
    ],
)
async def test_each_limit_holds(store: StateStore, limits: Mapping[str, Any], asked: int) -> None:
    agent = scripted()
    tree = pipeline(*(asks(agent, name) for name in ("a", "b", "c")))
    result = await run(tree, store, **limits)
    assert agent.count == asked
    assert result.success is (asked == 3)


@pytest.mark.guarantee("G20")
async def test_branches_share_a_budget(store: StateStore) -> None:
    flying = most = 0

    async def answers(ask: Ask) -> Any:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        for _ in range(20):
            await asyncio.sleep(0)
        flying -= 1
        return ask.data

    agent = ScriptedAgent(answers, usage=USED, worst=WORST)
    branches = {f"b{n}": pipeline(asks(agent)) for n in range(8)}
    tree = pipeline(ParallelStep(name="all", branches=branches, on_branch_failure="collect"))
    result = await run(tree, store, total_cost_usd_limit=0.6)
    assert result.status is RunStatus.FAILED, "no way of handling failures makes a success of it"
    assert most <= 2, "two are reserved at their worst, and a third has no room"
    assert agent.count <= 4


async def test_a_map_that_skips_failures_does_not_skip_this_one(store: StateStore) -> None:
    agent = scripted()
    tree = pipeline(
        MapStep(name="each", over=Expr("input"), body=pipeline(asks(agent)), on_error="skip"),
        call("after", World().add("after")),
    )
    result = await run(tree, store, [1, 2, 3, 4, 5], requests_limit=2)
    assert (result.status, result.error.code, agent.count) == (RunStatus.FAILED, "FLJ421", 2)
    assert [step.path for step in result.steps if step.path == "after"] == []


async def test_neither_retries_nor_a_fallback_follow(store: StateStore) -> None:
    agent, spare = scripted(), scripted(Usage(), Usage())
    config = StepConfig(max_retries=3, retry=None)
    step = asks(agent, config=config, fallback=asks(spare, "fallback"))
    result = await run(pipeline(step), store, total_tokens_limit=30)
    assert (result.error.code, agent.count, spare.count) == ("FLJ421", 0, 0)


async def test_a_raised_budget_resumes_from_the_failed_step(store: StateStore) -> None:
    agent = scripted()
    tree = pipeline(asks(agent, "a"), asks(agent, "b"), asks(agent, "c"))
    assert (await run(tree, store, requests_limit=2)).error.code == "FLJ421"
    still = await go_on(tree, store, retry_failed=True, requests_limit=2)
    assert (still.error.code, agent.count) == ("FLJ421", 2), "resuming makes no room"
    result = await go_on(tree, store, retry_failed=True, requests_limit=3)
    assert (result.success, agent.count) == (True, 3)
    assert result.usage.requests == 3


@pytest.mark.guarantee("G20")
async def test_a_budget_is_kept_across_a_pause(store: StateStore) -> None:
    agent = scripted()
    tree = pipeline(
        asks(agent, "a"), HumanInTheLoopStep(name="human", message=Text("well?")), asks(agent, "b")
    )
    assert (await run(tree, store, requests_limit=1)).status is RunStatus.PAUSED
    await answer(store, "human", "go on")
    result = await go_on(tree, store, requests_limit=1)
    assert (result.error.code, agent.count) == ("FLJ421", 1)


@pytest.mark.guarantee("G20")
async def test_a_run_that_is_stopped_after_any_write_never_overspends(store: StateStore) -> None:
    spent = 0

    def answers(ask: Ask) -> Any:
        nonlocal spent
        spent += USED.total_tokens
        return ask.data

    limit = 100
    for writes in count():
        spent = 0
        agent = ScriptedAgent(answers, usage=USED, worst=WORST)
        tree = pipeline(
            ParallelStep(name="two", branches={name: pipeline(asks(agent)) for name in ("l", "r")}),
            asks(agent, "then", input=Text("{{ input }}")),
        )
        stopping: Any = StoppingStore(store, writes)
        run_id = f"run-{writes}"
        try:
            result = await run(tree, stopping, run_id=run_id, total_tokens_limit=limit)
        except StateBackendUnavailable:
            result = await go_on(tree, store, run_id=run_id, total_tokens_limit=limit)
        else:
            assert result.success
            break
        ledger = await store.ledger(result.run_id)
        assert spent <= limit
        assert spent <= ledger.usage.total_tokens + ledger.unconfirmed.total_tokens <= limit
        assert result.success or result.error.code == "FLJ421"
        assert result.unconfirmed == ledger.unconfirmed
    assert writes >= 5


@pytest.mark.guarantee("G20")
async def test_an_unconfirmed_request_stays_charged_at_its_worst(store: StateStore) -> None:
    alive = False
    dying = asyncio.get_running_loop().create_future()

    class Dying:
        wants_context = False

        async def ask(self, ask: Ask) -> Reply:
            assert ask.meter is not None
            reserved = await ask.meter.reserve(WORST)
            if not alive:
                dying.set_result(None)  # the process dies while the request is on its way
                await asyncio.Event().wait()
            reserved.settle(USED)
            return Reply(output="alive", usage=USED)

    tree = pipeline(Step(name="dying", call=CallableRef("own:dying", Dying())))  # type: ignore[arg-type]
    running = asyncio.create_task(run(tree, store, total_tokens_limit=79))
    await dying
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await go_on(tree, store, total_tokens_limit=79)).error.code == "FLJ421"
    alive = True
    result = await go_on(tree, store, retry_failed=True, total_tokens_limit=80)
    assert (result.success, result.usage, result.unconfirmed) == (True, USED, WORST)


async def test_without_limits_nothing_is_held_and_nothing_more_is_written(store: StateStore) -> None:
    writes: list[Any] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def write(self, write: Any) -> Any:
            writes.append(write)
            return store.write(write)

    watched: Any = Watched()
    await run(pipeline(asks(scripted())), watched)
    unlimited = len(writes)
    assert not any(write.holds for write in writes)
    await run(pipeline(asks(scripted())), watched, run_id="other", requests_limit=9)
    assert len(writes) - unlimited == unlimited + 1, "one write more: the hold before the request"


async def test_an_import_is_held_to_its_own_budget(store: StateStore) -> None:
    agent = scripted()
    child = Pipeline((asks(agent, "a"), asks(agent, "b")), name="child", budget=UsageLimits(requests_limit=1))
    part = ImportStep(name="part", blueprint="child.yaml", pipeline=child, on_failure="skip")
    result = await run(pipeline(part, asks(agent, "after")), store)
    assert (result.success, agent.count) == (True, 2), "what a part may not, the rest still may"
    wide = Pipeline((asks(agent, "a"),), name="child", budget=UsageLimits(requests_limit=100))
    tree = pipeline(ImportStep(name="part", blueprint="child.yaml", pipeline=wide, on_failure="skip"))
    assert (await run(tree, store, run_id="narrow", total_tokens_limit=10)).error.code == "FLJ421"


async def test_each_turn_of_a_loop_has_a_part_of_its_own(store: StateStore) -> None:
    agent = scripted()
    child = Pipeline((asks(agent),), name="child", budget=UsageLimits(requests_limit=1))
    body = pipeline(ImportStep(name="part", blueprint="child.yaml", pipeline=child))
    tree = pipeline(LoopStep(name="loop", body=body, until=Expr("loop.index >= 2"), max_iterations=5))
    result = await run(tree, store)
    assert (result.success, agent.count) == (True, 3)


async def test_a_router_is_held_to_the_budget(store: StateStore) -> None:
    router = ScriptedAgent(lambda _: "yes", usage=USED, worst=WORST)
    tree = pipeline(
        DynamicParallelRouterStep(
            name="route",
            router=agent_ref(router),
            branches={"yes": pipeline(call("say", World().add("say")))},
        )
    )
    assert (await run(tree, store, total_tokens_limit=10)).error.code == "FLJ421"
    assert router.count == 0
    result = await go_on(tree, store, retry_failed=True, total_tokens_limit=40)
    assert (result.success, router.count) == (True, 1)
    assert (await store.ledger(result.run_id)).holds == ()


def test_limits_that_are_none_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"`usage_limits` is .*total_cost_usd_limit") as refused:
        Flujo(pipeline(asks(scripted())), usage_limits={"total_cost_usd_limit": 1})  # type: ignore[arg-type]
    assert "UsageLimits(" in str(refused.value.hint)


async def test_a_search_is_held_to_the_budget_and_continues_with_its_known_candidates(
    store: StateStore,
) -> None:
    judge = ScriptedAgent(lambda ask: {"score": len(ask.data["candidate"])}, usage=USED, worst=WORST)
    tree = pipeline(
        TreeSearchStep(
            name="search",
            propose=agent_ref(lambda node: [(node["candidate"] or "") + each for each in "ab"], "propose"),
            evaluate=agent_ref(judge, "judge"),
            beam_width=1,
            max_depth=2,
        )
    )
    assert (await run(tree, store, requests_limit=3)).error.code == "FLJ421"
    assert judge.count == 3
    result = await go_on(tree, store, retry_failed=True, requests_limit=4)
    assert (result.success, judge.count) == (True, 4), "three of the four nodes were judged already"


async def test_a_time_limit_cuts_off_running_steps_and_keeps_completed_ones(store: StateStore) -> None:
    async def for_ever(data: Any) -> Any:
        await asyncio.Event().wait()

    slow = CallableRef("slow:for_ever", for_ever)
    world = World()
    tree = pipeline(
        call("quick", world.add("quick")),
        ParallelStep(
            name="both", branches={"l": pipeline(call("slow", slow)), "r": pipeline(call("slow", slow))}
        ),
        call("after", world.add("after")),
    )
    result = await run(tree, store, wall_time_s_limit=0.8)
    assert (result.status, result.error.code) == (RunStatus.FAILED, "FLJ421")
    assert "0.8 s of work" in result.error.message
    assert world.calls == ["quick"]
    entries = [entry for entry in await store.entries(result.run_id) if entry.status == "failed"]
    assert sorted(entry.path for entry in entries) == ["both:l/slow", "both:r/slow"]
    assert (await store.ledger(result.run_id)).worked_s > 0, "what was cut off is time that was worked"
    still = await go_on(tree, store, retry_failed=True, wall_time_s_limit=0.8)
    assert still.error.code == "FLJ421"


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("whose", ["run", "part"])
async def test_work_that_a_release_interrupts_counts_as_time(store: StateStore, whose: str) -> None:
    began = asyncio.Event()

    async def for_ever(data: Any) -> Any:
        began.set()
        await asyncio.Event().wait()

    limits: dict[str, Any] = {"run": {"wall_time_s_limit": 1.0}, "part": {}}[whose]
    budget = UsageLimits(wall_time_s_limit=1.0) if whose == "part" else None
    child = Pipeline((call("slow", CallableRef("slow:for_ever", for_ever)),), name="child", budget=budget)
    tree = pipeline(ImportStep(name="part", blueprint="child.yaml", pipeline=child))
    running = asyncio.create_task(run(tree, store, **limits))
    for released in count(1):
        waiting = asyncio.create_task(began.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await asyncio.sleep(0.3)
        if running.done():
            break
        began.clear()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert released <= 4, "each of them worked for 0.3 s of 1 s"
        running = asyncio.create_task(go_on(tree, store, **limits))
    assert running.result().error.code == "FLJ421"
    assert released > 1
    assert (await store.ledger(running.result().run_id)).holds == (), "time is not a request"


async def test_waiting_for_a_human_does_not_count_as_work(store: StateStore) -> None:
    world = World()
    tree = pipeline(HumanInTheLoopStep(name="human", message=Text("well?")), call("b", world.add("b")))
    await run(tree, store, wall_time_s_limit=1)
    await asyncio.sleep(1.1)
    await answer(store, "human", "yes")
    assert (await go_on(tree, store, wall_time_s_limit=1)).success


async def test_an_agent_of_ones_own_asks_the_meter(store: StateStore) -> None:
    class Own:
        wants_context = False

        async def ask(self, ask: Ask) -> Reply:
            assert ask.meter is not None
            reserved = await ask.meter.reserve(WORST)
            reserved.settle(USED)
            await ask.meter.call_tools(1)
            return Reply(output="done", usage=USED + Usage(tool_calls=1))

    step = Step(name="own", call=agent_ref(Own()))
    result = await run(pipeline(step), store, tool_calls_limit=1, total_tokens_limit=40)
    assert result.usage == USED + Usage(tool_calls=1)
    again = await run(pipeline(step, step_named(step, "two")), store, run_id="two", tool_calls_limit=1)
    assert (again.error.code, again.error.path) == ("FLJ421", "two")


def step_named(step: Step, name: str) -> Step:
    return Step(name=name, call=step.call)
