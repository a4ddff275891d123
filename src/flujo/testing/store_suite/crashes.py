"""Stores that are dropped without closing: acknowledged writes are there, others are complete or absent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.paths import StepPath
from flujo.domain.run import Intent, IntentState, Pause, RunRecord, RunStatus, Write
from flujo.domain.usage import Usage
from flujo.exceptions import Fenced
from flujo.testing.store_suite.examples import NEVER_S, RUN, SHORT_S, OpenStore, entry, move, new_run

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

STEPS = 12


class CrashesSuite:
    """The next owner finds every acknowledged write, and no partial one."""

    async def test_acknowledged_writes_survive_a_dropped_store(self, open_store: OpenStore) -> None:
        dropped, next_one = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        run = await dropped.accept(new_run(), {})
        blob = b"large" * 1000
        for number in range(1, STEPS + 1):
            await dropped.write(_step(run, number))
        await dropped.write(Write(run_id=RUN, fence=run.fence, blobs={canonical.digest(blob): blob}))
        await next_one.answer(RUN, StepPath("q1"), b"true")
        await asyncio.sleep(SHORT_S * 1.5)
        taken = await next_one.claim(RUN, statuses=[RunStatus.RUNNING], recovering=True)
        assert (taken.fence, taken.recoveries) == (2, 1)
        assert await _counts(next_one) == [STEPS] * 4
        assert await next_one.blobs([canonical.digest(blob)])
        assert (await next_one.pauses(RUN))[0].answer == b"true"
        await next_one.write(_step(taken, STEPS + 1))
        with pytest.raises(Fenced):
            await dropped.write(_step(run, STEPS + 2))

    async def test_a_write_is_seen_as_a_whole_or_not_at_all(self, open_store: OpenStore) -> None:
        writer, reader = await open_store(), await open_store()
        run = await writer.accept(new_run(), {})
        waiting = asyncio.gather(*(writer.write(_step(run, number)) for number in range(1, STEPS + 1)))
        looks = []
        while not waiting.done():
            looks.append(await _counts(reader))
            looks.append((await _counts(reader, backwards=True))[::-1])
            await asyncio.sleep(0)
        await waiting
        # A later read sees as much or more: in one order the counts grow, in the other they shrink.
        assert all(look == sorted(look) for look in looks[::2]), looks
        assert all(look == sorted(look, reverse=True) for look in looks[1::2]), looks
        assert await _counts(reader) == [STEPS] * 4

    async def test_the_end_of_a_run_is_visible_together_with_its_writes(self, open_store: OpenStore) -> None:
        writer, reader = await open_store(), await open_store()
        for number in range(STEPS):
            run = await writer.accept(new_run(f"run-{number}"), {})
            ended = writer.write(
                replace(move(run, RunStatus.COMPLETED, output=b"1", entries=1), entries=(entry(1),))
            )
            status = (await reader.run(run.run_id)).status
            entries = await reader.entries(run.run_id)
            assert entries or status is RunStatus.RUNNING
            await ended
            assert ((await reader.run(run.run_id)).output, len(await reader.entries(run.run_id))) == (b"1", 1)


def _step(run: RunRecord, number: int) -> Write:
    """Return a write with one of everything."""
    path = StepPath(f"q{number}")
    return Write(
        run_id=run.run_id,
        fence=run.fence,
        entries=(entry(number),),
        pauses=(Pause(pause_id=path, message="?"),),
        intents=(Intent(key=path, path=path, tool="a:b", state=IntentState.SENT, input=b"1"),),
        holds=(Hold(path=path, number=1, state=HoldState.HELD, usage=Usage(requests=1)),),
    )


async def _counts(store: StateStore, *, backwards: bool = False) -> list[int]:
    """Return the numbers of entries, questions, calls and holds, read one after the other."""

    async def holds() -> int:
        return len((await store.ledger(RUN)).holds)

    async def entries() -> int:
        return len(await store.entries(RUN))

    async def pauses() -> int:
        return len(await store.pauses(RUN))

    async def intents() -> int:
        return len(await store.intents(RUN))

    reads = [entries, pauses, intents, holds]
    return [await read() for read in (reversed(reads) if backwards else reads)]
