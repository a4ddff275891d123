"""What recorded runs say about the next one."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

import pytest

from flujo import Flujo, Pipeline, Step
from flujo.domain.steps import CallableRef, LoopStep
from flujo.domain.usage import Usage
from flujo.services.forecast.history import ENOUGH, history_of, typical, without_counts
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


def test_nine_of_ten_runs_lie_in_the_interval() -> None:
    chance = random.Random(7)
    inside = []
    for _ in range(40):
        costs = [chance.lognormvariate(0, 1) for _ in range(200)]
        known = [typical(costs[:count]) for count in range(ENOUGH, 200)]
        pairs = zip(known, costs[ENOUGH:], strict=True)
        inside.append(statistics.mean(found.low <= cost <= found.high for found, cost in pairs))
    assert 0.85 <= statistics.mean(inside) <= 0.95


@pytest.mark.parametrize(
    ("values", "median", "p90", "ends"),
    [
        ([3.0], 3.0, 3.0, (3.0, 3.0)),
        ([float(each) for each in range(1, 11)], 5.5, 9.0, (1.0, 10.0)),
        ([float(each) for each in range(1, 40)], 20.0, 36.0, (2.0, 38.0)),
    ],
)
def test_the_figures_of_a_few_runs(
    values: list[float], median: float, p90: float, ends: tuple[float, float]
) -> None:
    found = typical(values)
    assert (found.median, found.p90, (found.low, found.high)) == (median, p90, ends)


def test_a_path_without_counts_names_the_step_of_the_blueprint() -> None:
    assert without_counts("loop[2]/draft/turn[0]") == "loop/draft"
    assert without_counts("way:then/summary/tool") == "way:then/summary/tool"


async def test_the_figures_come_from_completed_runs_of_the_blueprint(store: StateStore) -> None:
    agent = ScriptedAgent(["a", "b", "c", "d"], usage=Usage(input_tokens=10, requests=1, cost_micro_usd=1))
    asks = Step("ask", call=CallableRef.of(agent))
    pipeline = Pipeline(
        [LoopStep("loop", [asks], max_iterations=2, until="false", on_limit="continue")], name="letter"
    )
    assert await history_of(store, "letter") is None
    async with Flujo(pipeline, store=store) as runner:
        for number in range(2):
            assert (await runner.run_result_async(number)).success
    found = await history_of(store, "letter")
    assert found is not None
    assert (found.runs, found.is_enough) == (2, False)
    assert (found.requests.median, found.tokens.median) == (2, 20)
    assert found.tokens_by_step == {"loop/ask": 20}
    assert await history_of(store, "another") is None
