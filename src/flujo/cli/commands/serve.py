"""`flujo serve`: the pages for people who answer, and the API for services that ask."""

from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import event_loop
from flujo.cli.invocation import Invocation, isolated_worker
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.settings_serve import ServeTable

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Listen on this address. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Listen on this port; 0 for a free one. [default: 8400]"),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every change.")] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=0, max=1000, metavar="N", help="Also execute runs of the default queue here, up to N at once."
        ),
    ] = 0,
) -> None:
    """Serve pages for people who answer, and an API.

    It serves until Ctrl-C. Without a login in flujo.toml it listens on this machine only.
    """
    invocation = Invocation.of(ctx)
    given = {"host": host, "port": port, "read_only": read_only or None}
    table = invocation.project.settings.serve
    settings = table.model_copy(update={name: value for name, value in given.items() if value is not None})
    event_loop.run(_serve(invocation, settings, workers))


async def _serve(invocation: Invocation, settings: "ServeTable", workers: int) -> None:
    try:
        from flujo.serve.server import run
        from flujo.serve.working import Work
    except ImportError as error:
        raise SettingsError(
            f"`flujo serve` needs the extra `serve`: {error.name} is not installed",
            hint="install it: `pip install 'flujo[serve]'`",
        ) from error
    work = Work(at_once=workers, isolated=isolated_worker(invocation))
    await run(invocation.project, settings, lambda address: _say(invocation.terminal, address), work)


def _say(terminal: "Terminal", address: str) -> None:
    terminal.say(f"serving {address} (Ctrl-C ends it)")
