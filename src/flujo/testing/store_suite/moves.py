"""The states of a run: only legal moves are made, and a write with an illegal one is rejected."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.run import LEGAL_MOVES, RunStatus
from flujo.domain.usage import Usage
from flujo.exceptions import (
    Fenced,
    IllegalMove,
    JournalConflict,
)
from flujo.testing.store_suite.examples import (
    RUN,
    entry,
    in_state,
    move,
    new_run,
    writes,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


class MovesSuite:
    """The status of a run follows the table of legal moves."""

    @pytest.mark.parametrize("source", list(RunStatus))
    async def test_only_legal_moves_are_made(self, store: StateStore, source: RunStatus) -> None:
        for target in RunStatus:
            run = await in_state(store, source, f"{source}-{target}")
            written = store.write(move(run, target))
            if target in LEGAL_MOVES[source]:
                await written
                assert (await store.run(run.run_id)).status is target
            else:
                with pytest.raises(IllegalMove):
                    await written
                assert (await store.run(run.run_id)).status is source

    async def test_a_write_with_an_illegal_move_is_rejected_whole(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        with pytest.raises(IllegalMove):
            await store.write(replace(move(run, RunStatus.ACCEPTED), entries=(entry(1),)))
        assert await store.entries(RUN) == []

    async def test_a_write_after_the_run_was_released_is_refused(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.write(replace(move(run, RunStatus.RUNNING, entries=1), entries=(entry(1),)))
        with pytest.raises(Fenced, match="released"):
            await store.write(writes(run, entry(2)))
        with pytest.raises(Fenced, match="released"):
            await store.write(replace(move(run, RunStatus.COMPLETED), entries=(entry(2),)))
        assert await store.entries(RUN) == [entry(1)]

    async def test_a_move_returns_the_current_run(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        usage = Usage(input_tokens=7, cost_micro_usd=12)
        big = canonical.encode("y" * 50_000)
        await store.write(move(run, RunStatus.PAUSED, context=big, usage=usage, entries=0, closure="d" * 64))
        paused = await store.run(RUN)
        assert (paused.context, paused.context_now) == (b'{"label":""}', big)
        assert (paused.usage, paused.closure, paused.owner) == (usage, "d" * 64, None)
        again = await store.claim(RUN, statuses=[RunStatus.PAUSED])
        await store.write(move(again, RunStatus.FAILED, error=b'{"code":"FLJ401"}'))
        failed = await store.run(RUN)
        assert (failed.error, failed.context_now, failed.usage) == (b'{"code":"FLJ401"}', big, usage)
        retried = await store.claim(RUN, statuses=[RunStatus.FAILED])
        assert retried.error is None
        assert retried.context_now == big

    async def test_moves_in_one_commit_follow_each_other(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        first = store.write(replace(move(run, RunStatus.RUNNING, release=False), entries=(entry(1),)))
        last = store.write(
            replace(move(run, RunStatus.COMPLETED, output=b"1", entries=2), entries=(entry(2),))
        )
        late = store.write(move(run, RunStatus.FAILED))
        await asyncio.gather(first, last)
        with pytest.raises(IllegalMove):
            await late
        assert (await store.run(RUN)).status is RunStatus.COMPLETED
        assert len(await store.entries(RUN)) == 2

    async def test_no_entry_is_written_after_a_refused_one(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await store.write(writes(run, entry(1)))
        refused = store.write(writes(run, entry(1, output=b'"other"'), entry(2)))
        behind = store.write(writes(run, entry(3)))
        results = await asyncio.gather(refused, behind, return_exceptions=True)
        assert isinstance(results[0], JournalConflict)
        assert isinstance(results[1], JournalConflict)
        assert await store.entries(RUN) == [entry(1)]
