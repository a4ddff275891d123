"""Sessions of people who have logged in."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("proof", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    # It only adds: a process of 0009 still works with this database.
    op.execute("UPDATE schema_info SET revision = '0010'")


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0009'")
    op.drop_table("sessions")
