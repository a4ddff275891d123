"""`TaskClient.stats`: the time and its periods, what a principal may see, and the figures of real runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, Step, TaskClient
from flujo.domain.access import Principal, Role
from flujo.domain.evaluations import Evaluation
from flujo.domain.figures import Every
from flujo.domain.journal import RunId
from flujo.domain.reach import Reach
from flujo.domain.run import RunStatus
from flujo.domain.usage import Usage
from flujo.exceptions import SettingsError
from flujo.services.inspection.stats import period_text, stats_data
from flujo.state.memory_store import MemoryStateStore
from flujo.testing import ScriptedAgent
from flujo.testing.store_suite import move, new_run
from support import pipeline

if TYPE_CHECKING:
    from flujo.domain.ports import StateStore

MIDDAY = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)


@pytest.fixture
def store() -> StateStore:
    return MemoryStateStore()


async def test_the_figures_of_a_run_name_its_agent_and_its_cost(store: StateStore) -> None:
    used = Usage(input_tokens=100, output_tokens=20, requests=1, cost_micro_usd=1500)
    writer = ScriptedAgent(["a", "b"], usage=used)
    async with Flujo[Any, Any, Any](pipeline(Step("draft", agent=writer)), store=store) as runner:
        for _ in range(2):
            await runner.run_result_async("go")
    client = TaskClient(store)
    [by_blueprint] = (await client.stats()).totals
    found = await client.stats("agent", every="hour")
    assert by_blueprint.statuses == {"completed": 2}
    [by_agent] = found.totals
    assert (by_agent.name, by_agent.count) == ("flujo.agents.scripted:ScriptedAgent", 2)
    assert by_agent.usage == by_blueprint.usage == used + used
    assert [each.at in found.periods for each in found.series] == [True] * len(found.series)
    [data] = stats_data(found)["totals"]
    assert (data["cost_usd"], data["input_tokens"], data["p50_s"]) == (0.003, 200, by_agent.p50_s)


@pytest.mark.parametrize(
    ("given", "every", "first", "count"),
    [
        ({"since": MIDDAY, "until": MIDDAY + timedelta(days=2)}, Every.HOUR, "2026-11-28 12:00", 49),
        ({"since": MIDDAY, "until": MIDDAY + timedelta(days=4)}, Every.DAY, "2026-11-28", 5),
        ({"since": MIDDAY, "until": MIDDAY + timedelta(days=2), "every": "day"}, Every.DAY, "2026-11-28", 3),
        ({}, Every.DAY, None, 8),
        ({"since": timedelta(hours=2)}, Every.HOUR, None, 3),
    ],
)
async def test_periods_are_whole_and_cover_the_time(
    store: StateStore, given: dict[str, Any], every: Every, first: str | None, count: int
) -> None:
    found = await TaskClient(store).stats(**given)
    assert (found.every, len(found.periods)) == (every, count)
    assert all(at % every.seconds == 0 for at in found.periods)
    if first is not None:
        assert period_text(found.periods[0], found.every) == first


@pytest.mark.parametrize(
    "given",
    [
        {"by": "colour"},
        {"every": "week"},
        {"since": "yesterday"},
        {"blueprint": 7},
        {"since": MIDDAY, "until": MIDDAY - timedelta(days=1)},
        {"since": timedelta(days=1001)},
        {"since": timedelta(days=50), "every": "hour"},
        {"since": -1.0},
    ],
)
async def test_a_wrong_argument_is_refused(store: StateStore, given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        await TaskClient(store).stats(**given)
    assert refused.value.hint


async def test_a_limited_principal_sees_its_runs_and_no_queues_or_scores(store: StateStore) -> None:
    for name in ("triage", "report"):
        run = await store.accept(new_run(name, pipeline=name), {})
        await store.write(move(run, RunStatus.COMPLETED))
    score = Evaluation(
        key="a", run_id=RunId("triage"), pipeline="triage", closure="c", evaluator="polite", by="x", score=1.0
    )
    await store.add_evaluations(
        [score, replace(score, key="b", score=0.5), replace(score, key="c", score=None)]
    )
    whole = await TaskClient(store).stats()
    assert [each.name for each in whole.totals] == ["report", "triage"]
    assert whole.queues == ()
    assert whole.scores is not None
    [(key, report)] = whole.scores.items()
    assert (key, report.count, report.mean) == (("triage", "polite"), 2, 0.75)
    assert report.low < 0.75 < report.high
    limited = Principal("ana", Role.VIEWER, Reach(blueprints=("report",)))
    seen = await TaskClient(store, principal=limited).stats()
    assert [each.name for each in seen.totals] == ["report"]
    assert (seen.queues, seen.scores) == (None, None)
    assert (stats_data(seen)["queues"], stats_data(seen)["scores"]) == (None, None)
    assert [each.name for each in (await TaskClient(store).stats(blueprint="triage")).totals] == ["triage"]
