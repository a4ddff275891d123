"""Old events and feeds are deleted by a process that lives for a while."""

from __future__ import annotations

import pytest

from flujo.domain import sent_events
from flujo.domain.feed import KEPT_S, FeedKind, FeedLine
from flujo.domain.run import RunStatus
from flujo.services.runs import expired_rows
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.store_suite import move, new_run
from flujo.testing.store_suite.events import keyed


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def store(now: list[float]) -> MemoryStateStore:
    return MemoryStateStore(now=lambda: now[0])


@pytest.fixture
def duty(store: MemoryStateStore, monkeypatch: pytest.MonkeyPatch) -> expired_rows.ExpiredRows:
    """Return the duty of a process that has lived for long enough."""
    monkeypatch.setattr(expired_rows, "_FIRST_S", 0.0)

    async def opened() -> MemoryStateStore:
        return store

    return expired_rows.ExpiredRows(opened)


async def test_only_events_older_than_a_week_are_deleted(
    now: list[float], store: MemoryStateStore, duty: expired_rows.ExpiredRows
) -> None:
    await store.send_event(keyed("old"))
    now[0] += sent_events.KEPT_S + 1
    await store.send_event(keyed("new"))
    await duty.look()
    assert set(store.database.events.by_id) == {"new"}


async def test_only_feeds_that_were_left_ten_minutes_ago_are_deleted(
    now: list[float], store: MemoryStateStore, duty: expired_rows.ExpiredRows
) -> None:
    for run_id in ("ended", "paused", "executed", "late"):
        now[0] = 1000.0 + (run_id == "late")
        run = await store.accept(new_run(run_id), {})
        await store.add_to_feed(run.run_id, run.fence, [FeedLine(at=0.0, kind=FeedKind.TEXT, text="x")])
        if run_id != "executed":
            status = RunStatus.PAUSED if run_id == "paused" else RunStatus.COMPLETED
            await store.write(move(run, status))
    now[0] = 1000.5 + KEPT_S
    await duty.look()
    assert set(store.database.feeds.by_run) == {"executed", "late"}


async def test_a_process_that_has_just_begun_deletes_nothing(
    now: list[float], store: MemoryStateStore
) -> None:
    await store.send_event(keyed("old"))
    now[0] += sent_events.KEPT_S + 1

    async def opened() -> MemoryStateStore:
        return store

    await expired_rows.ExpiredRows(opened).look()
    assert set(store.database.events.by_id) == {"old"}
