"""A closed store leaves no open connection, even with reads in progress."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from flujo.state.store import SqlStateStore


async def test_an_abandoned_read_closes_its_connection_after_the_store(postgres_uri: str) -> None:
    begun, may_end = threading.Event(), threading.Event()
    lent: list[Any] = []

    def slow(connection: Any) -> None:
        lent.extend([connection.connection.dbapi_connection, threading.current_thread()])
        begun.set()
        may_end.wait()

    store = await SqlStateStore.open(postgres_uri)
    reading = asyncio.ensure_future(store.read(slow))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    await store.aclose()
    may_end.set()
    connection, reader = lent
    await asyncio.to_thread(reader.join)
    assert connection.closed
