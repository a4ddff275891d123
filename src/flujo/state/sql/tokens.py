"""API tokens in the database: added and revoked with the act, and found by the digest of their secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.acts import Act, Verb
from flujo.state import codec, rules
from flujo.state.sql import acts as act_rows
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import api_tokens

if TYPE_CHECKING:
    from flujo.domain.access import Token
    from flujo.domain.acts import Actor

_columns = api_tokens.c


def add(connection: sa.Connection, token: Token, actor: Actor, lives_s: float | None) -> Token:
    """Record a token and the act; made again after a lost answer, it changes nothing.

    Raises:
        TokenExists: another token has its name.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    expires = None if lives_s is None else database_now() + lives_s
    row = {**codec.token_row(token), "created_at": database_now(), "expires_at": expires}
    adding = dialect.insert(api_tokens).values(row).on_conflict_do_nothing(index_elements=["name"])
    is_new = connection.scalar(adding.returning(_columns.name)) is not None
    stored = codec.token(connection.execute(_one(token.name)).mappings().one())
    if stored.digest != token.digest:
        raise rules.token_exists(token.name)
    if is_new:
        act_rows.add(connection, Act(verb=Verb.ISSUE, actor=actor, object=token.name))
    return stored


def revoke(connection: sa.Connection, name: str, actor: Actor) -> Token:
    """Revoke a token and record the act; a revoked one stays as it is.

    Raises:
        TokenRefused: there is none of this name.
    """
    chosen = api_tokens.update().where(_columns.name == name, _columns.revoked_at.is_(None))
    if connection.scalar(chosen.values(revoked_at=database_now()).returning(_columns.name)) is not None:
        act_rows.add(connection, Act(verb=Verb.REVOKE, actor=actor, object=name))
    row = connection.execute(_one(name)).mappings().one_or_none()
    if row is None:
        raise rules.no_token(name)
    return codec.token(row)


def valid(connection: sa.Connection, digest: bytes) -> Token | None:
    """Return the token with a digest if it is valid now."""
    lives = sa.or_(_columns.expires_at.is_(None), _columns.expires_at > database_now())
    chosen = sa.select(*_columns).where(_columns.digest == digest, _columns.revoked_at.is_(None), lives)
    row = connection.execute(chosen).mappings().one_or_none()
    return None if row is None else codec.token(row)


def all_tokens(connection: sa.Connection) -> list[Token]:
    """Return every token, by name."""
    chosen = sa.select(*_columns).order_by(_columns.name)
    return [codec.token(row) for row in connection.execute(chosen).mappings()]


def _one(name: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(*_columns).where(_columns.name == name)
