"""`flujo cassette save RUN`: makes a test of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.cli.run_arguments import Run
from flujo.domain.commands import command
from flujo.domain.wording import listed, plural

if TYPE_CHECKING:
    from flujo.services.workspace import Workspace
    from flujo.testing.cassettes import Saved

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Make a test of a run."
)


@app.callback()
def cassette() -> None:
    """Make a test of a run."""


@app.command()
def save(
    ctx: typer.Context,
    run: Run = "@last",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file.  [default: tests/cassettes/BLUEPRINT-RUN.yaml]",
            show_default=False,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a run as a cassette, which pytest plays without a model.

    The run has completed, and playing the cassette gives its output, or nothing is written. Known secrets are
    masked.
    """
    from flujo.cli.run_command import in_workspace

    invocation = Invocation.of(ctx)

    async def work(workspace: "Workspace") -> "tuple[Saved, Path]":
        from flujo.services.project.project import replace_file
        from flujo.testing.cassettes import saved_async

        store = await workspace.store()
        saved = await saved_async(workspace, store, (await store.find(run)).run_id)
        tape = saved.cassette
        folder = workspace.project.root / "tests" / "cassettes"
        path = folder / f"{tape.name}-{tape.run_id[:12]}.yaml" if output is None else output
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, tape.to_text())
        return saved, path

    saved, path = in_workspace(invocation, work)
    tape = saved.cassette
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    tools = sum(each.is_tool for each in tape.calls)
    exchanges = sum(len(each.exchanges) for each in tape.conversations)
    counts = {
        "exchanges": exchanges,
        "tools": tools,
        "calls": len(tape.calls) - tools,
        "answers": len(tape.answers),
    }
    if as_json:
        invocation.terminal.json(
            {"run_id": tape.run_id, "file": str(path), **counts, "untried": list(saved.untried)}
        )
        return
    said = ", ".join(plural(count, name.removesuffix("s")) for name, count in counts.items() if count)
    invocation.terminal.say(f"wrote {path}{f' ({said})' if said else ''}", "green")
    if saved.untried:
        called = listed(saved.untried, "and")
        invocation.terminal.say(f"it was not played, because a play calls {called}", "yellow")
    invocation.terminal.next(command("pytest", str(path)), "play it")
