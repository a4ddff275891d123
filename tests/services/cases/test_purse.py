"""Runs that take from one purse never cost more together than it has."""

from __future__ import annotations

import asyncio
import random

import pytest

from flujo.services.cases.purse import Purse


async def spend(purse: Purse, costs: list[float], rng: random.Random) -> tuple[int, float]:
    """Let runs with these costs take from a purse at once; return how many started, and the most ever held."""
    started, at_once = 0, 0.0
    held: dict[int, float] = {}

    async def run(number: int, cost: float) -> None:
        nonlocal started, at_once
        given = await purse.take()
        if given == 0:
            return
        started += 1
        spent = cost if given is None else min(cost, given)
        held[number] = spent if given is None else given
        at_once = max(at_once, purse.spent + sum(held.values()))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        del held[number]
        await purse.settle(given, spent)

    await asyncio.gather(*(run(number, cost) for number, cost in enumerate(costs)))
    return started, at_once


@pytest.mark.parametrize("seed", range(20))
async def test_what_is_held_and_spent_is_never_above_the_limit(seed: int) -> None:
    rng = random.Random(seed)
    costs = [rng.choice((0.0, 0.01, 0.02, 0.3)) for _ in range(40)]
    purse = Purse(0.5)
    _, at_once = await spend(purse, costs, rng)
    assert purse.spent <= at_once <= 0.5 + 1e-9


async def test_without_a_limit_everything_starts_and_is_added_up() -> None:
    purse = Purse()
    started, _ = await spend(purse, [0.25] * 4, random.Random(1))
    assert (started, purse.spent, purse.is_empty) == (4, 1.0, False)


async def test_runs_that_cost_nothing_all_start() -> None:
    purse = Purse(0.5)
    started, _ = await spend(purse, [0.0] * 500, random.Random(1))
    assert (started, purse.is_empty) == (500, False)


async def test_a_run_that_does_not_fit_any_more_does_not_start() -> None:
    purse = Purse(0.5)
    started, _ = await spend(purse, [0.2] * 4, random.Random(1))
    assert (started, purse.is_empty) == (2, True)
