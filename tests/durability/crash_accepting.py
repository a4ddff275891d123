"""Kills processes that move a run to a changed blueprint at every point: a script, because only a single-threaded
process may fork.

    python crash_accepting.py URI FOLDER [--every N] [--first N]

prints the report as JSON. A process starts a run, accepts a blueprint in which its steps, branches and states have
other names and places, answers its questions, and is killed. Another one does what is left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import ResumeConflict, RunNotFound
from flujo.services.project.project import find_project
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request
from flujo.services.workspace import Workspace
from flujo.testing.crash_points import enumerate_crashes, in_a_fork, reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.state.store import SqlStateStore

HEAD = 'version: "1"\nname: offer\ninput_schema: {type: string}\n'
MACHINE = """\
  - kind: state_machine
    name: %s
    initial: open
    final: [%s]
    states:
      open: {steps: [{name: see, call: skills:say, with: {text: open}}], transitions: [{to: %s}]}
      %s: {steps: [{kind: hitl, name: %s, message: "Close?"}]}
"""
EARLIER = (
    HEAD
    + """\
steps:
  - {name: draft, call: skills:say, with: {text: "{{ input }}"}}
  - kind: parallel
    name: both
    branches:
      left: [{name: one, call: skills:say, with: {text: left}}]
      right: [{kind: hitl, name: approve, message: "Go on?"}]
"""
    + MACHINE % ("machine", "closed", "closed", "closed", "close")
    + 'output: {left: "{{ steps.both.output.left }}", closed: "{{ steps.machine.output }}"}\n'
)
LATER = (
    HEAD
    + """\
migrations:
  - {from: draft, to: "intro:first/draft"}
  - {from: "both:left", to: "both:port"}
  - {from: "both:right/approve", to: "both:right/extra:then/confirm"}
  - {from: machine, to: device}
  - {from: "machine:closed", to: "device:ended"}
  - {from: "machine:closed/close", to: "device:ended/end"}
steps:
  - kind: parallel
    name: intro
    branches: {first: [{name: draft, call: skills:say, with: {text: "{{ input }}"}}]}
  - kind: parallel
    name: both
    branches:
      port: [{name: one, call: skills:say, with: {text: left}}]
      right:
        - kind: conditional
          name: extra
          if: "input != ''"
          then: [{kind: hitl, name: confirm, message: "Go on?"}]
"""
    + MACHINE % ("device", "ended", "ended", "ended", "end")
    + 'output: {left: "{{ steps.both.output.port }}", closed: "{{ steps.device.output }}"}\n'
)
ADA = Actor("ada", Via.CLI)


class Accepting:
    """A run of the earlier blueprint, and what moves it to the later one, for each crash point."""

    def __init__(self, uri: str, folder: Path) -> None:
        self._folder = folder
        self._whole: dict[str, Any] = {}
        self._migrations: list[Any] = []
        (folder / "blueprints").mkdir(parents=True)
        settings = f'state_uri = "{uri}"\n[blueprints]\nallow_callables = ["skills"]\n'
        (folder / "flujo.toml").write_text(settings)
        (folder / "skills.py").write_text(
            'def say(text: str) -> str:\n    """Return it."""\n    return text\n'
        )

    async def run(self, run: int) -> Any:
        """Begin the run, or do what is left of it; return all that can be observed."""
        run_id = RunId(f"run-{run}")
        file = self._folder / "blueprints" / "offer.yaml"
        async with Workspace(find_project(self._folder)) as ws:
            store: SqlStateStore = await ws.store()  # type: ignore[assignment]
            try:
                record = await store.run(run_id)
            except RunNotFound:
                file.write_text(EARLIER)
                await blueprint_runs.start(
                    ws, ws.load("blueprints/offer.yaml"), Request("Ada", run_id=run_id)
                )
                record = await store.run(run_id)
            file.write_text(LATER)
            accepted = [act for act in await store.acts(run_id) if act.verb is Verb.ACCEPT_CHANGES]
            if record.status is not RunStatus.COMPLETED and not accepted:
                reach("before accept")
                await blueprint_runs.resume(ws, run_id, accept_changes=True, actor=ADA)
            await self._answered(ws, store, run_id)
            record = await store.run(run_id)
            entries = [(entry.path, str(entry.kind)) for entry in await store.entries(run_id)]
            noted = [
                canonical.decode(act.after or b"null")
                for act in await store.acts(run_id)
                if act.verb is Verb.ACCEPT_CHANGES
            ]
            # A run that was killed before its first entry has recorded no old path.
            said = [one if isinstance(one, dict) else {"closure": one, "migrations": []} for one in noted]
            return {
                "status": str(record.status),
                "output": canonical.decode(record.output or b"null"),
                "accepted": [one["closure"] == record.closure for one in said],
                "migrations": [pair for one in said for pair in one["migrations"]],
                "entries": len(entries),
                "twice": len(entries) - len({*entries}),
            }

    async def _answered(self, ws: Workspace, store: SqlStateStore, run_id: RunId) -> None:
        """Answer the questions of the run, by their recorded paths, until it has ended."""
        while (await store.run(run_id)).status is not RunStatus.COMPLETED:
            asked = [pause.pause_id for pause in await store.pauses(run_id) if pause.is_open]
            try:
                if asked:
                    await blueprint_runs.answer(ws, run_id, asked[0], "yes", actor=ADA)
                else:
                    await blueprint_runs.resume(ws, run_id, actor=ADA)
            except ResumeConflict:
                await asyncio.sleep(0.05)  # the lease of the killed process has not ended

    def check(self, run: int, seen: Any) -> Iterator[str]:
        """Yield what differs from a run that was not killed."""
        del run
        found = seen.pop("migrations")
        if other := [pair for pair in found if pair not in self._migrations]:
            yield f"the run has accepted {other}"
        if seen != self._whole:
            yield f"the run is {seen}, but {self._whole} without a crash"

    def measure(self) -> None:
        """Use a run without a crash as the reference for the others."""
        self._whole = in_a_fork(self.run, 0)
        self._migrations = self._whole.pop("migrations")
        assert self._whole["status"] == "completed", self._whole
        assert (self._whole["accepted"], self._whole["twice"]) == ([True], 0), self._whole


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    accepting = Accepting(given.uri, given.folder)
    accepting.measure()
    report = enumerate_crashes(
        accepting.run, accepting.run, accepting.check, every=given.every, first=given.first
    )
    print(json.dumps(report.to_json()))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
