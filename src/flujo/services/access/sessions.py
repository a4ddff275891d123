"""Sessions of people who log in with a password: a secret in a cookie, recorded as its digest."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.access import Session
from flujo.domain.acts import Act, Actor, Verb, Via

if TYPE_CHECKING:
    from flujo.domain.store import StateStore


async def begin(
    store: StateStore, name: str, password_hash: str, *, lives_s: float, address: str
) -> tuple[str, Session]:
    """Record a login; return the secret of its cookie, and the session.

    Args:
        store: the state store.
        name: the user.
        password_hash: the hash of the user's password; another one ends the session.
        lives_s: how long it is valid.
        address: where the user logs in from, for the act.
    """
    secret = secrets.token_urlsafe(32)
    session = Session(name=name, digest=_digest(secret), proof=_digest(password_hash))
    details = canonical.encode({"address": address})
    actor = Actor(name, Via.WEB)
    return secret, await store.begin_session(session, actor, lives_s=lives_s, details=details)


async def find(store: StateStore, secret: str) -> Session | None:
    """Return the session of a cookie if it has neither ended nor expired."""
    return await store.session(_digest(secret))


def is_current(session: Session, password_hash: str | None) -> bool:
    """Return whether the user still has the password that the session began with."""
    return password_hash is not None and session.proof == _digest(password_hash)


async def end(store: StateStore, secret: str) -> None:
    """End the session of a cookie; of one that has ended already, nothing is recorded."""
    if (session := await find(store, secret)) is not None:
        await store.end_session(session.digest, Actor(session.name, Via.WEB))


async def record_refusal(store: StateStore, name: str, *, address: str) -> None:
    """Record that a login was refused."""
    shown = "".join(each if each.isprintable() else "?" for each in name[:200]) or "?"
    details = canonical.encode({"address": address})
    actor = Actor(shown, Via.WEB)
    await store.record_act(Act(verb=Verb.LOGIN_REFUSED, actor=actor, object=shown, after=details))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
