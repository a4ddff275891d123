"""API tokens in this process's memory: the same rules as in SQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.state import rules

if TYPE_CHECKING:
    from flujo.domain.access import Token


class MemoryTokens:
    """The tokens of a database in memory, by name."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def add(self, token: Token, now: float, lives_s: float | None) -> tuple[Token, bool]:
        """Record a token; return it as it is stored, and whether it is new.

        Raises:
            TokenExists: another token has its name.
        """
        if (there := self._tokens.get(token.name)) is not None:
            if there.digest != token.digest:
                raise rules.token_exists(token.name)
            return there, False
        expires_at = None if lives_s is None else now + lives_s
        stored = replace(token, created_at=now, expires_at=expires_at, revoked_at=None)
        self._tokens[token.name] = stored
        return stored, True

    def revoke(self, name: str, now: float) -> tuple[Token, bool]:
        """Revoke a token; return it as it is stored, and whether it was not revoked before.

        Raises:
            TokenRefused: there is none of this name.
        """
        there = self._tokens.get(name)
        if there is None:
            raise rules.no_token(name)
        if there.revoked_at is not None:
            return there, False
        self._tokens[name] = replace(there, revoked_at=now)
        return self._tokens[name], True

    def valid(self, digest: bytes, now: float) -> Token | None:
        """Return the token with a digest if it is valid now."""
        return next(
            (each for each in self._tokens.values() if each.digest == digest and each.is_valid(now)), None
        )

    def all(self) -> list[Token]:
        """Return every token, by name."""
        return [self._tokens[name] for name in sorted(self._tokens)]
