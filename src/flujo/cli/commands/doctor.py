"""`flujo doctor`: settings with their origin, and checks of the database, models, API keys and packages."""

from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import options
from flujo.cli.exit_codes import of_error
from flujo.cli.invocation import Invocation
from flujo.domain.wording import plural
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.terminal import Terminal
    from flujo.domain.acts import Actor
    from flujo.services.admin.doctor import Finding

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_STYLES = {"ok": ("green",), "note": ("dim",), "warn": ("yellow",), "fail": ("bold", "red")}


@app.command()
def doctor(
    ctx: typer.Context,
    after_restore: Annotated[
        bool,
        typer.Option(
            "--after-restore",
            help="After restoring the database from a backup: mark the calls of unfinished runs as in doubt.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --after-restore: only list the runs.")
    ] = False,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Check settings, database, models and API keys."""
    from flujo.services.admin.doctor import examine

    invocation = Invocation.of(ctx)
    if after_restore:
        _after_restore(invocation, options.actor(by), dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        raise SettingsError("`--dry-run` needs `--after-restore`: the other checks change nothing")
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


def _after_restore(invocation: Invocation, actor: "Actor", *, dry_run: bool, as_json: bool) -> None:
    """Mark the unfinished runs of a restored database, and list them."""
    from flujo.services.admin.doctor import mark_after_restore

    terminal = invocation.terminal
    found = mark_after_restore(invocation.project, actor, dry_run=dry_run)
    rows = [
        {
            "run_id": run.run_id,
            "pipeline": run.pipeline,
            "status": str(run.status),
            "state": "marked before" if run.was_marked else "to mark" if dry_run else "marked",
        }
        for run in found
    ]
    if as_json:
        terminal.json({"runs": rows, "dry_run": dry_run})
        return
    terminal.table({"run_id": "RUN", "pipeline": "PIPELINE", "status": "STATUS", "state": "MARK"}, rows)
    count = plural(sum(not run.was_marked for run in found), "run")
    if dry_run:
        terminal.say(f"{count} would be marked; nothing was changed")
    else:
        terminal.say(f"{count} marked: the next call of each step with `enforce_idempotency` is in doubt")


def _write(terminal: "Terminal", found: "Sequence[Finding]") -> None:
    for finding in found:
        mark = terminal.styled(f"{finding.state:<5}", *_STYLES[finding.state], to=terminal.out)
        terminal.data(f"{mark} {finding.name:<14}{finding.detail}")
        if finding.hint and finding.state != "ok":
            terminal.data(f"{'':<20}{terminal.styled('hint:', 'cyan', to=terminal.out)} {finding.hint}")


def _display(value: object) -> str:
    from flujo.services.inspection.formatting import as_json

    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else as_json(value) if isinstance(value, bool) else str(value)
