"""Open questions of all runs, and their claims."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_index(
        "pauses_open",
        "pauses",
        ["asked_at"],
        sqlite_where=sa.text("answered_at IS NULL"),
        postgresql_where=sa.text("answered_at IS NULL"),
    )
    op.create_table(
        "question_claims",
        sa.Column("run_id", Name, nullable=False),
        sa.Column("pause_id", Name, nullable=False),
        sa.Column("claimed_by", Name, nullable=True),
        sa.Column("claimed_at", sa.Double(), nullable=True),
        sa.Column("claimed_until", sa.Double(), nullable=True),
        sa.Column("escalated_by", Name, nullable=True),
        sa.Column("escalated_at", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "pause_id", name="question_claims_key"),
    )
    # It only adds: a process of 0010 still works with this database.
    op.execute("UPDATE schema_info SET revision = '0011'")


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0010'")
    op.drop_table("question_claims")
    op.drop_index("pauses_open", "pauses")
