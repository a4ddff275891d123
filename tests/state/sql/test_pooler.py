"""A real PgBouncer in transaction mode between Flujo and Postgres, with fewer server connections than clients."""

from __future__ import annotations

import asyncio

import pytest

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.state.sql import migrations
from flujo.state.sql.tables import SCHEMA
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import entry, move, new_run, writes
from support import PROGRAMS, World, start


@pytest.mark.guarantee("G15")
@pytest.mark.parametrize("schema", [SCHEMA, "left"])
async def test_many_stores_share_two_server_connections(pooled_uri: str, schema: str) -> None:
    migrations.migrate(pooled_uri, schema)
    stores = [SqlStateStore(pooled_uri, schema=schema, lease_s=0.6, renew_s=0.1) for _ in range(4)]

    async def walk(store: SqlStateStore, name: str) -> None:
        run = await store.accept(new_run(name, metadata={"team": "blue"}), {})
        for seq in range(1, 9):  # often enough that psycopg would prepare its statements
            await asyncio.gather(store.write(writes(run, entry(seq))), store.run(run.run_id))
        await store.write(move(run, RunStatus.COMPLETED, entries=8))

    jobs = [(store, f"{number}-{each}") for number, store in enumerate(stores) for each in range(5)]
    await asyncio.gather(*(walk(*job) for job in jobs))
    for store, name in jobs:
        assert (await store.run(RunId(name))).status is RunStatus.COMPLETED
        assert len(await store.entries(RunId(name))) == 8
    await asyncio.gather(*(store.aclose() for store in stores))


@pytest.mark.parametrize("name", sorted(PROGRAMS))
async def test_every_kind_of_step_runs_behind_a_pooler(pooled_uri: str, name: str) -> None:
    migrations.migrate(pooled_uri)
    store = SqlStateStore(pooled_uri)
    result = await start(PROGRAMS[name].build(World()), store, 1)
    assert result.output == PROGRAMS[name].output
    await store.aclose()
