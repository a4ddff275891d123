"""`flujo worker`: executes runs of queues, fires schedules and resumes orphaned runs, until it is stopped."""

import asyncio
import os
import signal
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flujo import __version__
from flujo.cli import event_loop, options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation, isolated_worker
from flujo.domain.commands import command
from flujo.domain.queues import DEFAULT_QUEUE
from flujo.domain.run import RunStatus
from flujo.domain.wording import plural
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.services.runs.worker import Drained, Worker, WorkerEvents

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def worker(
    ctx: typer.Context,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            metavar="NAME",
            help="Execute runs of this queue; repeatable. [default: default, and runs without a queue]",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Process what is pending now, then exit.")] = False,
    drain: Annotated[
        bool, typer.Option("--drain", help="Exit once the queues are empty; wait for delayed runs.")
    ] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Take no run before `flujo workers resume`.")
    ] = False,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=1000, help="Maximum number of concurrent runs.")
    ] = 10,
    grace: Annotated[
        str,
        typer.Option(
            "--grace",
            metavar="TIME",
            help="After SIGTERM or Ctrl-C, let runs continue so long before they are released: 30s, 5m, 0s.",
        ),
    ] = "25s",
    heartbeat_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Touch this file every 5 seconds while the worker is alive, for a liveness probe.",
        ),
    ] = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import", metavar="MODULE", help="Import a module that registers pipelines; repeatable."
        ),
    ] = None,
    alone: Annotated[
        str, typer.Option(hidden=True, metavar="RUN", help="Execute a run that may have ended its worker.")
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    """Execute runs of queues, fire schedules, resume orphaned runs.

    It also handles expired deadlines. The first SIGTERM or Ctrl-C stops taking runs, and waits for those in
    execution; a second one releases them at once.

    With --once or --drain it exits with 1 when it had to skip runs, because this process cannot execute them.
    """
    from flujo.services.project.inputs import read_duration

    invocation = Invocation.of(ctx)
    how = _How(
        queues=tuple(dict.fromkeys(queues or ())),
        once=once,
        drain=drain,
        is_paused=paused,
        concurrency=concurrency,
        grace_s=read_duration(grace, option="--grace"),
        alone=alone,
        modules=tuple(modules or ()),
        heartbeat_file=heartbeat_file,
    )
    logger("asyncio")  # reports exceptions of step code's own tasks
    ended = event_loop.run(_run_worker(invocation, how, as_json=as_json))
    if ended is signal.SIGINT:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if isinstance(ended, signal.Signals) or ended is None:
        return
    _show(invocation.terminal, ended, as_json=as_json)
    if ended.skipped:
        raise typer.Exit(ExitCode.RUN_FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    """The options of the command."""

    queues: tuple[str, ...]
    once: bool
    drain: bool
    is_paused: bool
    concurrency: int
    grace_s: float
    alone: str
    """What `execute_suspect` gets, in a process that another worker has started for it."""
    modules: tuple[str, ...]
    heartbeat_file: Path | None

    @property
    def ends(self) -> bool:
        """Whether the worker exits by itself."""
        return self.once or self.drain or bool(self.alone)

    async def work(self, working: "Worker", terminal: "Terminal") -> "Drained | None":
        """Do what the worker does until it ends or is stopped."""
        if self.alone:
            await working.execute_suspect(self.alone)
            return None
        if self.ends:
            return await working.drain(later=self.drain)
        await working.begin()
        state = "paused; `flujo workers resume` starts it" if self.is_paused else "started"
        terminal.say(f"worker {state}; SIGTERM or Ctrl-C stops it and releases its runs")
        await working.work()
        return None

    def isolated(self, invocation: Invocation) -> tuple[str, ...]:
        """Return the start of the command line of a process that executes one run for this worker."""
        if self.alone:
            return ()
        options = [("--queue", name) for name in self.queues] + [("--import", name) for name in self.modules]
        return isolated_worker(invocation, [word for option in options for word in option])


async def _run_worker(
    invocation: Invocation, how: _How, *, as_json: bool
) -> "signal.Signals | Drained | None":
    """Work until no more runs can be executed or a signal arrives; return the result or signal."""
    from flujo.services.admin.retention import Retention
    from flujo.services.runs.worker import Worker, WorkerOptions, import_modules
    from flujo.services.workspace import Workspace

    terminal, project = invocation.terminal, invocation.project

    def report(event: "WorkerEvents") -> None:
        if not how.alone:  # the worker that has started this process says it
            terminal.say(_line(event))
        if as_json:
            terminal.json({key: value for key, value in asdict(event).items() if value})

    async with Workspace(project, creates=not project.is_outside) as workspace:
        import_modules(workspace, how.modules)
        policy = replace(workspace.recovery_policy, at_once=how.concurrency)
        served = WorkerOptions(
            queues=how.queues or (DEFAULT_QUEUE,),
            resumes_orphans=not how.queues,
            is_paused=how.is_paused,
            version=__version__,
            heartbeat_file=how.heartbeat_file,
            isolated=how.isolated(invocation),
        )
        working = Worker(workspace, policy, report, served, duties=[Retention(workspace)])
        try:
            return await _until_signal(working, terminal, how)
        finally:
            await working.aclose()


async def _until_signal(
    working: "Worker", terminal: "Terminal", how: _How
) -> "signal.Signals | Drained | None":
    caught: list[signal.Signals] = []
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(how.work(working, terminal))
    again = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if caught:
            again.set()
            loop.remove_signal_handler(number)  # a third signal has its default effect
        caught.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    if how.alone:
        watch = asyncio.create_task(_orphaned())
        watch.add_done_callback(lambda done: None if done.cancelled() else stop(signal.SIGTERM))
    try:
        return await task
    except asyncio.CancelledError:
        if not caught:
            raise
        await _finish(working, terminal, how.grace_s, again)
        return caught[0]


async def _orphaned() -> None:
    """Wait until the worker that has started this process is gone."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(1)


async def _finish(working: "Worker", terminal: "Terminal", grace_s: float, again: asyncio.Event) -> None:
    """Let the runs in execution end, within the grace period or until another signal."""
    if working.executing and grace_s:
        number = plural(working.executing, "run")
        terminal.say(f"worker stops; {number} may end within {grace_s:g} s; another signal releases them now")
    ways = [asyncio.ensure_future(working.finish()), asyncio.ensure_future(again.wait())]
    await asyncio.wait(ways, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
    for way in ways:
        way.cancel()
    await asyncio.wait(ways)
    terminal.say("worker stopped; its runs are released")


def _show(terminal: "Terminal", drained: "Drained", *, as_json: bool) -> None:
    """Write what the worker has done, and which runs it has left."""
    waiting = {str(status): count for status, count in drained.waiting.items()}
    if as_json:
        skipped = [
            {"run_id": each.run_id, "pipeline": each.pipeline, "detail": each.detail}
            for each in drained.skipped
        ]
        terminal.json(
            {"event": "summary", "resumed": drained.resumed, "skipped": skipped, "waiting": waiting}
        )
    facts = [f"executed {plural(drained.resumed, 'run')}"]
    if drained.skipped:
        facts.append(f"skipped {plural(len(drained.skipped), 'run')}")
    alone = waiting.pop(str(RunStatus.WAITING), 0)
    if waiting:
        counts = ", ".join(f"{count:,} {status}" for status, count in waiting.items())
        facts.append(f"still waiting for a human: {counts}")
    if alone:
        facts.append(f"waiting for a time, an event or a task: {plural(alone, 'run')}")
    if len(facts) == 1:
        facts.append("no pending runs left")
    terminal.say("; ".join(facts))
    for (pipeline, reason), count in Counter((e.pipeline, e.detail) for e in drained.skipped).items():
        terminal.say(f"  {plural(count, 'run')} of {pipeline}: {reason}")
    if drained.waiting:
        status = next(iter(drained.waiting))
        terminal.next(command("flujo", "tasks", "list", "--status", str(status)))


def _line(event: "WorkerEvents") -> str:
    from flujo.services.inspection import formatting

    run = " ".join(filter(None, [formatting.short_id(event.run_id), event.pipeline]))
    return f"{event.event:<9}{run}{'  ' + event.detail if event.detail else ''}"
