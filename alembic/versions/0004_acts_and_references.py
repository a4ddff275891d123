"""Acts, wishes, kinds of questions, counted references to blobs, and which versions can read the schema."""

import json

import sqlalchemy as sa
import zstandard
from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

VALUES = {
    "runs": ("input", "context", "context_now", "output", "error"),
    "journal": ("input", "output", "patch", "error", "detail"),
    "intents": ("request", "result"),
}
"""The columns that hold `@` and a digest when their value is stored as a blob."""


def upgrade() -> None:
    op.create_table(
        "schema_info",
        sa.Column("revision", Name, nullable=False),
        sa.Column("oldest_reader", Name, nullable=False),
        sa.PrimaryKeyConstraint("revision"),
    )
    op.execute("INSERT INTO schema_info (revision, oldest_reader) VALUES ('0004', '0004')")
    op.create_table(
        "acts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run_id", Name, nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("by", Name, nullable=False),
        sa.Column("via", Name, nullable=False),
        sa.Column("verb", Name, nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("before", sa.LargeBinary(), nullable=True),
        sa.Column("after", sa.LargeBinary(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("acts_by_run", "acts", ["run_id", "id"], unique=False)
    for name, kind in (("wish", Name), ("wish_by", Name), ("wish_at", sa.Double())):
        op.add_column("runs", sa.Column(name, kind, nullable=True))
    has_wish = sa.text("wish IS NOT NULL")
    op.create_index("runs_by_wish", "runs", ["owner"], sqlite_where=has_wish, postgresql_where=has_wish)
    op.add_column("pauses", sa.Column("kind", Name, nullable=False, server_default="question"))
    op.add_column("pauses", sa.Column("by", Name, nullable=True))
    # Only the question about a call in doubt had a count at its end: `pay[0]`.
    op.execute("UPDATE pauses SET kind = 'doubt' WHERE pause_id LIKE '%]'")
    op.drop_table("tasks")  # nothing was ever written to these two
    op.drop_table("evaluations")
    _count_references()


def _count_references() -> None:
    op.create_table(
        "blob_refs",
        sa.Column("digest", Name, nullable=False),
        sa.Column("run_id", Name, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest", "run_id", name="blob_refs_key"),
    )
    op.create_index("blob_refs_by_run", "blob_refs", ["run_id"], unique=False)
    op.execute("INSERT INTO blob_refs (digest, run_id) SELECT closure, run_id FROM runs")
    for table, columns in VALUES.items():
        for column in columns:
            mark = f"substr({column}, 1, 1) = " + ("'\\x40'::bytea" if _is_postgres() else "x'40'")
            rest = f"substr({column}, 2)"
            digest = f"encode({rest}, 'escape')" if _is_postgres() else f"CAST({rest} AS TEXT)"
            op.execute(
                f"INSERT INTO blob_refs (digest, run_id) SELECT DISTINCT {digest}, run_id FROM {table} "  # noqa: S608
                f"WHERE {mark} ON CONFLICT DO NOTHING"
            )
    if context.is_offline_mode():
        _count_every_file()
    else:
        _count_pinned_files()


def _count_pinned_files() -> None:
    """Count for each run the files that its closure names."""
    connection = op.get_bind()
    closures = connection.execute(
        sa.text("SELECT digest, encoding, data FROM blobs WHERE digest IN (SELECT closure FROM runs)")
    ).all()
    counted = sa.text(
        "INSERT INTO blob_refs (digest, run_id) SELECT CAST(:file AS TEXT), run_id FROM runs "
        "WHERE closure = :closure ON CONFLICT DO NOTHING"
    )
    for digest, encoding, data in closures:
        try:
            manifest = json.loads(zstandard.decompress(data) if encoding == "zstd" else bytes(data))
        except (ValueError, zstandard.ZstdError):
            continue  # a damaged closure: its runs cannot be resumed anyway
        files = sorted(set(manifest.get("files", {}).values()))
        if files:
            connection.execute(counted, [{"file": file, "closure": digest} for file in files])


def _count_every_file() -> None:
    """Count for each run of a blueprint every blob that only a closure can name.

    SQL cannot read compressed closures. So more is counted than is named, and a blob may stay until the last
    of these runs is purged.
    """
    python = "'\\x7b22707974686f6e223a'::bytea" if _is_postgres() else "x'7b22707974686f6e223a'"
    op.execute(
        "INSERT INTO blob_refs (digest, run_id) SELECT blobs.digest, runs.run_id FROM blobs, runs "  # noqa: S608
        "JOIN blobs AS closures ON closures.digest = runs.closure "
        "WHERE blobs.digest NOT IN (SELECT digest FROM blob_refs) "
        f"AND NOT (closures.encoding = 'plain' AND substr(closures.data, 1, 10) = {python})"
    )


def _is_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"


def downgrade() -> None:
    op.drop_table("blob_refs")
    op.create_table(
        "evaluations",
        sa.Column("evaluation_id", Name, nullable=False),
        sa.Column("run_id", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column("evaluator", Name, nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("verdict", Name, nullable=True),
        sa.Column("detail", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("evaluation_id"),
    )
    op.create_index("evaluations_by_evaluator", "evaluations", ["evaluator", "created_at"], unique=False)
    op.create_index("evaluations_by_run", "evaluations", ["run_id"], unique=False)
    op.create_table(
        "tasks",
        sa.Column("task_id", Name, nullable=False),
        sa.Column("run_id", Name, nullable=False),
        sa.Column("path", Name, nullable=False),
        sa.Column("queue", Name, nullable=False),
        sa.Column("status", Name, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.Double(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("owner", Name, nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.LargeBinary(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.create_index("tasks_by_run", "tasks", ["run_id"], unique=False)
    op.create_index("tasks_by_turn", "tasks", ["queue", "status", "available_at"], unique=False)
    op.drop_column("pauses", "by")
    op.drop_column("pauses", "kind")
    op.drop_index("runs_by_wish", "runs")
    for name in ("wish_at", "wish_by", "wish"):
        op.drop_column("runs", name)
    op.drop_table("acts")
    op.drop_table("schema_info")
