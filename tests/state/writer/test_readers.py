"""A read sees all writes committed before it was made."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import sqlalchemy as sa

from flujo.domain.run import RunQuery
from flujo.state.sql.tables import runs
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite.examples import new_run


async def test_a_read_sees_writes_committed_while_others_read(store_uri: str) -> None:
    store = await SqlStateStore.open(store_uri, pool_max=2)  # one connection reads
    reading, may_end = threading.Event(), threading.Event()

    def slow(connection: Any) -> None:
        connection.scalar(sa.select(sa.func.count()).select_from(runs))
        reading.set()
        may_end.wait()

    other = asyncio.ensure_future(store.read(slow))
    await asyncio.to_thread(reading.wait)
    run = await store.accept(new_run(), {})
    asked = asyncio.ensure_future(store.runs(RunQuery()))
    await asyncio.sleep(0)  # the read waits for the one in progress
    may_end.set()
    assert [record.run_id for record in await asked] == [run.run_id]
    await other
    await store.aclose()
