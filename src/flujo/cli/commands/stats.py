"""`flujo stats`: shows what runs have cost and how they have ended, over time."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.figures import Every, FigureGroup
from flujo.domain.wording import dollars
from flujo.exceptions import DatabaseMissing
from flujo.services.inspection.formatting import seconds

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.domain.figures import Figure
    from flujo.services.inspection.stats import Stats
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_MOST_PLOTTED = 5
"""How many groups are plotted, those with the highest cost."""
_BAR = 32
"""The columns of the longest bar."""
_FIGURES = {
    "count": "CALLS",
    "failed": "FAILED",
    "cost": "COST",
    "tokens": "TOKENS",
    "p50": "P50",
    "p95": "P95",
}


@app.command()
def stats(
    ctx: typer.Context,
    by: Annotated[
        FigureGroup, typer.Option(help="Runs by blueprint, or model calls by agent or by model.")
    ] = FigureGroup.BLUEPRINT,
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Runs since TIME: 2h ago, 30d ago, or 2026-11-28T09:30."),
    ] = "7d",
    every: Annotated[
        Every | None,
        typer.Option(
            help="The length of a period, in UTC.  [default: hour for up to 3 days, otherwise day]",
            show_default=False,
        ),
    ] = None,
    blueprint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only runs of this blueprint.", autocompletion=completion.blueprints
        ),
    ] = None,
    plot: Annotated[
        bool,
        typer.Option(
            "--plot", help="Show each period with a bar: its cost, or the number where nothing has a cost."
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show cost, tokens, status and duration of runs over time.

    A run belongs to the time of its start, and its duration includes its waits. P50 and P95: half of those
    that completed, and 19 of 20, took at most this long.
    """
    from flujo.cli.run_command import in_workspace
    from flujo.services.inspection.stats import no_stats, read_stats, stats_data, stats_query
    from flujo.services.project.inputs import read_moment
    from flujo.services.project.system import SystemClock

    invocation = Invocation.of(ctx)
    earliest = read_moment(since, option="--since")
    query = stats_query(str(by), since=earliest, every=every, blueprint=blueprint, clock=SystemClock())

    async def work(workspace: "Workspace") -> "Stats":
        return await read_stats(await workspace.store(), query)

    terminal = invocation.terminal
    try:
        found: Stats = in_workspace(invocation, work)
    except DatabaseMissing:
        if invocation.project.is_outside:
            raise
        found = no_stats(query)
    if as_json:
        terminal.json(stats_data(found))
    elif not found.totals:
        terminal.say("no run started in this time")
        terminal.next(command("flujo", "stats", "--since", "30d"), "look further back")
    elif plot:
        _plot(terminal, found)
    else:
        _show(terminal, found)


def _show(terminal: "Terminal", found: "Stats") -> None:
    """Write the figures of the whole time, and the means of scores in it."""
    terminal.table({"name": found.by.upper(), **_titles(found)}, [_row(each) for each in found.totals])
    if found.scores:
        from flujo.cli.evals_rendering import show_scores

        terminal.data("")
        show_scores(terminal, found.scores)
    if depth := sum(each.depth for each in found.queues or ()):
        terminal.say(f"runs that wait for a worker now: {depth}")
        terminal.next(command("flujo", "queues"))


def _plot(terminal: "Terminal", found: "Stats") -> None:
    """Write the figures of each period; a bar shows the cost, or the count where nothing has a cost."""
    from flujo.services.inspection.stats import period_text

    has_cost = any(each.usage.cost_micro_usd for each in found.series)
    sizes = {
        (each.at, each.name): each.usage.cost_micro_usd if has_cost else each.count for each in found.series
    }
    most = max(sizes.values())
    columns = {"at": "UTC", "bar": "", **_titles(found)}
    shown = found.totals[:_MOST_PLOTTED]
    for number, total in enumerate(shown):
        terminal.data(f"{chr(10) if number else ''}{_named(total)}")
        own = {each.at: each for each in found.series if each.name == total.name}
        rows = (
            {"at": period_text(at, found.every)}
            | ({"bar": _bar(sizes[at, total.name] / most), **_row(own[at])} if at in own else {})
            for at in found.periods
        )
        terminal.table(columns, list(rows))
    if left := len(found.totals) - len(shown):
        terminal.say(f"the {len(shown)} with the highest cost; {left} more without --plot")


def _bar(share: float) -> str:
    """Return a bar for a share of the longest one, in steps of an eighth of a column."""
    whole, eighths = divmod(round(share * _BAR * 8), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def _titles(found: "Stats") -> dict[str, str]:
    return _FIGURES | ({"count": "RUNS"} if found.by.counts_runs else {})


def _named(figure: "Figure") -> str:
    return figure.name or "(not recorded)"


def _row(figure: "Figure") -> dict[str, Any]:
    usage = figure.usage
    known = "unknown" if usage.cost_usd is None else dollars(usage.cost_usd)
    return {
        "name": _named(figure),
        "count": f"{figure.count:,}",
        "failed": str(figure.statuses.get("failed") or ""),
        "cost": known,
        "tokens": f"{usage.total_tokens:,}",
        "p50": "" if figure.p50_s is None else seconds(figure.p50_s),
        "p95": "" if figure.p95_s is None else seconds(figure.p95_s),
    }
