"""`flujo lock` and `flujo lock verify`: what was tested, written down, and held against the files."""

from typing import Annotated

import typer

from flujo.cli import options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    help="Write or verify flujo.lock.",
)


@app.callback()
def lock(ctx: typer.Context) -> None:
    """Write flujo.lock: the digests of blueprints, prompts, agents and callables."""
    if ctx.invoked_subcommand is not None:
        return
    from flujo.cli.words import plural
    from flujo.services import locking

    invocation = Invocation.of(ctx)
    written = locking.write(invocation.project)
    invocation.terminal.say(f"wrote {written.path.name}: {plural(written.blueprints, 'blueprint')}", "green")
    invocation.terminal.next("flujo lock verify", "says whether the files still match")


@app.command()
def verify(
    ctx: typer.Context,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Also fail on blueprints that are not locked."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Say what differs from flujo.lock."""
    from flujo.services import locking

    invocation = Invocation.of(ctx)
    terminal = invocation.terminal
    differences = locking.verify(invocation.project, strict=strict)
    if as_json:
        terminal.json({"matches": not differences, "differences": differences})
    else:
        for difference in differences:
            terminal.data(difference)
        if not differences:
            terminal.say(f"everything is as {locking.LOCK_FILE} has it", "green")
    if differences:
        if not as_json:
            terminal.next("flujo lock", "writes the lock again, once the change is tested")
        raise typer.Exit(ExitCode.LOCK)
