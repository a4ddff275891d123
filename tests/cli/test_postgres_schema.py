"""`[settings] postgres_schema`: every command works in the named schema, and in no other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from flujo.state.sql.tables import metadata

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

DEFAULT = "flujo"
MINE = ("left", "Größe_7")
"""A word that Postgres reads as a join unless it is quoted, and a name whose case counts."""


CACHED = """\
version: "1"
name: cached
input_schema: {type: string}
steps:
  - kind: cache
    name: greet
    step:
      name: ask
      call: skills.greet:greet
      with: {name: "{{ input }}"}
      output_schema: {type: string}
output: "{{ steps.greet.output }}"
"""


def name_schema(project: Project, schema: str) -> None:
    path = project.root / "flujo.toml"
    text = path.read_text("utf-8").partition("\n[env.test_schema")[0]
    path.write_text(f'{text}\n[env.test_schema.settings]\npostgres_schema = "{schema}"\n', "utf-8")


@pytest.fixture
def on_postgres(empty_postgres_uri: str, monkeypatch: pytest.MonkeyPatch, project: Project) -> str:
    """A database whose schema `public` has other tables with the names of Flujo's."""
    name_schema(project, DEFAULT)
    monkeypatch.setenv("FLUJO_ENV", "test_schema")
    monkeypatch.setenv("FLUJO_STATE_URI", empty_postgres_uri)
    with psycopg.connect(empty_postgres_uri, autocommit=True) as admin:
        for table in (*metadata.tables, "alembic_version"):
            admin.execute(f"CREATE TABLE public.{table} (of_another_application text)".encode())
    return empty_postgres_uri


def schemas(uri: str) -> dict[str, int]:
    """Return how many tables each schema has."""
    with psycopg.connect(uri) as connection:
        rows = connection.execute(
            "SELECT schemaname, count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            " GROUP BY schemaname"
        )
        return dict(rows.fetchall())


def ran(flujo: Flujo, words: str, code: int = 0) -> str:
    result = flujo(*words.split())
    assert result.exit_code == code, (words, result.output)
    return result.output


def runs(flujo: Flujo) -> list[str]:
    listed = json.loads(flujo("tasks", "list", "--json").stdout)
    return [each["run_id"] for each in listed]


@pytest.mark.parametrize("mine", MINE)
def test_every_command_works_in_the_named_schema(
    on_postgres: str, project: Project, flujo: Flujo, mine: str
) -> None:
    name_schema(project, mine)
    project.blueprint("cached", CACHED)
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as file:
        file.write('[env.test_schema.cache]\nbackend = "state"\n')
    assert "has no tables" in ran(flujo, "run hello --input Ada", 8)
    ran(flujo, "migrate --check", 8)
    for words, code in (
        ("migrate", 0),
        ("migrate --check", 0),
        ("run hello --input Ada", 0),
        ("run cached --input Ada", 0),
        ("run cached --input Ada", 0),
        ("run ask --run-id a1", 5),
        ("doctor", 0),
        ("doctor --after-restore", 0),
        ("tasks resume a1 --field ok=true", 0),
        ("run flaky --input x --run-id f1", 1),
        ("resume f1 --retry-failed", 1),
        ("tasks cancel f1", 0),
        ("tasks list", 0),
        ("tasks show a1", 0),
        ("trace a1", 0),
        ("worker --once", 0),
        ("purge --older-than 0s --yes", 0),
    ):
        ran(flujo, words, code)
    own = len(metadata.tables) + 1
    assert schemas(on_postgres) == {"public": own, mine: own}


def test_two_projects_with_a_schema_each_see_only_their_own_runs(
    on_postgres: str, project: Project, flujo: Flujo
) -> None:
    for schema in ("team_a", "team_b"):
        name_schema(project, schema)
        ran(flujo, "migrate")
        ran(flujo, "run ask --run-id shared", 5)
        ran(flujo, f"run hello --input Ada --run-id of-{schema}")
    assert sorted(runs(flujo)) == ["of-team_b", "shared"]
    ran(flujo, "tasks resume shared --field ok=true")
    ran(flujo, "purge --older-than 0s --yes")
    assert runs(flujo) == []

    name_schema(project, "team_a")
    assert sorted(runs(flujo)) == ["of-team_a", "shared"]
    ran(flujo, "tasks resume shared --field ok=true")
    assert set(schemas(on_postgres)) == {"public", "team_a", "team_b"}


@pytest.mark.parametrize("mine", MINE)
def test_the_printed_sql_builds_the_named_schema(
    on_postgres: str, project: Project, flujo: Flujo, mine: str
) -> None:
    name_schema(project, mine)
    printed = flujo("migrate", "--sql").stdout
    with psycopg.connect(on_postgres, autocommit=True) as admin:
        admin.execute(printed.encode())
    assert flujo("migrate", "--sql").stdout == "-- nothing to do\n"
    ran(flujo, "run hello --input Ada")
    assert DEFAULT not in schemas(on_postgres)


def test_tables_in_the_default_schema_are_reported_while_the_named_one_has_none(
    on_postgres: str, project: Project, flujo: Flujo
) -> None:
    assert "tables of Flujo too" not in ran(flujo, "migrate")
    ran(flujo, "run hello --input Ada")
    name_schema(project, "team_a")
    note = "the schema `flujo` of this database has tables of Flujo too; this project does not use them"
    assert "(its schema `flujo` has some)" in ran(flujo, "run hello --input Ada", 8)
    assert "its schema `flujo` has tables of Flujo" in flujo("doctor").output
    assert note in ran(flujo, "migrate --check", 8)
    migrated = ran(flujo, "migrate")
    assert "(postgres_schema team_a): schema none" in migrated
    assert note in migrated
    assert note not in ran(flujo, "migrate")
    assert runs(flujo) == []


def test_a_renamed_schema_keeps_its_runs(on_postgres: str, project: Project, flujo: Flujo) -> None:
    ran(flujo, "migrate")
    ran(flujo, "run ask --run-id one", 5)
    with psycopg.connect(on_postgres, autocommit=True) as admin:
        admin.execute("ALTER SCHEMA flujo RENAME TO team_a")
    name_schema(project, "team_a")
    ran(flujo, "migrate --check")
    ran(flujo, "tasks resume one --field ok=true")
    assert runs(flujo) == ["one"]


def test_doctor_shows_the_schema(on_postgres: str, project: Project, flujo: Flujo) -> None:
    name_schema(project, "team_a")
    ran(flujo, "migrate")
    shown = flujo("doctor").output
    assert "(postgres_schema team_a): schema" in shown
    assert "settings.postgres_schema" in shown


def test_sqlite_has_no_schema(project: Project, flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    name_schema(project, "team_a")
    monkeypatch.setenv("FLUJO_ENV", "test_schema")
    ran(flujo, "run hello --input Ada --run-id one")
    assert runs(flujo) == ["one"]
    assert "team_a)" not in flujo("doctor").output
