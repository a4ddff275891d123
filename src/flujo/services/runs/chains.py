"""Finds the last run of a chain, whose runs continue one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain import chains
from flujo.exceptions import RunNotFound

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore


async def find_last(store: StateStore, run: str) -> RunRecord:
    """Return the last run of the chain of the run that is meant: an id, a unique prefix, or `@last`.

    Raises:
        RunNotFound: no run, or several, are meant.
    """
    return await last_of(store, await store.find(run))


async def last_of(store: StateStore, record: RunRecord) -> RunRecord:
    """Return the last run of the chain that begins here; it may be this one.

    Numbers have no gaps above a run that is there: it takes about as many reads as the number of the last run
    has binary digits, twice. A purged successor ends the chain.
    """
    if chains.continued_as(record.run_id, record.output) is None:
        return record
    low, step = record, 1
    number = chains.number_of(record.run_id)
    while (found := await _there(store, chains.numbered(record.run_id, number + step))) is not None:
        low, step = found, step * 2
        number += step // 2
    high = number + step
    while (middle := (number + high) // 2) > number:
        found = await _there(store, chains.numbered(record.run_id, middle))
        if found is None:
            high = middle
        else:
            low, number = found, middle
    return low


async def _there(store: StateStore, run_id: RunId) -> RunRecord | None:
    try:
        return await store.run(run_id)
    except RunNotFound:
        return None
