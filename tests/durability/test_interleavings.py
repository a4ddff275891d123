"""Claim, record, answer, take over: in every order, with a crash at every point, there is one winner."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, aclosing
from random import Random
from typing import TYPE_CHECKING

import pytest

from durability.interleaving import (
    Explored,
    History,
    Model,
    Stored,
    answering,
    continuing,
    executing,
    explore,
)
from flujo.domain.journal import RunId
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from durability.conftest import Evidence
    from durability.interleaving import Ground, Worker
    from flujo.domain.ports import StateStore

    Workers = Callable[[int, Ground, History], Sequence[Worker]]

WHOLE = os.environ.get("FLUJO_INTERLEAVE") == "all"
"""Whether every schedule is run on the stores, which takes minutes; `make test` takes random ones."""
IN_MEMORY, ON_DATABASES = 400, 40
"""How many schedules `make test` takes. Two workers have fewer than 200, and three have thousands."""
NAMES = ("a", "b", "c", "rescuer")
LAPSED = -1.0


def _workers(count: int, ground: Ground, history: History) -> Sequence[Worker]:
    return [executing(NAMES[index], ground, history) for index in range(count)]


def _with_answers(count: int, ground: Ground, history: History) -> Sequence[Worker]:
    """Return workers of which all but the last claim the run with an answer, each with another one."""
    answering = [continuing(NAMES[index], index, ground, history) for index in range(count - 1)]
    return [*answering, executing(NAMES[count - 1], ground, history)]


KINDS = {"claiming": _workers, "claiming with an answer": _with_answers}


async def _on_paper(
    count: int, crashes: int, *, fenced: bool = True, workers: Workers = _workers
) -> Explored:
    async def begin(_: int) -> tuple[Ground, History, Sequence[Worker]]:
        ground, history = Model(fenced=fenced), History()
        return ground, history, workers(count, ground, history)

    return await explore(begin, crashes=crashes)


@pytest.mark.guarantee("G4", "G5")
@pytest.mark.parametrize(("count", "crashes"), [(2, 2), (3, 1)])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_model_of_the_protocol_has_one_winner_in_every_schedule(
    count: int, crashes: int, kind: str, evidence: Evidence
) -> None:
    explored = await _on_paper(count, crashes, workers=KINDS[kind])
    evidence.add(faults=explored.crashes, seeds=explored.schedules, violations=explored.violations)
    assert explored.violations == []
    assert explored.schedules > 50
    assert explored.crashes > 50


async def test_a_protocol_without_a_fence_is_caught() -> None:
    assert any("old fence" in wrong for wrong in (await _on_paper(2, 0, fenced=False)).violations)


async def _stored(
    stores: dict[str, StateStore],
    count: int,
    crashes: int,
    *,
    most: int | None = None,
    workers: Workers = _workers,
) -> Explored:
    async def begin(number: int) -> tuple[Ground, History, Sequence[Worker]]:
        ground, history = Stored(stores, RunId(f"run-{number}")), History()
        await ground.begin()
        return ground, history, workers(count, ground, history)

    if most is None or WHOLE:
        return await explore(begin, crashes=crashes)
    return await explore(begin, crashes=crashes, most=most, chance=Random(count))


@pytest.mark.guarantee("G4", "G5")
@pytest.mark.parametrize(("count", "crashes"), [(2, 2), (3, 1)])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_memory_store_has_one_winner_in_every_schedule(
    count: int, crashes: int, kind: str, evidence: Evidence
) -> None:
    database = MemoryDatabase()
    stores: dict[str, StateStore] = {name: MemoryStateStore(database, lease_s=LAPSED) for name in NAMES}
    most = IN_MEMORY if count > 2 else None
    explored = await _stored(stores, count, crashes, most=most, workers=KINDS[kind])
    evidence.add(faults=explored.crashes, seeds=explored.schedules, violations=explored.violations)
    assert explored.violations == []
    assert explored.schedules > 50


@pytest.mark.timeout(3600)
@pytest.mark.guarantee("G4", "G5")
@pytest.mark.parametrize(("count", "crashes"), [(2, 2), (3, 1)])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_sql_statements_have_one_winner_in_every_schedule(
    count: int, crashes: int, kind: str, store_uri: str, evidence: Evidence
) -> None:
    async with AsyncExitStack() as exits:
        stores: dict[str, StateStore] = {}
        for name in NAMES:
            store = await SqlStateStore.open(store_uri, lease_s=LAPSED, renew_s=3600)
            stores[name] = await exits.enter_async_context(aclosing(store))
        explored = await _stored(stores, count, crashes, most=ON_DATABASES, workers=KINDS[kind])
    evidence.add(faults=explored.crashes, seeds=explored.schedules, violations=explored.violations)
    assert explored.violations == []


@pytest.mark.guarantee("G4")
async def test_the_first_of_several_answers_wins_in_every_order(store: StateStore) -> None:
    async def begin(number: int) -> tuple[Ground, History, Sequence[Worker]]:
        ground, history = Stored(dict.fromkeys(NAMES, store), RunId(f"run-{number}")), History()
        await ground.begin()
        return ground, history, [answering(value, ground, history) for value in (1, 2, 3)]

    explored = await explore(begin, crashes=0, rescue=False)
    assert explored.violations == []
    assert explored.schedules >= 6
