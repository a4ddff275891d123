"""Sessions in this process's memory: the same rules as in SQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flujo.domain.access import Session


class MemorySessions:
    """The sessions of a database in memory, by digest."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, Session] = {}

    def begin(self, session: Session, now: float, lives_s: float) -> tuple[Session, bool]:
        """Record a session and delete expired ones; return it as it is stored, and whether it is new."""
        if (there := self._sessions.get(session.digest)) is not None:
            return there, False
        self._sessions = {key: each for key, each in self._sessions.items() if now < each.expires_at}
        stored = replace(session, created_at=now, expires_at=now + lives_s)
        self._sessions[session.digest] = stored
        return stored, True

    def valid(self, digest: bytes, now: float) -> Session | None:
        """Return the session with a digest if it has neither ended nor expired."""
        there = self._sessions.get(digest)
        return there if there is not None and now < there.expires_at else None

    def end(self, digest: bytes) -> str | None:
        """Delete a session; return the name of its user, or None if it has ended already."""
        gone = self._sessions.pop(digest, None)
        return None if gone is None else gone.name
