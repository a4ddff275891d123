"""Which times of a schedule are due: catching up, jitter, and the ids of runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.domain.cron import times_after
from flujo.domain.schedules import GRACE_S, MOST_MISSED, Schedule, due, is_run_of, run_id_of

HOUR = 3600.0
FIRST = datetime.fromisoformat("2026-11-28T02:00Z").timestamp()


def _hourly(**more: Any) -> Schedule:
    return Schedule(cron="0 * * * *", name="hourly", **more)


def test_a_time_is_due_from_its_moment_on() -> None:
    assert due(_hourly(), FIRST, FIRST - 1) is None
    found = due(_hourly(), FIRST, FIRST)
    assert found is not None
    assert (found.time, found.next_at, found.last_at, found.skips) == (FIRST, FIRST + HOUR, FIRST, False)


def test_the_last_of_missed_times_is_fired() -> None:
    found = due(_hourly(catch_up="last"), FIRST, FIRST + 5.5 * HOUR)
    assert found is not None
    assert (found.time, found.next_at, found.skips) == (FIRST + 5 * HOUR, FIRST + 6 * HOUR, True)


def test_no_missed_time_is_fired() -> None:
    schedule = _hourly(catch_up="none")
    late = due(schedule, FIRST, FIRST + GRACE_S + 1)
    assert late is not None
    assert (late.time, late.next_at, late.skips) == (None, FIRST + HOUR, True)
    soon = due(schedule, FIRST, FIRST + GRACE_S)
    assert soon is not None
    assert soon.time == FIRST
    after = due(schedule, FIRST, FIRST + 5 * HOUR)
    assert after is not None
    assert (after.time, after.skips) == (FIRST + 5 * HOUR, True), "the newest time is not late"


def test_all_missed_times_are_fired_one_by_one_up_to_a_bound() -> None:
    schedule, at, fired = _hourly(catch_up="all", overlap="allow"), FIRST, []
    now = FIRST + (MOST_MISSED + 49) * HOUR
    while (found := due(schedule, at, now)) is not None:
        assert found.time is not None
        assert found.next_at is not None
        fired.append(found.time)
        at = found.next_at
    assert fired == [FIRST + (50 + number) * HOUR for number in range(MOST_MISSED)]
    assert at == now + HOUR


def test_a_schedule_without_a_further_time_ends() -> None:
    found = due(Schedule(cron="0 0 29 2 *", name="leap"), FIRST, FIRST)
    assert found is None
    assert Schedule(cron="0 0 29 2 *").after(FIRST) is not None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(1, 7200), st.text("abc", min_size=1, max_size=5))
def test_jitter_is_the_same_each_time_and_ends_before_the_next_time(
    hours: int, jitter: float, name: str
) -> None:
    schedule, time = replace(_hourly(jitter_s=jitter), name=name), FIRST + hours * HOUR
    delay = schedule.fires_at(time) - time
    assert 0 <= delay < min(jitter, HOUR)
    assert schedule.fires_at(time) - time == delay
    assert due(schedule, time, time + delay - 0.01) is None
    found = due(schedule, time, time + delay)
    assert found is not None
    assert found.time == time


def test_jitter_differs_between_times_and_names() -> None:
    delays = {_hourly(jitter_s=600).fires_at(FIRST + n * HOUR) - FIRST - n * HOUR for n in range(5)}
    delays.add(replace(_hourly(jitter_s=600), name="other").fires_at(FIRST) - FIRST)
    assert len(delays) == 6


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["none", "last", "all"]),
    st.lists(st.floats(0, 6 * HOUR), min_size=1, max_size=12),
    st.sampled_from(["0 * * * *", "*/20 * * * *", "30 2 * * *"]),
)
def test_each_time_is_decided_once_and_in_order_however_often_a_worker_looks(
    catch_up: Any, waits: list[float], cron: str
) -> None:
    schedule = Schedule(cron=cron, name="x", catch_up=catch_up, overlap="allow", timezone="Europe/Berlin")
    now = datetime.fromisoformat("2026-10-24T22:00Z").timestamp()
    begin, at, decided = now, schedule.after(now), []
    for wait in waits:
        now += wait
        while at is not None and (found := due(schedule, at, now)) is not None:
            decided.append(found)
            at = found.next_at
    fired = [each.time for each in decided if each.time is not None]
    assert fired == sorted(set(fired))
    every = []
    for each in times_after(cron, "Europe/Berlin", begin):
        if each > now:
            break
        every.append(each)
    assert set(fired) <= set(every)
    assert catch_up != "all" or fired == every
    assert catch_up != "last" or not every or fired[-1:] == every[-1:]
    assert at == next(times_after(cron, "Europe/Berlin", now))


def test_the_id_of_a_run_has_the_time_in_utc() -> None:
    assert run_id_of("nightly", FIRST + 1800) == "nightly-20261128T023000Z"


@pytest.mark.parametrize(
    ("run_id", "is_own"),
    [
        ("nightly-20261128T023000Z", True),
        ("nightly-late-20261128T023000Z", False),
        ("nightly-20261128T023000Z-2", False),
        ("nightly-test", False),
        ("knightly-20261128T023000Z", False),
    ],
)
def test_the_runs_of_a_schedule_are_known_by_their_ids(run_id: str, is_own: bool) -> None:
    assert is_run_of("nightly", run_id) is is_own
