"""Budgets alone: usage is reserved before it happens, so no limit is exceeded in any interleaving."""

from __future__ import annotations

import asyncio
import random  # noqa: TC003 - hypothesis reads the annotation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.ledger import Hold, HoldState, Ledger, Spending
from flujo.domain.paths import StepPath
from flujo.domain.usage import NOTHING, Usage, UsageLimits, tightest
from flujo.engine.budget import Budget, unconfirmed
from flujo.engine.step_meter import StepMeter
from flujo.exceptions import SettingsError, UsageLimitExceeded

A, B = StepPath("a"), StepPath("part/b")


def budget(ledger: Ledger | None = None, **limits: float) -> Budget:
    return Budget(UsageLimits(**limits), now=lambda: 0.0, ledger=ledger)  # type: ignore[arg-type]  # by name


class Kept:
    """The durable holds of a journal."""

    def __init__(self) -> None:
        self.holds: dict[tuple[str, int], Hold] = {}

    def meter(self, of: Budget, path: StepPath = A) -> StepMeter:
        return StepMeter(of, path, self._keep, self._flush)

    @property
    def usage(self) -> Usage:
        return sum((hold.usage for hold in self.holds.values() if hold.is_open), NOTHING)

    def _keep(self, hold: Hold) -> None:
        self.holds[hold.path, hold.number] = hold

    async def _flush(self) -> None:
        await asyncio.sleep(0)


requests = st.lists(
    st.tuples(
        st.integers(0, 400),  # worst
        st.integers(0, 100),  # per cent of it that is actually used
        st.sampled_from(["settle", "settle", "lose", "never sent"]),
        st.integers(0, 3),  # turns of the loop before the request and during it
    ),
    max_size=12,
)


@pytest.mark.guarantee("G20")
@given(st.lists(requests, min_size=1, max_size=5), st.integers(1, 2_000), st.randoms())
def test_no_limit_is_exceeded_however_requests_interleave(
    steps: list[list[tuple[int, int, str, int]]], limit: int, chance: random.Random
) -> None:
    whole, kept, spent = budget(total_tokens_limit=limit), Kept(), [0]

    async def attempt(number: int, todo: list[tuple[int, int, str, int]]) -> None:
        meter = kept.meter(whole, StepPath(f"step_{number}"))
        for worst, share, end, turns in todo:
            for _ in range(turns):
                await asyncio.sleep(0)
            try:
                reserved = await meter.reserve(Usage(input_tokens=worst, requests=1))
            except UsageLimitExceeded:
                break
            assert whole.spent.total_tokens + whole.held.total_tokens <= limit
            assert spent[0] + kept.usage.total_tokens >= whole.held.total_tokens, (
                "no hold exists only in memory"
            )
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            used = worst * share // 100
            if end == "settle":
                spent[0] += used
                reserved.settle(Usage(input_tokens=used, requests=1))
            elif end == "lose":
                spent[0] += used
                reserved.lose(Usage(requests=1))
            else:
                reserved.settle(NOTHING)
        meter.close(meter.used)

    async def all_at_once() -> None:
        await asyncio.gather(*(attempt(number, todo) for number, todo in enumerate(steps)))

    asyncio.run(all_at_once())
    assert spent[0] <= limit
    assert spent[0] <= whole.spent.total_tokens + whole.held.total_tokens <= limit
    assert kept.usage.total_tokens == whole.held.total_tokens, "remaining charges are durable"


@pytest.mark.guarantee("G20")
async def test_a_crash_keeps_the_hold_of_an_attempt() -> None:
    kept, whole = Kept(), budget(total_tokens_limit=1_000)
    meter = kept.meter(whole)
    first = await meter.reserve(Usage(input_tokens=100, output_tokens=300, requests=1))
    first.settle(Usage(input_tokens=90, output_tokens=10, requests=1))
    await meter.reserve(Usage(input_tokens=200, output_tokens=300, requests=1))
    ledger = Ledger((), tuple(kept.holds.values()))  # the process dies here, with no entry of the attempt
    again = budget(ledger, total_tokens_limit=1_000)
    assert ledger.unconfirmed == Usage(input_tokens=290, output_tokens=310, requests=2)
    assert [hold.state for hold in unconfirmed(ledger)] == [HoldState.UNCONFIRMED]
    with pytest.raises(UsageLimitExceeded):
        await kept.meter(again).reserve(Usage(input_tokens=401, requests=1))
    await kept.meter(again).reserve(Usage(input_tokens=400, requests=1))
    assert {hold.number for hold in kept.holds.values()} == {1, 2}, (
        "the attempt's hold stays beside the new one"
    )


async def test_the_entry_of_an_attempt_settles_its_hold() -> None:
    kept, whole = Kept(), budget(requests_limit=2)
    meter = kept.meter(whole)
    reserved = await meter.reserve(Usage(requests=1))
    reserved.settle(Usage(requests=1))
    meter.close(Usage(requests=1))
    assert [hold.state for hold in kept.holds.values()] == [HoldState.SETTLED]
    assert whole.spent == Usage(requests=1)


async def test_usage_without_a_reservation_counts_once_reported() -> None:
    kept, whole = Kept(), budget(total_tokens_limit=100)
    kept.meter(whole).close(Usage(input_tokens=80, requests=1))
    assert not kept.holds, "without a reservation there is no write"
    with pytest.raises(UsageLimitExceeded):
        await kept.meter(whole).reserve(Usage(input_tokens=21, requests=1))


async def test_a_tool_call_is_counted_before_it_is_made() -> None:
    kept, whole = Kept(), budget(tool_calls_limit=2)
    meter = kept.meter(whole)
    await meter.call_tools(2)
    assert kept.usage == Usage(tool_calls=2), "a crash during tool calls loses none of them"
    with pytest.raises(UsageLimitExceeded, match="tool_calls_limit"):
        await meter.call_tools(1)


def test_the_error_names_the_limit_the_spenders_and_the_requested_amount() -> None:
    whole = budget(total_cost_usd_limit=1.0)
    whole.charge(StepPath("draft"), Usage(cost_micro_usd=600_000))
    whole.charge(StepPath("review[1]/critique"), Usage(cost_micro_usd=350_000))
    whole.charge(StepPath("free"), Usage(input_tokens=9))
    with pytest.raises(UsageLimitExceeded) as caught:
        whole.reserve(A, Usage(cost_micro_usd=50_001))
    error = caught.value
    assert error.message == (
        "the run's budget allows $1.00 (`total_cost_usd_limit`): $0.95 used, and the next request may need "
        "$0.050001; used by `draft` $0.60, `review[1]/critique` $0.35"
    )
    assert error.facts["limit"] == "total_cost_usd_limit"
    assert [path for path, _ in error.facts["where"]] == ["draft", "review[1]/critique"]
    assert whole.breach is error


def test_a_part_is_limited_by_its_own_budget_and_by_enclosing_ones() -> None:
    whole = budget(total_tokens_limit=100)
    part = whole.inside(StepPath("part"), UsageLimits(total_tokens_limit=1_000))
    part.charge(B, Usage(input_tokens=60))
    assert whole.spent.total_tokens == 60
    with pytest.raises(UsageLimitExceeded, match="the run's budget"):
        part.reserve(B, Usage(input_tokens=41))
    assert part.breach is not None
    assert part.breach is whole.breach
    other = budget(total_tokens_limit=1_000)
    tight = other.inside(StepPath("part"), UsageLimits(total_tokens_limit=10))
    with pytest.raises(UsageLimitExceeded, match="the budget of `part`"):
        tight.reserve(B, Usage(input_tokens=11))
    assert other.breach is None, "the limit of a part does not limit the rest of the run"
    assert other.inside(StepPath("part"), UsageLimits()) is tight


def test_a_part_keeps_its_spending_over_a_crash() -> None:
    used = Usage(input_tokens=7)
    ledger = Ledger(
        (Spending(A, used, 0.0, 1.0), Spending(B, used, 1.0, 3.0), Spending(StepPath("partly"), used, 9, 9)),
        (Hold(path=B, number=1, state=HoldState.HELD, usage=used),),
    )
    whole = budget(ledger, total_tokens_limit=100, wall_time_s_limit=10)
    part = whole.inside(StepPath("part"), UsageLimits(wall_time_s_limit=10))
    assert (whole.spent.total_tokens, whole.held.total_tokens) == (21, 7)
    assert (part.spent.total_tokens, part.held.total_tokens) == (7, 7)
    assert (whole.left_s, part.left_s) == (7.0, 8.0)


def test_concurrent_work_counts_its_time_once() -> None:
    spans = [(5.0, 7.0), (0.0, 2.0), (1.0, 4.0), (3.0, 3.5), (9.0, 8.0)]
    ledger = Ledger(tuple(Spending(A, NOTHING, start, end) for start, end in spans))
    assert ledger.worked_s == 6.0


@pytest.mark.parametrize("value", [0, -1, True, float("nan"), float("inf"), "3"])
@pytest.mark.parametrize("name", ["total_cost_usd_limit", "requests_limit", "wall_time_s_limit"])
def test_a_limit_is_a_number_above_zero(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name):
        UsageLimits(**{name: value})  # type: ignore[arg-type]  # that is the point


def test_counts_are_whole_numbers() -> None:
    with pytest.raises(SettingsError, match="whole number"):
        UsageLimits(total_tokens_limit=1.5)  # type: ignore[arg-type]  # that is the point


def test_the_tightest_of_several_limits_holds() -> None:
    ours = UsageLimits(total_cost_usd_limit=1.0, requests_limit=5, unknown_price="allow")
    theirs = UsageLimits(total_cost_usd_limit=2.0, total_tokens_limit=10)
    both = tightest(ours, None, theirs)
    assert both == UsageLimits(total_cost_usd_limit=1.0, total_tokens_limit=10, requests_limit=5)
    assert tightest(ours, UsageLimits()) == ours
    assert tightest(UsageLimits(), None) is None
