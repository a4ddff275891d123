"""External calls: the budget that they hold and their announcements."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.ledger import Hold, HoldState
from flujo.domain.paths import StepPath
from flujo.domain.run import Intent, IntentState, RunStatus, Write
from flujo.domain.usage import Usage
from flujo.exceptions import (
    Fenced,
)
from flujo.testing.store_suite.examples import (
    NEVER_S,
    RUN,
    SHORT_S,
    OpenStore,
    entry,
    move,
    new_run,
)

if TYPE_CHECKING:
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore


class EffectsSuite:
    """Holds and announced calls are kept until they are settled."""

    async def test_a_ledger_lists_usage_by_path_and_open_holds(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        used = Usage(input_tokens=7, output_tokens=3, requests=1, cost_micro_usd=42)
        held = Hold(path=StepPath("b"), number=1, state=HoldState.HELD, usage=used + used)
        await store.write(
            Write(
                run_id=run.run_id,
                fence=run.fence,
                entries=(
                    entry(1, "a", usage=used, started_at=5.0, ended_at=7.5),
                    entry(2, "c", kind=EntryKind.DECISION),
                ),
                holds=(held, replace(held, path=StepPath("c"), state=HoldState.UNCONFIRMED)),
            )
        )
        ledger = await store.ledger(run.run_id)
        assert [(each.path, each.usage, each.ended_at) for each in ledger.spendings] == [("a", used, 7.5)]
        assert [(hold.path, hold.state) for hold in ledger.holds] == [("b", "held"), ("c", "unconfirmed")]
        assert ledger.unconfirmed == used + used + used + used

    async def test_a_hold_is_replaced_until_it_is_settled(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        first = Hold(path=StepPath("a"), number=1, state=HoldState.HELD, usage=Usage(requests=1))
        for hold in (first, replace(first, usage=Usage(requests=2)), replace(first, number=2)):
            await store.write(Write(run_id=run.run_id, fence=run.fence, holds=(hold,)))
        assert (await store.ledger(run.run_id)).unconfirmed == Usage(requests=3)
        settled = replace(first, state=HoldState.SETTLED, usage=Usage())
        await store.write(
            Write(run_id=run.run_id, fence=run.fence, entries=(entry(1, "a"),), holds=(settled,))
        )
        assert [hold.number for hold in (await store.ledger(run.run_id)).holds] == [2]

    async def test_a_store_writes_no_hold_for_a_run_of_another_owner(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        hold = Hold(path=StepPath("a"), number=1, state=HoldState.HELD, usage=Usage(requests=1))
        with pytest.raises(Fenced):
            await store.write(Write(run_id=run.run_id, fence=run.fence + 1, holds=(hold,)))
        assert (await store.ledger(run.run_id)).holds == ()

    async def test_the_time_of_a_killed_claim_counts_to_the_end_of_its_lease(
        self, open_store: OpenStore
    ) -> None:
        killed, next_one = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        await _begin_time(killed, await killed.accept(new_run(), {}))
        assert (await next_one.ledger(RUN)).worked_s == 0, "it counts once the claim has ended"
        await asyncio.sleep(SHORT_S * 4)
        claimed = await next_one.claim(RUN, statuses=[RunStatus.RUNNING])
        ledger = await next_one.ledger(RUN)
        assert 0 < ledger.worked_s < SHORT_S * 2
        assert ledger.holds == ()
        await _begin_time(next_one, claimed)
        assert await next_one.ledger(RUN) == ledger, "the time of each claim has its own start"

    async def test_the_time_of_a_released_claim_counts_to_its_release(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await _begin_time(mine, run)
        await asyncio.sleep(SHORT_S)
        await mine.write(move(run, RunStatus.PAUSED))
        worked_s = (await other.ledger(RUN)).worked_s
        assert worked_s >= SHORT_S * 0.9
        await asyncio.sleep(SHORT_S)
        again = await mine.claim(RUN, statuses=[RunStatus.PAUSED])
        assert (await other.ledger(RUN)).worked_s == worked_s, "a run that is paused does not work"
        await _begin_time(mine, again)
        await asyncio.sleep(SHORT_S)
        await mine.aclose()
        worked_s_twice = (await other.ledger(RUN)).worked_s
        assert worked_s_twice >= worked_s + SHORT_S * 0.9
        await other.claim(RUN, statuses=[RunStatus.RUNNING])
        assert (await other.ledger(RUN)).worked_s == worked_s_twice

    async def test_announced_calls_keep_their_state_until_settled(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        large = canonical.encode("x" * 200_000)
        sent = Intent(
            key="k", path=StepPath("pay"), tool="bank:pay", state=IntentState.SENT, input=large, sends=2
        )
        other = replace(sent, key="other", path=StepPath("later"), input=b"1")
        await store.write(Write(run_id=RUN, fence=run.fence, intents=(sent,)))
        (there,) = await store.intents(RUN)
        assert replace(there, sent_at=None) == sent
        assert there.sent_at
        done = replace(sent, state=IntentState.DONE, result=large)
        await store.write(Write(run_id=RUN, fence=run.fence, intents=(done, other), entries=(entry(1),)))
        first, second = await store.intents(RUN)
        assert replace(first, sent_at=None) == done
        assert (first.sent_at, second.key) == (there.sent_at, "other")
        with pytest.raises(Fenced):
            await store.write(Write(run_id=RUN, fence=run.fence + 1, intents=(sent,)))
        assert (await store.intents(RUN))[0].state is IntentState.DONE


async def _begin_time(store: StateStore, run: RunRecord) -> None:
    time = Hold(path=StepPath("part"), number=run.fence, state=HoldState.TIMED)
    await store.write(Write(run_id=run.run_id, fence=run.fence, holds=(time,)))
