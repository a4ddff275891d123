"""An index of the entries with a usage, so that a resume of a long run does not read its whole journal."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_used = sa.text("usage IS NOT NULL")
    op.create_index(
        "journal_by_usage",
        "journal",
        ["run_id", "seq", "usage"],
        sqlite_where=is_used,
        postgresql_where=is_used,
    )
    # It only adds: a process of 0004 still works with this database.
    op.execute("UPDATE schema_info SET revision = '0006'")


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0005'")
    op.drop_index("journal_by_usage", "journal")
