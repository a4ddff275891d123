"""API tokens: a secret that is shown once, and is recorded as its digest.

A secret is `flujo_` and 43 characters of URL-safe Base64, which hold 256 random bits.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain.access import Role, Token
from flujo.domain.reach import Reach
from flujo.exceptions import SettingsError, TokenRefused
from flujo.services.given import choice
from flujo.state import metadata_conditions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.access import Principal
    from flujo.domain.acts import Actor
    from flujo.domain.store import StateStore

PREFIX = "flujo_"
"""With it, tools that look for secrets in files recognise one."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token and its secret, which is not recorded."""

    secret: str
    token: Token


async def create(
    store: StateStore,
    name: str,
    role: str | Role,
    *,
    actor: Actor,
    blueprints: Sequence[str] = (),
    queues: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    lives_s: float | None = None,
) -> NewToken:
    """Create a token and record the act.

    Args:
        store: the state store.
        name: the name under which its acts are recorded: letters, digits and `. _ @ -`.
        role: see `flujo.domain.access.Role`.
        actor: who creates it.
        blueprints: the blueprints whose runs it is limited to; none for all.
        queues: the queues whose runs it is limited to; none for all.
        metadata: the values that the metadata of its runs must have.
        lives_s: after how many seconds it expires; None for never.

    Raises:
        SettingsError: the name, the role or a key of the metadata cannot be used.
        TokenExists: a token has this name, also a revoked one.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name[:100]!r} is not a name of a token",
            hint="use up to 100 letters, digits and . _ @ -, such as `billing-service`",
        )
    metadata_conditions.conditions(metadata or {})
    secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
    token = Token(
        name=name,
        digest=_digest(secret),
        role=choice(Role, role, "role"),
        reach=Reach(tuple(blueprints), tuple(queues), dict(metadata or {})),
    )
    return NewToken(secret, await store.add_token(token, actor, lives_s=lives_s))


async def principal_of(store: StateStore, secret: str) -> Principal:
    """Return who a secret stands for.

    Raises:
        TokenRefused: no valid token has it. The error is the same for an expired or revoked one.
    """
    found = await store.token(_digest(secret)) if secret.startswith(PREFIX) else None
    if found is None:
        raise TokenRefused("the token is unknown, has expired or was revoked")
    return found.principal


def token_data(token: Token, now: float) -> dict[str, Any]:
    """Return a token as listings show it, without its digest."""
    state = "valid" if token.is_valid(now) else "revoked" if token.revoked_at is not None else "expired"
    return {
        "name": token.name,
        "role": str(token.role),
        "blueprints": [],
        "queues": [],
        "metadata": {},
        **token.reach.to_json(),
        "state": state,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
