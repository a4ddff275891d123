"""The first schema: runs, journal, pauses, blobs, and the tables of the chapters to come."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("digest", Name, nullable=False),
        sa.Column("encoding", Name, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "cache",
        sa.Column("key", Name, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("cache_by_expiry", "cache", ["expires_at"], unique=False)
    op.create_table(
        "runs",
        sa.Column("run_id", Name, nullable=False),
        sa.Column("pipeline", Name, nullable=False),
        sa.Column("status", Name, nullable=False),
        sa.Column("closure", Name, nullable=False),
        sa.Column("lock_digest", Name, nullable=True),
        sa.Column("user_id", Name, nullable=True),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("owner", Name, nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=False),
        sa.Column("context", sa.LargeBinary(), nullable=False),
        sa.Column("context_now", sa.LargeBinary(), nullable=True),
        sa.Column("output", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("usage", sa.LargeBinary(), nullable=True),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("seals", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("runs_by_age", "runs", ["created_at"], unique=False)
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("runs_by_metadata", "runs", ["metadata"], unique=False, postgresql_using="gin")
    op.create_index("runs_by_status", "runs", ["status", "created_at"], unique=False)
    op.create_index("runs_by_user", "runs", ["user_id", "created_at"], unique=False)
    op.create_table(
        "budget_holds",
        sa.Column("run_id", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", Name, nullable=False),
        sa.Column("cost_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("settled_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "path", "attempt", name="budget_holds_key"),
    )
    op.create_table(
        "evaluations",
        sa.Column("evaluation_id", Name, nullable=False),
        sa.Column("run_id", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column("evaluator", Name, nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("verdict", Name, nullable=True),
        sa.Column("detail", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("evaluation_id"),
    )
    op.create_index("evaluations_by_evaluator", "evaluations", ["evaluator", "created_at"], unique=False)
    op.create_index("evaluations_by_run", "evaluations", ["run_id"], unique=False)
    op.create_table(
        "intents",
        sa.Column("run_id", Name, nullable=False),
        sa.Column("key", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column("tool", Name, nullable=False),
        sa.Column("state", Name, nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("sent_at", sa.Double(), nullable=False),
        sa.Column("settled_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "key", name="intents_key"),
    )
    op.create_index("intents_by_state", "intents", ["state"], unique=False)
    op.create_table(
        "journal",
        sa.Column("run_id", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column("kind", Name, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("parent", Name, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("status", Name, nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=True),
        sa.Column("output", sa.LargeBinary(), nullable=True),
        sa.Column("patch", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("detail", sa.LargeBinary(), nullable=True),
        sa.Column("usage", sa.LargeBinary(), nullable=True),
        sa.Column("fingerprint", Name, nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "path", "kind", "attempt", name="journal_key"),
        sqlite_with_rowid=False,
    )
    op.create_index("journal_by_parent", "journal", ["run_id", "parent", "seq"], unique=False)
    op.create_index("journal_by_seq", "journal", ["run_id", "seq"], unique=True)
    op.create_table(
        "pauses",
        sa.Column("run_id", Name, nullable=False),
        sa.Column("pause_id", Name, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("answer_schema", sa.LargeBinary(), nullable=True),
        sa.Column("deadline_at", sa.Double(), nullable=True),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.Column("void", sa.Boolean(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "pause_id", name="pauses_key"),
    )
    op.create_index("pauses_by_deadline", "pauses", ["deadline_at"], unique=False)
    op.create_table(
        "tasks",
        sa.Column("task_id", Name, nullable=False),
        sa.Column("run_id", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column("queue", Name, nullable=False),
        sa.Column("status", Name, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.Double(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("owner", Name, nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.create_index("tasks_by_run", "tasks", ["run_id"], unique=False)
    op.create_index("tasks_by_turn", "tasks", ["queue", "status", "available_at"], unique=False)


def downgrade() -> None:
    op.drop_table("tasks")
    op.drop_table("pauses")
    op.drop_table("journal")
    op.drop_table("intents")
    op.drop_table("evaluations")
    op.drop_table("budget_holds")
    op.drop_table("runs")
    op.drop_table("cache")
    op.drop_table("blobs")
