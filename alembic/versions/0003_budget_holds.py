"""Budget holds keep all that is counted, and a digest of it; nothing had been written to the table before."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _table(*columns: sa.Column, count: str) -> None:
    op.drop_table("budget_holds")
    op.create_table(
        "budget_holds",
        sa.Column("run_id", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column(count, sa.Integer(), nullable=False),
        sa.Column("state", Name, nullable=False),
        *columns,
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("settled_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "path", count, name="budget_holds_key"),
    )


def upgrade() -> None:
    _table(
        sa.Column("usage", sa.LargeBinary(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        count="number",
    )


def downgrade() -> None:
    _table(
        sa.Column("cost_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        count="attempt",
    )
