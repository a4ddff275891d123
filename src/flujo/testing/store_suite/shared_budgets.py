"""Budgets of several runs: all stores of a database reserve in one amount, and none of them overspends it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.ledger import Hold, HoldState
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus, Write
from flujo.domain.shared_budgets import BudgetRule, Facts, Match, Window
from flujo.domain.usage import Usage, UsageLimits
from flujo.exceptions import Fenced, SharedBudgetExceeded
from flujo.testing.store_suite.examples import RUN, OpenStore, entry, move, new_run

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.domain.run import RunRecord
    from flujo.domain.shared_budgets import Share
    from flujo.domain.store import StateStore

_RULE = BudgetRule(
    name="team",
    limits=UsageLimits(total_cost_usd_limit=0.001, total_tokens_limit=1_000),
    window=Window(span="none"),
)
"""1,000 millionths of a dollar, and 1,000 tokens."""
_ASK = StepPath("ask")


def _share(rule: BudgetRule = _RULE) -> Share:
    found = rule.share(Facts(blueprint="p"))
    assert found is not None
    return found


def _used(cost: int, tokens: int = 0) -> Usage:
    return Usage(requests=1, output_tokens=tokens, cost_micro_usd=cost)


def _held(cost: int, tokens: int = 0, *, number: int = 1, rule: BudgetRule = _RULE) -> Hold:
    return Hold(
        path=_ASK,
        number=number,
        state=HoldState.HELD,
        usage=_used(cost, tokens),
        shares=(_share(rule),),
    )


def _ended(hold: Hold, used: Usage, lost: Usage | None = None) -> Hold:
    state = HoldState.SETTLED if lost is None else HoldState.UNCONFIRMED
    return replace(hold, state=state, usage=lost or Usage(), used=used)


async def _begun(store: StateStore, run_id: RunId = RUN) -> RunRecord:
    return await store.accept(replace(new_run(), run_id=run_id), {})


async def _counts(store: StateStore) -> dict[str, tuple[int, int]]:
    """Return what the rule's counters have: used and held, by name."""
    return {each.name: (each.used, each.held) for each in await store.budget_counters()}


class SharedBudgetsSuite:
    """A hold counts from its reservation; the commit of its attempt counts what was really used instead."""

    async def test_a_reservation_counts_until_its_attempt_has_ended(self, store: StateStore) -> None:
        run, hold = await _begun(store), _held(600, 300)
        await store.reserve(RUN, run.fence, hold)
        assert await _counts(store) == {"budget:team": (0, 600), "budget:team/tokens": (0, 300)}
        settled = _ended(hold, _used(150, 80))
        await store.write(Write(run_id=RUN, fence=run.fence, entries=(entry(1),), holds=(settled,)))
        assert await _counts(store) == {"budget:team": (150, 0), "budget:team/tokens": (80, 0)}

    async def test_a_request_without_room_is_refused_and_counts_nothing(self, store: StateStore) -> None:
        run = await _begun(store)
        await store.reserve(RUN, run.fence, _held(900))
        before = await _counts(store)
        with pytest.raises(
            SharedBudgetExceeded, match=r"budget `team` allows \$0.001 .*\$0.0009 held"
        ) as got:
            await store.reserve(RUN, run.fence, _held(101, number=2))
        assert (got.value.rule, got.value.limit) == ("team", "total_cost_usd_limit")
        assert got.value.window_ends_at is None
        assert await _counts(store) == before
        assert [each.number for each in (await store.ledger(RUN)).holds] == [1]
        with pytest.raises(SharedBudgetExceeded, match="total_tokens_limit"):
            await store.reserve(RUN, run.fence, _held(100, 1_001, number=2))
        await store.reserve(RUN, run.fence, _held(100, 1_000, number=2))

    async def test_stores_share_the_amount(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(3)]
        runs = [await _begun(each, f"{RUN}-{number}") for number, each in enumerate(stores)]  # type: ignore[arg-type]
        asked = [
            store.reserve(run.run_id, run.fence, _held(150, number=number))
            for store, run in zip(stores, runs, strict=True)
            for number in range(1, 5)
        ]
        got = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(each is None for each in got) == 6
        assert sum(isinstance(each, SharedBudgetExceeded) for each in got) == 6
        assert (await _counts(stores[0]))["budget:team"] == (0, 900)

    async def test_a_refused_reservation_does_not_disturb_other_writes(self, store: StateStore) -> None:
        run, other = await _begun(store), await _begun(store, f"{RUN}-b")  # type: ignore[arg-type]
        got = await asyncio.gather(
            store.reserve(RUN, run.fence, _held(2_000)),
            store.write(Write(run_id=other.run_id, fence=other.fence, entries=(entry(1),))),
            return_exceptions=True,
        )
        assert isinstance(got[0], SharedBudgetExceeded)
        assert [each.seq for each in await store.entries(other.run_id)] == [1]

    async def test_a_hold_is_replaced_by_its_newest_usage(self, store: StateStore) -> None:
        run, hold = await _begun(store), _held(400)
        await store.reserve(RUN, run.fence, hold)
        await store.reserve(RUN, run.fence, replace(hold, usage=_used(700)))
        await store.reserve(RUN, run.fence, replace(hold, usage=_used(700)))
        assert (await _counts(store))["budget:team"] == (0, 700)
        ended = _ended(hold, _used(650))
        for _ in range(2):  # the answer to the first was lost
            await store.write(Write(run_id=RUN, fence=run.fence, holds=(ended,)))
        assert (await _counts(store))["budget:team"] == (650, 0)

    async def test_an_attempt_at_the_place_of_an_ended_one_counts_beside_it(self, store: StateStore) -> None:
        run, hold = await _begun(store), _held(400)
        for _ in range(2):
            await store.reserve(RUN, run.fence, hold)
            assert (await _counts(store))["budget:team"][1] == 400
            await store.write(Write(run_id=RUN, fence=run.fence, holds=(_ended(hold, _used(300)),)))
        assert (await _counts(store))["budget:team"] == (600, 0)

    async def test_a_request_of_unknown_outcome_counts_as_used(self, store: StateStore) -> None:
        run, hold = await _begun(store), _held(400)
        await store.reserve(RUN, run.fence, hold)
        lost = _ended(hold, _used(100), lost=_used(300))
        await store.write(Write(run_id=RUN, fence=run.fence, holds=(lost,)))
        assert (await _counts(store))["budget:team"] == (400, 0)

    async def test_what_a_dead_process_has_reserved_counts_as_used_in_the_next_one(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await _begun(mine)
        await mine.reserve(RUN, run.fence, _held(400))
        await mine.write(move(run, RunStatus.INTERRUPTED))
        claimed = await other.claim(RUN, statuses=[RunStatus.INTERRUPTED])
        [found] = (await other.ledger(RUN)).holds
        assert found.is_counted
        lost = replace(found, state=HoldState.UNCONFIRMED)
        await other.write(Write(run_id=RUN, fence=claimed.fence, holds=(lost,)))
        assert (await _counts(other))["budget:team"] == (400, 0)
        with pytest.raises(Fenced):
            await mine.reserve(RUN, run.fence, _held(1, number=2))
        assert (await _counts(other))["budget:team"] == (400, 0)

    async def test_a_hold_is_settled_in_the_window_in_which_it_was_reserved(self, store: StateStore) -> None:
        run = await _begun(store)
        daily = replace(_RULE, window=Window(span="day"))
        hold = _held(400, rule=daily)
        await store.reserve(RUN, run.fence, hold)
        [first] = {each.window for each in await store.budget_counters()}
        assert first % 86_400 == 0
        assert first == Window(span="day").start(await store.now())
        monthly = replace(hold, shares=(_share(replace(_RULE, window=Window(span="month"))),))
        await store.write(Write(run_id=RUN, fence=run.fence, holds=(_ended(monthly, _used(100)),)))
        assert {each.window for each in await store.budget_counters()} == {first}

    async def test_each_scope_has_its_own_amount(self, store: StateStore) -> None:
        run = await _begun(store)
        per_user = replace(_RULE, per=("user",), match=Match(blueprint="p"))
        for number, user in enumerate(("a", "b", None), start=1):
            share = per_user.share(Facts(blueprint="p", user=user))
            assert share is not None
            await store.reserve(RUN, run.fence, replace(_held(900, number=number), shares=(share,)))
        scopes = [each.scope for each in await store.budget_counters() if each.name == "budget:team"]
        assert scopes == ['{"user":"a"}', '{"user":"b"}', '{"user":null}']

    async def test_a_purge_gives_nothing_back(self, store: StateStore) -> None:
        run, hold = await _begun(store), _held(400)
        await store.reserve(RUN, run.fence, hold)
        ended = replace(move(run, RunStatus.COMPLETED), holds=(_ended(hold, _used(300)),))
        await store.write(ended)
        purge: Any = getattr(store, "purge", None)
        if purge is not None:
            async for _ in purge([RunStatus.COMPLETED], 0.0, batch=10):
                pass
        assert (await _counts(store))["budget:team"] == (300, 0)
