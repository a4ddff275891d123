"""`flujo check-resume`: tells which waiting runs can continue with the blueprints on disk."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.wording import plural

if TYPE_CHECKING:
    from flujo.services.replay.check_resume import Checked
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_COLUMNS = {"answer": "continues", "run": "run", "blueprint": "blueprint", "status": "status", "why": "steps"}


@app.command()
def check_resume(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Run ids, their prefixes, or @last.  [default: all that wait, are paused or have failed]",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="URI",
            help="The database that has the runs.  [default: that of the project]",
            show_default=False,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell which runs can continue with the blueprints on disk."""
    from flujo.cli.run_command import in_workspace
    from flujo.services.replay import check_resume as checking

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal

    async def work(workspace: "Workspace") -> "list[Checked]":
        return await checking.check_resume(workspace, runs or (), against)

    found = in_workspace(invocation, work)
    refused = [each for each in found if not each.can_continue]
    if as_json:
        terminal.json([checking.checked_data(each) for each in found])
    elif not found:
        terminal.say("no runs to check: none waits, is paused, was interrupted or has failed")
    else:
        terminal.table(_COLUMNS, [_row(each) for each in found])
        for pairs, count in checking.migrations_in(found).items():
            terminal.say(f"migrated in {plural(count, 'run')}: {pairs}")
        for each in refused:
            terminal.say(f"{each.run.run_id}: {each.reason()}")
    if refused:
        raise typer.Exit(ExitCode.RUN_FAILED)


def _row(checked: "Checked") -> dict[str, Any]:
    found = checked.comparison
    counts = {"kept": found.kept, "migrated": found.migrated, "changed": found.changed}
    counts |= {"lost": (*found.lost, *found.left_out), "conflicts": found.conflicts}
    said = ", ".join(f"{len(paths)} {name}" for name, paths in counts.items() if paths)
    answer = "unknown" if checked.is_skipped else "yes" if checked.can_continue else "no"
    return {
        "answer": answer,
        "run": checked.run.run_id,
        "blueprint": checked.run.pipeline,
        "status": str(checked.run.status),
        "why": said or plural(0, "step"),
    }
