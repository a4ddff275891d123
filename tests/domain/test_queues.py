"""The order in which runs of a queue are claimed."""

from __future__ import annotations

from flujo.domain.queues import MAX_PRIORITY, Queued, priority_problem


def test_a_priority_is_worth_a_minute_of_waiting() -> None:
    normal, urgent = Queued(queue="mail"), Queued(queue="mail", priority=1)
    assert urgent.rank(1059.0) < normal.rank(1000.0)
    assert urgent.rank(1061.0) > normal.rank(1000.0)


def test_a_priority_has_one_bound() -> None:
    assert priority_problem(MAX_PRIORITY, "the run") is priority_problem(-MAX_PRIORITY, "the run") is None
    assert priority_problem(-MAX_PRIORITY - 1, "the run") == (
        "the run has the priority -1000001",
        "use a whole number from -1,000,000 to 1,000,000",
    )
