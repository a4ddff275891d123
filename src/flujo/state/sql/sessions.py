"""Sessions in the database: begun and ended with the act, and found by the digest of their secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.acts import Act, Verb
from flujo.state import codec
from flujo.state.sql import acts as act_rows
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import sessions

if TYPE_CHECKING:
    from flujo.domain.access import Session
    from flujo.domain.acts import Actor

_columns = sessions.c


def begin(
    connection: sa.Connection, session: Session, actor: Actor, lives_s: float, details: bytes | None
) -> Session:
    """Record a session and the act; made again after a lost answer, it changes nothing."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"digest": session.digest, "name": session.name, "proof": session.proof}
    times = {"created_at": database_now(), "expires_at": database_now() + lives_s}
    adding = dialect.insert(sessions).values({**row, **times})
    adding = adding.on_conflict_do_nothing(index_elements=["digest"])
    if connection.scalar(adding.returning(_columns.name)) is not None:
        act = Act(verb=Verb.LOG_IN, actor=actor, object=session.name, after=details)
        act_rows.add(connection, act)
    found = sa.select(*_columns).where(_columns.digest == session.digest)
    return codec.session(connection.execute(found).mappings().one())


def valid(connection: sa.Connection, digest: bytes) -> Session | None:
    """Return the session with a digest if it has neither ended nor expired."""
    chosen = sa.select(*_columns).where(_columns.digest == digest, _columns.expires_at > database_now())
    row = connection.execute(chosen).mappings().one_or_none()
    return None if row is None else codec.session(row)


def end(connection: sa.Connection, digest: bytes, actor: Actor) -> None:
    """Delete a session and record the act; of one that has ended, record nothing."""
    name = connection.scalar(sessions.delete().where(_columns.digest == digest).returning(_columns.name))
    if name is not None:
        act_rows.add(connection, Act(verb=Verb.LOG_OUT, actor=actor, object=name))


def delete_expired(connection: sa.Connection, limit: int) -> int:
    """Delete up to `limit` sessions that have expired; return how many."""
    old = sa.select(_columns.digest).where(_columns.expires_at <= database_now()).limit(limit)
    digests = connection.scalars(old.with_for_update(skip_locked=True)).all()
    if digests:
        connection.execute(sessions.delete().where(_columns.digest.in_(digests)))
    return len(digests)
