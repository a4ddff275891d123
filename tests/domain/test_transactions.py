from __future__ import annotations

from flujo.domain.transactions import TransactionalStore
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore


async def test_a_store_with_a_database_is_transactional(store_uri: str) -> None:
    store = SqlStateStore(store_uri)
    assert isinstance(store, TransactionalStore)
    assert store.lends_writer is store_uri.startswith("sqlite")
    await store.aclose()


def test_a_store_in_memory_is_not() -> None:
    assert not isinstance(MemoryStateStore(), TransactionalStore)
