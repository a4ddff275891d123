"""`flujo schedules`: lists, applies, pauses, resumes and triggers the schedules of a project."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import completion, event_loop, options
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.cron import zone
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.acts import Act
    from flujo.services.inspection.schedule_client import ScheduleClient
    from flujo.services.inspection.schedule_views import Applied, ScheduleView

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List, apply, pause and trigger schedules.",
)

Name = Annotated[
    str,
    typer.Argument(metavar="SCHEDULE", help="A schedule's name.", autocompletion=completion.schedules),
]

_COLUMNS = {
    "name": "SCHEDULE",
    "blueprint": "BLUEPRINT",
    "cron": "CRON",
    "zone": "ZONE",
    "state": "STATE",
    "next": "NEXT",
    "last": "LAST",
}


@app.command("list")
def list_(ctx: typer.Context, as_json: options.AsJson = False) -> None:
    """List the schedules of the database and of the files. Times are those of each schedule's zone."""
    invocation = Invocation.of(ctx)
    views: list[ScheduleView] = _with_client(invocation, lambda client: client.list_schedules())
    terminal = invocation.terminal
    if as_json:
        terminal.json([_data(view) for view in views])
        return
    if not views:
        terminal.say("no schedules: no blueprint has `schedule:`, and flujo.toml has no [schedules.NAME]")
        return
    terminal.table(_COLUMNS, [_row(view) for view in views])
    if any(view.state in ("differs", "not applied", "not in files") for view in views):
        terminal.next(command("flujo", "schedules", "apply", "--dry-run"), "show what differs from the files")
    elif any(view.state == "late" for view in views):
        terminal.next(command("flujo", "worker"), "fire schedules and execute their runs")


@app.command()
def show(ctx: typer.Context, name: Name, as_json: options.AsJson = False) -> None:
    """Show one schedule, its next times, and who changed it."""
    invocation = Invocation.of(ctx)

    async def read(client: "ScheduleClient") -> "tuple[ScheduleView, list[datetime], list[Act]]":
        view = await client.get(name)
        acts = [] if view.state == "not applied" else await client.acts(name)
        return view, await client.next_times(name), acts

    view, times, acts = _with_client(invocation, read)
    terminal = invocation.terminal
    if as_json:
        upcoming = [each.isoformat() for each in times]
        terminal.json({**_data(view), "next": upcoming, "acts": [_act_data(act) for act in acts]})
        return
    schedule = view.schedule
    facts = {
        "blueprint": view.pipeline,
        "cron": f"{schedule.cron}  {schedule.timezone}",
        "state": view.state,
        "defined": view.place or "in the database only",
        "catch up": schedule.catch_up,
        "overlap": schedule.overlap,
        "jitter": f"{schedule.jitter_s:g} s" if schedule.jitter_s else "",
        "queue": schedule.queue or "",
        "last": _last(view),
        "next": "  ".join(_shown(each) for each in times[:3]),
    }
    terminal.data(f"schedule {view.name}")
    for key, value in facts.items():
        if value:
            terminal.data(f"  {key:<10}{value}")
    for act in acts:
        terminal.data(f"  {'act':<10}{_act(act, schedule.timezone)}")
    if view.last_run is not None:
        terminal.next(command("flujo", "trace", view.last_run), "show its last run")


@app.command()
def apply(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; change nothing.")
    ] = False,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Make the schedules in the database those of the files."""
    invocation = Invocation.of(ctx)
    done: list[Applied] = _with_client(
        invocation, lambda client: client.apply(dry_run=dry_run), by=by, creates=not dry_run
    )
    terminal = invocation.terminal
    if as_json:
        terminal.json([{"name": one.name, "change": one.change, "keys": list(one.keys)} for one in done])
        return
    for one in done:
        keys = f"  {', '.join(one.keys)}" if one.keys else ""
        terminal.data(f"{one.change:<10} {one.name}{keys}")
    if not done:
        terminal.say("no schedules")
    elif dry_run and any(one.change != "unchanged" for one in done):
        terminal.next(command("flujo", "schedules", "apply"), "make these changes")
    else:
        terminal.next(command("flujo", "schedules", "list"))


@app.command()
def pause(ctx: typer.Context, name: Name, by: options.By = None) -> None:
    """Fire no time of a schedule until it is resumed."""
    invocation = Invocation.of(ctx)
    _with_client(invocation, lambda client: client.pause(name), by=by)
    invocation.terminal.say(f"schedule {name} is paused")
    invocation.terminal.next(command("flujo", "schedules", "resume", name))


@app.command()
def resume(ctx: typer.Context, name: Name, by: options.By = None) -> None:
    """Fire a paused schedule again, from the next time on.

    Times during the pause are not fired.
    """
    invocation = Invocation.of(ctx)
    _with_client(invocation, lambda client: client.resume(name), by=by)
    invocation.terminal.say(f"schedule {name} is active")
    invocation.terminal.next(command("flujo", "schedules", "next", name))


@app.command()
def trigger(
    ctx: typer.Context,
    name: Name,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The time that the run is for: 2026-11-28T02:30, in the schedule's zone.  [default: now]",
        ),
    ] = None,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Start a run of a schedule now; a worker executes it."""
    invocation = Invocation.of(ctx)
    started = _with_client(invocation, lambda client: client.trigger(name, at), by=by)
    terminal = invocation.terminal
    if as_json:
        terminal.json({"run_id": started.run_id, "existed": started.existed})
    else:
        terminal.data(started.run_id)
    if started.existed:
        terminal.say("the schedule has a run for this time already; none was started")
        terminal.next(command("flujo", "trace", started.run_id))
    else:
        terminal.next(command("flujo", "worker", "--once"), "execute it, where no worker runs")


@app.command("next")
def next_(
    ctx: typer.Context,
    name: Name,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many times to list.")] = 5,
    as_json: options.AsJson = False,
) -> None:
    """List the next times of a schedule in its time zone."""
    invocation = Invocation.of(ctx)
    times: list[datetime] = _with_client(invocation, lambda client: client.next_times(name, count))
    if as_json:
        invocation.terminal.json([each.isoformat() for each in times])
        return
    for each in times:
        invocation.terminal.data(_shown(each))
    if not times:
        invocation.terminal.say(f"schedule {name} has no further time")


def _with_client(
    invocation: Invocation,
    work: "Callable[[ScheduleClient], Awaitable[Any]]",
    *,
    by: str | None = None,
    creates: bool = False,
) -> Any:
    """Return what `work` does with the client of the project; a database is created only with `creates`."""
    from flujo.services.inspection.schedule_client import ScheduleClient
    from flujo.services.workspace import Workspace

    who = options.actor(by)

    async def opened() -> Any:
        may_create = creates and not invocation.project.is_outside
        async with Workspace(invocation.project, creates=may_create) as workspace:
            return await work(ScheduleClient.for_commands(workspace, who))

    return event_loop.run(opened())


def _in_zone(at: float | None, timezone: str) -> str:
    return "" if at is None else _shown(datetime.fromtimestamp(at, zone(timezone)))


def _shown(time: datetime) -> str:
    return f"{time:%a} {formatting.zoned(time)}"


def _last(view: "ScheduleView") -> str:
    at = _in_zone(view.last_at, view.schedule.timezone)
    return f"{at} skipped" if at and view.skipped else at


def _row(view: "ScheduleView") -> dict[str, str]:
    return {
        "name": view.name,
        "blueprint": view.pipeline,
        "cron": view.schedule.cron,
        "zone": view.schedule.timezone,
        "state": view.state,
        "next": "" if view.state == "paused" else _in_zone(view.next_at, view.schedule.timezone),
        "last": _last(view),
    }


def _data(view: "ScheduleView") -> dict[str, Any]:
    schedule = view.schedule
    return {
        "name": view.name,
        "pipeline": view.pipeline,
        "state": view.state,
        "place": view.place,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "catch_up": schedule.catch_up,
        "overlap": schedule.overlap,
        "jitter_s": schedule.jitter_s,
        "queue": schedule.queue,
        "priority": schedule.priority,
        "next_at": view.next_at,
        "last_at": view.last_at,
        "last_run": view.last_run,
        "skipped": view.skipped,
    }


def _act_data(act: "Act") -> dict[str, Any]:
    return {"at": act.at, "by": act.actor.by, "via": str(act.actor.via), "verb": str(act.verb)}


def _act(act: "Act", timezone: str) -> str:
    verb = str(act.verb).removeprefix("schedule_")
    return f"{_in_zone(act.at, timezone)}  {verb} by {act.actor.by} ({act.actor.via})"
