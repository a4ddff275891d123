"""Which dead owner a run was taken from, and how often it was cut off together with others."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("runs", sa.Column("taken_from", Name, nullable=True))
    op.add_column("runs", sa.Column("suspicions", sa.Integer(), nullable=False, server_default="0"))
    is_taken = sa.text("taken_from IS NOT NULL")
    op.create_index(
        "runs_by_dead_owner", "runs", ["taken_from"], sqlite_where=is_taken, postgresql_where=is_taken
    )
    # It only adds: a process of 0004 still works with this database.
    op.execute("UPDATE schema_info SET revision = '0005'")


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0004'")
    op.drop_index("runs_by_dead_owner", "runs")
    for name in ("suspicions", "taken_from"):
        op.drop_column("runs", name)
