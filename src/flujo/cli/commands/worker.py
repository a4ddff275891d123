"""`flujo worker`: resumes orphaned runs and handles expired deadlines until it is stopped."""

import asyncio
import signal
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import event_loop, options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.wording import plural
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.services.runs.worker import Worker, WorkerEvents

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def worker(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Process what is pending now, then exit.")] = False,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=1000, help="Maximum number of concurrent runs.")
    ] = 10,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import", metavar="MODULE", help="Import a module that registers pipelines; repeatable."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Resume orphaned runs and handle expired deadlines."""
    invocation = Invocation.of(ctx)
    logger("asyncio")  # reports exceptions of step code's own tasks
    caught = event_loop.run(
        _run_worker(invocation, once=once, concurrency=concurrency, modules=modules or [], as_json=as_json)
    )
    if caught is signal.SIGINT:
        raise typer.Exit(ExitCode.INTERRUPTED)


async def _run_worker(
    invocation: Invocation, *, once: bool, concurrency: int, modules: list[str], as_json: bool
) -> signal.Signals | None:
    """Work until no run is pending (`once`) or a signal arrives; return the signal."""
    from flujo.services.runs.worker import Worker, import_modules
    from flujo.services.workspace import Workspace

    terminal = invocation.terminal

    def report(event: "WorkerEvents") -> None:
        terminal.say(_line(event))
        if as_json:
            terminal.json({key: value for key, value in asdict(event).items() if value})

    async with Workspace(invocation.project) as workspace:
        import_modules(workspace, modules)
        policy = replace(workspace.recovery_policy, at_once=concurrency)
        working = Worker(workspace, policy, report)
        try:
            return await _until_signal(working, terminal, once=once)
        finally:
            await working.aclose()


async def _until_signal(working: "Worker", terminal: "Terminal", *, once: bool) -> signal.Signals | None:
    caught: list[signal.Signals] = []
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(working.drain() if once else working.work())

    def stop(number: signal.Signals) -> None:
        caught.append(number)
        loop.remove_signal_handler(number)  # a second signal has its default effect
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    if not once:
        terminal.say("worker started; SIGTERM or Ctrl-C stops it and releases its runs")
    try:
        count = await task
    except asyncio.CancelledError:
        if not caught:
            raise
        terminal.say("worker stopped; its runs are released")
        return caught[0]
    terminal.say(f"resumed {plural(count or 0, 'run')}; no pending runs left")
    return None


def _line(event: "WorkerEvents") -> str:
    from flujo.cli import formatting

    run = " ".join(filter(None, [formatting.short_id(event.run_id), event.pipeline]))
    return f"{event.event:<9}{run}{'  ' + event.detail if event.detail else ''}"
