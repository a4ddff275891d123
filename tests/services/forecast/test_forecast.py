"""The forecast of a run: its bound, and the recorded runs once they are enough."""

from __future__ import annotations

import pytest

from flujo.services.forecast.forecast import Forecast
from flujo.services.forecast.history import ENOUGH, History, typical
from flujo.services.forecast.parts import Amounts
from flujo.services.forecast.spans import Span


def _history(runs: int, costs: list[float] | None) -> History:
    figures = typical([1.0])
    return History(runs, None if costs is None else typical(costs), figures, figures, {})


@pytest.mark.parametrize(
    ("cost", "history", "most"),
    [
        (Span(0, 2_000_000), None, 2.0),
        (Span(0, None), None, None),
        (Span(0, 2_000_000), _history(ENOUGH - 1, [0.5]), 2.0),
        (Span(0, 2_000_000), _history(ENOUGH, [0.5]), 0.5),
        (Span(0, None), _history(ENOUGH, [0.5]), 0.5),
        (Span(0, 2_000_000), _history(ENOUGH, None), 2.0),
    ],
    ids=[
        "a bound",
        "no bound",
        "too few runs",
        "enough runs",
        "runs without a bound",
        "runs without a price",
    ],
)
def test_enough_runs_come_before_the_bound(cost: Span, history: History | None, most: float | None) -> None:
    assert Forecast("letter", (), Amounts(cost=cost), history).most_usd == most
