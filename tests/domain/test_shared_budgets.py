"""Rules of budgets that several runs share: which runs they count, and when their windows begin."""

from __future__ import annotations

from datetime import datetime

import pytest

from flujo.domain.shared_budgets import (
    BudgetRule,
    Facts,
    Match,
    Window,
    counted,
    counter,
    in_units,
    is_property,
    limit_of,
)
from flujo.domain.usage import Usage, UsageLimits


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "start", "end"),
    [
        (Window(span="day"), "2026-11-29T20:00Z", "2026-11-29T00:00Z", "2026-11-30T00:00Z"),
        (Window(span="month"), "2026-12-31T23:59Z", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        (Window(span="month"), "2028-02-29T12:00Z", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        (
            Window(span="day", zone="Europe/Berlin"),  # 23 hours
            "2026-03-29T12:00Z",
            "2026-03-28T23:00Z",
            "2026-03-29T22:00Z",
        ),
        (
            Window(span="month", zone="America/New_York"),  # an hour more
            "2026-11-15T12:00Z",
            "2026-11-01T04:00Z",
            "2026-12-01T05:00Z",
        ),
    ],
)
def test_a_window_begins_and_ends_in_its_zone(window: Window, now: str, start: str, end: str) -> None:
    assert window.start(at(now)) == at(start)
    assert window.end(window.start(at(now))) == at(end)


def test_every_moment_of_two_years_is_in_one_window() -> None:
    for span in ("day", "month"):
        window = Window(span=span, zone="Europe/Berlin")
        now = at("2026-01-01T00:00Z")
        while now < at("2028-01-01T00:00Z"):
            start = window.start(now)
            end = window.end(start)
            assert end is not None
            assert start <= now < end
            assert window.start(end) == end
            now = end


def test_a_rule_without_a_window_has_one_without_an_end() -> None:
    window = Window(span="none")
    assert (window.start(at("2026-11-29T20:00Z")), window.end(0)) == (0, None)


@pytest.mark.parametrize(
    ("match", "is_covered"),
    [
        (Match(), True),
        (Match(blueprint="triage"), True),
        (Match(blueprint="triage", user="ada", metadata={"team": "a", "count": 1}), True),
        (Match(blueprint="other"), False),
        (Match(user="bob"), False),
        (Match(metadata={"team": "b"}), False),
        (Match(metadata={"absent": "x"}), False),
    ],
)
def test_a_rule_counts_the_runs_that_have_all_it_names(match: Match, is_covered: bool) -> None:
    run = Facts(blueprint="triage", user="ada", metadata={"team": "a", "count": 1})
    assert match.covers(run) is is_covered


def test_the_scope_has_a_value_for_each_name() -> None:
    rule = BudgetRule(name="r", limits=UsageLimits(requests_limit=1), per=("user", "metadata.team"))
    share = rule.share(Facts(blueprint="p", user="ada", metadata={"team": "a"}))
    lacking = rule.share(Facts(blueprint="p"))
    assert share is not None
    assert lacking is not None
    assert share.scope == '{"metadata.team":"a","user":"ada"}'
    assert lacking.scope == '{"metadata.team":null,"user":null}'


def test_a_counter_counts_one_limit_in_whole_units() -> None:
    used = Usage(input_tokens=3, output_tokens=4, requests=2, cost_micro_usd=150)
    names = [
        counter("r", limit) for limit in ("total_cost_usd_limit", "total_tokens_limit", "requests_limit")
    ]
    assert names == ["budget:r", "budget:r/tokens", "budget:r/requests"]
    assert [counted(name, used) for name in names] == [150, 7, 2]
    assert limit_of("budget:r/tokens") == ("r", "total_tokens_limit")
    assert in_units("total_cost_usd_limit", 0.3) == 300_000


def test_names_of_properties() -> None:
    assert [is_property(each) for each in ("user", "blueprint", "metadata.team", "metadata.", "team")] == [
        *(True, True, True),
        *(False, False),
    ]
