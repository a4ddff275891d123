"""A transactional tool that cannot write to the storage of runs is refused before a run is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import calls, talk
from flujo import Flujo, Pipeline
from flujo.domain.run import RunQuery
from flujo.domain.steps import ImportStep
from flujo.domain.tools import tool
from flujo.exceptions import TransactionRefused
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore
from support import start

if TYPE_CHECKING:
    from pathlib import Path


@tool(effect="transactional")
def book(seat: int, connection: Any) -> str:
    raise AssertionError("not called")


@tool(effect="transactional")
async def book_later(seat: int, connection: Any) -> str:
    raise AssertionError("not called")


async def test_a_store_without_sql_is_refused() -> None:
    store, tree = MemoryStateStore(), talk([calls(("book", {"seat": 1})), "done"], tools=[book])
    with pytest.raises(TransactionRefused, match=r"step 'research': its tool .* are not kept in a database"):
        await start(tree, store, "go")
    assert await store.runs(RunQuery()) == []
    with pytest.raises(TransactionRefused):
        async with Flujo(tree, persist_state=False) as runner:
            await runner.run_result_async("go")


async def test_an_async_tool_is_refused_on_sqlite_wherever_it_is(tmp_path: Path) -> None:
    inner = talk([calls(("book_later", {"seat": 1})), "done"], tools=[book_later])
    store = SqlStateStore(f"sqlite:///{tmp_path / 'state.db'}")
    with pytest.raises(TransactionRefused, match=r"step 'child/research'.*only a sync callable can write"):
        await start(Pipeline(ImportStep("child", inner)), store, "go")
    assert await store.runs(RunQuery()) == []
    await store.aclose()
