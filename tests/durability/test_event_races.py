"""Senders, waits and deadlines in every order and at once: each event has one taker, and none is overlooked."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing, contextmanager
from itertools import permutations
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus, Write
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.state.sql.events import lock_of
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite.events import WAIT, keyed, opens, wait
from flujo.testing.store_suite.examples import move, new_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from durability.conftest import Evidence
    from flujo.domain.ports import StateStore

ON_DATABASES = 17
"""Of the 120 orders, every n-th is tried on databases."""


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Sequence[StateStore]]:
    """Three stores on one database, as three processes have them."""
    async with AsyncExitStack() as exits:
        database, made = MemoryDatabase(), []
        for _ in range(3):
            store: StateStore
            if request.param == "memory":
                store = MemoryStateStore(database)
            else:
                store = SqlStateStore(request.getfixturevalue(f"{request.param}_uri"))
            made.append(await exits.enter_async_context(aclosing(store)))
        yield made


class Race:
    """Two senders, two runs that wait for one key, and a deadline; `wrong` says what went wrong."""

    def __init__(self, stores: Sequence[StateStore], number: int) -> None:
        self.one, self.two, self.three = stores
        self.key = f"k{number}"
        self.runs = [RunId(f"run-{number}-{name}") for name in "ab"]
        self._accepted: list[Any] = []

    async def begin(self) -> Sequence[Callable[[], Awaitable[object]]]:
        """Accept the runs, and return what happens in some order."""
        self._accepted = [await self.one.accept(new_run(run_id), {}) for run_id in self.runs]
        return (
            lambda: self.two.send_event(keyed(f"{self.key}-1", self.key, payload=b"1")),
            lambda: self.three.send_event(keyed(f"{self.key}-2", self.key, payload=b"2")),
            lambda: self._wait(0),
            lambda: self._wait(1),
            self._expire,
        )

    async def _wait(self, index: int) -> None:
        run = self._accepted[index]
        opened = wait(event_key=self.key, deadline_s=0.0)
        await self.one.write(Write(run_id=run.run_id, fence=run.fence, pauses=(opened,)))
        await self.one.write(move(run, RunStatus.WAITING))

    async def _expire(self) -> None:
        if await self.three.pauses(self.runs[0]):
            await self.three.expire(self.runs[0], WAIT)

    async def wrong(self) -> list[str]:
        """Return the violations."""
        waits = [pause for run_id in self.runs for pause in await self.two.pauses(run_id)]
        taken = [pause.answer for pause in waits if pause.answer is not None]
        expired = sum(pause.is_expired for pause in waits)
        open_ones = [pause for pause in waits if pause.is_open]
        kept = 2 - len(taken)
        found = []
        if len(set(taken)) != len(taken):
            found.append(f"an event was taken twice: {taken}")
        if len(taken) + expired + len(open_ones) != 2:
            found.append(f"a wait ended in two ways: {waits}")
        if kept and open_ones:
            found.append(f"a wait is open although {kept} events are there for it")
        acts = sum([len(await self.two.acts(run_id)) for run_id in self.runs])
        if acts != len(taken):
            found.append(f"{acts} acts for {len(taken)} events")
        return found


@pytest.mark.guarantee("G4")
async def test_in_every_order_each_event_is_taken_once_and_none_is_overlooked(
    stores: Sequence[StateStore], evidence: Evidence
) -> None:
    orders = list(permutations(range(5)))
    if isinstance(stores[0], SqlStateStore):
        orders = orders[::ON_DATABASES]
    violations = []
    for number, order in enumerate(orders):
        race = Race(stores, number)
        moves = await race.begin()
        for index in order:
            await moves[index]()
        violations += [f"{order}: {wrong}" for wrong in await race.wrong()]
    evidence.add(seeds=len(orders), violations=violations)
    assert violations == []


@pytest.mark.guarantee("G4")
async def test_senders_waits_and_deadlines_at_once_have_one_winner_each(
    stores: Sequence[StateStore], evidence: Evidence
) -> None:
    violations = []
    for number in range(20):
        race = Race(stores, number)
        moves = await race.begin()
        turned = [*moves[number % 5 :], *moves[: number % 5]]
        await asyncio.gather(*(each() for each in turned))
        violations += await race.wrong()
    evidence.add(seeds=20, violations=violations)
    assert violations == []


@contextmanager
def _held(uri: str, lock: int) -> Iterator[None]:
    """Hold the lock of a key as another process in the middle of its transaction does."""
    if uri.startswith("postgresql"):
        with psycopg.connect(uri.replace("+psycopg", "")) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
            yield
        return
    engine = sa.create_engine(uri)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        connection.exec_driver_sql("ROLLBACK")
    engine.dispose()


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("sender_first", [True, False])
async def test_a_sender_and_a_wait_that_meet_at_the_lock_find_each_other(
    store_uri: str, sender_first: bool
) -> None:
    async with AsyncExitStack() as exits:
        mine, other = [await exits.enter_async_context(aclosing(SqlStateStore(store_uri))) for _ in range(2)]
        run = await mine.accept(new_run(), {})
        assert await other.kept_events(run.run_id) == []  # both have opened the database
        with _held(store_uri, lock_of("paid", "k")):
            moves = [lambda: other.send_event(keyed()), lambda: opens(mine, run)]
            tasks = []
            for each in moves if sender_first else reversed(moves):
                tasks.append(asyncio.ensure_future(each()))
                _, waiting = await asyncio.wait(tasks, timeout=0.2)
                assert len(waiting) == len(tasks)
        await asyncio.gather(*tasks)
        [pause] = await other.pauses(run.run_id)
        assert pause.answer == b"7"
        assert len(await mine.acts(run.run_id)) == 1


@pytest.mark.guarantee("G4")
async def test_a_wait_that_ends_while_its_sender_waits_for_its_run_leaves_the_event_to_the_next(
    postgres_uri: str,
) -> None:
    async with aclosing(SqlStateStore(postgres_uri)) as store:
        for name in ("first", "second"):
            await opens(store, await store.accept(new_run(name), {}))
        schema = store.database.schema
        with psycopg.connect(postgres_uri.replace("+psycopg", "")) as connection:
            connection.execute(f'SELECT 1 FROM "{schema}".runs WHERE run_id = %s FOR UPDATE', ("first",))
            sending = asyncio.ensure_future(store.send_event(keyed()))
            _, waiting = await asyncio.wait([sending], timeout=0.3)
            assert waiting
            connection.execute(f'UPDATE "{schema}".pauses SET void = true WHERE run_id = %s', ("first",))
        assert [each.run_id for each in (await sending).taken] == ["second"]
