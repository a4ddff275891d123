"""A queue whose database or worker fails in five ways: nothing is lost or done twice, and the work continues."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, aclosing, closing
from random import Random
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from conftest import own_server
from durability.queue_fleet import QueueFleet, submit
from flujo.domain.run import RunGroup, RunQuery
from flujo.exceptions import StateError
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.state.sql import migrations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from durability.conftest import Evidence
    from flujo.domain.store import StateStore

WORKERS = 2
RUNS = 30
"""Runs of each fault; it comes when two of them have completed."""
PATIENCE_S = 180.0


def exhaust(fleet: QueueFleet) -> None:
    """Take every connection that the server allows, also those of the workers, and keep them for some time."""
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND NOT pid = ANY(%s)"
    )
    fleet.cuts.append(time.monotonic())
    until = time.monotonic() + 1.5
    with ExitStack() as exits:
        held: list[psycopg.Connection[Any]] = []
        while time.monotonic() < until:
            try:
                held.append(exits.enter_context(closing(psycopg.connect(fleet.uri, autocommit=True))))
            except psycopg.OperationalError:  # there are no more
                held[0].execute(others, ([each.info.backend_pid for each in held],))
                time.sleep(0.02)
    fleet.cuts.append(time.monotonic())


def storm(fleet: QueueFleet) -> None:
    """Kill the server's processes of all connections, several times."""
    for _ in range(4):
        fleet.disconnect()
        time.sleep(0.1)


async def completed(store: StateStore, least: int, fleet: QueueFleet) -> None:
    """Wait until so many runs have completed."""
    until, done = time.monotonic() + PATIENCE_S, 0
    while done < least:
        assert time.monotonic() < until, f"{done} of {least} runs have completed\n{fleet.diagnostics()}"
        await asyncio.sleep(0.05)
        try:
            done = (await store.count_runs(RunQuery(), RunGroup.STATUS)).get("completed", 0)
        except StateError:  # the database of the test is that of the workers
            continue


@pytest.mark.guarantee("G4", "G13")
@pytest.mark.timeout(600)
async def test_the_work_of_a_queue_continues_after_each_fault(tmp_path: Path, evidence: Evidence) -> None:
    with own_server() as (uri, restart):
        migrations.migrate(uri)
        fleet = QueueFleet(tmp_path, uri, (), Random(0), lease_s=1.5, concurrency=6)

        def restarted() -> None:
            fleet.cuts.append(time.monotonic())
            restart()
            fleet.cuts.append(time.monotonic())

        faults: dict[str, Callable[[], None]] = {
            "restarted": restarted,
            "backends killed": lambda: storm(fleet),
            "connections exhausted": lambda: exhaust(fleet),
        }
        total = 0
        with fleet:
            async with aclosing(Workspace(find_project(tmp_path))) as workspace:
                store = await workspace.store()
                for fault in (*faults, "kill", "freeze"):
                    fleet.start(WORKERS)
                    await submit(workspace, range(total, total + RUNS), customers=6)
                    await completed(store, total + 2, fleet)
                    if fault in faults:
                        await asyncio.to_thread(faults[fault])
                    else:
                        fleet.strike(fault)
                    total += RUNS
                    await completed(store, total, fleet)
            fleet.wake()
        violations = fleet.violations(f"mail-{number}" for number in range(total))
    evidence.add(faults=5, seeds=total, violations=violations)
    assert violations == []
