"""Every built-in cache passes the public suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.state.memory_cache import MemoryCache
from flujo.state.store import SqlStateStore
from flujo.testing.cache_suite import CacheBackendSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.ports import CacheBackend


class TestMemoryCache(CacheBackendSuite):
    @pytest.fixture
    async def cache(self) -> CacheBackend:
        return MemoryCache()


class TestSqlCache(CacheBackendSuite):
    @pytest.fixture
    async def cache(self, store_uri: str) -> AsyncIterator[CacheBackend]:
        store = await SqlStateStore.open(store_uri)
        yield store.cache()
        await store.aclose()
