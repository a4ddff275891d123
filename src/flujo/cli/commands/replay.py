"""`flujo replay RUN`: computes a recorded run again, without a call, and compares."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import completion, options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.cli.run_arguments import RunOrFile
from flujo.domain.wording import listed, plural

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.services.recorded.replay import Replay
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="STEP",
        help="Stop after this step; a path such as `draft[1]/write` or `draft.1/write`.",
        show_default=False,
        autocompletion=completion.steps,
    ),
]
OnDisk = Annotated[
    str | None,
    typer.Option(
        "--blueprint",
        metavar="BLUEPRINT",
        help="Compare with this blueprint on disk.  [default: the files that the run has pinned]",
        show_default=False,
        autocompletion=completion.blueprints,
    ),
]
Export = Annotated[
    Path | None,
    typer.Option(
        "--export",
        metavar="FILE",
        help="Write the run as one file instead, to replay it elsewhere; as `flujo export`.",
        show_default=False,
    ),
]


@app.command()
def replay(
    ctx: typer.Context,
    run: RunOrFile = "@last",
    until: Until = None,
    blueprint: OnDisk = None,
    export: Export = None,
    as_json: options.AsJson = False,
) -> None:
    """Replay a run from its record; makes no call and writes nothing."""
    from flujo.cli.exporting import write_export
    from flujo.cli.run_command import in_workspace
    from flujo.services.replay.sources import is_file, named_run
    from flujo.services.runs.replays import difference_in, replay_run

    invocation = Invocation.of(ctx)
    if export is not None:
        write_export(invocation, run, export, as_json=as_json)
        return
    path = None if blueprint is None else invocation.project.locate(blueprint, invocation.folder)

    async def work(workspace: "Workspace") -> "Replay":
        source, record = await named_run(workspace, run)
        return await replay_run(
            workspace, source, record.run_id, until=until, path=path, is_elsewhere=is_file(run)
        )

    found: Replay = in_workspace(invocation, work)
    if found.differences and not as_json:
        raise difference_in(found)
    _show(invocation.terminal, found, as_json=as_json)


def _show(terminal: "Terminal", found: "Replay", *, as_json: bool) -> None:
    """Print what a replay has compared; exit with an error if there is a difference."""
    result = found.result
    if as_json:
        differs = found.differences[0].to_json() if found.differences else None
        facts = {
            "run_id": result.run_id,
            "status": str(result.status),
            "entries": found.entries,
            "not_compared": list(found.absent),
        }
        terminal.json({**facts, "output": result.output, "difference": differs})
        if differs is not None:
            raise typer.Exit(ExitCode.RUN_FAILED)
    else:
        entries = plural(found.entries, "entry", "entries")
        terminal.say(f"run {result.run_id} ({result.status}): {entries}, no difference", "green")
        if found.absent:
            tools = listed(found.absent, "and")
            terminal.say(f"not compared, because the code is not here: {tools}", "yellow")
