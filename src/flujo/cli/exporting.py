"""Writes a run as one file, for `flujo export` and `flujo replay --export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.cli.run_command import in_workspace
from flujo.domain.commands import command
from flujo.domain.wording import size

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.cli.invocation import Invocation
    from flujo.services.replay.export import Exported
    from flujo.services.workspace import Workspace


def write_export(invocation: Invocation, run: str, output: Path | None, *, as_json: bool) -> None:
    """Write a run as a file, and report that.

    Args:
        invocation: the command.
        run: an id, a unique prefix of one, or `@last`.
        output: the file; None for the run's id in the command's folder.
        as_json: whether the report is JSON.
    """
    from flujo.services.replay.export import SUFFIX, write_file

    async def work(workspace: Workspace) -> Exported:
        store = await workspace.store()
        run_id = (await store.find(run)).run_id
        return await write_file(store, run_id, invocation.folder / (output or f"{run_id}{SUFFIX}"))

    exported, terminal = in_workspace(invocation, work), invocation.terminal
    if as_json:
        facts = {"run_id": exported.run_id, "file": str(exported.path), "bytes": exported.size}
        terminal.json({**facts, "masked": exported.masked})
        return
    name = output or exported.path.name
    terminal.say(f"wrote {name} ({size(exported.size)})", "green")
    if exported.masked:
        terminal.say(f"secrets are masked in {exported.masked} lines of it", "yellow")
    terminal.next(command("flujo", "trace", str(name)), "show what happened, anywhere")
