"""The last run of a chain is found from any run of it."""

from __future__ import annotations

import pytest

from flujo.domain import chains
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import RunNotFound
from flujo.services.runs.chains import find_last
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.store_suite.examples import move, new_run

FIRST = RunId("order")


async def chain_of(length: int) -> MemoryStateStore:
    """Return a store with a chain of which every run but the last one has ended."""
    store = MemoryStateStore()
    for number in range(1, length + 1):
        record = await store.accept(new_run(chains.numbered(FIRST, number)), {})
        if number < length:
            output = chains.output_before(chains.successor_of(record.run_id))
            await store.write(move(record, RunStatus.COMPLETED, output=output))
    return store


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33])
async def test_the_last_run_is_found_from_every_run(length: int) -> None:
    store = await chain_of(length)
    for number in range(1, length + 1):
        found = await find_last(store, chains.numbered(FIRST, number))
        assert found.run_id == chains.numbered(FIRST, length)


async def test_a_thousand_runs_take_a_few_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    store, reads = await chain_of(1000), []
    read = store.run

    async def counted(run_id: RunId) -> object:
        reads.append(run_id)
        return await read(run_id)

    monkeypatch.setattr(store, "run", counted)
    assert (await find_last(store, FIRST)).run_id == "order~1000"
    assert len(reads) <= 20


async def test_an_output_that_only_looks_like_a_link_ends_the_chain() -> None:
    store = MemoryStateStore()
    record = await store.accept(new_run(FIRST), {})
    await store.write(move(record, RunStatus.COMPLETED, output=chains.output_before(RunId("order~2"))))
    assert (await find_last(store, FIRST)).run_id == FIRST
    with pytest.raises(RunNotFound):
        await find_last(store, "another")
