"""The truth table of ownership: who may claim and write in every state of a lease."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain.journal import RunId
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.paths import StepPath
from flujo.domain.run import LEGAL_MOVES, Intent, IntentState, Pause, RunRecord, RunStatus, Write
from flujo.domain.usage import Usage
from flujo.exceptions import Fenced, IllegalMove, ResumeConflict
from flujo.testing.store_suite.examples import (
    NEVER_S,
    RUN,
    SHORT_S,
    OpenStore,
    entry,
    in_state,
    move,
    new_run,
    won,
    writes,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

CLAIMS = [
    # who holds it, whether another store may claim it
    ("nobody", True),
    ("a living store", False),
    ("a lapsed lease", True),
    ("who gave it back", True),
    ("who closed", True),
]
HOLDERS = ("me", "another", "nobody")
CHANGES = ("entries", "questions", "holds", "calls", "a move", "a move and entries")


class RightsSuite:
    """Ownership depends only on the claim, and each write only on the fence of the claim."""

    @pytest.mark.parametrize(("holder", "granted"), CLAIMS)
    async def test_claims_follow_the_table(self, open_store: OpenStore, holder: str, granted: bool) -> None:
        run = await _held_by(holder, open_store)
        claimer = await open_store()
        claim = claimer.claim(RUN, statuses=[run.status])
        if granted:
            claimed = await claim
            assert (claimed.fence, claimed.claims) == (run.fence + 1, run.claims + 1)
            await claimer.write(writes(claimed, entry(1)))
        else:
            with pytest.raises(ResumeConflict):
                await claim
            assert (await claimer.run(RUN)).fence == run.fence

    @pytest.mark.parametrize("status", list(RunStatus))
    async def test_a_run_can_be_claimed_only_in_resumable_states_that_the_claim_names(
        self, store: StateStore, status: RunStatus
    ) -> None:
        run = await in_state(store, status, RUN)
        if status is RunStatus.RUNNING:
            store.let_go(RUN)
        others = [each for each in RunStatus if each is not status]
        with pytest.raises(ResumeConflict):
            await store.claim(RUN, statuses=others)
        if RunStatus.RUNNING in LEGAL_MOVES[status]:
            assert (await store.claim(RUN, statuses=[status])).fence == run.fence + 1
        else:
            with pytest.raises(ResumeConflict):
                await store.claim(RUN, statuses=[status])

    @pytest.mark.parametrize("fence", [-1, 0, 1])
    @pytest.mark.parametrize("holder", HOLDERS)
    async def test_writes_follow_the_table(self, open_store: OpenStore, holder: str, fence: int) -> None:
        mine, other = await open_store(), await open_store()
        for change in CHANGES:
            run_id = RunId(change.replace(" ", "-"))
            await mine.accept(new_run(run_id), {}, claim=False)
            run = await mine.claim(run_id, statuses=[RunStatus.ACCEPTED])
            if holder == "nobody":
                await mine.write(move(run, RunStatus.PAUSED))
            writer = other if holder == "another" else mine
            given = replace(_change(run, change), fence=run.fence + fence)
            may = fence == 0 and (holder == "me" or (holder == "nobody" and change == "a move"))
            before = await _everything(mine, run_id)
            if may:
                await writer.write(given)
                assert await _everything(mine, run_id) != before
            else:
                with pytest.raises((Fenced, IllegalMove)):
                    await writer.write(given)
                assert await _everything(mine, run_id) == before

    async def test_concurrent_claims_of_many_runs_give_each_run_one_owner(
        self, open_store: OpenStore
    ) -> None:
        stores = [await open_store() for _ in range(3)]
        names = [RunId(f"run-{number:02}") for number in range(15)]
        for name in names:
            await stores[0].accept(new_run(name), {}, claim=False)
        orders = [names, names[::-1], names[7:] + names[:7]]

        async def claims(store: StateStore, order: list[RunId]) -> list[RunRecord]:
            claims = [store.claim(name, statuses=[RunStatus.ACCEPTED]) for name in order]
            return won(await asyncio.gather(*claims, return_exceptions=True))

        taken = await asyncio.gather(*map(claims, stores, orders))
        assert sorted(run.run_id for share in taken for run in share) == names
        assert {run.fence for share in taken for run in share} == {1}


async def _held_by(holder: str, open_store: OpenStore) -> RunRecord:
    """Return a run held as in the table."""
    lapses = {"lease_s": SHORT_S, "renew_s": NEVER_S} if holder == "a lapsed lease" else {}
    owner = await open_store(**lapses)
    run = await owner.accept(new_run(), {}, claim=holder != "nobody")
    if holder == "a lapsed lease":
        await asyncio.sleep(SHORT_S * 1.5)
    elif holder == "who gave it back":
        await owner.write(move(run, RunStatus.PAUSED))
    elif holder == "who closed":
        await owner.aclose()
    return await (await open_store()).run(RUN)


def _change(run: RunRecord, what: str) -> Write:
    """Return a write that changes one kind of thing."""
    path = StepPath("a")
    nothing = Write(run_id=run.run_id, fence=run.fence)
    call = Intent(key="k", path=path, tool="bank:pay", state=IntentState.SENT, input=b"1")
    hold = Hold(path=path, number=1, state=HoldState.HELD, usage=Usage(requests=1))
    return {
        "entries": replace(nothing, entries=(entry(1),)),
        "questions": replace(nothing, pauses=(Pause(pause_id=path, message="?"),)),
        "holds": replace(nothing, holds=(hold,)),
        "calls": replace(nothing, intents=(call,)),
        "a move": move(run, RunStatus.CANCELLED),
        "a move and entries": replace(move(run, RunStatus.CANCELLED), entries=(entry(1),)),
    }[what]


async def _everything(store: StateStore, run_id: RunId) -> tuple[object, ...]:
    run = await store.run(run_id)
    return (
        (run.status, run.fence, run.owner),
        await store.entries(run_id),
        await store.pauses(run_id),
        await store.intents(run_id),
        await store.ledger(run_id),
    )
