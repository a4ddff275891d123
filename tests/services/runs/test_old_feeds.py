"""Old feeds are deleted by a process that lives for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.feed import KEPT_S, FeedKind, FeedLine
from flujo.domain.run import RunStatus
from flujo.services.runs import old_feeds
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.store_suite import move, new_run

if TYPE_CHECKING:
    import pytest


async def test_only_feeds_that_were_left_ten_minutes_ago_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    store = MemoryStateStore(now=lambda: now[0])
    for run_id in ("ended", "paused", "executed", "late"):
        now[0] = 1000.0 + (run_id == "late")
        run = await store.accept(new_run(run_id), {})
        await store.add_to_feed(run.run_id, run.fence, [FeedLine(at=0.0, kind=FeedKind.TEXT, text="x")])
        if run_id != "executed":
            status = RunStatus.PAUSED if run_id == "paused" else RunStatus.COMPLETED
            await store.write(move(run, status))
    now[0] = 1000.5 + KEPT_S

    async def opened() -> MemoryStateStore:
        return store

    await old_feeds.OldFeeds(opened).look()
    assert len(store.database.feeds.by_run) == 4  # the process has just begun
    monkeypatch.setattr(old_feeds, "_FIRST_S", 0.0)
    await old_feeds.OldFeeds(opened).look()
    assert set(store.database.feeds.by_run) == {"executed", "late"}
