"""`kill -9` of workers that fire schedules, and every order of two firings: each time has one run."""

from __future__ import annotations

import json
import os
import random
import sys
from contextlib import closing, nullcontext
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

import warm
from durability.crash_schedules import SHAPES
from durability.statement_turns import some_orders
from flujo.domain.schedule_records import Changed, ScheduleChange, ScheduleOutcome, ScheduleRecord, definition
from flujo.domain.schedules import Overlap, Schedule, run_id_of
from flujo.exceptions import FlujoError
from flujo.state.leases import Leases
from flujo.state.sql import schedules as rows
from flujo.state.sql.database import Database
from flujo.state.sql.tables import runs, schedules
from flujo.state.writer.batch import Batches
from flujo.state.writer.requests import Accept
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from durability.statement_turns import Work

EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0"))
"""Kill at each n-th point; 0 takes a sample, as `make test` does."""
SCRIPT = Path(__file__).with_name("crash_schedules.py")
ORDERS = 25
TIME = 1_800_000_000.0


RUNS = (
    [*product(["sqlite", "postgres"], SHAPES)]
    if EVERY
    else [("sqlite", "one_after_another"), ("postgres", "at_once")]
)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("store_uri", "shape"), RUNS, indirect=["store_uri"])
def test_a_worker_killed_at_any_point_fires_each_time_once(
    shape: str, store_uri: str, tmp_path: Path
) -> None:
    every = EVERY or 53
    command = [sys.executable, str(SCRIPT), shape, store_uri, str(tmp_path)]
    command += ["--every", str(every), "--first", str(1 + len(shape) % every)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = warm.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == []
    assert report["kills"] >= report["points"] // every
    assert report["kills"] > 0


@pytest.mark.parametrize("overlap", ["skip", "allow"])
def test_two_workers_fire_a_time_once_in_every_order_of_their_statements(
    postgres_uri: str, overlap: Overlap
) -> None:
    databases = [Database(postgres_uri) for _ in range(3)]
    said = definition(Schedule(cron="0 * * * *", name="s"), "triage", "")
    record = ScheduleRecord(name="s", definition=said, closure="c" * 64, next_at=TIME)
    found: list[Changed] = []

    def accept(connection: sa.Connection, change: ScheduleChange) -> bool:
        assert change.run is not None
        batches = Batches(databases[0], Leases("me"))
        batches.pipelined = lambda connection: nullcontext()  # one statement a turn
        [outcome] = batches.apply(connection, [Accept(change.run, {}, claim=False)]).outcomes
        return not isinstance(outcome, FlujoError)

    def firing(before: ScheduleRecord) -> Work:
        run = new_run(run_id_of("s", TIME))
        after = replace(before, next_at=TIME + 3600, last_at=TIME, last_run=run.run_id)
        wanted = ScheduleChange(before=before, after=after, run=run, overlap=overlap)
        return lambda connection: found.append(rows.change(connection, wanted, accept))

    def begin() -> Sequence[Work]:
        found.clear()
        with databases[0].writing() as connection:
            connection.execute(runs.delete())
            connection.execute(schedules.delete())
            adding = ScheduleChange(before=None, after=record)
            assert rows.change(connection, adding, accept).outcome is ScheduleOutcome.DONE
            [there] = rows.all_schedules(connection).records
        return firing(there), firing(there)

    orders = 0
    with psycopg.connect(postgres_uri, autocommit=True) as watcher, closing(_Disposed(databases)):
        for order in islice(some_orders(databases[:2], watcher, begin, random.Random(overlap)), ORDERS):
            outcomes = sorted(str(each.outcome) for each in found)
            assert outcomes == [ScheduleOutcome.DONE, ScheduleOutcome.LOST], order.taken
            with databases[2].reading() as connection:
                assert connection.scalar(sa.select(sa.func.count()).select_from(runs)) == 1
            orders += 1
    assert orders > 5


class _Disposed:
    """Disposes of databases when it is closed."""

    def __init__(self, databases: Sequence[Database]) -> None:
        self._databases = databases

    def close(self) -> None:
        for database in self._databases:
            database.dispose()
