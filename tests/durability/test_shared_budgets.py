"""A budget of several runs is never overspent: under ten processes, kills, repeated writes and clocks that jump."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import chdir, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import warm
from durability.spending_program import USED, pipeline
from flujo.domain.journal import RunId
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus, Write
from flujo.domain.shared_budgets import BudgetRule, Facts, Window
from flujo.domain.usage import NOTHING, Usage, UsageLimits
from flujo.exceptions import ResumeConflict, RunNotFound, SharedBudgetExceeded
from flujo.services.runs.runner import Flujo
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from flujo.domain.run import RunRecord
    from flujo.domain.shared_budgets import Share

PROGRAM = Path(__file__).with_name("spending_program.py")
PROCESSES, RUNS = 10, 6
LIMIT = 4_000
"""Millionths of a dollar: less than the 120 requests of all processes cost."""
RULE = f"""
[[budgets.rule]]
name = "all"
window = "none"
total_cost_usd_limit = {LIMIT / 1_000_000:f}
"""


# Processes -----------------------------------------------------------------------------------------------


@pytest.mark.guarantee("G20")
async def test_ten_processes_of_which_some_are_killed_do_not_overspend(
    postgres_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "flujo.toml").write_text(RULE, "utf-8")
    store = await SqlStateStore.open(postgres_uri)
    names = [f"p{number}" for number in range(PROCESSES)]
    words = [sys.executable, str(PROGRAM), postgres_uri, str(tmp_path)]
    started = [
        warm.Popen([*words, name, str(RUNS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for name in names
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for number, process in enumerate(started):
        if number % 3 == 0:
            _wait_for_a_request(process, tmp_path / f"{names[number]}.log")
            process.kill()
    for process in started:
        process.communicate(timeout=120)  # closes its pipes

    made = _made(tmp_path)
    used, held = await _counted(store)
    assert made * USED.cost_micro_usd <= used + held <= LIMIT
    await _resume_all(store, tmp_path)
    made = _made(tmp_path)
    used, held = await _counted(store)
    unconfirmed = await _unconfirmed(store)
    assert held == 0
    assert made * USED.cost_micro_usd <= used <= LIMIT
    assert used <= made * USED.cost_micro_usd + unconfirmed
    await store.aclose()


def _wait_for_a_request(process: warm.Popen, log: Path) -> None:
    while not log.exists() and process.poll() is None:
        time.sleep(0.005)


def _made(folder: Path) -> int:
    """Return how many requests were made."""
    return sum(len(each.read_text("utf-8").splitlines()) for each in folder.glob("*.log"))


async def _counted(store: Any) -> tuple[int, int]:
    counters = await store.budget_counters()
    return sum(each.used for each in counters), sum(each.held for each in counters)


async def _resume_all(store: SqlStateStore, folder: Path) -> None:
    """Resume the runs of the killed processes; the others have ended."""
    with chdir(folder):
        async with Flujo[Any, Any, Any](
            pipeline(folder / "resumed.log"), store=store, recovery=False
        ) as runner:
            for run_id in _runs():
                with suppress(ResumeConflict, RunNotFound):
                    await runner.resume_async(run_id)


def _runs() -> list[RunId]:
    return [RunId(f"p{number}-{run}") for number in range(PROCESSES) for run in range(RUNS)]


async def _unconfirmed(store: SqlStateStore) -> int:
    ledgers = [await store.ledger(run_id) for run_id in _runs()]
    return sum(each.unconfirmed.cost_micro_usd for each in ledgers)


# Operations ----------------------------------------------------------------------------------------------

_DAY_S = 86_400.0
_LIMIT = 1_000
_DAILY = BudgetRule(
    name="all", limits=UsageLimits(total_cost_usd_limit=_LIMIT / 1_000_000), window=Window(span="day")
)


def _share() -> Share:
    found = _DAILY.share(Facts(blueprint="p"))
    assert found is not None
    return found


def _cost(amount: int) -> Usage:
    return Usage(cost_micro_usd=amount)


@dataclass
class Worker:
    """A process with a run: its open hold, and what the hold's request may cost."""

    store: MemoryStateStore
    record: RunRecord
    hold: Hold | None = None
    worst: int = 0
    numbers: count[int] = field(default_factory=lambda: count(1))


@dataclass
class Ledger:
    """What was made, kept beside the database."""

    used: int = 0
    unconfirmed: int = 0
    held: int = 0


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "more", "settle", "lose", "repeat", "die", "jump"]),
        st.integers(0, 9),  # which worker
        st.integers(0, 600),  # an amount
    ),
    max_size=60,
)


@pytest.mark.guarantee("G20")
@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS)
async def test_no_order_of_requests_deaths_and_clock_jumps_overspends(
    operations: list[tuple[str, int, int]],
) -> None:
    database, clock, books = MemoryDatabase(), [1_000 * _DAY_S], Ledger()
    workers = [await _worker(database, clock, number) for number in range(10)]
    for what, who, amount in operations:
        worker = workers[who]
        match what:
            case "ask" if worker.hold is None:
                await _ask(worker, amount, books)
            case "more" if worker.hold is not None:
                await _more(worker, worker.hold, amount, books)
            case "settle" | "repeat" if worker.hold is not None:
                await _end(worker, worker.hold, min(amount, worker.worst), 0, books, twice=what == "repeat")
            case "lose" if worker.hold is not None:
                known = min(amount, worker.worst)
                await _end(worker, worker.hold, known, worker.worst - known, books)
            case "die":
                workers[who] = await _died(worker, database, clock, who, books)
            case "jump":
                clock[0] += (amount - 300) * _DAY_S / 100
            case _:
                pass
        counters = await workers[0].store.budget_counters()
        assert all(each.used + each.held <= _LIMIT for each in counters)
        assert sum(each.used for each in counters) == books.used + books.unconfirmed
        assert sum(each.held for each in counters) == books.held


async def _worker(database: MemoryDatabase, clock: list[float], number: int) -> Worker:
    store = MemoryStateStore(database, now=lambda: clock[0])
    return Worker(store, await store.accept(replace(new_run(), run_id=RunId(f"run-{number}")), {}))


async def _ask(worker: Worker, amount: int, books: Ledger) -> None:
    number = next(worker.numbers)
    hold = Hold(
        path=StepPath("ask"), number=number, state=HoldState.HELD, usage=_cost(amount), shares=(_share(),)
    )
    if await _reserved(worker, hold):
        worker.hold, worker.worst = hold, amount
        books.held += amount


async def _more(worker: Worker, hold: Hold, amount: int, books: Ledger) -> None:
    """Reserve a further request of the same attempt."""
    larger = replace(hold, usage=_cost(worker.worst + amount))
    if await _reserved(worker, larger):
        worker.hold = larger
        worker.worst += amount
        books.held += amount


async def _reserved(worker: Worker, hold: Hold) -> bool:
    try:
        await worker.store.reserve(worker.record.run_id, worker.record.fence, hold)
    except SharedBudgetExceeded:
        return False
    return True


async def _end(
    worker: Worker, hold: Hold, known: int, lost: int, books: Ledger, *, twice: bool = False
) -> None:
    state = HoldState.UNCONFIRMED if lost else HoldState.SETTLED
    ended = replace(hold, state=state, usage=_cost(lost) if lost else NOTHING, used=_cost(known))
    for _ in range(1 + twice):
        await worker.store.write(
            Write(run_id=worker.record.run_id, fence=worker.record.fence, holds=(ended,))
        )
    books.held -= worker.worst
    books.used += known
    books.unconfirmed += lost
    worker.hold = None


async def _died(
    worker: Worker, database: MemoryDatabase, clock: list[float], number: int, books: Ledger
) -> Worker:
    """Return the worker that takes the run over, and counts what was in progress as unconfirmed."""
    run_id = worker.record.run_id
    worker.store.let_go(run_id)
    store = MemoryStateStore(database, now=lambda: clock[0])
    record = await store.claim(run_id, statuses=[RunStatus.RUNNING])
    for hold in (await store.ledger(run_id)).holds:
        if hold.state is HoldState.HELD:
            lost = replace(hold, state=HoldState.UNCONFIRMED)
            await store.write(Write(run_id=run_id, fence=record.fence, holds=(lost,)))
            books.held -= worker.worst
            books.unconfirmed += worker.worst
    return Worker(store, record, numbers=worker.numbers)
