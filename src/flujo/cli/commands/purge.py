"""`flujo purge`: deletes old runs and their data from the database, or all that belongs to a person."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flujo.cli import options
from flujo.cli.invocation import Invocation
from flujo.domain.run import RunStatus
from flujo.domain.wording import plural
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.run import Purged
    from flujo.services.workspace import Workspace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Status(StrEnum):
    """The states of runs that can be purged."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    PARKED = "parked"
    PAUSED = "paused"


OlderThan = Annotated[
    str | None,
    typer.Option(
        "--older-than", metavar="AGE", help="Delete runs last updated longer ago than AGE: 30d, 12h, 90m."
    ),
]
Statuses = Annotated[
    list[Status] | None,
    typer.Option(help="Delete runs with this status; repeatable.  [default: completed]"),
]
Subject = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD=VALUE",
        help="Erase a person instead, at any age and status: user_id=VALUE or metadata.KEY=VALUE.",
    ),
]
CancelPaused = Annotated[
    bool, typer.Option("--cancel-paused", help="Cancel and erase runs of the person that wait.")
]
KeepPaused = Annotated[
    bool, typer.Option("--keep-paused", help="Keep runs of the person that wait, with their families.")
]
VacuumFull = Annotated[
    bool,
    typer.Option(
        "--vacuum-full",
        help="After erasing a person: rewrite the tables of Postgres, each locked meanwhile. "
        "A SQLite file is always rewritten.",
    ),
]
ProofFile = Annotated[
    Path | None,
    typer.Option("--proof", metavar="FILE", help="Also write the proof of the erasure to a file, as JSON."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Delete nothing; report how many runs would be deleted.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not wait for a confirmation.")]


@app.command()
def purge(
    ctx: typer.Context,
    older_than: OlderThan = None,
    status: Statuses = None,
    subject: Subject = None,
    cancel_paused: CancelPaused = False,
    keep_paused: KeepPaused = False,
    vacuum_full: VacuumFull = False,
    proof: ProofFile = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    by: options.By = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete old runs and their data, or erase a person."""
    from flujo.cli.erasing import Erasure, erase_person

    if (older_than is None) == (subject is None) or (subject is not None and status):
        raise SettingsError(
            "`flujo purge` deletes old runs, or erases a person: give `--older-than` or `--subject`",
            hint="`--older-than 30d` deletes old runs, `--subject user_id=VALUE` erases a person",
        )
    wanted = Erasure(cancel_paused, keep_paused, vacuum_full, proof)
    invocation, actor = Invocation.of(ctx), options.actor(by)
    if subject is not None:
        erase_person(invocation, subject, wanted, actor=actor, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    if any((cancel_paused, keep_paused, vacuum_full, proof)):
        raise SettingsError(
            "`--cancel-paused`, `--keep-paused`, `--vacuum-full` and `--proof` belong to `--subject`",
            hint="`--status paused` deletes old runs that wait",
        )
    statuses = [RunStatus(each.value) for each in status or [Status.COMPLETED]]
    _delete_old(invocation, str(older_than), statuses, actor=actor, dry_run=dry_run, yes=yes, as_json=as_json)


def _delete_old(
    invocation: Invocation,
    older_than: str,
    statuses: "Sequence[RunStatus]",
    *,
    actor: "Actor",
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from flujo.cli.confirmation import require_yes
    from flujo.cli.run_command import in_workspace
    from flujo.services.project.inputs import read_duration

    terminal, age = invocation.terminal, read_duration(older_than, option="--older-than")
    if not dry_run:
        counts = in_workspace(invocation, lambda workspace: _counts(workspace, statuses, age))
        runs = f"{plural(sum(counts.values()), 'run')} last changed more than {older_than} ago"
        by_status = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
        terminal.say(f"{runs}{f': {by_status}' if by_status else ''}", "dim")
        require_yes(terminal, f"delete {plural(sum(counts.values()), 'run')}", yes=yes)

    def report(total: "Purged") -> None:
        counts = (
            (total.runs, "run"),
            (total.answers, "answer"),
            (total.events, "event"),
            (total.contents, "content"),
        )
        terminal.say(f"purged {', '.join(plural(*each) for each in counts)}", "dim")

    async def work(workspace: "Workspace") -> Any:
        from flujo.services.admin.purge import purge as purge_runs

        store = await workspace.store()
        return await purge_runs(store, statuses, age, dry_run=dry_run, on_batch=report, actor=actor)

    total = in_workspace(invocation, work)
    if as_json:
        terminal.json({**asdict(total), "dry_run": dry_run})
        return
    count = plural(total.runs, "run")
    if dry_run:
        terminal.say(f"{count} would be purged; nothing was deleted")
    else:
        terminal.say(f"{count} purged, and {total.contents} unreferenced contents")


async def _counts(
    workspace: "Workspace", statuses: "Sequence[RunStatus]", age: float
) -> "Mapping[RunStatus, int]":
    """Return how many runs would be deleted, by status."""
    store = await workspace.store()
    return {status: await store.count_purgeable([status], age) for status in dict.fromkeys(statuses)}
