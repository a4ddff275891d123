"""API tokens of services and people."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("name", Name, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("role", Name, nullable=False),
        sa.Column("reach", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("api_tokens_by_digest", "api_tokens", ["digest"], unique=True)
    # It only adds: a process of 0008 still works with this database.
    op.execute("UPDATE schema_info SET revision = '0009'")


def downgrade() -> None:
    op.execute("UPDATE schema_info SET revision = '0008'")
    op.drop_index("api_tokens_by_digest", "api_tokens")
    op.drop_table("api_tokens")
