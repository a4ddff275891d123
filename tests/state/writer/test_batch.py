"""Questions created within one clock tick keep their order."""

from __future__ import annotations

from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, new_run
from flujo.testing.store_suite.examples import ask


async def test_questions_created_within_one_millisecond_keep_their_order(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri, synchronous="NORMAL")
    run = await store.accept(new_run(), {})
    names = [f"q{number:03}" for number in reversed(range(200))]
    for name in names:
        await ask(store, run, name)
    assert [pause.pause_id for pause in await store.pauses(RUN)] == names
    await store.aclose()
