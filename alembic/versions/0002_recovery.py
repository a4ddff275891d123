"""Recovery: the number of claims of a run without progress, and whether it was answered since then."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("recoveries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("answered", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("runs", "answered")
    op.drop_column("runs", "recoveries")
