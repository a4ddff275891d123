"""A production run on a laptop: `flujo export`, `flujo pull`, `flujo trace FILE`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from flujo.services.replay.pull import shown_origin
from flujo.state.sql import migrations

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


@pytest.fixture
def other(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database of the project with its runs; the project itself has a new one from now on."""
    uri = f"sqlite:///{project.root / 'prod.db'}"
    monkeypatch.setenv("FLUJO_STATE_URI", uri)
    return uri


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the project's own database from now on."""
    monkeypatch.delenv("FLUJO_STATE_URI")


def test_a_paused_run_is_looked_at_and_continued_elsewhere(
    flujo: Flujo, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flujo("run", "ask", "--run-id", "asked").exit_code == 5
    elsewhere(monkeypatch)
    pulled = flujo("pull", "ask", "--from", other)
    assert pulled.exit_code == 0, pulled.output
    assert "it was paused there, and is interrupted here" in pulled.stderr
    assert "greet" in flujo("trace", "asked").stdout
    acts = json.loads(flujo("trace", "asked", "--json").stdout)["acts"]
    assert [(act["verb"], act["object"]) for act in acts] == [("pull", shown_origin(other))]
    assert flujo("worker", "--once").exit_code == 0
    assert json.loads(flujo("tasks", "show", "asked", "--json").stdout)["status"] == "interrupted"
    assert flujo("resume", "asked").exit_code == 5
    assert flujo("tasks", "resume", "asked", "-f", "ok=true").exit_code == 0


def test_a_second_pull_says_that_nothing_changed(
    flujo: Flujo, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flujo("run", "hello", "--input", "Ada", "--run-id", "one").exit_code == 0
    elsewhere(monkeypatch)
    first = json.loads(flujo("pull", "one", "--from", other, "--json").stdout)
    assert first == {
        "run_id": "one",
        "status": "completed",
        "was": "completed",
        "runs": ["one"],
        "new": ["one"],
    }
    assert json.loads(flujo("pull", "one", "--from", other, "--json").stdout)["new"] == []
    assert "nothing was changed" in flujo("pull", "one", "--from", other).stderr


def test_another_run_with_the_same_id_is_refused(
    flujo: Flujo, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flujo("run", "hello", "--input", "Ada", "--run-id", "one")
    elsewhere(monkeypatch)
    flujo("run", "hello", "--input", "Bob", "--run-id", "one")
    refused = flujo("pull", "one", "--from", other)
    assert (refused.exit_code, "FLJ507" in refused.stderr) == (8, True)
    assert json.loads(flujo("tasks", "show", "one", "--json").stdout)["input"] == "Bob"


def test_a_run_goes_through_a_file(
    flujo: Flujo, project: Project, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flujo("run", "hello", "--input", "Ada", "--run-id", "one").exit_code == 0
    file = str(project.root / "one.jsonl.zst")
    written = json.loads(flujo("export", "@last", "-o", file, "--json").stdout)
    assert written == {"run_id": "one", "file": file, "bytes": Path(file).stat().st_size, "masked": 0}
    elsewhere(monkeypatch)
    there = json.loads(flujo("trace", file, "--json").stdout)
    assert not (project.root / ".flujo" / "state.db").exists()
    assert flujo("pull", "@last", "--from", file).exit_code == 0
    here = json.loads(flujo("trace", "one", "--json").stdout)
    assert [act["object"] for act in here.pop("acts")] == ["one.jsonl.zst"]
    assert there.pop("acts") == []
    assert here == there
    assert "hello" in flujo("trace", file).stdout


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE journal SET output = x'2231' WHERE seq = 2", "FLJ505"),
        ("DELETE FROM journal WHERE seq = 1", "FLJ505"),
        ("UPDATE blobs SET data = x'00'", "FLJ505"),
        ("DELETE FROM blobs", "FLJ505"),
        ("UPDATE runs SET user_id = 'mallory'", "FLJ505"),
        ("DELETE FROM runs", "FLJ506"),
        ("UPDATE schema_info SET revision = '9999', oldest_reader = '9999'", "FLJ504"),
    ],
)
def test_a_damaged_source_gives_nothing(
    flujo: Flujo, project: Project, other: str, monkeypatch: pytest.MonkeyPatch, change: str, code: str
) -> None:
    assert flujo("run", "hello", "--input", "Ada", "--run-id", "one").exit_code == 0
    with closing(sqlite3.connect(project.root / "prod.db")) as database, database:
        database.execute(change)
    elsewhere(monkeypatch)
    refused = flujo("pull", "one", "--from", other)
    assert (refused.exit_code, code in refused.stderr) == (8, True), refused.stderr
    assert flujo("tasks", "show", "one").exit_code == 8


def test_a_source_that_is_not_there_is_not_made(flujo: Flujo, project: Project) -> None:
    missing = project.root / "prod.db"
    refused = flujo("pull", "one", "--from", f"sqlite:///{missing}")
    assert (refused.exit_code, "FLJ514" in refused.stderr) == (8, True)
    assert not missing.exists()
    refused = flujo("pull", "one", "--from", str(missing))
    assert (refused.exit_code, "FLJ560" in refused.stderr) == (8, True)


def test_an_older_source_is_not_migrated(
    flujo: Flujo, project: Project, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flujo("run", "hello", "--input", "Ada", "--run-id", "one")
    with closing(sqlite3.connect(project.root / "prod.db")) as database, database:
        database.execute("UPDATE schema_info SET revision = '0006', oldest_reader = '0006'")
    elsewhere(monkeypatch)
    refused = flujo("pull", "one", "--from", other)
    assert (refused.exit_code, "FLJ503" in refused.stderr) == (8, True), refused.stderr
    assert migrations.status(other).current == "0006"


def test_the_password_of_a_source_is_nowhere(
    flujo: Flujo, postgres_uri: str, monkeypatch: pytest.MonkeyPatch, project: Project
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", postgres_uri)
    assert flujo("run", "hello", "--input", "Ada", "--run-id", "one").exit_code == 0
    elsewhere(monkeypatch)
    assert flujo("pull", "one", "--from", postgres_uri).exit_code == 0
    (act,) = json.loads(flujo("trace", "one", "--json").stdout)["acts"]
    assert act["object"] == shown_origin(postgres_uri)
    assert "@" not in act["object"]


def test_a_role_that_can_only_read_is_enough(
    flujo: Flujo, postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", postgres_uri)
    assert flujo("run", "hello", "--input", "Ada", "--run-id", "one").exit_code == 0
    elsewhere(monkeypatch)
    role = f"reader_{uuid4().hex[:8]}"
    url = sa.make_url(postgres_uri)
    with psycopg.connect(postgres_uri, autocommit=True) as admin:
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'change-me'",
            f"GRANT USAGE ON SCHEMA flujo TO {role}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA flujo TO {role}",
        ):
            admin.execute(statement.encode())
        try:
            reader = url.set(username=role, password="change-me").render_as_string(hide_password=False)
            pulled = flujo("pull", "one", "--from", reader)
        finally:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert pulled.exit_code == 0, pulled.output


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://u:p@ss@db.example:5432/prod?sslmode=require", "postgresql://db.example:5432/prod"),
        ("postgresql://db/prod", "postgresql://db/prod"),
        ("sqlite:////var/lib/app/state.db", "sqlite:////var/lib/app/state.db"),
        ("/home/ada/one.jsonl.zst", "one.jsonl.zst"),
    ],
)
def test_an_origin_is_a_host_and_a_database(uri: str, shown: str) -> None:
    assert shown_origin(uri) == shown
