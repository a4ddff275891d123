"""Budgets that several runs share (`[[budgets.rule]]`): reserved in the database, settled with each attempt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import add, calls
from flujo.domain.journal import RunId
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.steps import CallableRef, GranularStep
from flujo.domain.usage import Usage
from flujo.exceptions import StateBackendUnavailable
from flujo.services.runs.runner import Flujo
from flujo.testing import ScriptedAgent
from support import Expr, MapStep, ParallelStep, Step, StoppingStore, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

USED = Usage(output_tokens=10, requests=1, cost_micro_usd=100_000)
WORST = Usage(output_tokens=40, requests=1, cost_micro_usd=250_000)

OF_A_USER = {"type": "object", "properties": {"user_id": {"type": "string"}}}

RULE = """
[[budgets.rule]]
name = "team"
window = "{window}"
total_cost_usd_limit = {dollars}
on_exhausted = "{ends}"
"""


def scripted() -> ScriptedAgent:
    """Return an agent whose requests may cost $0.25, and cost $0.10."""
    return ScriptedAgent(lambda ask: ask.data, usage=USED, worst=WORST)


def asks(agent: Any, name: str = "ask") -> Step:
    return Step(name=name, call=CallableRef(f"scripts:{name}", agent))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rule(tmp_path: Path) -> Callable[..., None]:
    """Write the settings of this folder: one rule."""

    def write(dollars: float, more: str = "", *, ends: str = "fail", window: str = "none") -> None:
        text = RULE.format(dollars=dollars, ends=ends, window=window) + more
        (tmp_path / "flujo.toml").write_text(text)

    return write


async def run(tree: Pipeline, store: StateStore, run_id: str = "run", **more: Any) -> Any:
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        return await runner.run_result_async("x", run_id=run_id, **more)


async def go_on(tree: Pipeline, store: StateStore, run_id: str = "run", **more: Any) -> Any:
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        return await runner.resume_async(run_id, **more)


async def counted(store: StateStore) -> tuple[int, int]:
    """Return what the rule has used and holds, in millionths of a dollar, over all scopes and windows."""
    rows = [each for each in await store.budget_counters() if each.name == "budget:team"]
    return sum(each.used for each in rows), sum(each.held for each in rows)


async def test_runs_share_one_amount(store: StateStore, rule: Callable[..., None]) -> None:
    rule(0.5)
    tree = pipeline(asks(agent := scripted()))
    first, second, third, fourth = [await run(tree, store, f"run-{number}") for number in range(4)]
    assert [each.status for each in (first, second, third)] == [RunStatus.COMPLETED] * 3
    assert (fourth.status, agent.count) == (RunStatus.FAILED, 3)
    assert fourth.error.code == "FLJ467"
    assert fourth.error.message == (
        "budget `team` allows $0.50 (`total_cost_usd_limit`): $0.30 used and up to $0.00 held, and the next "
        "request may need $0.25"
    )
    assert "--set budget.team.total_cost_usd_limit=AMOUNT" in fourth.error.hint
    assert await counted(store) == (300_000, 0)


async def test_requests_at_the_same_time_do_not_overspend(
    store: StateStore, rule: Callable[..., None]
) -> None:
    rule(0.6)
    tree = pipeline(asks(agent := scripted()))
    results = await asyncio.gather(*(run(tree, store, f"run-{number}") for number in range(8)))
    assert agent.count == sum(each.success for each in results) <= 5
    assert await counted(store) == (agent.count * 100_000, 0)


async def test_a_branch_without_room_ends_its_run_and_the_others_are_counted(
    store: StateStore, rule: Callable[..., None]
) -> None:
    rule(0.5)
    agent = scripted()
    result = await run(
        pipeline(MapStep("all", pipeline(asks(agent)), over=Expr("[1, 2, 3, 4, 5, 6]"))), store
    )
    assert result.status is RunStatus.FAILED
    assert await counted(store) == (agent.count * 100_000, 0)


async def test_only_runs_that_the_rule_matches_count(store: StateStore, rule: Callable[..., None]) -> None:
    rule(0.3, 'match = {metadata.team = "a", user = "ada"}\n')
    tree = pipeline(asks(scripted()), context_schema=OF_A_USER)
    await run(tree, store, "one", metadata={"team": "b"}, initial_context_data={"user_id": "ada"})
    await run(tree, store, "two", metadata={"team": "a"}, initial_context_data={"user_id": "bob"})
    assert await counted(store) == (0, 0)
    await run(tree, store, "three", metadata={"team": "a"}, initial_context_data={"user_id": "ada"})
    assert await counted(store) == (100_000, 0)


async def test_each_scope_has_an_amount_of_its_own(store: StateStore, rule: Callable[..., None]) -> None:
    rule(0.3, 'per = ["user"]\n')
    tree = pipeline(asks(scripted()), context_schema=OF_A_USER)
    results = [
        await run(tree, store, f"{user}-{number}", initial_context_data={"user_id": user})
        for user in "xy"
        for number in range(2)
    ]
    assert [each.success for each in results] == [True, False, True, False]
    assert 'budget `team` of {"user":"y"} allows' in results[-1].error.message


async def test_a_pause_waits_for_room(store: StateStore, rule: Callable[..., None]) -> None:
    rule(0.3, ends="pause", window="month")
    tree = pipeline(asks(agent := scripted(), "first"), asks(agent, "second"))
    result = await run(tree, store)
    assert (result.status, agent.count) == (RunStatus.PAUSED, 1)
    [pause] = result.pauses
    assert (pause.pause_id, pause.kind) == ("second!budget[0]", PauseKind.BUDGET)
    assert pause.deadline_at is not None
    assert "the next month begins" in pause.message
    assert await counted(store) == (100_000, 0)

    again = await go_on(tree, store)
    assert (again.status, agent.count) == (RunStatus.PAUSED, 1)
    assert [each.pause_id for each in again.pauses] == ["second!budget[0]"]

    asked = await go_on(tree, store, answer={"again": True})
    assert [each.pause_id for each in asked.pauses] == ["second!budget[1]"]

    rule(0.5, ends="pause", window="month")
    done = await go_on(tree, store)
    assert (done.status, agent.count) == (RunStatus.COMPLETED, 2)
    assert all(not each.is_open for each in await store.pauses(RunId("run")))
    assert await counted(store) == (200_000, 0)


async def test_a_pause_in_one_branch_lets_the_others_end(
    store: StateStore, rule: Callable[..., None]
) -> None:
    rule(0.3, ends="pause")
    agent = scripted()
    free = ScriptedAgent(lambda ask: ask.data, usage=Usage(), worst=Usage())
    tree = pipeline(
        asks(agent, "before"),
        ParallelStep("both", branches={"a": [asks(agent, "costs")], "b": [asks(free, "free")]}),
    )
    result = await run(tree, store)
    assert (result.status, agent.count, free.count) == (RunStatus.PAUSED, 1, 1)


@pytest.mark.guarantee("G20")
async def test_a_run_that_loses_its_database_anywhere_never_counts_less_than_it_may_have_used(
    store: StateStore, rule: Callable[..., None]
) -> None:
    rule(100.0)
    before = 0
    for writes in range(1, 20):
        agent = scripted()
        tree = pipeline(asks(agent, "a"), asks(agent, "b"))
        stopping: Any = StoppingStore(store, writes)
        run_id = RunId(f"run-{writes}")
        try:
            result = await run(tree, stopping, run_id)
        except StateBackendUnavailable:
            used, held = await counted(store)
            assert used + held - before >= agent.count * 100_000
            result = await go_on(tree, store, run_id)
        else:
            assert writes > 1
            break
        assert result.success
        ledger = await store.ledger(run_id)
        used, held = await counted(store)
        assert held == 0
        assert used - before == (ledger.usage + ledger.unconfirmed).cost_micro_usd >= agent.count * 100_000
        before = used


async def test_a_failed_run_continues_when_the_limit_was_raised(
    store: StateStore, rule: Callable[..., None]
) -> None:
    rule(0.3)
    tree = pipeline(asks(agent := scripted(), "first"), asks(agent, "second"))
    assert (await run(tree, store)).error.code == "FLJ467"
    rule(0.5)
    done = await go_on(tree, store, retry_failed=True)
    assert (done.status, agent.count) == (RunStatus.COMPLETED, 2)
    assert await counted(store) == (200_000, 0)


async def test_an_agent_in_turns_finishes_while_there_is_room_for_a_last_request(
    store: StateStore, rule: Callable[..., None]
) -> None:
    rule(0.6, ends="finish")
    answers = [calls(("add", {"a": 1, "b": 2})), calls(("add", {"a": 3, "b": 4})), "as far as I came"]
    agent = ScriptedAgent(answers, tools=(add,), usage=USED, worst=WORST)
    tree = pipeline(GranularStep("research", agent, max_turns=9))
    result = await run(tree, store)
    assert result.success, result.error
    assert result.output == "as far as I came"
    paths = [each.path for each in await store.entries(RunId("run"))]
    assert "research!limit[0]" in paths
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        assert (await runner.replay_from_trace("run")).output == "as far as I came"
    assert await counted(store) == (300_000, 0)
    [done] = [each for each in await store.entries(RunId("run")) if each.path == "research"][-1:]
    assert b'"stopped":"limit"' in (done.detail or b"")


async def test_a_step_without_turns_fails_at_a_rule_that_finishes(
    store: StateStore, rule: Callable[..., None]
) -> None:
    rule(0.2, ends="finish")
    result = await run(pipeline(asks(scripted())), store)
    assert result.error.code == "FLJ467"
