"""Workers of queues that are killed and frozen, and the ledger outside the processes that judges them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

import warm
from durability.fleet import Fleet
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from flujo.services.workspace import Workspace

MAIL = """\
version: "1"
name: mail
steps:
  - {name: work, call: "skills.outside:work", with: {key: "{{ input.customer }}", name: "{{ input.name }}"}}
"""
SKILL = """
import asyncio
import os
import time


def note(*words):
    line = " ".join(map(str, [*words, os.getpid(), time.monotonic()])) + "\\n"
    file = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


async def work(key: str, name: str) -> str:
    note("begin", name, key)
    await asyncio.sleep(0.1)
    note("end", name, key)
    return name
"""


@dataclass
class QueueFleet(Fleet):
    """Workers of the queue `mail`, which has limits; notes when each was struck first."""

    lease_s: float = 3.0
    concurrency: int = 3
    words: Sequence[Sequence[str]] = (("--queue", "mail", "--concurrency", "4"),)
    """The options of the workers, in turns."""
    blueprints: Mapping[str, str] = field(default_factory=lambda: {"mail": MAIL})
    struck: dict[int, float] = field(default_factory=dict)
    cuts: list[float] = field(default_factory=list)
    """When all connections were closed."""

    def __enter__(self) -> QueueFleet:
        for folder in ("blueprints", "skills"):
            (self.folder / folder).mkdir()
        for name, text in self.blueprints.items():
            (self.folder / f"blueprints/{name}.yaml").write_text(text)
        (self.folder / "skills/outside.py").write_text(SKILL)
        (self.folder / "flujo.toml").write_text(
            f'state_uri = "{self.uri}"\n[settings]\nlease_s = {self.lease_s}\nrecovery_s = 0.2\n'
            'max_recoveries = 1000\n[blueprints]\nallow_callables = ["skills.*"]\n'
            f'[queues.mail]\nconcurrency = {self.concurrency}\nper_key = "input.customer"\n'
        )
        self._options = cycle(self.words)
        return self

    def _strike(self, worker: warm.Popen, how: str) -> None:
        self.struck.setdefault(worker.pid, time.monotonic())
        super()._strike(worker, how)

    def disconnect(self) -> None:
        """Close all other connections of the database."""
        self.cuts.append(time.monotonic())
        super().disconnect()

    def violations(self, names: Iterable[str]) -> list[str]:
        """Return what the ledger shows against the promises, when steps of these names were to be executed.

        A worker that was killed or frozen counts until then: after that its run may be taken over. What a
        worker executes around a cut may not be recorded, and is then executed again.
        """
        works = ledger(self.folder)
        by_name: defaultdict[str, list[Work]] = defaultdict(list)
        for work in works:
            by_name[work.name].append(work)
        wanted = set(names)
        found = [f"{name} was never executed" for name in sorted(wanted - by_name.keys())]
        found += [f"{name} was executed, and nobody asked for it" for name in sorted(by_name.keys() - wanted)]
        for several in by_name.values():
            whole = [work for work in several if self._is_whole(work)]
            if len(whole) > 1:
                found.append(f"executed by several workers that nothing happened to: {whole}")
        return found + _beyond_limits(works, self.struck, self.concurrency)

    def _is_whole(self, work: Work) -> bool:
        """Return whether an execution ended, and nothing happened to its worker meanwhile or just after it."""
        if work.ended is None or work.pid in self.struck:
            return False
        return not any(work.begun - self.lease_s < cut < work.ended + self.lease_s for cut in self.cuts)

    def _launched(self) -> warm.Popen:
        command = [sys.executable, "-m", "flujo", "worker", *next(self._options)]
        with (self.folder / f"worker-{time.monotonic_ns()}.log").open("wb") as log:
            return warm.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@dataclass(frozen=True)
class Work:
    """One execution of a step, as the ledger tells."""

    name: str
    key: str
    """The customer of a run of the queue `mail`, `-` for other steps."""
    pid: int
    begun: float
    ended: float | None


def ledger(folder: Path) -> list[Work]:
    """Return the executions of the steps."""
    open_ones: dict[tuple[str, int], tuple[str, float]] = {}
    found = []
    for line in (folder / "ledger").read_text().splitlines():
        event, name, key, pid, at = line.split()
        if event == "begin":
            open_ones[name, int(pid)] = key, float(at)
        else:
            _, begun = open_ones.pop((name, int(pid)))
            found.append(Work(name, key, int(pid), begun, float(at)))
    return found + [Work(name, key, pid, at, None) for (name, pid), (key, at) in open_ones.items()]


async def submit(workspace: Workspace, numbers: Iterable[int], customers: int) -> None:
    """Put runs into the queue `mail`, each of one of the customers."""
    blueprint = workspace.load("blueprints/mail.yaml")
    for number in numbers:
        given = {"customer": f"c{number % customers}", "name": f"mail-{number}"}
        request = Request(given, run_id=f"mail-{number}")
        await blueprint_runs.submit(workspace, blueprint, request, queue="mail", priority=0, delay_s=0.0)


def _beyond_limits(works: Sequence[Work], struck: Mapping[int, float], concurrency: int) -> list[str]:
    edges = []
    for work in works:
        last = min(struck.get(work.pid, float("inf")), work.ended or float("inf"))
        if work.key != "-" and last > work.begun:
            edges += [(work.begun, 1, work.key), (last, -1, work.key)]
    held: defaultdict[str, int] = defaultdict(int)
    violations = []
    for at, change, customer in sorted(edges):
        held[customer] += change
        if sum(held.values()) > concurrency:
            violations.append(f"{sum(held.values())} runs were executed at once, at {at}")
        if held[customer] > 1:
            violations.append(f"{held[customer]} runs of customer {customer} were executed at once, at {at}")
    return violations
