"""Figures of runs over time: charts that the server draws, the same as tables and as CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.responses import Response

from flujo.domain.access import Right
from flujo.domain.figures import Every, FigureGroup
from flujo.domain.usage import MICRO_USD
from flujo.domain.wording import dollars
from flujo.governance.screen import visible
from flujo.governance.sink import GATE
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.charts import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Chart,
    Scale,
    line_chart,
    row_chart,
    stacked_chart,
)
from flujo.serve.pages.rendering import page
from flujo.serve.serving import tasks
from flujo.services.given import choice
from flujo.services.inspection.formatting import seconds
from flujo.services.inspection.stats import period_text, stats_data
from flujo.services.project.inputs import read_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request

    from flujo.domain.figures import Figure
    from flujo.services.inspection.stats import Stats

MOST_LINES = 6
"""How many names a chart has: those with the highest cost."""
TIMES = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days", "365d": "a year"}
_USUAL = "7d"
_NAMELESS = "(not recorded)"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What begins a formula for a program that opens a CSV file."""


class Table(StrEnum):
    """The tables that there are as CSV."""

    PERIODS = "periods"
    TOTALS = "totals"
    QUEUES = "queues"
    SCORES = "scores"


async def show_stats(request: Request) -> Response:
    """Show the figures of a time, by what the address says."""
    found = await _found(request)
    return page(
        request,
        "stats.html",
        found=found,
        charts=_charts(found),
        rows_of_totals=[_total(each) for each in found.totals],
        left_out=max(0, len(found.totals) - MOST_LINES),
        groups=list(FigureGroup),
        periods=list(Every),
        times=TIMES,
        since=request.query_params.get("since") or _USUAL,
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT},
        csv={name: f"?{urlencode({**request.query_params, 'table': name})}" for name in Table},
    )


async def export_stats(request: Request) -> Response:
    """Answer with one of the tables as CSV: `?table=periods`, `totals`, `queues` or `scores`."""
    table = choice(Table, request.query_params.get("table") or Table.PERIODS, "table")
    rows = stats_data(await _found(request))[str(table)] or []
    file = io.StringIO(newline="")
    if rows:
        names = [name for name in rows[0] if name != "statuses"]
        statuses = sorted({status for row in rows for status in row.get("statuses", ())})
        write = csv.writer(file).writerow
        write([*names, *statuses])
        for row in rows:
            write([*(_cell(name, row[name]) for name in names), *_counts(row, statuses)])
    headers = {"content-disposition": f'attachment; filename="flujo-{table}.csv"'}
    return Response(file.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _counts(row: Mapping[str, Any], statuses: Sequence[str]) -> list[int]:
    return [row["statuses"].get(status, 0) for status in statuses]


def _cell(name: str, value: Any) -> Any:
    """Return a value as a cell of CSV: masked, and never a formula; a time as in RFC 3339."""
    if name == "at":
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not isinstance(value, str):
        return "" if value is None else value
    text = visible(GATE.result(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


async def _found(request: Request) -> Stats:
    given = {name: value for name, value in request.query_params.items() if value}
    return await tasks(request).stats(
        given.get("by", FigureGroup.BLUEPRINT),
        since=read_moment(given.get("since", _USUAL), option="since"),
        until=read_moment(given["until"], option="until") if "until" in given else None,
        every=given.get("every"),
        blueprint=given.get("blueprint"),
    )


def _charts(found: Stats) -> list[Chart]:
    """Return the charts over time, and those of queues and scores where there are any."""
    periods = [period_text(at, found.every) for at in found.periods]
    by_cost = [each.name for each in found.totals[:MOST_LINES]]
    known = {(each.at, each.name): each for each in found.series}

    def rows(value: Callable[[Figure], float | None], without: float | None) -> dict[str, list[float | None]]:
        return {
            name or _NAMELESS: [
                value(known[at, name]) if (at, name) in known else without for at in found.periods
            ]
            for name in by_cost
        }

    what = "Runs" if found.by.counts_runs else "Model calls"
    cost, tokens = Scale("cost", "Cost", "US dollars", dollars), Scale("tokens", "Tokens", "tokens", _whole)
    half = Scale("p50", "Median duration", "of those that completed", seconds)
    most = Scale("p95", "95th percentile of the duration", "of those that completed", seconds)
    charts = [
        line_chart(cost, periods, rows(lambda each: each.usage.cost_micro_usd / MICRO_USD, 0.0)),
        line_chart(tokens, periods, rows(lambda each: each.usage.total_tokens, 0.0)),
        stacked_chart(Scale("status", f"{what} by status", what.lower(), _whole), periods, _statuses(found)),
        line_chart(half, periods, rows(lambda each: each.p50_s, None)),
        line_chart(most, periods, rows(lambda each: each.p95_s, None)),
    ]
    return [*charts, *_queues(found), *_scores(found)]


def _statuses(found: Stats) -> dict[str, list[float]]:
    """Return by status how many there are in each period, over all groups."""
    names = sorted({status for each in found.totals for status in each.statuses})
    counts = {name: dict.fromkeys(found.periods, 0.0) for name in names}
    for figure in found.series:
        for status, count in figure.statuses.items():
            counts[status][figure.at] += count
    return {name: list(each.values()) for name, each in counts.items()}


def _queues(found: Stats) -> list[Chart]:
    if not found.queues:
        return []
    head = ("Queue", "Waiting", "Delayed", "In progress", "Paused", "Parked", "Oldest")
    rows = [
        (
            *(each.queue, *map(_whole, (each.depth, each.delayed, each.in_flight, each.paused, each.parked))),
            "" if each.oldest_s is None else seconds(each.oldest_s),
        )
        for each in found.queues
    ]
    bars = [(each.queue, 0.0, float(each.depth), None) for each in found.queues]
    return [row_chart(Scale("queues", "Depth of the queues now", "runs", _whole), bars, head, rows)]


def _scores(found: Stats) -> list[Chart]:
    if not found.scores:
        return []
    head = ("Blueprint", "Evaluator", "Scores", "Mean", "95 % interval from", "to")
    rows = [
        (blueprint, each.name, _whole(each.count), *map(_share, (each.mean, each.low, each.high)))
        for (blueprint, _), each in found.scores.items()
    ]
    bars = [
        (f"{blueprint} {each.name}", each.low, each.high, each.mean)
        for (blueprint, _), each in found.scores.items()
    ]
    scale = Scale("scores", "Mean scores", "from 0 to 1, with the 95 % interval of the mean", _share)
    return [row_chart(scale, bars, head, rows)]


def _total(figure: Figure) -> tuple[str, ...]:
    """Return the row of a group for the whole time."""
    usage = figure.usage
    return (
        figure.name or _NAMELESS,
        _whole(figure.count),
        _whole(figure.statuses.get("failed", 0)),
        "unknown" if usage.cost_usd is None else dollars(usage.cost_usd),
        _whole(usage.total_tokens),
        "" if figure.p50_s is None else seconds(figure.p50_s),
        "" if figure.p95_s is None else seconds(figure.p95_s),
    )


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _share(value: float) -> str:
    return f"{value:.2f}"


ENDPOINTS = (
    Endpoint("GET", "/stats", show_stats, Right.READ),
    Endpoint("GET", "/stats.csv", export_stats, Right.READ),
)
