"""The questions that a run may need, and the runs of queues that no process holds."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

IS_NEEDED = "NOT (answered_at IS NOT NULL AND kind = 'children' AND replace(pause_id, '..', '') <> pause_id)"
IS_CLAIMABLE = (
    "queue IS NOT NULL AND (status <> 'running' OR owner IS NULL) AND "
    "(status IN ('accepted', 'running') OR answered AND status IN ('paused', 'waiting'))"
)


def upgrade() -> None:
    op.create_index(
        "pauses_needed",
        "pauses",
        ["run_id", "asked_at", "position"],
        sqlite_where=sa.text(IS_NEEDED),
        postgresql_where=sa.text(IS_NEEDED),
    )
    op.create_index(
        "runs_to_claim",
        "runs",
        ["queue", "rank", "run_id"],
        sqlite_where=sa.text(IS_CLAIMABLE),
        postgresql_where=sa.text(IS_CLAIMABLE),
    )
    # It only adds: a process of 0012 still works with this database.
    op.execute("UPDATE schema_info SET revision = '0013'")


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0012'")
    op.drop_index("runs_to_claim", "runs")
    op.drop_index("pauses_needed", "pauses")
