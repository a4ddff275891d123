"""The tables, read from top to bottom; Alembic's versions build exactly these, and nothing else does.

On Postgres they live in a schema of their own (`flujo.runs`), so that they stand beside an application's
tables; on SQLite they have a file of their own. Values are canonical JSON bytes (or `@` and the digest of a
blob that holds them), because a database that rewrites JSON breaks its digest; only `metadata` is JSON to
the database, because people search it.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

HEAD = "0003"
"""The newest version under `alembic/versions`, so that opening a current database needs no Alembic."""

SCHEMA = "flujo"
"""The Postgres schema."""

metadata = sa.MetaData()

# Names compare byte by byte on both databases, whatever the Postgres server's locale is.
Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Json = sa.JSON().with_variant(JSONB(), "postgresql")
Bytes = sa.LargeBinary
Seconds = sa.Double
"""Since the epoch, by the database's clock unless the column says otherwise."""


def _run() -> sa.Column[str]:
    return sa.Column("run_id", Name, sa.ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False)


runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", Name, primary_key=True),
    sa.Column("pipeline", Name, nullable=False),
    sa.Column("status", Name, nullable=False),
    sa.Column("closure", Name, nullable=False),
    sa.Column("lock_digest", Name),
    sa.Column("user_id", Name),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("owner", Name),
    sa.Column("lease_until", Seconds),
    sa.Column("claims", sa.Integer, nullable=False),
    sa.Column("recoveries", sa.Integer, nullable=False, server_default="0"),  # since the last progress
    sa.Column("answered", sa.Boolean, nullable=False, server_default=sa.false()),  # since the last claim
    sa.Column("input", Bytes, nullable=False),
    sa.Column("context", Bytes, nullable=False),
    sa.Column("context_now", Bytes),
    sa.Column("output", Bytes),
    sa.Column("error", Bytes),
    sa.Column("usage", Bytes),
    sa.Column("entries", sa.Integer, nullable=False),
    sa.Column("seals", Bytes, nullable=False),  # a digest for each of codec.SEALED
    sa.Column("created_at", Seconds, nullable=False),
    sa.Column("updated_at", Seconds, nullable=False),
    sa.Index("runs_by_status", "status", "created_at"),
    sa.Index("runs_by_user", "user_id", "created_at"),
    sa.Index("runs_by_age", "created_at"),
)
sa.Index("runs_by_metadata", runs.c.metadata, postgresql_using="gin").ddl_if(dialect="postgresql")

journal = sa.Table(
    "journal",
    metadata,
    _run(),
    sa.Column("path", Name, nullable=False),
    sa.Column("kind", Name, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("parent", Name, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("status", Name, nullable=False),
    sa.Column("input", Bytes),
    sa.Column("output", Bytes),
    sa.Column("patch", Bytes),
    sa.Column("error", Bytes),
    sa.Column("detail", Bytes),
    sa.Column("usage", Bytes),
    sa.Column("fingerprint", Name, nullable=False),
    sa.Column("started_at", Seconds, nullable=False),  # by the recording process's clock, as is ended_at
    sa.Column("ended_at", Seconds, nullable=False),
    sa.Column("digest", Bytes, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "path", "kind", "attempt", name="journal_key"),
    sa.Index("journal_by_seq", "run_id", "seq", unique=True),
    sa.Index("journal_by_parent", "run_id", "parent", "seq"),
    sqlite_with_rowid=False,
)

pauses = sa.Table(
    "pauses",
    metadata,
    _run(),
    sa.Column("pause_id", Name, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("answer_schema", Bytes),
    sa.Column("deadline_at", Seconds),
    sa.Column("asked_at", Seconds, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),  # among those of one owner: a clock ticks too slowly
    sa.Column("answer", Bytes),
    sa.Column("answered_at", Seconds),  # without an answer: the deadline passed
    sa.Column("void", sa.Boolean, nullable=False),
    sa.Column("digest", Bytes, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "pause_id", name="pauses_key"),
    sa.Index("pauses_by_deadline", "deadline_at"),
)

blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("digest", Name, primary_key=True),  # SHA-256 of the bytes before compression
    sa.Column("encoding", Name, nullable=False),  # plain | zstd
    sa.Column("size", sa.BigInteger, nullable=False),  # before compression
    sa.Column("data", Bytes, nullable=False),
    sa.Column("created_at", Seconds, nullable=False),
)

# The tables below belong to later chapters (tool calls in doubt, background work, caching, evaluations,
# budgets); they are here from the start because a schema that grows by one table a month asks every
# user for a migration a month.

intents = sa.Table(
    "intents",
    metadata,
    _run(),
    sa.Column("key", Name, nullable=False),
    sa.Column("path", Name, nullable=False),
    sa.Column("tool", Name, nullable=False),
    sa.Column("state", Name, nullable=False),  # sent | done | failed | in_doubt
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("request", Bytes, nullable=False),
    sa.Column("result", Bytes),
    sa.Column("digest", Bytes, nullable=False),
    sa.Column("sent_at", Seconds, nullable=False),
    sa.Column("settled_at", Seconds),
    sa.PrimaryKeyConstraint("run_id", "key", name="intents_key"),
    sa.Index("intents_by_state", "state"),
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("task_id", Name, primary_key=True),
    _run(),
    sa.Column("path", Name, nullable=False),
    sa.Column("queue", Name, nullable=False),
    sa.Column("status", Name, nullable=False),  # queued | running | completed | failed | cancelled | parked
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("available_at", Seconds, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("owner", Name),
    sa.Column("lease_until", Seconds),
    sa.Column("payload", Bytes, nullable=False),
    sa.Column("result", Bytes),
    sa.Column("error", Bytes),
    sa.Column("digest", Bytes, nullable=False),
    sa.Column("created_at", Seconds, nullable=False),
    sa.Column("updated_at", Seconds, nullable=False),
    sa.Index("tasks_by_run", "run_id"),
    sa.Index("tasks_by_turn", "queue", "status", "available_at"),
)

cache = sa.Table(
    "cache",
    metadata,
    sa.Column("key", Name, primary_key=True),
    sa.Column("value", Bytes, nullable=False),
    sa.Column("digest", Bytes, nullable=False),
    sa.Column("created_at", Seconds, nullable=False),
    sa.Column("expires_at", Seconds),
    sa.Index("cache_by_expiry", "expires_at"),
)

evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("evaluation_id", Name, primary_key=True),
    _run(),
    sa.Column("path", Name, nullable=False),
    sa.Column("evaluator", Name, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("verdict", Name),
    sa.Column("detail", Bytes),
    sa.Column("created_at", Seconds, nullable=False),
    sa.Index("evaluations_by_run", "run_id"),
    sa.Index("evaluations_by_evaluator", "evaluator", "created_at"),
)

budget_holds = sa.Table(
    "budget_holds",
    metadata,
    _run(),
    sa.Column("path", Name, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", Name, nullable=False),  # held | settled | unconfirmed
    sa.Column("usage", Bytes),
    sa.Column("digest", Bytes, nullable=False),
    sa.Column("created_at", Seconds, nullable=False),
    sa.Column("settled_at", Seconds),
    sa.PrimaryKeyConstraint("run_id", "path", "number", name="budget_holds_key"),
)
