"""Queues, tasks, events, schedules, shared limits, the outbox, workers, and a better index of metadata."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Json = sa.JSON().with_variant(JSONB(), "postgresql")
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

RUN_COLUMNS = (
    ("kind", Name, "run"),
    ("parent_run", Name, None),
    ("parent_path", Name, None),
    ("entry", Name, None),
    ("queue", Name, None),
    ("queue_key", Name, None),
    ("priority", sa.Integer(), "0"),
    ("rank", sa.Double(), None),
    ("available_at", sa.Double(), None),
    ("tries", sa.Integer(), "0"),
    ("ends_by", sa.Double(), None),
)
"""Name, type and default; a column without a default may be null."""

IN_QUEUE = (
    "queue IS NOT NULL AND "
    "(status IN ('accepted', 'running') OR answered AND status IN ('paused', 'waiting'))"
)

INDEXES = (
    ("runs_by_queue", "runs", ["queue", "rank", "run_id"], IN_QUEUE),
    ("runs_by_parent", "runs", ["parent_run"], "parent_run IS NOT NULL"),
    ("runs_by_deadline", "runs", ["ends_by"], "ends_by IS NOT NULL"),
    ("pauses_by_event", "pauses", ["event", "event_key", "asked_at"], "event IS NOT NULL"),
    ("events_by_run", "events", ["run_id"], None),
    ("events_by_name", "events", ["name", "key", "at"], "taken_at IS NULL"),
    ("schedules_by_time", "schedules", ["next_at"], None),
    ("outbox_by_run", "outbox", ["run_id"], None),
    ("outbox_by_time", "outbox", ["available_at"], "delivered_at IS NULL AND given_up_at IS NULL"),
)


def upgrade() -> None:
    for name, kind, default in RUN_COLUMNS:
        column = sa.Column(name, kind, nullable=default is None, server_default=default)
        op.add_column("runs", column)
    for name in ("event", "event_key"):
        op.add_column("pauses", sa.Column(name, Name, nullable=True))
    op.create_table(
        "events",
        sa.Column("event_id", Name, nullable=False),
        sa.Column("run_id", Name, nullable=True),
        sa.Column("name", Name, nullable=False),
        sa.Column("key", Name, nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("by", Name, nullable=False),
        sa.Column("via", Name, nullable=False),
        sa.Column("taken_by", Name, nullable=True),
        sa.Column("taken_path", Name, nullable=True),
        sa.Column("taken_at", sa.Double(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_table(
        "schedules",
        sa.Column("name", Name, nullable=False),
        sa.Column("definition", sa.LargeBinary(), nullable=False),
        sa.Column("digest", Name, nullable=False),
        sa.Column("closure", Name, nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=True),
        sa.Column("last_at", sa.Double(), nullable=True),
        sa.Column("last_run", Name, nullable=True),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "limits",
        sa.Column("name", Name, nullable=False),
        sa.Column("key", Name, nullable=False),
        sa.Column("window", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "key", "window", name="limits_key"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", Number, nullable=False),
        sa.Column("run_id", Name, nullable=True),
        sa.Column("target", Name, nullable=False),
        sa.Column("event", Name, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("available_at", sa.Double(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("owner", Name, nullable=True),
        sa.Column("delivered_at", sa.Double(), nullable=True),
        sa.Column("given_up_at", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "workers",
        sa.Column("owner", Name, nullable=False),
        sa.Column("host", Name, nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("version", Name, nullable=False),
        sa.Column("queues", Json, nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("state", Name, nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("owner"),
    )
    for name, table, columns, condition in INDEXES:
        where = None if condition is None else sa.text(condition)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
    if op.get_bind().dialect.name == "postgresql":
        _index_metadata({"metadata": "jsonb_path_ops"}, {"gin_pending_list_limit": 64})
    # It only adds: a process of 0006 still works with this database, and leaves queued runs alone or executes
    # them as any other.
    op.execute("UPDATE schema_info SET revision = '0007'")


def _index_metadata(operators: dict[str, str], options: dict[str, int]) -> None:
    op.drop_index("runs_by_metadata", "runs")
    op.create_index(
        "runs_by_metadata",
        "runs",
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops=operators,
        postgresql_with=options,
    )


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0006'")
    if op.get_bind().dialect.name == "postgresql":
        _index_metadata({}, {})
    for name, table, _, _ in reversed(INDEXES):
        op.drop_index(name, table)
    for table in ("workers", "outbox", "limits", "schedules", "events"):
        op.drop_table(table)
    for name in ("event_key", "event"):
        op.drop_column("pauses", name)
    for name, _, _ in reversed(RUN_COLUMNS):
        op.drop_column("runs", name)
