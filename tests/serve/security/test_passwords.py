"""Passwords and their hashes."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from flujo.exceptions import SettingsError
from flujo.serve.security.passwords import fits, hash_of
from flujo.settings_serve import ServeTable, UserTable

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


async def test_a_password_fits_the_user_who_has_it_alone() -> None:
    users = {
        "ada": UserTable(role="viewer", password_hash=CHEAP.hash("analytical")),
        "proxied": UserTable(role="viewer"),
    }
    settings = ServeTable(users=users)
    assert await fits(settings, "ada", "analytical")
    assert not await fits(settings, "ada", "analytical engine")
    assert not await fits(settings, "proxied", "analytical")
    assert not await fits(settings, "nobody", "analytical")
    assert not await fits(settings, "ada", "x" * 10_000)
    assert not await fits(settings, "ada", "\udcff lone surrogate")
    assert not await fits(ServeTable(), "ada", "analytical")


async def test_a_damaged_hash_fits_no_password() -> None:
    users = {"ada": UserTable(role="viewer", password_hash="$argon2id$!")}
    assert not await fits(ServeTable(users=users), "ada", "analytical")


@pytest.mark.parametrize("password", ["", "short", "x" * 1001])
def test_a_password_of_an_unusable_length_is_refused(password: str) -> None:
    with pytest.raises(SettingsError, match=f"has {len(password)} characters"):
        hash_of(password)
