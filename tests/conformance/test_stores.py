"""Every built-in store passes the public suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.governance.key_ring import Key, KeyRing
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import OpenStore, StateStoreSuite
from flujo.testing.store_suite.figures import FiguresSuite
from flujo.testing.store_suite.values import ValuesSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flujo.domain.store import StateStore


async def _opening(make: Callable[..., StateStore]) -> AsyncIterator[OpenStore]:
    opened: list[StateStore] = []

    async def open_one(**options: Any) -> StateStore:
        opened.append(make(**options))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.aclose()


class TestMemoryStateStore(StateStoreSuite):
    @pytest.fixture
    async def open_store(self) -> AsyncIterator[OpenStore]:
        database = MemoryDatabase()

        def make(*, renew_s: float | None = None, **options: Any) -> StateStore:
            return MemoryStateStore(database, **options)

        async for open_one in _opening(make):
            yield open_one


class TestSqliteStateStore(StateStoreSuite):
    @pytest.fixture
    async def open_store(self, sqlite_uri: str) -> AsyncIterator[OpenStore]:
        async for open_one in _opening(lambda **options: SqlStateStore(sqlite_uri, **options)):
            yield open_one


class TestPostgresStateStore(StateStoreSuite):
    @pytest.fixture
    async def open_store(self, postgres_uri: str) -> AsyncIterator[OpenStore]:
        async for open_one in _opening(lambda **options: SqlStateStore(postgres_uri, **options)):
            yield open_one


class TestEncryptedStateStore(ValuesSuite, FiguresSuite):
    """With encryption the same values are kept; `state/sql/test_encryption.py` has Postgres too."""

    @pytest.fixture
    async def open_store(self, sqlite_uri: str) -> AsyncIterator[OpenStore]:
        keys = KeyRing((Key("k", b"k" * 32),), source="KEYS")
        async for open_one in _opening(lambda **options: SqlStateStore(sqlite_uri, keys=keys, **options)):
            yield open_one

    @pytest.fixture
    async def store(self, open_store: OpenStore) -> StateStore:
        return await open_store()
