"""A real project in a folder of its own, and the command line called in it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import printed_commands
import warm
from flujo.cli.app import app
from flujo.cli.invocation import Invocation, name_of
from flujo.cli.json_fields import FIELDS, WANTS_JSON
from flujo.cli.terminal import Terminal
from flujo.services.admin.scaffold import scaffold
from flujo.state.sql import migrations

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

ASK = """\
version: "1"
name: ask
steps:
  - name: greet
    call: skills.greet:greet
    with: {name: Ada}
    output_schema: {type: string}
  - kind: hitl
    name: approve
    message: "Send this? {{ steps.greet.output }}"
    answer_schema:
      type: object
      required: [ok]
      properties: {ok: {type: boolean}}
output: "{{ steps.approve.output.ok }}"
"""

FLAKY = """\
version: "1"
name: flaky
input_schema: {type: string}
steps:
  - name: first
    call: skills.work:note
    with: {text: "{{ input }}"}
  - name: second
    call: skills.work:needs_file
output: "{{ steps.second.output }}"
"""

SLOW = """\
version: "1"
name: slow
steps:
  - name: first
    call: skills.work:note
    with: {text: first}
  - name: wait
    call: skills.work:wait_for_file
  - name: last
    call: skills.work:note
    with: {text: last}
output: done
"""

WORK = '''\
"""Steps that leave traces in files, and wait for files."""

import asyncio
from pathlib import Path

HERE = Path(__file__).parent.parent


def note(text: str) -> str:
    with (HERE / "notes.txt").open("a", encoding="utf-8") as notes:
        notes.write(f"{text}\\n")
    return text


def needs_file() -> str:
    return (HERE / "there.txt").read_text("utf-8")


async def wait_for_file() -> str:
    (HERE / "waiting").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return "went"
'''


@dataclass(frozen=True)
class Project:
    """A folder with the project of `flujo init`, and blueprints that pause, fail and wait."""

    root: Path

    def blueprint(self, name: str, text: str) -> Path:
        path = self.root / f"blueprints/{name}.yaml"
        path.write_text(text, "utf-8")
        return path

    def notes(self) -> list[str]:
        path = self.root / "notes.txt"
        return path.read_text("utf-8").split() if path.exists() else []

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "flujo", "-C", str(self.root), *words]

    def start(self, *words: str, **options: Any) -> warm.Popen:
        return warm.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            **options,
        )


class Flujo(Protocol):
    """Calls the command line in the project's folder."""

    def __call__(self, *words: str, stdin: str | None = None) -> Result: ...


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in [name for name in os.environ if name.startswith("FLUJO_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command line puts the project in front of it
    root = tmp_path / "demo"
    scaffold(root, "demo")
    (root / "skills/work.py").write_text(WORK, "utf-8")
    made = Project(root)
    for name, text in (("ask", ASK), ("flaky", FLAKY), ("slow", SLOW)):
        made.blueprint(name, text)
    monkeypatch.chdir(root)
    return made


@pytest.fixture(scope="session")
def statements_of_a_new_database(migrated_file: Path) -> list[str]:
    """What makes the tables of a SQLite database, in the form that it has after the last migration."""
    with closing(sqlite3.connect(migrated_file)) as migrated:
        return [each for each in migrated.iterdump() if each not in ("BEGIN TRANSACTION;", "COMMIT;")]


@pytest.fixture(autouse=True)
def _few_migrations(statements_of_a_new_database: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tables of a new SQLite database at once: a tenth of the time of the versions, in hundreds of tests.

    tests/state/sql/test_migrations.py executes the versions.
    """
    execute_versions = migrations._run_versions

    def execute(connection: sa.Connection) -> None:
        if connection.dialect.name != "sqlite" or sa.inspect(connection).get_table_names():
            execute_versions(connection)
            return
        for statement in statements_of_a_new_database:
            connection.exec_driver_sql(statement)

    monkeypatch.setattr(migrations, "_run_versions", execute)


@pytest.fixture(autouse=True)
def _known_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that `--json=FIELDS` knows each field of the JSON that any of these tests writes."""
    write, begin = Terminal.json, Invocation.of
    known: list[str] = []

    def of(ctx: Any) -> Invocation:
        known[:] = FIELDS.get(name_of(ctx), "").split() if ctx.meta.get(WANTS_JSON) else []
        return begin(ctx)

    def json(terminal: Terminal, value: Any) -> None:
        for each in value if isinstance(value, list) else [value]:
            if known and isinstance(each, dict) and "$schema" not in each:
                assert not each.keys() - set(known)
        write(terminal, value)

    monkeypatch.setattr(Invocation, "of", of)
    monkeypatch.setattr(Terminal, "json", json)


@pytest.fixture
def flujo(project: Project) -> Flujo:
    def call(*words: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(words), input=stdin, prog_name="flujo")
        printed_commands.check(result.output)
        return result

    return call
