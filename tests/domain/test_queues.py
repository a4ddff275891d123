"""The order in which runs of a queue are claimed."""

from __future__ import annotations

from flujo.domain.queues import Queued


def test_a_priority_is_worth_a_minute_of_waiting() -> None:
    normal, urgent = Queued(queue="mail"), Queued(queue="mail", priority=1)
    assert urgent.rank(1059.0) < normal.rank(1000.0)
    assert urgent.rank(1061.0) > normal.rank(1000.0)
