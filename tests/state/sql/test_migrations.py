"""The schema: migrations build the declared tables on both databases, also when several run at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.script import ScriptDirectory

import warm
from flujo.domain.run import RunStatus
from flujo.exceptions import SchemaOutdated, SchemaTooNew, SettingsError, StateBackendUnavailable, StateError
from flujo.state.sql import migrations
from flujo.state.sql.database import Database, parse
from flujo.state.sql.tables import HEAD, metadata
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run, writes
from histories.restoring import recorded, restore

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def database(empty_uri: str) -> Iterator[Database]:
    migrations.migrate(empty_uri)
    database = Database(empty_uri)
    yield database
    database.dispose()


def _set_version(uri: str, version: str, *, oldest_reader: str) -> None:
    """Set the version in both version tables, as the migration of a newer Flujo does."""
    values = {"v": version, "oldest": oldest_reader}
    with _changing(uri) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :v"), values)
        connection.execute(sa.text("UPDATE schema_info SET revision = :v, oldest_reader = :oldest"), values)


@contextmanager
def _changing(uri: str) -> Iterator[sa.Connection]:
    database = Database(uri)
    with migrations.exclusively(database) as connection:
        yield connection
    database.dispose()


def test_the_head_revision_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(migrations.scripts())).get_current_head() == HEAD


def test_migrating_happens_once_and_reports_the_previous_revision(empty_uri: str) -> None:
    assert migrations.status(empty_uri).current is None
    before, after = migrations.migrate(empty_uri)
    assert (before.current, after.current, after.is_current) == (None, HEAD, True)
    before, after = migrations.migrate(empty_uri)
    assert before == after == migrations.status(empty_uri)


def test_querying_the_status_creates_no_file(tmp_path: Path) -> None:
    status = migrations.status(f"sqlite:///{tmp_path / 'new' / 'state.db'}")
    assert (status.current, status.is_current) == (None, False)
    assert list(tmp_path.iterdir()) == []


def test_the_migrations_build_the_declared_tables(database: Database) -> None:
    with migrations.exclusively(database) as connection:
        assert compare_metadata(migrations.compared(connection), metadata) == []


@pytest.mark.guarantee("G23")
def test_the_printed_sql_builds_the_same_tables(empty_uri: str) -> None:
    _execute(empty_uri, migrations.script(empty_uri))
    assert migrations.status(empty_uri).is_current
    assert migrations.script(empty_uri) == ""
    database = Database(empty_uri)
    with migrations.exclusively(database) as connection:
        assert compare_metadata(migrations.compared(connection), metadata) == []
    database.dispose()


def test_the_tables_have_the_same_columns_and_indexes_on_both_databases(
    sqlite_uri: str, postgres_uri: str
) -> None:
    def shape(uri: str) -> dict[str, Any]:
        migrations.migrate(uri)
        database = Database(uri)
        try:
            with database.connect() as connection:
                inspector = sa.inspect(connection)
                schema = "flujo" if database.is_postgres else None
                return {
                    table: (
                        [
                            (column["name"], column["nullable"])
                            for column in inspector.get_columns(table, schema)
                        ],
                        inspector.get_pk_constraint(table, schema)["constrained_columns"],
                        sorted(str(index["name"]) for index in inspector.get_indexes(table, schema)),
                        [key["options"] for key in inspector.get_foreign_keys(table, schema)],
                    )
                    for table in sorted(inspector.get_table_names(schema))
                }
        finally:
            database.dispose()

    on_sqlite, on_postgres = shape(sqlite_uri), shape(postgres_uri)
    on_postgres["runs"][2].remove("runs_by_metadata")  # GIN, which SQLite does not have
    assert on_sqlite == on_postgres
    assert set(on_sqlite) == {*metadata.tables, "alembic_version"}


def test_a_migration_can_be_downgraded_and_upgraded_again(database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    for step in (command.downgrade, command.upgrade):
        with migrations.exclusively(database) as connection:
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(migrations.scripts()))
            step(config, "base" if step is command.downgrade else HEAD)
    with migrations.exclusively(database) as connection:
        assert compare_metadata(migrations.compared(connection), metadata) == []


@pytest.mark.guarantee("G23")
def test_four_concurrent_migrations_run_once(empty_uri: str) -> None:
    code = "import sys; from flujo.state.sql import migrations; print(migrations.migrate(sys.argv[1])[1].current)"
    command = [sys.executable, "-c", code, empty_uri]
    processes = [warm.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate()[0].strip() for process in processes] == [HEAD] * 4
    assert {process.returncode for process in processes} == {0}


def test_a_migration_does_not_wait_for_that_of_another_schema(empty_postgres_uri: str) -> None:
    one = Database(empty_postgres_uri, schema="team_one")
    with migrations.exclusively(one):
        assert migrations.migrate(empty_postgres_uri, "team_one_too")[1].is_current
    one.dispose()


def test_the_version_table_of_another_application_is_not_read_as_flujos(empty_postgres_uri: str) -> None:
    with psycopg.connect(empty_postgres_uri, autocommit=True) as admin:
        admin.execute("CREATE TABLE public.alembic_version (version_num varchar(32))")
        admin.execute("INSERT INTO public.alembic_version VALUES ('9f2c1d')")
    for work in (migrations.status, migrations.migrate, migrations.script):
        with pytest.raises(StateError, match="belongs to another application") as caught:
            work(empty_postgres_uri, "public")
        assert "postgres_schema" in (caught.value.hint or "")


async def test_a_sqlite_file_is_created_on_demand_with_owner_only_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "state.db"
    store = await SqlStateStore.open(f"sqlite:///{path}")
    await store.aclose()
    assert migrations.status(f"sqlite:///{path}").is_current
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


async def test_an_older_sqlite_file_is_migrated_when_opened(empty_sqlite_uri: str) -> None:
    database = Database(empty_sqlite_uri)
    with migrations.exclusively(database) as connection:  # a file with a foreign table
        connection.execute(sa.text("CREATE TABLE mine (x)"))
    database.dispose()
    store = await SqlStateStore.open(empty_sqlite_uri)
    await store.aclose()
    assert migrations.status(empty_sqlite_uri).is_current


@pytest.mark.guarantee("G23")
async def test_an_older_postgres_schema_requires_flujo_migrate(empty_postgres_uri: str) -> None:
    with pytest.raises(SchemaOutdated, match="no tables") as caught:
        await SqlStateStore.open(empty_postgres_uri)
    assert "flujo migrate" in (caught.value.hint or "")


@pytest.mark.guarantee("G23")
async def test_a_newer_schema_is_not_changed(store_uri: str) -> None:
    migrations.migrate(store_uri)
    _set_version(store_uri, "9999", oldest_reader="9998")
    with pytest.raises(SchemaTooNew):
        await SqlStateStore.open(store_uri)
    with pytest.raises(SchemaTooNew):
        migrations.migrate(store_uri)
    with pytest.raises(SchemaTooNew):
        migrations.script(store_uri)
    assert migrations.status(store_uri).is_newer


@pytest.mark.guarantee("G23")
async def test_an_older_version_works_on_a_schema_with_additions_only(store_uri: str) -> None:
    older = await SqlStateStore.open(store_uri)
    run = await older.accept(new_run(), {})
    with _changing(store_uri) as connection:
        for table in metadata.tables:
            connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN added TEXT"))
        connection.execute(sa.text("CREATE TABLE added (x INTEGER)"))
    _set_version(store_uri, "9999", oldest_reader=HEAD)
    await older.write(writes(run, entry(1)))
    newer = await SqlStateStore.open(store_uri)  # the same version, opened after the migration
    assert await newer.entries(RUN) == [entry(1)]
    await older.write(move(run, RunStatus.PAUSED))
    claimed = await newer.claim(RUN, statuses=[RunStatus.PAUSED])
    await newer.write(writes(claimed, entry(2)))
    assert [each.seq for each in await older.entries(RUN)] == [1, 2]
    status = migrations.status(store_uri)
    assert (status.is_current, status.is_newer, status.current) == (True, False, "9999")
    before, after = migrations.migrate(store_uri)
    assert (before, after) == (status, status)
    assert migrations.script(store_uri) == ""
    await older.aclose()
    await newer.aclose()


async def test_a_database_of_0_1_requires_flujo_migrate(empty_postgres_uri: str, tmp_path: Path) -> None:
    restore(recorded("situations")[0], empty_postgres_uri, tmp_path)
    with pytest.raises(SchemaOutdated, match="has schema 0003"):
        await SqlStateStore.open(empty_postgres_uri)


def test_references_to_blobs_are_counted_for_old_rows(empty_uri: str, tmp_path: Path) -> None:
    restore(recorded("situations")[0], empty_uri, tmp_path)
    migrations.migrate(empty_uri)
    counted = _references(empty_uri)
    blobs, named = {digest for digest, _ in counted}, {run_id for _, run_id in counted}
    with _changing(empty_uri) as connection:
        assert blobs == set(connection.scalars(sa.text("SELECT digest FROM blobs")))
        assert named == set(connection.scalars(sa.text("SELECT run_id FROM runs")))
        kinds: dict[str, int] = dict(
            connection.execute(sa.text("SELECT kind, count(*) FROM pauses GROUP BY kind")).all()
        )
    assert len([run_id for _, run_id in counted if run_id == "blueprint"]) == 3, "a closure of two files"
    assert kinds == {"question": 8, "doubt": 5}


@pytest.mark.guarantee("G23")
def test_the_printed_sql_counts_every_reference(empty_uri: str, tmp_path: Path) -> None:
    restore(recorded("situations")[0], empty_uri, tmp_path)
    _execute(empty_uri, migrations.script(empty_uri))
    counted = _references(empty_uri)
    with _changing(empty_uri) as connection:
        named = {
            (digest, run_id)
            for digest, run_id in connection.execute(sa.text("SELECT closure, run_id FROM runs"))
        }
        files = connection.scalars(sa.text("SELECT digest FROM blobs WHERE encoding = 'plain'")).all()
    assert named <= counted
    of_blueprint = {digest for digest, run_id in counted if run_id == "blueprint"}
    assert len(of_blueprint & set(files)) == 3, "a closure of two files"


def _references(uri: str) -> set[tuple[str, str]]:
    with _changing(uri) as connection:
        rows = connection.execute(sa.text("SELECT digest, run_id FROM blob_refs"))
        return {(digest, run_id) for digest, run_id in rows}


def _execute(uri: str, statements: str) -> None:
    if uri.startswith("postgres"):
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(statements.encode())
        return
    path = Path(str(parse(uri).database))
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.executescript(statements)


@pytest.mark.parametrize(
    "content", [b"this is no database, but it is long enough to be read" * 100, b"\x00" * 4096]
)
async def test_a_file_that_is_not_a_database_is_an_error_and_stays_unchanged(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(StateError) as caught:
        await SqlStateStore.open(f"sqlite:///{path}")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


async def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateBackendUnavailable, match="cannot be opened"):
        await SqlStateStore.open(f"sqlite:///{tmp_path}/file/state.db")


async def test_an_unreachable_postgres_is_reported_soon_without_the_password(tmp_path: Path) -> None:
    uri = f"postgresql://ann:s3cret@/flujo?host={tmp_path}"
    with pytest.raises(StateBackendUnavailable) as caught:
        await SqlStateStore.open(uri)
    assert "s3cret" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "nonsense",
        "mysql://ann:s3cret@host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "://",
    ],
)
def test_an_unsupported_uri_is_a_settings_error_without_the_password(uri: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(uri)
    assert "s3cret" not in str(caught.value)
    assert "sqlite:///" in (caught.value.hint or "")


def test_a_relative_sqlite_path_is_resolved_once_when_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("sqlite:///.flujo/state.db").database == str(tmp_path / ".flujo/state.db")
