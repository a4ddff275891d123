"""Shows the forecast of a run as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.paths import shown
from flujo.domain.usage import MICRO_USD
from flujo.domain.wording import dollars, plural
from flujo.services.forecast.prompts import UNKNOWN_TOKENS

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.services.forecast.forecast import Forecast
    from flujo.services.forecast.history import History
    from flujo.services.forecast.parts import Amounts
    from flujo.services.forecast.spans import Span

UNBOUNDED = "UNBOUNDED"
UNKNOWN_PRICE = "UNKNOWN PRICE"
UNKNOWN_COST = "UNKNOWN COST"
_COLUMNS = {
    "path": "STEP",
    "agent": "AGENT",
    "model": "MODEL",
    "requests": "REQUESTS",
    "input": "TOKENS IN",
    "output": "TOKENS OUT",
    "cost": "COST",
}


def show_forecast(terminal: Terminal, found: Forecast) -> None:
    """Write a row for each agent and the sum to stdout, and remarks to stderr."""
    rows = [
        {
            "path": each.path,
            "agent": each.agent,
            "model": each.model or "in Python",
            **_amounts(each.amounts, is_assumed=each.is_assumed),
            **({} if each.is_priced else {"cost": UNKNOWN_PRICE if each.model else UNKNOWN_COST}),
        }
        for each in found.agents
    ]
    if rows:
        total = {"path": "total", **_amounts(found.amounts)}
        if found.unpriced and found.amounts.cost.most is None:
            total["cost"] = next(
                str(row["cost"]) for row in rows if row["cost"] in (UNKNOWN_PRICE, UNKNOWN_COST)
            )
        terminal.table(_COLUMNS, [*rows, total])
    else:
        terminal.data("no agent of the blueprint has a model, so its text says nothing about requests")
    if found.history is not None:
        terminal.data("")
        _show_history(terminal, found.history)
    for each in found.agents:
        if not each.model:
            terminal.say(f"{shown(each.path)}: the agent is in Python, so nothing is known of its requests")
    for path in found.unbounded:
        terminal.say(
            f"{shown(path)}: nothing bounds its tokens; `max_tokens` in `model_settings`, `maxItems` or "
            "`--input` for the items of a map, or a budget does"
        )
    if any(each.is_assumed for each in found.agents):
        terminal.say(
            "~ a prompt has values that are not known before the run; each counts up to "
            f"{UNKNOWN_TOKENS} tokens"
        )


def _show_history(terminal: Terminal, history: History) -> None:
    rows = []
    figures = {"cost": history.cost_usd, "tokens": history.tokens, "requests": history.requests}
    for name, each in figures.items():
        if each is not None:
            shown = dollars if name == "cost" else _number
            rows.append(
                {
                    "what": name,
                    "median": shown(each.median),
                    "p90": shown(each.p90),
                    "interval": f"{shown(each.low)} to {shown(each.high)}",
                }
            )
    title = f"{plural(history.runs, 'RUN')} RECORDED"
    holds = "9 OF 10 RUNS" if history.is_enough else "LEAST TO MOST"
    terminal.table({"what": title, "median": "MEDIAN", "p90": "P90", "interval": holds}, rows)


def _amounts(amounts: Amounts, *, is_assumed: bool = False) -> dict[str, str]:
    mark = "~" if is_assumed else ""
    return {
        "requests": _span(amounts.requests),
        "input": mark + _span(amounts.input_tokens),
        "output": _span(amounts.output_tokens),
        "cost": _costs(amounts.cost),
    }


def _span(span: Span) -> str:
    if span.most is None:
        return f"{_number(span.least)} or more"
    return (
        _number(span.least) if span.least == span.most else f"{_number(span.least)} to {_number(span.most)}"
    )


def _costs(span: Span) -> str:
    if span.most is None:
        return UNBOUNDED
    low, high = dollars(span.least / MICRO_USD), dollars(span.most / MICRO_USD)
    return high if low == high else f"{low} to {high}"


def _number(value: float) -> str:
    return f"{value:,.0f}"
