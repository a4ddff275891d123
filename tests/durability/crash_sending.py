"""Kills `flujo tasks send` at every point: a script, because only a single-threaded process may fork.

    python crash_sending.py ADDRESS URI FOLDER [--every N] [--first N]

prints the report as JSON. `ADDRESS` says how the event finds its run: `run` or `key`. After each kill the
command is repeated with the same id of the event, and the run resumed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flujo.cli.app import app
from flujo.domain.acts import Verb, Via
from flujo.domain.journal import RunId
from flujo.services.project.project import find_project
from flujo.services.project.system import actor
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request
from flujo.services.workspace import Workspace
from flujo.testing.crash_points import enumerate_crashes, in_a_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 120
"""How many runs wait: one for each crash point."""

BLUEPRINT = """\
version: "1"
name: pay
input_schema: {type: integer}
steps:
  - {kind: event, name: paid, key: input, event_schema: {type: integer}}
output: "{{ steps.paid.output }}"
"""


class Sending:
    """An event for a run of its own at each crash point; the payload is the run's number."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address = address
        self._folder = folder

    async def wait(self, _: int) -> None:
        """Begin the runs, and leave all of them waiting."""
        async with Workspace(find_project(self._folder)) as workspace:
            blueprint = workspace.load("blueprints/pay.yaml")
            requests = [Request(number, run_id=f"r{number}") for number in range(1, MOST + 1)]
            await asyncio.gather(*(blueprint_runs.start(workspace, blueprint, each) for each in requests))

    async def send(self, run: int) -> None:
        """Execute the command."""
        address = ["--key", str(run)] if self._address == "key" else [f"r{run}"]
        words = [
            "-C",
            str(self._folder),
            "tasks",
            "send",
            *address,
            "paid",
            "-i",
            str(run),
            "--id",
            f"e{run}",
        ]
        # Its event loop needs a thread of its own: this one has one already.
        code = await asyncio.to_thread(partial(_executed, words))
        assert not code, code

    async def again(self, run: int) -> Any:
        """Repeat the command, resume the run, and return what has become of it."""
        await self.send(run)
        async with Workspace(find_project(self._folder)) as workspace:
            store = await workspace.store()
            name = RunId(f"r{run}")
            record = await store.run(name)
            [wait] = await store.pauses(name)
            acts = [act for act in await store.acts(name) if act.verb is Verb.SEND]
            done = await blueprint_runs.resume(workspace, name, actor=actor("test", Via.CLI))
            kept = [event.event_id for event in await store.kept_events(name)]
            return [str(record.status), json.loads(wait.answer or b"null"), len(acts), done.output, kept]

    def check(self, run: int, seen: Any) -> Iterator[str]:
        """Yield violations: an event that was lost, or taken twice."""
        if seen != ["waiting", run, 1, run, []]:
            yield f"status, answer, acts, output, kept events: {seen}"


def _executed(words: list[str]) -> int:
    """Return the exit code of a command; its result goes nowhere, so that the report stands alone."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            typer.main.get_command(app).main(words, prog_name="flujo", standalone_mode=False)
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address", choices=["run", "key"])
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    (given.folder / "blueprints").mkdir()
    (given.folder / "blueprints/pay.yaml").write_text(BLUEPRINT, "utf-8")
    (given.folder / "flujo.toml").write_text(f"state_uri = {json.dumps(given.uri)}\n", "utf-8")
    sending = Sending(given.address, given.folder)
    in_a_fork(sending.wait, 0)
    report = enumerate_crashes(
        sending.send, sending.again, sending.check, every=given.every, first=given.first
    )
    print(json.dumps(report.to_json()))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
