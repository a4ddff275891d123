"""`flujo keys`: makes keys for the values in the database, counts values by key, and rotates keys."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from flujo.cli import options
from flujo.cli.exit_codes import ExitCode
from flujo.cli.invocation import Invocation
from flujo.domain.commands import command
from flujo.domain.wording import plural

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.domain.key_counts import KeyCounts, Rotated
    from flujo.services.admin.keys import Rotation
    from flujo.services.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Make and rotate the keys that encrypt the database.",
)

_COLUMNS = {"key": "KEY", "values": "VALUES", "use": "USE"}


@app.callback()
def keys() -> None:
    """Make and rotate the keys that encrypt the database."""


@app.command()
def new(
    ctx: typer.Context,
    key_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The id of the key.  [default: the date]")
    ] = None,
) -> None:
    """Print a new key, as the variable of `[state] encryption` has it. It is stored nowhere."""
    from flujo.governance.key_ring import new_key
    from flujo.services.project.system import SystemClock
    from flujo.settings import KEYS_VARIABLE

    invocation = Invocation.of(ctx)
    key = new_key(key_id or f"{datetime.fromtimestamp(SystemClock.now(), UTC):%Y-%m-%d}")
    invocation.terminal.data(key.text)
    variable = invocation.project.settings.state.encryption or KEYS_VARIABLE
    invocation.terminal.say(
        f"put it in front of the keys in {variable}, with a comma behind it, and keep a copy: "
        "without its key, a value cannot be read",
        "dim",
    )


@app.command("list")
def list_(ctx: typer.Context, as_json: options.AsJson = False) -> None:
    """List the keys with the number of values that each has encrypted. No key is shown."""
    from flujo.cli.run_command import in_workspace

    async def counted(workspace: "Workspace") -> "KeyCounts":
        return await (await workspace.store()).values_by_key()

    invocation = Invocation.of(ctx)
    counts = in_workspace(invocation, counted)
    if as_json:
        invocation.terminal.json(_data(counts))
    else:
        _show(invocation.terminal, counts)


@app.command()
def rotate(
    ctx: typer.Context,
    vacuum_full: Annotated[
        bool,
        typer.Option(
            "--vacuum-full",
            help="Afterwards rewrite the tables of Postgres, each locked meanwhile. "
            "A SQLite file is always rewritten.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; report how many values would be encrypted.")
    ] = False,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Encrypt all values with the first key.

    Runs and workers continue meanwhile.
    """
    from flujo.cli.run_command import in_workspace

    invocation, actor = Invocation.of(ctx), options.actor(by)
    terminal = invocation.terminal

    async def work(workspace: "Workspace") -> "Rotation | KeyCounts":
        from flujo.services.admin.keys import rotate as rotate_keys

        store = await workspace.store()
        if dry_run:
            return await store.values_by_key()

        def report(done: "Rotated") -> None:
            terminal.say(f"encrypted {plural(done.values, 'value')} in {plural(done.rows, 'row')}", "dim")

        return await rotate_keys(store, actor=actor, vacuum_full=vacuum_full, on_batch=report)

    found = in_workspace(invocation, work)
    _report(terminal, found, as_json=as_json)


def _report(terminal: "Terminal", found: "Rotation | KeyCounts", *, as_json: bool) -> None:
    from flujo.domain.key_counts import KeyCounts

    if isinstance(found, KeyCounts):
        if as_json:
            terminal.json({**_data(found), "dry_run": True})
        else:
            terminal.say(f"{plural(found.left, 'value')} would be {_verb(found)}; nothing was changed")
        return
    counts = found.counts
    if as_json:
        done = {**asdict(found.done), "is_overwritten": found.is_overwritten}
        terminal.json({**_data(counts), **done, "dry_run": False})
    else:
        _show_result(terminal, found)
    if counts.left:
        raise typer.Exit(ExitCode.STATE)


def _show_result(terminal: "Terminal", found: "Rotation") -> None:
    counts = found.counts
    terminal.say(f"{plural(found.done.values, 'value')} {_verb(counts)}")
    _show(terminal, counts)
    for message in found.done.damaged:
        terminal.say(f"not changed: {message}", "yellow")
    if counts.left > len(found.done.damaged):
        terminal.say(
            f"{plural(counts.left, 'value')} of other keys are left: a process writes with them", "yellow"
        )
        terminal.next(command("flujo", "keys", "rotate"), "once each process has the new keys")
    elif not found.is_overwritten:
        terminal.say(
            "remains of old values are in the files of the database until they are rewritten", "yellow"
        )
        again = command("flujo", "keys", "rotate", "--vacuum-full")
        terminal.next(again, "rewrite them, when no process works with the database")


def _verb(counts: "KeyCounts") -> str:
    return "decrypted" if counts.writer is None else f"encrypted with {counts.writer}"


def _data(counts: "KeyCounts") -> dict[str, object]:
    return {**asdict(counts), "left": counts.left}


def _show(terminal: "Terminal", counts: "KeyCounts") -> None:
    rows = [
        {"key": key, "values": f"{count:,}", "use": "writes" if key == counts.writer else "reads"}
        for key, count in counts.by_key.items()
    ]
    plain = "writes" if counts.writer is None else "reads"
    rows.append({"key": "not encrypted", "values": f"{counts.plain:,}", "use": plain})
    if counts.unknown:
        rows.append({"key": "other keys", "values": f"{counts.unknown:,}", "use": "cannot be read"})
    terminal.table(_COLUMNS, rows)
