"""Where Alembic meets the tables: `flujo migrate` hands in a connection, a developer gives `-x url=…`."""

from alembic import context
from sqlalchemy import Connection

from flujo.state import migrations
from flujo.state.database import Database
from flujo.state.tables import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        include_object=migrations.compared(connection).opts["include_object"],
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_by_hand() -> None:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        raise SystemExit("say which database: alembic -x url=sqlite:///path …  (or use `flujo migrate`)")
    with migrations.exclusively(Database(url)) as connection:
        run(connection)


handed_in = context.config.attributes.get("connection")
run(handed_in) if handed_in is not None else run_by_hand()
