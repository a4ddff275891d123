"""`flujo doctor`: settings with their origin, and checks of the database, models, API keys and packages."""

from typing import TYPE_CHECKING

import typer

from flujo.cli import options
from flujo.cli.exit_codes import of_error
from flujo.cli.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.terminal import Terminal
    from flujo.services.admin.doctor import Finding

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_STYLES = {"ok": ("green",), "note": ("dim",), "warn": ("yellow",), "fail": ("bold", "red")}


@app.command()
def doctor(ctx: typer.Context, as_json: options.AsJson = False) -> None:
    """Check settings, database, models and API keys."""
    from flujo.services.admin.doctor import examine

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    settings = [
        {"key": key, "value": value, "origin": origin}
        for key, value, origin in invocation.project.settings.listed()
    ]
    found = examine(invocation.project)
    if as_json:
        checks = [{"name": f.name, "state": f.state, "detail": f.detail, "hint": f.hint} for f in found]
        terminal.json({"settings": settings, "checks": checks})
    else:
        columns = {"key": "SETTING", "value": "VALUE", "origin": "FROM"}
        terminal.table(columns, [{**row, "value": _display(row["value"])} for row in settings])
        terminal.data("")
        _write(terminal, found)
    failed = [finding.error for finding in found if finding.error is not None]
    if failed:
        raise typer.Exit(of_error(failed[0]))


def _write(terminal: "Terminal", found: "Sequence[Finding]") -> None:
    for finding in found:
        mark = terminal.styled(f"{finding.state:<5}", *_STYLES[finding.state], to=terminal.out)
        terminal.data(f"{mark} {finding.name:<12}{finding.detail}")
        if finding.hint and finding.state != "ok":
            terminal.data(f"{'':<18}{terminal.styled('hint:', 'cyan', to=terminal.out)} {finding.hint}")


def _display(value: object) -> str:
    from flujo.cli.terminal import as_json

    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else as_json(value) if isinstance(value, bool) else str(value)
