"""The feed of a live run, scores, budgets that runs share, and an index of the runs that can be resumed."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

IN_QUEUE = (
    "queue IS NOT NULL AND "
    "(status IN ('accepted', 'running') OR answered AND status IN ('paused', 'waiting'))"
)
CAN_GO_ON = (
    "(status IN ('accepted', 'running') OR (answered OR wish IS NOT NULL AND parent_run IS NOT NULL) AND "
    "status IN ('paused', 'waiting'))"
)


def upgrade() -> None:
    _replace_index("runs_by_queue", "runs_to_go_on", CAN_GO_ON)
    op.add_column("runs", sa.Column("watched_until", sa.Double(), nullable=True))
    watched = sa.text("watched_until IS NOT NULL")
    op.create_index("runs_by_watch", "runs", ["owner"], sqlite_where=watched, postgresql_where=watched)
    op.add_column("budget_holds", sa.Column("shares", sa.LargeBinary(), nullable=True))
    on_postgres = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "feed",
        sa.Column("run_id", Name, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", Name, nullable=False),
        sa.Column("path", Name, nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "number", name="feed_key"),
        prefixes=["UNLOGGED"] if on_postgres else [],
    )
    op.create_table(
        "evaluations",
        sa.Column("id", Number, nullable=False),
        sa.Column("key", Name, nullable=False),
        sa.Column("run_id", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column("pipeline", Name, nullable=False),
        sa.Column("user_id", Name, nullable=True),
        sa.Column("closure", Name, nullable=False),
        sa.Column("lock_digest", Name, nullable=True),
        sa.Column("evaluator", Name, nullable=False),
        sa.Column("version", Name, nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("by", Name, nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("evaluations_key", "evaluations", ["key"], unique=True)
    op.create_index("evaluations_by_run", "evaluations", ["run_id"])
    op.create_index("evaluations_by_evaluator", "evaluations", ["evaluator", "created_at"])
    subject = sa.text("user_id IS NOT NULL")
    op.create_index(
        "evaluations_by_user", "evaluations", ["user_id"], sqlite_where=subject, postgresql_where=subject
    )
    # It only adds: a process of 0007 still works with this database. It writes no feed, and counts nothing in
    # budgets that several runs share.
    op.execute("UPDATE schema_info SET revision = '0008'")


def _replace_index(old: str, new: str, condition: str) -> None:
    op.drop_index(old, "runs")
    where = sa.text(condition)
    op.create_index(new, "runs", ["queue", "rank", "run_id"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0007'")
    names = ("evaluations_by_user", "evaluations_by_evaluator", "evaluations_by_run", "evaluations_key")
    for name in names:
        op.drop_index(name, "evaluations")
    op.drop_table("evaluations")
    op.drop_table("feed")
    op.drop_column("budget_holds", "shares")
    op.drop_index("runs_by_watch", "runs")
    op.drop_column("runs", "watched_until")
    _replace_index("runs_to_go_on", "runs_by_queue", IN_QUEUE)
