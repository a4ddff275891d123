"""Cancelled waiters: their request happens completely or not at all, and delays no other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus
from flujo.exceptions import ResumeConflict, RunNotFound
from flujo.testing.store_suite.examples import RUN, OpenStore, ask, entry, new_run, writes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.store import StateStore

TURNS = (0, 1, 2, 5)
"""The turns of the event loop after which a waiter is cancelled."""


class CancellingSuite:
    """A cancelled waiter rolls nothing back and leaves no partial write."""

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_cancelled_waiter_rolls_nothing_back(self, store: StateStore, turns: int) -> None:
        run = await store.accept(new_run(), {})
        await _cancelled(
            [lambda seq=seq: store.write(writes(run, entry(seq))) for seq in range(1, 21)], turns
        )
        there = len(await _settled_entries(store))
        await store.write(writes(run, entry(there + 1)))
        assert [each.seq for each in await store.entries(RUN)] == list(range(1, there + 2))

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_cancelled_accept_stores_the_whole_run_or_nothing(
        self, store: StateStore, turns: int
    ) -> None:
        await _cancelled([lambda: store.accept(new_run(), {})], turns)
        try:
            run = await store.accept(new_run(), {})
        except ResumeConflict:
            store.let_go(RUN)
            run = await store.claim(RUN, statuses=[RunStatus.RUNNING])
        await store.write(writes(run, entry(1)))
        assert await store.entries(RUN) == [entry(1)]

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_run_can_be_released_and_claimed_after_a_cancelled_claim(
        self, open_store: OpenStore, turns: int
    ) -> None:
        mine, other = await open_store(), await open_store()
        await mine.accept(new_run(), {}, claim=False)
        either = [RunStatus.ACCEPTED, RunStatus.RUNNING]
        await _cancelled([lambda: mine.claim(RUN, statuses=either)], turns)
        fence = (await _settled(mine)).fence
        mine.let_go(RUN)
        claimed = await mine.claim(RUN, statuses=either)
        assert claimed.fence == fence + 1
        with pytest.raises(ResumeConflict):
            await other.claim(RUN, statuses=either)

    @pytest.mark.parametrize("turns", TURNS)
    async def test_a_cancelled_answer_is_recorded_or_leaves_the_question_open(
        self, store: StateStore, turns: int
    ) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "q")
        await _cancelled([lambda: store.answer(RUN, StepPath("q"), b'"first"')], turns)
        await _settled(store)
        (question,) = await store.pauses(RUN)
        if question.is_open:
            await store.answer(RUN, StepPath("q"), b'"second"')
        else:
            assert question.answer == b'"first"'

    async def test_cancelled_reads_do_not_delay_other_reads(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.write(writes(run, entry(1, output=b'"' + b"x" * 100_000 + b'"')))
        requests: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.entries(RUN),
            lambda: store.progress(RUN),
            lambda: store.run(RUN),
            lambda: store.pauses(RUN),
            store.due,
        ]
        for turns in TURNS:
            await _cancelled(requests * 10, turns)
        assert len(await store.entries(RUN)) == 1


async def _cancelled(requests: list[Callable[..., Awaitable[Any]]], turns: int) -> None:
    """Send the request, and cancel it after some turns of the event loop."""

    async def waits(request: Callable[..., Awaitable[Any]]) -> None:
        await request()

    tasks = [asyncio.create_task(waits(request)) for request in requests]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results), results


async def _settled(store: StateStore) -> Any:
    """Return the run after all earlier requests have ended, because requests keep their order."""
    with pytest.raises(RunNotFound):
        await store.answer(RunId("nobody"), StepPath("q"), b"1")
    return await store.run(RUN)


async def _settled_entries(store: StateStore) -> list[Any]:
    await _settled(store)
    return await store.entries(RUN)
