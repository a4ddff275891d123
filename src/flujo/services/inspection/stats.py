"""Figures of runs and model calls over time, with the depth of queues and the means of scores."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flujo.domain.evaluations import EvaluationQuery
from flujo.domain.figures import Every, FigureGroup, FigureQuery
from flujo.domain.reach import EVERYWHERE
from flujo.domain.wording import plural
from flujo.exceptions import SettingsError
from flujo.services.given import choice, seconds_of, text_or_none
from flujo.services.scoring.means import score_reports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.figures import Figure
    from flujo.domain.ports import Clock
    from flujo.domain.queues import QueueState
    from flujo.domain.reach import Reach
    from flujo.domain.store import StateStore
    from flujo.services.scoring.means import EvaluatorReport

MOST_PERIODS = 1000
MOST_SCORES = 2000
"""How many scores are read, the newest ones: an interval takes the more time, the more there are."""

_USUAL = timedelta(days=7)
_HOURS_UP_TO_S = 3 * Every.DAY.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Figures of a time, by period and as a whole."""

    since: float
    """The start of the first period, in seconds since the epoch."""
    until: float
    every: Every
    by: FigureGroup
    blueprint: str | None
    """The only blueprint whose runs count; None for every one."""
    series: tuple[Figure, ...] = ()
    """By period and then by name; a period without runs has none."""
    totals: tuple[Figure, ...] = ()
    """Of the whole time, those with the highest cost first."""
    queues: tuple[QueueState, ...] | None = ()
    """What is in the queues now; None for a client that is limited to some runs."""
    scores: Mapping[tuple[str, str], EvaluatorReport] | None = field(default_factory=dict)
    """Means of scores given in this time, by blueprint and evaluator, of the newest `MOST_SCORES`; None for a
    client that is limited to some runs."""

    @property
    def periods(self) -> list[float]:
        """The start of every period, those without runs included."""
        count = -(-(self.until - self.since) // self.every.seconds)
        return [self.since + number * self.every.seconds for number in range(int(count))]


def stats_query(
    by: Any,
    *,
    clock: Clock,
    since: Any = None,
    until: Any = None,
    every: Any = None,
    blueprint: Any = None,
    reach: Reach = EVERYWHERE,
) -> FigureQuery:
    """Return the query of figures, with the arguments as callers give them.

    Raises:
        SettingsError: an argument has the wrong type or value, or there are too many periods.
    """
    group, now = choice(FigureGroup, by, "by"), clock.now()
    start = seconds_of(_USUAL if since is None else since, "since", clock)
    end = seconds_of(until, "until", clock)
    assert start is not None  # noqa: S101 - seconds_of returns None for None alone
    length = (now if end is None else end) - start
    usual = Every.HOUR if length <= _HOURS_UP_TO_S else Every.DAY
    chosen = usual if every is None else choice(Every, every, "every")
    first = start // chosen.seconds * chosen.seconds
    last = (now // chosen.seconds + 1) * chosen.seconds if end is None else end
    if first < 0 or last <= first:
        raise SettingsError("there is no time between `since` and `until`", hint="pass a later `until`")
    if (count := (last - first) / chosen.seconds) > MOST_PERIODS:
        longer = " or `every='day'`" if chosen is Every.HOUR else ""
        raise SettingsError(
            f"{plural(int(count), chosen.value)} are too many: {MOST_PERIODS} at most",
            hint=f"pass a later `since`{longer}",
        )
    return FigureQuery(
        since=first,
        until=last,
        by=group,
        every=chosen,
        pipeline=text_or_none(blueprint, "blueprint"),
        reach=reach,
    )


async def read_stats(store: StateStore, query: FigureQuery) -> Stats:
    """Return the figures of a query, which has periods; queues and scores only for an unlimited reach.

    Raises:
        StateError: the database cannot be read.
    """
    series, totals = await asyncio.gather(store.figures(query), store.figures(replace(query, every=None)))
    queues, scores = None, None
    if not query.reach:
        given = EvaluationQuery(
            pipeline=query.pipeline, since=query.since, until=query.until, limit=MOST_SCORES
        )
        states, recorded = await asyncio.gather(store.queue_states(), store.evaluations(given))
        queues, scores = tuple(states), await asyncio.to_thread(score_reports, recorded)
    by_cost = sorted(totals, key=lambda each: (-each.usage.cost_micro_usd, -each.count, each.name))
    return replace(no_stats(query), series=tuple(series), totals=tuple(by_cost), queues=queues, scores=scores)


def no_stats(query: FigureQuery) -> Stats:
    """Return the figures of a query, which has periods, for a database that does not exist yet."""
    return Stats(
        since=query.since,
        until=query.until,
        every=query.every or Every.DAY,
        by=query.by,
        blueprint=query.pipeline,
    )


def stats_data(stats: Stats) -> dict[str, Any]:
    """Return figures as JSON data; times are seconds since the epoch."""
    queue = ("queue", "depth", "delayed", "in_flight", "paused", "parked", "oldest_s")
    return {
        "since": stats.since,
        "until": stats.until,
        "every": str(stats.every),
        "by": str(stats.by),
        "blueprint": stats.blueprint,
        "periods": [figure_data(each) for each in stats.series],
        "totals": [figure_data(each) for each in stats.totals],
        "queues": None
        if stats.queues is None
        else [{name: getattr(each, name) for name in queue} for each in stats.queues],
        "scores": None
        if stats.scores is None
        else [_score_data(blueprint, each) for (blueprint, _), each in stats.scores.items()],
    }


def figure_data(figure: Figure) -> dict[str, Any]:
    """Return a figure as JSON data; the cost is null when a request has no price."""
    return {
        "at": figure.at,
        "name": figure.name,
        "count": figure.count,
        "statuses": dict(figure.statuses),
        "cost_usd": figure.usage.cost_usd,
        "input_tokens": figure.usage.input_tokens,
        "output_tokens": figure.usage.output_tokens,
        "requests": figure.usage.requests,
        "p50_s": figure.p50_s,
        "p95_s": figure.p95_s,
    }


def _score_data(blueprint: str, report: EvaluatorReport) -> dict[str, Any]:
    names = ("count", "mean", "low", "high")
    own = {name: getattr(report, name) for name in names}
    return {"blueprint": blueprint, "evaluator": report.name, **own}


def period_text(at: float, every: Every) -> str:
    """Return a period as people read it, in UTC: `2026-11-30`, or `2026-11-30 14:00`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M" if every is Every.HOUR else "%Y-%m-%d")
