"""Recovery: how often a run was taken over without progress, and whether somebody answered it meanwhile."""

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
