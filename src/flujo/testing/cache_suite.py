"""The suite that every `CacheBackend` passes: inherit `CacheBackendSuite`, write the fixture, run pytest.

    class TestMyCache(CacheBackendSuite):
        @pytest.fixture
        async def cache(self):
            ...
            yield a_cache_without_entries

The tests are coroutines (pytest-asyncio in its `auto` mode runs them). They use a cache through its port
only, so they apply to any backend.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flujo.domain.ports import CacheBackend

KEY, OTHER = "a" * 64, "b" * 64
SHORT_S = 0.05
VALUES = (b"", b"null", b"\x00\xff@", b'{"output":"\xc3\xa4"}', b"x" * 300_000)


class CacheBackendSuite:
    """The behaviour that step caching relies on."""

    @pytest.fixture
    async def cache(self) -> CacheBackend:
        """An empty cache."""
        raise NotImplementedError

    async def test_a_key_that_was_never_put_is_missing(self, cache: CacheBackend) -> None:
        assert await cache.get(KEY) is None

    @pytest.mark.parametrize("value", VALUES, ids=len)
    async def test_a_stored_value_is_returned_byte_for_byte(self, cache: CacheBackend, value: bytes) -> None:
        await cache.put(KEY, value)
        assert await cache.get(KEY) == value
        assert await cache.get(OTHER) is None

    async def test_a_later_value_replaces_an_earlier_one(self, cache: CacheBackend) -> None:
        await cache.put(KEY, b"1", ttl_s=SHORT_S)
        await cache.put(KEY, b"2", ttl_s=3600)
        await asyncio.sleep(2 * SHORT_S)
        assert await cache.get(KEY) == b"2"

    async def test_a_value_expires_after_its_ttl(self, cache: CacheBackend) -> None:
        await cache.put(KEY, b"short", ttl_s=SHORT_S)
        await cache.put(OTHER, b"long", ttl_s=3600)
        await asyncio.sleep(2 * SHORT_S)
        assert await cache.get(KEY) is None
        assert await cache.get(OTHER) == b"long"

    async def test_without_a_ttl_a_value_stays(self, cache: CacheBackend) -> None:
        await cache.put(KEY, b"1", ttl_s=SHORT_S)
        await cache.put(KEY, b"2")
        await asyncio.sleep(2 * SHORT_S)
        assert await cache.get(KEY) == b"2"

    async def test_concurrent_puts_and_gets_keep_every_value(self, cache: CacheBackend) -> None:
        keys = [f"{number:064x}" for number in range(20)]
        values = [key.encode() for key in keys]
        await asyncio.gather(
            *(cache.put(key, value, ttl_s=60) for key, value in zip(keys, values, strict=True)),
            *(cache.put(KEY, b"same", ttl_s=60) for _ in range(5)),
        )
        assert await asyncio.gather(*(cache.get(key) for key in keys)) == values
        assert await cache.get(KEY) == b"same"
