"""The requests of a batch: what each changes in its run, and the order of questions."""

from __future__ import annotations

from typing import get_args

from flujo.state.store import SqlStateStore
from flujo.state.writer.requests import Request
from flujo.testing.store_suite import RUN, new_run
from flujo.testing.store_suite.examples import ask
from flujo.testing.store_suite.touches import TOUCHING


async def test_questions_created_within_one_millisecond_keep_their_order(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri, synchronous="NORMAL")
    run = await store.accept(new_run(), {})
    names = [f"q{number:03}" for number in reversed(range(200))]
    for name in names:
        await ask(store, run, name)
    assert [pause.pause_id for pause in await store.pauses(RUN)] == names
    await store.aclose()


def test_the_store_suite_covers_the_time_of_change_of_every_kind_of_request() -> None:
    covered = {name.partition(" ")[0] for name in TOUCHING} - {"retry"}
    kinds = {kind.__name__.lower() for kind in get_args(Request)}
    assert kinds - covered == {"accept", "write", "lend", "reserve"}, (
        "an accepted run is new; writes change a run by their move; a reservation is no change of a run"
    )
    assert covered - kinds == {"move"}
