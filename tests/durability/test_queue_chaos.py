"""Workers of one queue, killed, frozen and cut off: every run once, and the limits of the queue hold."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest

import warm
from durability.fleet import Fleet
from flujo.domain.run import RunGroup, RunQuery
from flujo.services.project.project import find_project
from flujo.services.runs import blueprint_runs
from flujo.services.runs.run_request import Request
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from durability.conftest import Evidence

RUNS = int(os.environ.get("FLUJO_QUEUE_RUNS", "40"))
CONCURRENCY = 3
CUSTOMERS = 5
LEASE_S = 3.0

BLUEPRINT = """\
version: "1"
name: mail
steps:
  - {name: work, call: "skills.outside:work", with: {customer: "{{ input.customer }}", number: "{{ input.number }}"}}
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


async def work(customer: str, number: int) -> int:
    note("begin", number, customer)
    await asyncio.sleep(0.1)
    note("end", number, customer)
    return number
"""


@dataclass
class QueueFleet(Fleet):
    """Workers of the queue `mail`; notes when each was struck first."""

    struck: dict[int, float] = field(default_factory=dict)

    def __enter__(self) -> QueueFleet:
        for folder in ("blueprints", "skills"):
            (self.folder / folder).mkdir()
        (self.folder / "blueprints/mail.yaml").write_text(BLUEPRINT)
        (self.folder / "skills/outside.py").write_text(SKILL)
        (self.folder / "flujo.toml").write_text(
            f'state_uri = "{self.uri}"\n[settings]\nlease_s = {LEASE_S}\nrecovery_s = 0.2\nmax_recoveries = 1000\n'
            '[blueprints]\nallow_callables = ["skills.*"]\n'
            f'[queues.mail]\nconcurrency = {CONCURRENCY}\nper_key = "input.customer"\n'
        )
        return self

    def _strike(self, worker: warm.Popen, how: str) -> None:
        self.struck.setdefault(worker.pid, time.monotonic())
        super()._strike(worker, how)

    def _launched(self) -> warm.Popen:
        command = [sys.executable, "-m", "flujo", "worker", "--queue", "mail", "--concurrency", "4"]
        with (self.folder / f"worker-{time.monotonic_ns()}.log").open("wb") as log:
            return warm.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@dataclass(frozen=True)
class Work:
    """One execution of a run's step, as the ledger outside tells."""

    number: str
    customer: str
    pid: int
    begun: float
    ended: float | None


def ledger(folder: Path) -> list[Work]:
    """Return the executions of the steps."""
    open_ones: dict[tuple[str, int], tuple[str, float]] = {}
    found = []
    for line in (folder / "ledger").read_text().splitlines():
        event, number, customer, pid, at = line.split()
        if event == "begin":
            open_ones[number, int(pid)] = customer, float(at)
        else:
            _, begun = open_ones.pop((number, int(pid)))
            found.append(Work(number, customer, int(pid), begun, float(at)))
    return found + [Work(n, customer, pid, at, None) for (n, pid), (customer, at) in open_ones.items()]


def judged(works: list[Work], struck: dict[int, float]) -> list[str]:
    """Return what the ledger shows against the promises.

    A worker that was killed or frozen counts until then: after that its run may be taken over.
    """
    violations = []
    by_number: defaultdict[str, list[Work]] = defaultdict(list)
    for work in works:
        by_number[work.number].append(work)
    violations += [f"run {n} was never executed" for n in map(str, range(RUNS)) if n not in by_number]
    for number, several in by_number.items():
        unharmed = [work for work in several if work.begun < struck.get(work.pid, float("inf"))]
        whole = [work for work in unharmed if work.ended is not None and work.pid not in struck]
        if len(whole) > 1:
            violations.append(
                f"run {number} was executed {len(whole)} times by workers that nothing happened to"
            )
    edges = []
    for work in works:
        last = min(struck.get(work.pid, float("inf")), work.ended or float("inf"))
        if last > work.begun:
            edges += [(work.begun, 1, work.customer), (last, -1, work.customer)]
    held: defaultdict[str, int] = defaultdict(int)
    for at, change, customer in sorted(edges):
        held[customer] += change
        if sum(held.values()) > CONCURRENCY:
            violations.append(f"{sum(held.values())} runs were executed at once, at {at}")
        if held[customer] > 1:
            violations.append(f"{held[customer]} runs of customer {customer} were executed at once, at {at}")
    return violations


@pytest.mark.guarantee("G4")
async def test_killed_and_frozen_workers_of_a_queue(
    store_uri: str, tmp_path: Path, evidence: Evidence
) -> None:
    if store_uri.startswith("sqlite") and "FLUJO_QUEUE_RUNS" not in os.environ:
        pytest.skip("in `make soak`; the races of claims are tested on SQLite as well")
    with QueueFleet(tmp_path, store_uri, (), Random(RUNS)) as fleet:
        async with aclosing(Workspace(find_project(tmp_path))) as workspace:
            blueprint = workspace.load("blueprints/mail.yaml")
            for number in range(RUNS):
                request = Request(
                    {"customer": f"c{number % CUSTOMERS}", "number": number}, run_id=f"r{number}"
                )
                await blueprint_runs.submit(
                    workspace, blueprint, request, queue="mail", priority=0, delay_s=0.0
                )
            store = await workspace.store()
            fleet.start(3)
            end = time.monotonic() + 60 + RUNS
            while (await store.count_runs(RunQuery(), RunGroup.STATUS)).get("completed") != RUNS:
                assert time.monotonic() < end, fleet.diagnostics()
                await asyncio.sleep(0.5)
                fleet.trouble()
                fleet.start(3)
            fleet.wake()
        violations = judged(ledger(tmp_path), fleet.struck)
        evidence.add(faults=fleet.faults.total(), seeds=RUNS, violations=violations)
        assert violations == []
