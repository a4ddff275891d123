"""`flujo budgets`: shows the usage of the budgets that several runs share."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.domain.usage import format_amount
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from flujo.services.inspection.budgets import BudgetState

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_COLUMNS = {
    "rule": "RULE",
    "scope": "SCOPE",
    "share": "SHARE",
    "used": "USED",
    "held": "HELD",
    "left": "LEFT",
    "allowed": "LIMIT",
    "forecast": "FORECAST",
    "ends": "ENDS",
}
_BAR = 10
"""The characters of a bar."""


@app.command()
def budgets(
    ctx: typer.Context,
    rule: Annotated[
        str | None, typer.Option(help="Show only the rule with this name.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the usage of the budgets that several runs share.

    The forecast is the usage at the end of the window if it continues as in the window so far.
    """
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.budgets import budget_states

    invocation = Invocation.of(ctx)
    states = in_workspace(invocation, lambda ws: budget_states(ws, rule))
    if as_json:
        invocation.terminal.json([asdict(each) for each in states])
        return
    if not states:
        has_rules = bool(invocation.project.settings.budgets.rule)
        nothing = "no run has counted yet" if has_rules else "flujo.toml has no [[budgets.rule]]"
        invocation.terminal.say(nothing)
        return
    invocation.terminal.table(_COLUMNS, [_row(each) for each in states])


def _row(state: "BudgetState") -> "dict[str, str]":
    def shown(amount: float) -> str:
        return format_amount(state.limit, amount)

    ends = state.window_ends_at
    return {
        "rule": state.rule,
        "scope": state.scope,
        "share": _bar((state.used + state.held) / state.allowed),
        "used": shown(state.used),
        "held": shown(state.held),
        "left": shown(state.left),
        "allowed": shown(state.allowed),
        "forecast": "" if state.forecast is None else shown(state.forecast),
        "ends": "" if ends is None else formatting.zoned(datetime.fromtimestamp(ends, UTC)),
    }


def _bar(share: float) -> str:
    filled = min(_BAR, round(share * _BAR))
    return f"{'#' * filled}{'.' * (_BAR - filled)} {share:4.0%}"
