"""Commands on several runs: those named on the command line, or those that `--select` matches."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, cast

import typer

from flujo.cli.confirmation import require_yes
from flujo.cli.errors import report
from flujo.cli.exit_codes import ExitCode
from flujo.cli.listing import show_runs
from flujo.cli.run_command import in_workspace
from flujo.domain.commands import command
from flujo.domain.wording import plural, suggest
from flujo.exceptions import FlujoError, SettingsError
from flujo.services.inspection.task_client import TaskClient
from flujo.services.project.inputs import read_conditions, read_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.cli.invocation import Invocation
    from flujo.services.inspection.tasks import Task, TaskConditions
    from flujo.services.workspace import Workspace

_KEYS = ("blueprint", "status", "user", "pause", "kind", "parent", "since", "until")
_METADATA = "metadata."
_STOPPED = (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
_PAGE = 1_000


def read_selection(text: str) -> TaskConditions:
    """Return the conditions of `--select`: words such as `blueprint=x pause=y metadata.total>=100`.

    Raises:
        SettingsError: there is no condition, or one cannot be read.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError(f"--select {text!r}: {error}", hint="close the quotation marks") from None
    if not words:
        raise SettingsError("--select has no condition, so it means every run", hint="write `status=failed`")
    metadata = [word.removeprefix(_METADATA) for word in words if word.startswith(_METADATA)]
    found: dict[str, Any] = {}
    for word in words:
        if not word.startswith(_METADATA):
            _add(found, word)
    if metadata:
        found["metadata_filter"] = read_conditions(metadata, option="--select metadata.")
    if "user" in found:
        found["user_id"] = found.pop("user")
    return cast("TaskConditions", found)


def _add(found: dict[str, Any], word: str) -> None:
    """Add one condition of `--select`."""
    key, equals, value = word.partition("=")
    if not equals:
        raise SettingsError(f"--select: {word!r} has no `=`", hint="write `blueprint=x status=failed`")
    if key not in _KEYS:
        hint = suggest(key, (*_KEYS, "metadata.KEY"), what="conditions")
        raise SettingsError(f"--select: {key!r} is not a condition", hint=hint)
    if key == "status":
        found.setdefault(key, []).append(value)
    elif key in found:
        raise SettingsError(f"--select gives `{key}` twice", hint="use each condition once")
    else:
        found[key] = read_moment(value, option=f"--select {key}") if key in ("since", "until") else value


def chosen_runs(
    invocation: Invocation,
    runs: Sequence[str] | None,
    select: str | None,
    *,
    verb: str,
    statuses: Sequence[str],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> list[str]:
    """Return the runs of a command: as they were typed, or the ids of those that `--select` matches.

    Matching runs are listed first, and nothing happens before the user has confirmed. With `as_json` the list
    is on stderr, except that of a dry run or of no run.

    Args:
        invocation: the command's invocation.
        runs: the runs as typed.
        select: the conditions of `--select`.
        verb: what the command does with a run.
        statuses: the statuses of runs that it can do this with, unless `select` names some.
        dry_run: whether the list is all that is wanted.
        yes: whether the user has confirmed in advance.
        as_json: whether stdout is for JSON.

    Raises:
        SettingsError: neither or both of `runs` and `select`, or there is no confirmation.
        typer.Exit: the command ends here.
    """
    if bool(runs) == (select is not None):
        raise SettingsError(
            f"there is no run to {verb}" if not runs else "RUN and --select exclude each other",
            hint=f"`{command('flujo', 'tasks', verb, 'RUN')}`, or instead of RUN `--select blueprint=x`",
        )
    if select is None:
        if dry_run:
            raise SettingsError("--dry-run needs --select", hint="`flujo tasks show RUN` shows a run")
        return list(dict.fromkeys(runs or ()))
    conditions = read_selection(select)
    if "status" not in conditions:
        conditions["status"] = statuses
    terminal, found = invocation.terminal, _matching(invocation, conditions)
    is_all = not found or dry_run
    if is_all or not as_json:
        show_runs(terminal, found, as_json=as_json)
    else:
        for task in found:
            terminal.say(f"{task.run_id}  {task.pipeline}  {task.display_status}")
    if is_all:
        terminal.say(f"{plural(len(found), 'matching run')}; nothing was changed")
        raise typer.Exit
    require_yes(terminal, f"{verb} {plural(len(found), 'run')}", yes=yes)
    return [task.run_id for task in found]


def _matching(invocation: Invocation, conditions: TaskConditions) -> list[Task]:
    """Return all runs that match, the oldest first."""

    async def listed(workspace: Workspace) -> list[Task]:
        client = TaskClient(workspace)
        found: list[Task] = []
        here: TaskConditions = {**conditions, "order": "oldest"}
        while page := await client.list_tasks(**here, limit=_PAGE):
            found += page
            here["cursor"] = page[-1].cursor
        return found

    result: list[Task] = in_workspace(invocation, listed)
    return result


def each(ctx: typer.Context, runs: Sequence[str], act: Callable[[str], None]) -> None:
    """Call `act` with each run. An error of one of several does not keep the others.

    Raises:
        typer.Exit: with the first exit code that is not 0.
    """
    if len(runs) == 1:
        act(runs[0])
        return
    codes: list[int] = []
    for run in runs:
        try:
            act(run)
        except typer.Exit as ended:
            if ended.exit_code in _STOPPED:
                raise
            codes.append(ended.exit_code)
        except FlujoError as error:
            codes.append(report(error, ctx))
    if wrong := [code for code in codes if code]:
        raise typer.Exit(wrong[0])
