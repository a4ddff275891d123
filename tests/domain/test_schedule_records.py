"""A stored schedule returns its definition, and whether it is late or has skipped its last time."""

from __future__ import annotations

from dataclasses import replace

from flujo.domain.journal import RunId
from flujo.domain.schedule_records import ScheduleChange, ScheduleRecord, definition
from flujo.domain.schedules import Schedule, run_id_of

SCHEDULE = Schedule(
    cron="0 2 * * *", input={"a": 1}, jitter_s=5.0, metadata={"b": [2]}, queue="q", priority=3
)
TIME = 1_795_831_200.0
RECORD = ScheduleRecord(
    name="night", definition=definition(SCHEDULE, "night", "shop"), closure="c" * 64, next_at=TIME
)


def test_a_definition_is_read_back_with_its_name() -> None:
    assert RECORD.schedule == replace(SCHEDULE, name="night")
    assert (RECORD.pipeline, RECORD.project) == ("night", "shop")


def test_a_definition_changes_with_each_part() -> None:
    others = [
        definition(replace(SCHEDULE, cron="0 3 * * *"), "night", "shop"),
        definition(SCHEDULE, "other", "shop"),
        definition(SCHEDULE, "night", "other"),
    ]
    digests = {replace(RECORD, definition=each).digest for each in [RECORD.definition, *others]}
    assert len(digests) == 4


def test_a_schedule_is_late_two_minutes_after_its_time() -> None:
    assert not RECORD.is_late(TIME + 119)
    assert RECORD.is_late(TIME + 126)
    assert not replace(RECORD, is_paused=True).is_late(TIME + 500)
    assert not replace(RECORD, next_at=None).is_late(TIME + 500)


def test_a_time_without_its_run_was_skipped() -> None:
    fired = replace(RECORD, last_at=TIME, last_run=RunId(run_id_of("night", TIME)))
    assert not RECORD.has_skipped
    assert not fired.has_skipped
    assert replace(fired, last_at=TIME + 60).has_skipped


def test_a_change_is_of_the_schedule_that_it_begins_or_ends_with() -> None:
    assert ScheduleChange(before=RECORD, after=None).name == "night"
    assert ScheduleChange(before=None, after=RECORD).name == "night"
