"""Filters on metadata: both databases find what the rules in Python find."""

from __future__ import annotations

import random
from contextlib import aclosing
from typing import Any

import pytest

from flujo.domain.run import RunQuery
from flujo.state.metadata_conditions import conditions
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run

SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -2,
    1.0,
    0.1,
    2**53 + 1,
    1e300,
    "",
    "1",
    "a",
    "B",
    "ä",
    "'",
    "\U0001f600",
)
KEYS = ("a", "b", "_c")


def value(chance: random.Random, depth: int = 2) -> Any:
    match chance.randrange(8):
        case 0 if depth:
            return {key: value(chance, depth - 1) for key in chance.sample(KEYS, chance.randrange(3))}
        case 1:
            return [chance.choice(SCALARS) for _ in range(chance.randrange(3))]
        case _:
            return chance.choice(SCALARS)


def condition(chance: random.Random, depth: int = 2) -> Any:
    match chance.randrange(5):
        case 0 if depth:
            return {key: condition(chance, depth - 1) for key in chance.sample(KEYS, 1 + chance.randrange(2))}
        case 1:
            return [chance.choice(SCALARS) for _ in range(1 + chance.randrange(3))]
        case 2:
            bound = chance.choice(
                [
                    each
                    for each in SCALARS
                    if isinstance(each, str | float | int) and not isinstance(each, bool)
                ]
            )
            return {
                chance.choice(["<", "<=", ">", ">="]): bound,
                **({"!=": chance.choice(SCALARS)} if chance.random() < 0.3 else {}),
            }
        case 3:
            return {"!=": chance.choice(SCALARS)}
        case _:
            return chance.choice(SCALARS)


@pytest.mark.timeout(120)
async def test_a_database_finds_the_runs_whose_metadata_fit(store_uri: str) -> None:
    chance = random.Random(7)
    known = {f"run-{number}": {key: value(chance) for key in KEYS} for number in range(60)}
    async with aclosing(SqlStateStore(store_uri)) as store:
        for name, metadata in known.items():
            await store.accept(new_run(name, metadata=metadata), {})
        hits = 0
        for _ in range(150):
            wanted = {key: condition(chance) for key in chance.sample(KEYS, 1 + (chance.random() < 0.3))}
            fitting = [
                name
                for name, metadata in known.items()
                if all(each.fits(metadata) for each in conditions(wanted))
            ]
            found = sorted(record.run_id for record in await store.runs(RunQuery(metadata=wanted)))
            assert found == sorted(fitting), wanted
            hits += bool(found)
        assert hits > 50
