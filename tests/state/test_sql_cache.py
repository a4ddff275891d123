"""Properties of the built-in caches: size limits, damage, expired rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from flujo.domain.steps import CachePolicy
from flujo.exceptions import StateBackendUnavailable
from flujo.state.memory_cache import MemoryCache
from flujo.state.memory_store import MemoryStateStore
from flujo.state.sql.tables import cache as table
from flujo.state.sql_cache import SWEEP
from flujo.state.store import SqlStateStore
from support import World, call, pipeline, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    opened = await SqlStateStore.open(store_uri)
    yield opened
    await opened.aclose()


async def rows(store: SqlStateStore) -> int:
    return await store.read(
        lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(table))
    )


# In memory -----------------------------------------------------------------------------------------------


async def test_the_least_recently_used_answers_are_evicted_first() -> None:
    cache = MemoryCache(max_entries=2)
    for key in "ab":
        await cache.put(key, key.encode())
    await cache.get("a")
    await cache.put("c", b"c")
    assert [await cache.get(key) for key in "abc"] == [b"a", None, b"c"]


async def test_all_answers_together_stay_within_the_size_limit() -> None:
    cache = MemoryCache(max_bytes=10)
    await cache.put("a", b"12345")
    await cache.put("b", b"12345")
    await cache.put("b", b"1234567")
    assert [await cache.get(key) for key in "ab"] == [None, b"1234567"]
    await cache.put("c", b"x" * 11)
    assert [await cache.get(key) for key in "bc"] == [b"1234567", None]
    assert len(cache) == 1


async def test_an_answer_expires_by_the_clock_of_its_store() -> None:
    now = [0.0]
    cache = MemoryCache(now=lambda: now[0])
    await cache.put("a", b"1", ttl_s=10)
    now[0] = 9.9
    assert await cache.get("a") == b"1"
    now[0] = 10
    assert (await cache.get("a"), len(cache)) == (None, 0)


# In the state database -----------------------------------------------------------------------------------


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("damage", [{"value": b"other"}, {"digest": b"0" * 64}, {"value": b""}])
async def test_a_changed_row_is_a_miss_and_is_replaced(
    store: SqlStateStore, damage: dict[str, bytes]
) -> None:
    cache, world = store.cache(), World()
    tree = pipeline(call("a", world.add("a"), cache=CachePolicy()))
    for number in range(3):
        result = await start(tree, MemoryStateStore(), 1, run_id=f"r{number}", cache=cache)
        assert result.output == 1
        if number == 0:
            await store.write_apart(lambda connection: connection.execute(table.update().values(damage)))
    assert world.calls == ["a", "a"]
    assert await rows(store) == 1


async def test_expired_rows_are_deleted_a_few_at_a_time(store: SqlStateStore) -> None:
    old = [
        {"key": f"{n}", "value": b"", "digest": b"", "created_at": 0.0, "expires_at": 1.0}
        for n in range(SWEEP + 5)
    ]
    await store.write_apart(lambda connection: connection.execute(table.insert(), old))
    cache = store.cache()
    await cache.put("new", b"1", ttl_s=3600)
    assert await rows(store) == 5 + 1
    await cache.put("newer", b"1")
    assert await rows(store) == 2


async def test_two_processes_share_cached_answers(store_uri: str) -> None:
    world = World()
    tree = pipeline(call("a", world.add("a"), cache=CachePolicy()))
    for number in range(2):
        store = await SqlStateStore.open(store_uri)
        result = await start(tree, store, 1, run_id=f"r{number}", cache=store.cache())
        await store.aclose()
    assert [step.cached for step in result.steps] == [True]
    assert world.calls == ["a"]


async def test_a_run_survives_a_closed_cache_store(store: SqlStateStore) -> None:
    cache, world = store.cache(), World()
    await store.aclose()
    with pytest.raises(StateBackendUnavailable):
        await cache.get("a")
    tree = pipeline(call("a", world.add("a"), cache=CachePolicy()))
    assert (await start(tree, MemoryStateStore(), 1, cache=cache)).output == 1
