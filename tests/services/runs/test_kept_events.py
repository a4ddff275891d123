"""Old events that no run has taken are deleted by a process that lives for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.sent_events import KEPT_S
from flujo.services.runs import kept_events
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.store_suite.events import keyed

if TYPE_CHECKING:
    import pytest


async def test_only_events_older_than_a_week_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    store = MemoryStateStore(now=lambda: now[0])
    await store.send_event(keyed("old"))
    now[0] += KEPT_S + 1
    await store.send_event(keyed("new"))

    async def opened() -> MemoryStateStore:
        return store

    duty = kept_events.KeptEvents(opened)
    await duty.look()
    assert set(store.database.events.by_id) == {"old", "new"}  # the process has just begun
    monkeypatch.setattr(kept_events, "_FIRST_S", 0.0)
    duty = kept_events.KeptEvents(opened)
    await duty.look()
    assert set(store.database.events.by_id) == {"new"}
