"""The times of cron lines: change of clocks, leap years, zones with half hours, and lines that never fire."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.domain.cron import cron_problem, newest_times, times_after, zone, zone_problem

BERLIN = "Europe/Berlin"
ZONES = (BERLIN, "UTC", "America/New_York", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe")
LINES = (
    "30 2 * * *",
    "0 * * * *",
    "*/20 * * * *",
    "15 1-3 * * *",
    "0,30 2,3 * * *",
    "0 0 29 2 *",
    "0 9 * * MON-FRI",
    "0 0 L * *",
    "*/7 2 * * *",
)
CHANGES = ("2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01")
"""Days on which clocks change in one of the zones."""


def _at(text: str, name: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone(name)).timestamp()


def _next(line: str, name: str, after: str, count: int) -> list[str]:
    times = islice(times_after(line, name, _at(after, name)), count)
    return [f"{datetime.fromtimestamp(each, zone(name)):%m-%d %H:%M %z}" for each in times]


def test_a_skipped_time_of_day_fires_once_after_the_gap() -> None:
    assert _next("30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == ["03-29 03:00 +0200", "03-30 02:30 +0200"]


def test_a_repeated_time_of_day_fires_once() -> None:
    assert _next("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == ["10-25 02:30 +0200", "10-26 02:30 +0100"]
    second = datetime(2026, 10, 25, 2, 10, tzinfo=zone(BERLIN), fold=1).timestamp()
    assert next(times_after("30 2 * * *", BERLIN, second)) == _at("2026-10-26T02:30", BERLIN)


def test_hourly_jobs_follow_the_elapsed_time_when_clocks_change() -> None:
    assert _next("0 * * * *", BERLIN, "2026-03-29T00:30", 3) == [
        "03-29 01:00 +0100",
        "03-29 03:00 +0200",
        "03-29 04:00 +0200",
    ]
    assert _next("0 * * * *", BERLIN, "2026-10-25T01:30", 3) == [
        "10-25 02:00 +0200",
        "10-25 02:00 +0100",
        "10-25 03:00 +0100",
    ]


def test_the_29th_of_february_fires_in_leap_years() -> None:
    found = list(islice(times_after("0 0 29 2 *", "UTC", _at("2097-01-01")), 2))
    assert [datetime.fromtimestamp(each, UTC).year for each in found] == [2104, 2108], "2100 is no leap year"


def test_zones_with_fractions_of_an_hour_have_their_own_times() -> None:
    assert _next("0 9 * * *", "Asia/Kathmandu", "2026-05-01T00:00", 1) == ["05-01 09:00 +0545"]
    assert _next("0 * * * *", "Australia/Lord_Howe", "2026-04-05T00:30", 3) == [
        "04-05 01:00 +1100",
        "04-05 02:00 +1030",
        "04-05 03:00 +1030",
    ]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LINES), st.sampled_from(ZONES), st.sampled_from(CHANGES), st.floats(0, 3 * 86400))
def test_times_increase_strictly_and_begin_after_the_moment(
    line: str, name: str, day: str, offset: float
) -> None:
    begin = _at(day) - 86400 + offset
    times = list(islice(times_after(line, name, begin), 20))
    assert times == sorted({each for each in times if each > begin})
    minutes = {datetime.fromtimestamp(each, UTC).second for each in times}
    assert minutes == {0}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(LINES[:-1]), st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(1, 30))
def test_the_newest_times_are_the_last_of_all_times(line: str, name: str, day: str, most: int) -> None:
    since, until = _at(day) - 2 * 86400, _at(day) + 2 * 86400
    every = []
    for each in times_after(line, name, since - 1):
        if each > until:
            break
        every.append(each)
    assert newest_times(line, name, since, until, most) == every[-most:]


def test_the_newest_times_of_years_are_found_at_once() -> None:
    until = _at("2026-11-28T02:30:30")
    found = newest_times("* * * * *", BERLIN, 0.0, until, 3)
    assert found == [_at("2026-11-28T02:28"), _at("2026-11-28T02:29"), _at("2026-11-28T02:30")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0 31 2 *", "never fires"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6 *", "never fires"),
        ("0 0 * *", "has 4 fields"),
        ("0 0 0 * * *", "has 6 fields"),
        ("", "has 0 fields"),
        ("@daily", "has 1 field"),
        ("61 * * * *", "a value for minute"),
        ("0 24 * * *", "a value for hour"),
        ("0 0 32 * *", "a value for day of month"),
        ("0 0 * 13 *", "a value for month"),
        ("0 0 * * XYZ", "a value for day of week"),
        ("a b c d e", "a value for minute"),
    ],
)
def test_a_line_without_times_is_explained(line: str, words: str) -> None:
    wrong = cron_problem(line)
    assert wrong is not None
    assert words in wrong[0]


@pytest.mark.parametrize("line", [*LINES, "0 0 31 * *", "5 4 * * sun", "0 0 31 2 MON", "0 0 * * 5L"])
def test_a_line_with_times_has_no_problem(line: str) -> None:
    assert cron_problem(line) is None


@pytest.mark.parametrize("name", ["Berlin", "", "../etc/passwd", "/etc/passwd", "Europe", "a\0b", "utc+1"])
def test_a_name_of_no_zone_is_refused(name: str) -> None:
    assert zone_problem(name) is not None
    assert zone_problem(BERLIN) is None
