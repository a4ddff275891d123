"""`flujo lock`: writes, verifies, shows and compares flujo.lock."""

from collections.abc import Collection
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.cli.lock_rendering import diff_data, github, show_diff, show_lock, show_mismatches
from flujo.domain.commands import command
from flujo.domain.wording import plural
from flujo.exceptions import DatabaseMissing, StateError

if TYPE_CHECKING:
    from flujo.services.workspace import Workspace


class Format(StrEnum):
    """The output format of `flujo lock verify`."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    help="Write, verify, show or compare flujo.lock.",
)


@app.callback()
def lock(ctx: typer.Context) -> None:
    """Write flujo.lock, which pins blueprints, agents and callables."""
    if ctx.invoked_subcommand is not None:
        return
    from flujo.services.checks import locking

    invocation = Invocation.of(ctx)
    written = locking.write(invocation.project)
    count = plural(written.blueprints, "blueprint")
    if written.changed:
        invocation.terminal.say(f"wrote {written.path.name}: {count}", "green")
    else:
        invocation.terminal.say(f"{written.path.name} is up to date: {count}", "green")
    invocation.terminal.next(command("flujo", "lock", "verify"), "check the files against the lock")


@app.command()
def verify(
    ctx: typer.Context,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Also fail on unlocked or missing entries, changed callables and settings, "
            "and model names without a version.",
        ),
    ] = False,
    form: Annotated[
        Format, typer.Option("--format", help="Output format; github annotates a pull request.")
    ] = Format.TEXT,
    as_json: options.AsJson = False,
) -> None:
    """Report differences from flujo.lock; exit with 7 if there are any."""
    from flujo.services.checks import locking
    from flujo.services.checks.lock_places import place_of

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    found = locking.verify(invocation.project, strict=strict)
    differences = found.differences
    as_json = as_json or form is Format.JSON
    if as_json:
        terminal.json({"matches": not differences, "differences": differences, "notes": found.notes})
    else:
        for note in found.notes:
            terminal.say(f"note: {note}", "dim")
        if not differences:
            terminal.say(f"all files match {locking.LOCK_FILE}", "green")
        elif form is Format.GITHUB:
            terminal.data(github(found.mismatches, partial(place_of, invocation.project)))
        else:
            show_mismatches(terminal, found.mismatches)
    if differences:
        if not as_json:
            terminal.next(command("flujo", "lock", "diff"), "show the changes word by word")
        raise typer.Exit(ExitCode.LOCK)


@app.command()
def show(ctx: typer.Context, as_json: options.AsJson = False) -> None:
    """Show the contents of flujo.lock."""
    from flujo.services.checks import locking

    invocation = Invocation.of(ctx)
    held = locking.read(invocation.project)
    if as_json:
        invocation.terminal.json(held)
        return
    show_lock(invocation.terminal, held)
    invocation.terminal.next(command("flujo", "lock", "diff"), "show what has changed since")


@app.command()
def diff(
    ctx: typer.Context,
    revision: Annotated[
        str | None,
        typer.Argument(
            metavar="GIT_REV",
            help="Compare with the lock at this git revision. [default: the lock in the working tree]",
            show_default=False,
        ),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 7 if there are differences.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare the files with a lock.

    Prompts are compared word by word; models, tools, schemas and steps one by one.
    """
    from flujo.services.checks import locking

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    changes = locking.compare(invocation.project, revision)
    waiting = _waiting_runs(invocation, locking.affected(changes)) if changes else {}
    if as_json:
        terminal.json(diff_data(changes, waiting))
    elif changes:
        show_diff(terminal, changes, waiting)
        if waiting:
            terminal.next(command("flujo", "check-resume"), "tell which of the waiting runs can continue")
        terminal.next(command("flujo", "lock"), "update the lock once the changes are tested")
    else:
        terminal.say(
            f"no differences from {locking.LOCK_FILE}{f' of {revision}' if revision else ''}", "green"
        )
    if changes and exit_code:
        raise typer.Exit(ExitCode.LOCK)


def _waiting_runs(invocation: Invocation, files: Collection[str]) -> dict[str, int]:
    """Return how many runs of each blueprint wait; none where there is no database to read."""
    from flujo.cli.run_command import in_workspace
    from flujo.services.replay.check_resume import waiting_runs

    async def work(workspace: "Workspace") -> dict[str, int]:
        return await waiting_runs(workspace, files)

    try:
        found: dict[str, int] = in_workspace(invocation, work)
    except DatabaseMissing:
        return {}
    except StateError as error:
        invocation.terminal.say(f"note: waiting runs were not counted: {error.message}", "dim")
        return {}
    return found
