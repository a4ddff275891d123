"""Connects Alembic to the tables: `flujo migrate` passes a connection, developers pass `-x url=…`."""

from alembic import context
from sqlalchemy import Connection

from flujo.state.sql import migrations
from flujo.state.sql.database import Database
from flujo.state.sql.tables import metadata


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


def write_down() -> None:
    """Print the statements instead of executing them; the caller adds the transaction."""
    context.configure(
        dialect_name=context.config.attributes["dialect"],
        target_metadata=metadata,
        literal_binds=True,
        output_buffer=context.config.output_buffer,
        transactional_ddl=False,
    )
    context.run_migrations()


def run_by_hand() -> None:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        raise SystemExit("say which database: alembic -x url=sqlite:///path …  (or use `flujo migrate`)")
    with migrations.exclusively(Database(url)) as connection:
        run(connection)


handed_in = context.config.attributes.get("connection")
if context.is_offline_mode():
    write_down()
elif handed_in is not None:
    run(handed_in)
else:
    run_by_hand()
