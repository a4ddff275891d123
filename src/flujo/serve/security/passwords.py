"""Passwords: hashed with argon2id, and checked in the same time whether the name exists or not."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from flujo.settings_serve import ServeTable

_MIN, _MAX = 8, 1000
_HASHER = PasswordHasher()
_THREADS = ThreadPoolExecutor(2, "flujo-password")
"""A check takes 64 MiB of memory and a core for a moment, so only two are made at once."""


def hash_of(password: str) -> str:
    """Return the argon2id hash of a password, with its salt and its parameters.

    Raises:
        SettingsError: the password is too short or too long.
    """
    if not _MIN <= len(password) <= _MAX:
        raise SettingsError(
            f"the password has {len(password)} characters", hint=f"use {_MIN} to {_MAX:,} characters"
        )
    return _HASHER.hash(password)


async def fits(settings: ServeTable, name: str, password: str) -> bool:
    """Return whether a user of `[serve.users]` has this password.

    For an unknown name the password is checked against the hash of another user, and refused.
    """
    user = settings.users.get(name)
    known = None if user is None else user.password_hash
    others = (each.password_hash for each in settings.users.values() if each.password_hash)
    checked = known or next(others, None)
    if checked is None or len(password) > _MAX:
        return False
    is_right = await asyncio.get_running_loop().run_in_executor(_THREADS, _verified, checked, password)
    return is_right and known is not None


def _verified(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password.encode("utf-8", "surrogatepass"))
    except (VerificationError, InvalidHashError):
        return False
