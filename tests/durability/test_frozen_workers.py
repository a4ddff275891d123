"""SIGSTOP at random moments, a takeover, SIGCONT: the frozen process writes nothing more and starts no step."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

import warm
from durability.frozen_program import STEPS
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from durability.conftest import Evidence
    from durability.world import World

PROGRAM = Path(__file__).with_name("frozen_program.py")
FREEZES = max(2, int(os.environ.get("FLUJO_KILLS", "0")) // 3)


def launch(uri: str, folder: Path, run: str, *options: str) -> warm.Popen:
    """Start a process that executes the run, or waits for it."""
    return warm.Popen(
        [sys.executable, str(PROGRAM), uri, str(folder), run, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )


def last_line(process: warm.Popen) -> str:
    """Return the last line that a process prints."""
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.strip()


def stopped(process: warm.Popen) -> None:
    """Wait until a process is frozen or has ended."""
    while process.poll() is None and not is_frozen(process.pid):
        time.sleep(0.002)


def is_frozen(pid: int) -> bool:
    """Return whether every thread of a process is stopped."""
    states = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it or one of its threads has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
        return set(states) == {"T"}
    return False


def freeze(process: warm.Popen, world: World, run: str, uri: str, chance: random.Random) -> None:
    """Freeze a process a moment after an effect, and outside any transaction."""
    many, end = chance.randint(1, STEPS - 2), time.monotonic() + 60
    while len(world.effects(f"{run}:")) < many and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.04))
    while True:
        process.send_signal(signal.SIGSTOP)
        stopped(process)
        # A process frozen inside a transaction keeps its locks, so others wait until it wakes.
        if process.poll() is not None or not in_transaction(uri):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.005)


def in_transaction(uri: str) -> bool:
    """Return whether a write transaction is open."""
    url = sa.make_url(uri)
    if url.drivername == "sqlite":
        with closing(sqlite3.connect(str(url.database), timeout=0, isolation_level=None)) as file:
            try:
                file.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            return False
    with psycopg.connect(uri, autocommit=True) as connection:
        # Also one whose statement is still executed: its client would be frozen with the transaction open.
        query = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
        )
        return connection.execute(query).fetchone() is not None


@pytest.mark.guarantee("G5")
@pytest.mark.timeout(1800)
async def test_a_process_that_wakes_after_a_freeze_writes_nothing_and_starts_no_step(
    store_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    chance, store = random.Random(20261123), await SqlStateStore.open(store_uri)
    frozen = 0
    for number in range(4 * FREEZES):
        run = f"run-{number}"
        zombie = launch(store_uri, tmp_path, run)
        freeze(zombie, outside, run, store_uri, chance)
        assert last_line(launch(store_uri, tmp_path, run)) == str(STEPS)
        record, entries = await store.run(RunId(run)), await store.entries(RunId(run))
        calls, happened = await store.intents(RunId(run)), outside.effects(f"{run}:")
        zombie.send_signal(signal.SIGCONT)
        last_word = last_line(zombie)
        if record.fence == 1:
            continue  # a busy machine: the run had ended before its process was frozen
        frozen += 1
        evidence.add(faults=1)
        assert last_word == "fenced"
        assert record.status is RunStatus.COMPLETED
        assert (await store.run(RunId(run)), await store.entries(RunId(run))) == (record, entries)
        assert await store.intents(RunId(run)) == calls
        late = outside.effects(f"{run}:")[len(happened) :]
        assert len(late) <= 1, "only effects that were already in flight"
        if frozen == FREEZES:
            break
    assert frozen == FREEZES
    await store.aclose()


@pytest.mark.guarantee("G5")
@pytest.mark.timeout(1800)
async def test_a_process_frozen_inside_a_transaction_does_not_block_the_takeover_of_its_run(
    postgres_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    store = await SqlStateStore.open(postgres_uri)
    for commit in range(2, 2 + 2 * FREEZES, 2):
        run = f"run-{commit}"
        zombie = launch(postgres_uri, tmp_path, run, str(commit))
        stopped(zombie)
        assert in_transaction(postgres_uri)
        assert last_line(launch(postgres_uri, tmp_path, run)) == str(STEPS)
        evidence.add(faults=1)
        record, entries = await store.run(RunId(run)), await store.entries(RunId(run))
        happened = outside.effects(f"{run}:")
        zombie.send_signal(signal.SIGCONT)
        assert last_line(zombie) == "fenced"
        assert (await store.run(RunId(run)), await store.entries(RunId(run))) == (record, entries)
        assert len(outside.effects(f"{run}:")) - len(happened) <= 1, (
            "only effects that were already in flight"
        )
    await store.aclose()
