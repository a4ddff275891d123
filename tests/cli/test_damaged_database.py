"""Commands on a SQLite file with a damaged schema end with exit code 8 and a message that says what to do."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

DAMAGE = {
    "text that is not UTF-8": "PRAGMA writable_schema = ON; "
    "UPDATE sqlite_schema SET sql = CAST(x'43524541544520fffe' AS TEXT) WHERE name = 'runs'",
    "cut text": "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = substr(sql, 1, 40) WHERE name = 'runs'",
    "a dropped table": "DROP TABLE journal; DROP TABLE runs",
    "a version that is not text": "UPDATE schema_info SET revision = x'fffe'",
}
COMMANDS = [
    ("doctor",),
    ("trace", "one"),
    ("logs", "one", "-f"),
    ("cache", "why", "hello"),
    ("tasks", "list"),
    ("tasks", "show", "one"),
    ("run", "hello", "--input", "Ada"),
    ("resume", "one"),
    ("purge", "--older-than", "0s", "--yes"),
    ("worker", "--once"),
]


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("what", DAMAGE)
def test_every_command_reports_a_damaged_schema(flujo: Flujo, project: Project, what: str) -> None:
    assert flujo("run", "hello", "--input", "Ada", "--run-id", "one").exit_code == 0
    with closing(sqlite3.connect(project.root / ".flujo" / "state.db")) as connection, connection:
        connection.executescript(DAMAGE[what])
    for command in COMMANDS:
        result = flujo(*command)
        assert result.exit_code == 8, (command, result.output, result.exception)
        assert "damaged" in result.output, command
        assert "restore it from a backup" in result.output, command
    checks = json.loads(flujo("doctor", "--json").stdout)["checks"]
    assert [check["state"] for check in checks if "damaged" in check["detail"]] == ["fail"]
    assert flujo("ls").exit_code == 0, "listing blueprints needs no database"


@pytest.mark.guarantee("G7")
@pytest.mark.parametrize("what", ["text that is not UTF-8", "cut text", "a version that is not text"])
def test_migrate_reports_a_damaged_schema_and_changes_nothing(
    flujo: Flujo, project: Project, what: str
) -> None:
    assert flujo("run", "hello", "--input", "Ada").exit_code == 0
    path = project.root / ".flujo" / "state.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(DAMAGE[what])
        connection.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    for command in (("migrate", "--check"), ("migrate", "--sql"), ("migrate",)):
        result = flujo(*command)
        assert result.exit_code == 8, (command, result.output, result.exception)
        assert "damaged" in result.output, command
    assert path.read_bytes()[100:] == before[100:], "the header counts the switches of the journal mode"
