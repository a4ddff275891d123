"""`flujo worker`: resumes orphaned runs and handles expired deadlines until it is stopped."""

import asyncio
import signal
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from flujo.cli import event_loop, options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.wording import plural
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.services.runs.worker import Drained, Worker, WorkerEvents

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
    """Resume orphaned runs and handle expired deadlines.

    With --once it exits with 1 when it had to skip runs, because this process cannot execute them.
    """
    invocation = Invocation.of(ctx)
    logger("asyncio")  # reports exceptions of step code's own tasks
    ended = event_loop.run(
        _run_worker(invocation, once=once, concurrency=concurrency, modules=modules or [], as_json=as_json)
    )
    if ended is signal.SIGINT:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if isinstance(ended, signal.Signals):
        return
    _show(invocation.terminal, ended, as_json=as_json)
    if ended.skipped:
        raise typer.Exit(ExitCode.RUN_FAILED)


async def _run_worker(
    invocation: Invocation, *, once: bool, concurrency: int, modules: list[str], as_json: bool
) -> "signal.Signals | Drained":
    """Work until no more runs can be resumed (`once`) or a signal arrives; return the result or signal."""
    from flujo.services.runs.worker import Worker, import_modules
    from flujo.services.workspace import Workspace

    terminal, project = invocation.terminal, invocation.project

    def report(event: "WorkerEvents") -> None:
        terminal.say(_line(event))
        if as_json:
            terminal.json({key: value for key, value in asdict(event).items() if value})

    async with Workspace(project, creates=not project.is_outside) as workspace:
        import_modules(workspace, modules)
        policy = replace(workspace.recovery_policy, at_once=concurrency)
        working = Worker(workspace, policy, report)
        try:
            return await _until_signal(working, terminal, once=once)
        finally:
            await working.aclose()


async def _until_signal(working: "Worker", terminal: "Terminal", *, once: bool) -> "signal.Signals | Drained":
    caught: list[signal.Signals] = []
    loop = asyncio.get_running_loop()
    task: asyncio.Future[Any] = asyncio.ensure_future(working.drain() if once else working.work())

    def stop(number: signal.Signals) -> None:
        caught.append(number)
        loop.remove_signal_handler(number)  # a second signal has its default effect
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    if not once:
        terminal.say("worker started; SIGTERM or Ctrl-C stops it and releases its runs")
    try:
        return cast("Drained", await task)
    except asyncio.CancelledError:
        if not caught:
            raise
        terminal.say("worker stopped; its runs are released")
        return caught[0]


def _show(terminal: "Terminal", drained: "Drained", *, as_json: bool) -> None:
    """Write what the worker has done, and which runs it has left."""
    if as_json:
        skipped = [
            {"run_id": each.run_id, "pipeline": each.pipeline, "detail": each.detail}
            for each in drained.skipped
        ]
        waiting = {str(status): count for status, count in drained.waiting.items()}
        terminal.json(
            {"event": "summary", "resumed": drained.resumed, "skipped": skipped, "waiting": waiting}
        )
    facts = [f"resumed {plural(drained.resumed, 'run')}"]
    if drained.skipped:
        facts.append(f"skipped {plural(len(drained.skipped), 'run')}")
    if drained.waiting:
        counts = ", ".join(f"{count:,} {status}" for status, count in drained.waiting.items())
        facts.append(f"still waiting for a human: {counts}")
    if len(facts) == 1:
        facts.append("no pending runs left")
    terminal.say("; ".join(facts))
    for (pipeline, reason), count in Counter((e.pipeline, e.detail) for e in drained.skipped).items():
        terminal.say(f"  {plural(count, 'run')} of {pipeline}: {reason}")
    if drained.waiting:
        status = next(iter(drained.waiting))
        terminal.next(command("flujo", "tasks", "list", "--status", str(status)))


def _line(event: "WorkerEvents") -> str:
    from flujo.cli import formatting

    run = " ".join(filter(None, [formatting.short_id(event.run_id), event.pipeline]))
    return f"{event.event:<9}{run}{'  ' + event.detail if event.detail else ''}"
