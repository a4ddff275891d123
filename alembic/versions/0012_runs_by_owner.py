"""The runs that are executed, by owner."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "runs_by_owner",
        "runs",
        ["owner", "queue"],
        sqlite_where=sa.text("coalesce(owner, '') <> ''"),
        postgresql_where=sa.text("coalesce(owner, '') <> ''"),
    )
    # It only adds: a process of 0011 still works with this database.
    op.execute("UPDATE schema_info SET revision = '0012'")


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0011'")
    op.drop_index("runs_by_owner", "runs")
