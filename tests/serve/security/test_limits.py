"""How often a client may try."""

from __future__ import annotations

import pytest

from flujo.exceptions import TooManyRequests
from flujo.serve.security.limits import Limits
from flujo.settings_serve import ServeTable

SETTINGS = ServeTable(login_attempts=3, changes_per_minute=6)


def waits(limits: Limits, name: str, address: str, now: float) -> int:
    try:
        limits.begin_login(SETTINGS, name, address, now)
    except TooManyRequests as refused:
        return refused.retry_after_s
    return 0


def test_the_wait_doubles_with_each_wrong_password_up_to_a_minute_for_a_name() -> None:
    limits, now, seen = Limits(), 100.0, []
    for number in range(12):
        now += (wait := waits(limits, "ada", f"192.0.2.{number}", now))
        seen.append(wait)
        if wait:
            assert waits(limits, "ada", f"192.0.2.{number}", now) == 0
    assert seen == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_address_waits_longer_and_for_every_name() -> None:
    limits, now, longest = Limits(), 100.0, 0
    for number in range(16):
        now += (wait := waits(limits, f"user{number}", "192.0.2.7", now))
        longest = max(longest, wait)
        if wait:
            waits(limits, f"user{number}", "192.0.2.7", now)
    assert longest == 900
    assert waits(limits, "ada", "192.0.2.8", now) == 0
    assert waits(limits, "ada", "192.0.2.7", now) > 0
    assert waits(limits, "ada", "192.0.2.7", now + 3601) == 0, "forgotten after an hour"


def test_a_right_password_forgets_the_name_and_not_the_address() -> None:
    limits = Limits()
    for name in ("eve", "bob", "ada"):
        waits(limits, name, "192.0.2.7", 0.0)
    limits.login_succeeded("ada", "192.0.2.7")
    assert waits(limits, "ada", "192.0.2.7", 0.0) == 0
    assert waits(limits, "ada", "192.0.2.7", 0.0) > 0


def test_changes_are_counted_by_principal_and_come_back_with_time() -> None:
    limits = Limits()
    for _ in range(6):
        limits.count_change(SETTINGS, "ada", 0.0)
    with pytest.raises(TooManyRequests, match="ada may send 6 changes a minute") as refused:
        limits.count_change(SETTINGS, "ada", 0.0)
    assert refused.value.retry_after_s == 10
    limits.count_change(SETTINGS, "bob", 0.0)
    limits.count_change(SETTINGS, "ada", 10.0)
    with pytest.raises(TooManyRequests):
        limits.count_change(SETTINGS, "ada", 10.0)


def test_only_so_many_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flujo.serve.security.limits._KEYS", 4)
    limits = Limits()
    for number in range(20):
        waits(limits, f"user{number}", "192.0.2.7", number * 10_000.0)
        limits.count_change(SETTINGS, f"user{number}", 0.0)
    assert len(limits._logins) <= 4
    assert len(limits._changes) <= 4
