"""The tables, read from top to bottom; Alembic's versions build exactly these, and nothing else does.

On Postgres they live in a schema of their own (`flujo.runs`, or the one that a project names), so that they
stand beside an application's tables; on SQLite they have a file of their own. Values are canonical JSON bytes
(or `@` and the digest of a blob that holds them), because a database that rewrites JSON breaks its digest;
only `metadata` is JSON to the database, because people search it.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

HEAD = "0013"
"""The newest version under `alembic/versions`, so that opening a current database needs no Alembic."""

SCHEMA = "flujo"
"""The Postgres schema, unless the project names another (`[settings] postgres_schema`)."""

metadata = sa.MetaData()

# Names compare byte by byte on both databases, whatever the Postgres server's locale is.
Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Json = sa.JSON().with_variant(JSONB(), "postgresql")
Bytes = sa.LargeBinary
Seconds = sa.Double
"""Since the epoch, by the database's clock unless the column says otherwise."""


def prefix(schema: str | None) -> str:
    """Return the quoted schema and the dot that qualify a table's name in SQL text; empty on SQLite."""
    return f'"{schema}".' if schema else ""


def translation(schema: str) -> dict[None, str]:
    """Return SQLAlchemy's map for statements of these tables, which name no schema themselves.

    Every statement names the schema, because a `search_path` would be lost behind a pooler in transaction
    mode, and a bare name could be that of an application's table. The schema is always quoted, because
    SQLAlchemy's list of words that need quotes is shorter than Postgres'.
    """
    return {None: sa.quoted_name(schema, quote=True)}


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
    sa.Column("suspicions", sa.Integer, nullable=False, server_default="0"),  # the same, with others
    sa.Column("taken_from", Name),  # the dead owner, when the newest claim took the run over from one
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
    sa.Column("wish", Name),  # cancel: its owner is to do it; purge: its rows are being deleted
    sa.Column("wish_by", Name),
    sa.Column("wish_at", Seconds),
    sa.Column("kind", Name, nullable=False, server_default="run"),  # run | task | eval | case | item
    sa.Column("parent_run", Name),  # of a task, the run that launched it; of an eval, the run that it scores
    sa.Column("parent_path", Name),  # the step that launched it
    sa.Column("entry", Name),  # what it executes of its closure: the names of steps
    sa.Column("queue", Name),  # None: any process may execute it
    sa.Column("queue_key", Name),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("rank", Seconds),  # the order of claims in its queue
    sa.Column("available_at", Seconds),  # no worker takes it from its queue before
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),  # how often its queue has retried it
    sa.Column("ends_by", Seconds),  # the deadline of the whole run
    sa.Column("watched_until", Seconds),  # until then its owner writes the feed
    sa.Index("runs_by_status", "status", "created_at"),
    sa.Index("runs_by_user", "user_id", "created_at"),
    sa.Index("runs_by_age", "created_at"),
)
# It holds whole paths with their values, so a nested key is found as fast as any. What is not merged into it
# yet is read by every search, so that is kept small.
sa.Index(
    "runs_by_metadata",
    runs.c.metadata,
    postgresql_using="gin",
    postgresql_ops={"metadata": "jsonb_path_ops"},
    postgresql_with={"gin_pending_list_limit": 64},
).ddl_if(dialect="postgresql")
sa.Index(
    "runs_by_wish",
    runs.c.owner,
    sqlite_where=runs.c.wish.is_not(None),
    postgresql_where=runs.c.wish.is_not(None),
)

sa.Index(
    "runs_by_watch",
    runs.c.owner,
    sqlite_where=runs.c.watched_until.is_not(None),
    postgresql_where=runs.c.watched_until.is_not(None),
)

sa.Index(
    "runs_by_dead_owner",
    runs.c.taken_from,
    sqlite_where=runs.c.taken_from.is_not(None),
    postgresql_where=runs.c.taken_from.is_not(None),
)

CAN_GO_ON = (
    "(status IN ('accepted', 'running') OR (answered OR wish IS NOT NULL AND parent_run IS NOT NULL) AND "
    "status IN ('paused', 'waiting'))"
)
"""Whether a run is accepted, executed, cut off or answered, or is a task that is to be cancelled at a pause.

Word for word the condition of the index, so that it serves the queries, and holds no run that has ended or
waits.
"""
sa.Index(
    "runs_to_go_on",  # in its order: the runs without a queue, and those of each queue in the order of claims
    runs.c.queue,
    runs.c.rank,
    runs.c.run_id,
    sqlite_where=sa.text(CAN_GO_ON),
    postgresql_where=sa.text(CAN_GO_ON),
)
IS_CLAIMABLE = (
    "queue IS NOT NULL AND (status <> 'running' OR owner IS NULL) AND "
    "(status IN ('accepted', 'running') OR answered AND status IN ('paused', 'waiting'))"
)
"""Whether a run of a queue can be claimed and no process holds it, word for word the condition of an index.

Executed runs come before those that wait, in the order of their queue: a claim would pass by all of them.
"""
sa.Index(
    "runs_to_claim",
    runs.c.queue,
    runs.c.rank,
    runs.c.run_id,
    sqlite_where=sa.text(IS_CLAIMABLE),
    postgresql_where=sa.text(IS_CLAIMABLE),
)
HAS_OWNER = "coalesce(owner, '') <> ''"
"""Whether a run has an owner, word for word the condition of an index.

`owner = …` implies `owner IS NOT NULL`, and not this. So a query for the watched runs of an owner does not
read all its runs.
"""
sa.Index(
    "runs_by_owner",  # who executes runs, and those of each queue, without reading every executed run
    runs.c.owner,
    runs.c.queue,
    sqlite_where=sa.text(HAS_OWNER),
    postgresql_where=sa.text(HAS_OWNER),
)
_is_child = runs.c.parent_run.is_not(None)
sa.Index("runs_by_parent", runs.c.parent_run, sqlite_where=_is_child, postgresql_where=_is_child)
_has_deadline = runs.c.ends_by.is_not(None)
sa.Index("runs_by_deadline", runs.c.ends_by, sqlite_where=_has_deadline, postgresql_where=_has_deadline)

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
sa.Index(
    "journal_by_usage",  # a run without an agent has no such entry, however long it is
    journal.c.run_id,
    journal.c.seq,
    journal.c.usage,
    sqlite_where=journal.c.usage.is_not(None),
    postgresql_where=journal.c.usage.is_not(None),
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
    sa.Column("kind", Name, nullable=False, server_default="question"),
    sa.Column("by", Name),  # whose answer it is
    sa.Column("event", Name),  # the event that it waits for
    sa.Column("event_key", Name),
    sa.PrimaryKeyConstraint("run_id", "pause_id", name="pauses_key"),
    sa.Index("pauses_by_deadline", "deadline_at"),
)

_is_unanswered = pauses.c.answered_at.is_(None)
sa.Index(
    "pauses_open",  # few at a time, in a table of all questions that were ever asked
    pauses.c.asked_at,
    sqlite_where=_is_unanswered,
    postgresql_where=_is_unanswered,
)

IS_NEEDED = "NOT (answered_at IS NOT NULL AND kind = 'children' AND replace(pause_id, '..', '') <> pause_id)"
"""Whether the run of a question may need it. A settled wait for a batch of a map is not needed.

A map over workers has a wait for each batch. Once it is settled, the run of the batch says everything. Word
for word the condition of an index, so that it serves the queries. SQLite does not find the index by an OR.
"""
sa.Index(
    "pauses_needed",
    pauses.c.run_id,
    pauses.c.asked_at,
    pauses.c.position,
    sqlite_where=sa.text(IS_NEEDED),
    postgresql_where=sa.text(IS_NEEDED),
)

_waits_for_event = pauses.c.event.is_not(None)
sa.Index(
    "pauses_by_event",
    pauses.c.event,
    pauses.c.event_key,
    pauses.c.asked_at,
    sqlite_where=_waits_for_event,
    postgresql_where=_waits_for_event,
)

# Who works on a question, and who has left it to others; it decides nothing about the answer.
question_claims = sa.Table(
    "question_claims",
    metadata,
    _run(),
    sa.Column("pause_id", Name, nullable=False),
    sa.Column("claimed_by", Name),
    sa.Column("claimed_at", Seconds),
    sa.Column("claimed_until", Seconds),
    sa.Column("escalated_by", Name),
    sa.Column("escalated_at", Seconds),
    sa.Column("reason", sa.Text),  # of the escalation
    sa.PrimaryKeyConstraint("run_id", "pause_id", name="question_claims_key"),
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

# A blob is deleted when no row of `blob_refs` names it. Each transaction that names a blob (a column with `@`
# and the digest, a closure, a file of a closure) adds the row; deleting the run deletes its rows.
blob_refs = sa.Table(
    "blob_refs",
    metadata,
    sa.Column("digest", Name, nullable=False),
    _run(),
    sa.PrimaryKeyConstraint("digest", "run_id", name="blob_refs_key"),
    sa.Index("blob_refs_by_run", "run_id"),
)

intents = sa.Table(
    "intents",
    metadata,
    _run(),
    sa.Column("key", Name, nullable=False),
    sa.Column("path", Name, nullable=False),
    sa.Column("tool", Name, nullable=False),
    sa.Column("state", Name, nullable=False),  # sent | done | not_sent | failed | in_doubt
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("request", Bytes, nullable=False),
    sa.Column("result", Bytes),
    sa.Column("digest", Bytes, nullable=False),
    sa.Column("sent_at", Seconds, nullable=False),
    sa.Column("settled_at", Seconds),
    sa.PrimaryKeyConstraint("run_id", "key", name="intents_key"),
    sa.Index("intents_by_state", "state"),
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

budget_holds = sa.Table(
    "budget_holds",
    metadata,
    _run(),
    sa.Column("path", Name, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", Name, nullable=False),  # held | settled | unconfirmed | timed | lent | spent
    sa.Column("usage", Bytes),
    sa.Column("digest", Bytes, nullable=False),
    sa.Column("created_at", Seconds, nullable=False),
    sa.Column("settled_at", Seconds),
    sa.Column("shares", Bytes),  # canonical JSON: the limits of several runs that it holds a part of
    sa.PrimaryKeyConstraint("run_id", "path", "number", name="budget_holds_key"),
)

acts = sa.Table(
    "acts",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("run_id", Name, sa.ForeignKey("runs.run_id", ondelete="CASCADE")),  # None: of no single run
    sa.Column("at", Seconds, nullable=False),
    sa.Column("by", Name, nullable=False),
    sa.Column("via", Name, nullable=False),  # cli | api | web | link | worker
    sa.Column("verb", Name, nullable=False),
    sa.Column("object", sa.Text, nullable=False),
    sa.Column("before", Bytes),
    sa.Column("after", Bytes),
    sa.Column("digest", Bytes, nullable=False),
    sa.Index("acts_by_run", "run_id", "id"),
)

# Who may use the API of `flujo serve`. A revoked token keeps its name, which acts refer to.
api_tokens = sa.Table(
    "api_tokens",
    metadata,
    sa.Column("name", Name, primary_key=True),
    sa.Column("digest", Bytes, nullable=False),  # SHA-256 of the secret
    sa.Column("role", Name, nullable=False),
    sa.Column("reach", Bytes, nullable=False),
    sa.Column("created_at", Seconds, nullable=False),
    sa.Column("expires_at", Seconds),
    sa.Column("revoked_at", Seconds),
    sa.Index("api_tokens_by_digest", "digest", unique=True),
)

# Who has logged in to `flujo serve`. The end of a session deletes it; its acts stay.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("digest", Bytes, primary_key=True),  # SHA-256 of the secret of its cookie
    sa.Column("name", Name, nullable=False),
    sa.Column("proof", Bytes, nullable=False),  # SHA-256 of the hash of the user's password
    sa.Column("created_at", Seconds, nullable=False),
    sa.Column("expires_at", Seconds, nullable=False),
)

# What a run waits for from outside. An event without a run goes to the oldest wait for its name and key.
events = sa.Table(
    "events",
    metadata,
    sa.Column("event_id", Name, primary_key=True),
    sa.Column("run_id", Name, sa.ForeignKey("runs.run_id", ondelete="CASCADE")),
    sa.Column("name", Name, nullable=False),
    sa.Column("key", Name),
    sa.Column("payload", Bytes, nullable=False),
    sa.Column("at", Seconds, nullable=False),
    sa.Column("by", Name, nullable=False),
    sa.Column("via", Name, nullable=False),
    sa.Column("taken_by", Name),  # the run whose wait has taken it
    sa.Column("taken_path", Name),
    sa.Column("taken_at", Seconds),
    sa.Column("digest", Bytes, nullable=False),
    sa.Index("events_by_run", "run_id"),
)
_is_untaken = events.c.taken_at.is_(None)
sa.Index(
    "events_by_name",
    events.c.name,
    events.c.key,
    events.c.at,
    sqlite_where=_is_untaken,
    postgresql_where=_is_untaken,
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("name", Name, primary_key=True),
    sa.Column("definition", Bytes, nullable=False),  # canonical JSON
    sa.Column("digest", Name, nullable=False),  # of the definition
    sa.Column("closure", Name, nullable=False),  # the files that its runs pin
    sa.Column("is_paused", sa.Boolean, nullable=False),
    sa.Column("next_at", Seconds),  # when it is due next; None: never again
    sa.Column("last_at", Seconds),  # the moment for which it was fired last
    sa.Column("last_run", Name),
    sa.Column("updated_at", Seconds, nullable=False),
    sa.Index("schedules_by_time", "next_at"),
)

# What processes share and count. A transaction that changes rows locks them in the order of their keys.
limits = sa.Table(
    "limits",
    metadata,
    sa.Column("name", Name, nullable=False),
    sa.Column("key", Name, nullable=False),
    sa.Column("window", sa.BigInteger, nullable=False),  # its start; 0 for a limit without a window
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Column("held", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("name", "key", "window", name="limits_key"),
)

# A message that leaves, written in the commit of what it is about; delivered at least once.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("run_id", Name, sa.ForeignKey("runs.run_id", ondelete="CASCADE")),
    sa.Column("target", Name, nullable=False),  # the name of the `notify` setting
    sa.Column("event", Name, nullable=False),  # paused | failed | completed | ...
    sa.Column("payload", Bytes, nullable=False),
    sa.Column("created_at", Seconds, nullable=False),
    sa.Column("available_at", Seconds, nullable=False),  # of the next try, or the end of the lease of one
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("owner", Name),  # who tries it now
    sa.Column("delivered_at", Seconds),
    sa.Column("given_up_at", Seconds),
    sa.Column("error", sa.Text),  # of the last try
    sa.Column("digest", Bytes, nullable=False),
    sa.Index("outbox_by_run", "run_id"),
)
_is_pending = sa.and_(outbox.c.delivered_at.is_(None), outbox.c.given_up_at.is_(None))
sa.Index("outbox_by_time", outbox.c.available_at, sqlite_where=_is_pending, postgresql_where=_is_pending)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("owner", Name, primary_key=True),  # as in `runs.owner`
    sa.Column("host", Name, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("version", Name, nullable=False),
    sa.Column("queues", Json, nullable=False),  # a list of names; empty: only runs without a queue
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("state", Name, nullable=False),  # working | paused | draining
    sa.Column("started_at", Seconds, nullable=False),
    sa.Column("seen_at", Seconds, nullable=False),
)

# What a live run tells those who watch it, and the journal does not keep. It may be lost at any time.
feed = sa.Table(
    "feed",
    metadata,
    _run(),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("at", Seconds, nullable=False),
    sa.Column("kind", Name, nullable=False),
    sa.Column("path", Name),
    sa.Column("data", Bytes, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "number", name="feed_key"),
)

# A score survives the purge of its run by age, so it has no foreign key; `user_id` finds those of a person.
evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("key", Name, nullable=False),  # the run that evaluated, or an id of the rating
    sa.Column("run_id", Name, nullable=False),
    sa.Column("path", Name, nullable=False),
    sa.Column("pipeline", Name, nullable=False),
    sa.Column("user_id", Name),
    sa.Column("closure", Name, nullable=False),
    sa.Column("lock_digest", Name),
    sa.Column("evaluator", Name, nullable=False),
    sa.Column("version", Name, nullable=False),  # of the evaluator: a digest of its prompt or code
    sa.Column("score", sa.Double),  # None: the evaluator failed, and `error` says how
    sa.Column("reason", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("by", Name, nullable=False),  # who: a model's name, a module, or a person
    sa.Column("cost", sa.BigInteger),  # of the evaluation, in millionths of a dollar
    sa.Column("created_at", Seconds, nullable=False),
    sa.Index("evaluations_key", "key", unique=True),
    sa.Index("evaluations_by_run", "run_id"),
    sa.Index("evaluations_by_evaluator", "evaluator", "created_at"),
)
_of_a_user = evaluations.c.user_id.is_not(None)
sa.Index("evaluations_by_user", evaluations.c.user_id, sqlite_where=_of_a_user, postgresql_where=_of_a_user)

schema_info = sa.Table(
    "schema_info",
    metadata,
    sa.Column("revision", Name, primary_key=True),  # the one row
    sa.Column("oldest_reader", Name, nullable=False),
)
