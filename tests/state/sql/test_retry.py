"""How long a database may be unavailable: the delays between attempts, and the time limit."""

from __future__ import annotations

import sqlalchemy as sa

from flujo.exceptions import StateBackendUnavailable
from flujo.state.sql.retry import Backoff, without_timeout

AWAY = StateBackendUnavailable("the database does not answer")


def test_delays_double_up_to_five_seconds() -> None:
    backoff = Backoff(1e6)
    delays = [backoff.next_delay(AWAY) for _ in range(9)]
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_no_attempt_begins_after_the_limit() -> None:
    assert Backoff(0.01).next_delay(AWAY) is None
    backoff = Backoff(1e6)
    backoff.shorten(0.01)
    assert backoff.next_delay(AWAY) is None


def test_lowering_the_limit_never_adds_time() -> None:
    backoff = Backoff(0.01)
    backoff.shorten(1e6)
    assert backoff.next_delay(AWAY) is None


def test_a_permanent_error_is_not_retried() -> None:
    assert Backoff(1e6).next_delay(StateBackendUnavailable("replaced", retryable=False)) is None


def test_work_without_a_timeout_returns_its_result_on_sqlite_too() -> None:
    count = without_timeout(lambda connection, most: connection.scalar(sa.text(f"SELECT {most}")))
    with sa.create_engine("sqlite://").connect() as connection:
        assert count(connection, 7) == 7
