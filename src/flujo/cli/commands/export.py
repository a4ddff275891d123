"""`flujo export RUN`: writes a run as one file, which needs no database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command

if TYPE_CHECKING:
    from flujo.services.replay.export import Exported
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def export(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run id, its prefix, or @last.", autocompletion=completion.runs),
    ] = "@last",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file.  [default: RUN.jsonl.zst]", show_default=False
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a run as one file, which needs no database."""
    from flujo.cli.run_command import in_workspace

    invocation = Invocation.of(ctx)

    async def work(workspace: "Workspace") -> "Exported":
        from flujo.services.replay.export import write_file

        store = await workspace.store()
        return await write_file(store, (await store.find(run)).run_id, output)

    exported = in_workspace(invocation, work)
    if as_json:
        facts = {"run_id": exported.run_id, "file": str(exported.path), "bytes": exported.size}
        invocation.terminal.json({**facts, "masked": exported.masked})
        return
    invocation.terminal.say(f"wrote {exported.path} ({exported.size:,} bytes)", "green")
    if exported.masked:
        invocation.terminal.say(f"secrets are masked in {exported.masked} lines of it", "yellow")
    invocation.terminal.next(command("flujo", "trace", str(exported.path)), "show what happened, anywhere")
