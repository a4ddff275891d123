"""What operations use: doctor, migrate, models, lock."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

import warm
from agents.provider_server import provider_server

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


def test_doctor_shows_each_setting_with_its_origin(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STRICT_DSL", "1")
    settings = {row["key"]: row for row in json.loads(flujo("doctor", "--json").stdout)["settings"]}
    assert settings["strict_dsl"] == {"key": "strict_dsl", "value": True, "origin": "FLUJO_STRICT_DSL"}
    assert settings["blueprints.allow_callables"]["origin"] == "flujo.toml:10"
    assert settings["aros.coercion_tolerant_level"]["origin"] == "default"


def test_doctor_never_shows_a_key_or_a_password(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("FLUJO_STATE_URI", "postgresql://u:canary@127.0.0.1:1/db")
    result = flujo("doctor")
    assert "OPENAI_API_KEY is set" in result.stdout
    assert "canary" not in result.output
    assert result.exit_code == 8, "the database does not answer"
    assert "fail  database" in result.stdout


def test_doctor_changes_nothing(flujo: Flujo, project: Project) -> None:
    result = flujo("doctor")
    assert result.exit_code == 0
    assert "created at the first run" in result.stdout
    assert not (project.root / ".flujo").exists()
    flujo("migrate")
    assert "durability `full` (WAL, synchronous=FULL)" in flujo("doctor").stdout


@pytest.mark.guarantee("G7")
def test_doctor_reports_runs_that_wait_without_a_reason(flujo: Flujo, project: Project) -> None:
    for run in ("fine", "answered", "lost"):
        assert flujo("run", "ask", "--run-id", run).exit_code == 5
    assert flujo("tasks", "resume", "answered", "--detach", "-f", "ok=true").exit_code == 0
    assert "without" not in flujo("doctor").stdout
    assert "no process has taken it" not in flujo("doctor").stdout
    with closing(sqlite3.connect(project.root / ".flujo/state.db")) as database, database:
        database.execute("UPDATE runs SET updated_at = updated_at - 7200")
        database.execute("UPDATE runs SET status = 'waiting' WHERE run_id = 'lost'")
        database.execute("UPDATE pauses SET void = 1 WHERE run_id = 'lost'")
    found = flujo("doctor").stdout
    assert "run answered of ask is paused, and no process has taken it for 2 h" in found
    assert "run lost of ask waits for nothing" in found
    assert "run fine" not in found


def test_doctor_names_damaged_runs(flujo: Flujo, project: Project) -> None:
    for run_id in ("one", "two"):
        assert flujo("run", "hello", "--input", "Ada", "--run-id", run_id).exit_code == 0
    assert "ok    runs          the newest 2 runs with 4 journal entries: intact" in flujo("doctor").stdout
    with closing(sqlite3.connect(project.root / ".flujo" / "state.db")) as connection, connection:
        connection.execute("UPDATE journal SET output = x'2231' WHERE run_id = 'one' AND seq = 2")
    told = flujo("doctor")
    assert told.exit_code == 8
    assert "fail  runs          run one: journal entry 2 at" in told.stdout
    assert "run two" not in told.stdout
    [check] = [
        each for each in json.loads(flujo("doctor", "--json").stdout)["checks"] if each["name"] == "runs"
    ]
    assert (check["state"], "backup" in check["hint"]) == ("fail", True)


def test_doctor_says_how_long_answers_of_cached_steps_are_kept(flujo: Flujo, project: Project) -> None:
    assert "kept in memory and lost when the process ends" in flujo("doctor").stdout
    toml = project.root / "flujo.toml"
    toml.write_text(toml.read_text() + '\n[cache]\nbackend = "state"\n')
    assert "stored in the database" in flujo("doctor").stdout


@pytest.mark.guarantee("G30")
def test_doctor_complains_about_a_postgres_that_forgets_unless_that_is_meant(
    flujo: Flujo, project: Project, postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", postgres_uri)
    name = sa.make_url(postgres_uri).database
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    told = flujo("doctor").stdout
    assert "warn  database" in told
    assert "synchronous_commit=off: a crash of the server loses the last commits" in told
    toml = project.root / "flujo.toml"
    toml.write_text(toml.read_text() + '\n[settings]\ndurability = "relaxed"\n')
    told = flujo("doctor").stdout
    assert "ok    database" in told
    assert "durability `relaxed`" in told
    monkeypatch.delenv("FLUJO_STATE_URI")
    assert flujo("migrate").exit_code == 0
    assert "durability `relaxed` (WAL, synchronous=NORMAL)" in flujo("doctor").stdout


def test_doctor_asks_where_references_are_kept(flujo: Flujo, project: Project) -> None:
    toml = project.root / "flujo.toml"
    text = toml.read_text()
    toml.write_text(text + '\n[state_providers]\npapers = "file:papers"\n')
    result = flujo("doctor")
    assert "ok    references    papers: file:papers" in result.stdout
    assert "state_providers.papers" in result.stdout
    assert not (project.root / "papers").exists()
    (project.root / "papers").write_text("a file, not a folder")
    assert "fail  references    state provider 'papers' could not look for" in flujo("doctor").stdout
    toml.write_text(text + '\n[state_providers]\npapers = "ftp:x"\n')
    broken = flujo("doctor")
    assert "`state_providers.papers` is 'ftp:x', which is not a state provider" in broken.stdout
    assert broken.exit_code == 2


def test_doctor_checks_the_providers_of_the_project(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = project.root / "flujo.toml"
    text = toml.read_text("utf-8")
    monkeypatch.delenv("KENNEL_KEY", raising=False)
    with provider_server() as provider:
        toml.write_text(f'{text}\n[providers.kennel]\nbase_url = "{provider.url}/v1"\n', "utf-8")
        assert "ok    provider      kennel: openai-chat, 127.0.0.1 answers" in flujo("doctor").stdout
        toml.write_text(toml.read_text("utf-8") + 'key = "${KENNEL_KEY}"\n', "utf-8")
        unset = flujo("doctor")
    assert "`providers.kennel.key` uses ${KENNEL_KEY}, which is not set" in unset.stdout
    monkeypatch.setenv("KENNEL_KEY", "sk-canary")
    gone = flujo("doctor")
    assert "warn  provider      kennel: openai-chat; 127.0.0.1 does not answer" in gone.stdout
    assert "to use another server, set `providers.kennel.base_url`" in gone.stdout
    assert "canary" not in gone.output


def test_doctor_checks_whether_a_provider_answers(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-a-test")
    with provider_server() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        there = flujo("doctor")
    assert "OPENAI_API_KEY is set, 127.0.0.1 answers" in there.stdout
    assert provider.requests == []
    gone = flujo("doctor")
    assert "warn  provider      openai: OPENAI_API_KEY is set; 127.0.0.1 does not answer" in gone.stdout
    assert "to use another server, set OPENAI_BASE_URL" in gone.stdout
    assert "key-of-a-test" not in there.stdout + gone.stdout


def test_doctor_notices_a_misspelt_variable(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STATE_URL", "sqlite:///x.db")
    assert "did you mean FLUJO_STATE_URI?" in flujo("doctor").stdout


def test_migrate_check_says_what_is_to_do_and_does_nothing(flujo: Flujo, project: Project) -> None:
    result = flujo("migrate", "--check")
    assert result.exit_code == 8
    assert "next: flujo migrate" in result.stderr
    assert "CREATE TABLE runs" in flujo("migrate", "--sql").stdout
    assert not (project.root / ".flujo").exists()
    assert flujo("migrate").exit_code == 0
    again = flujo("migrate", "--check")
    assert again.exit_code == 0
    assert "is up to date" in again.stderr
    assert "nothing to do" in flujo("migrate", "--sql").stdout
    told = json.loads(flujo("migrate", "--json").stdout)
    assert told["now"] == told["needed"]


def test_a_postgres_database_waits_for_migrate(
    flujo: Flujo, empty_postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", empty_postgres_uri)
    result = flujo("run", "hello", "-i", "Ada")
    assert result.exit_code == 8
    assert "hint: run `flujo migrate`" in result.stderr
    assert flujo("migrate").exit_code == 0
    assert flujo("run", "hello", "-i", "Ada").exit_code == 0
    assert flujo("doctor").exit_code == 0


def test_models_are_listed_without_fetching_any(
    flujo: Flujo, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_CACHE_DIR", str(tmp_path))
    result = flujo("models", "list")
    assert result.exit_code == 0
    assert "local:smollm2" in result.stdout
    assert "next: flujo models pull smollm2" in result.stderr
    assert "93.8 MiB (88.6 MiB to download)" in result.stdout
    assert json.loads(flujo("models", "list", "--json").stdout)[0]["present"] is False


def test_an_unknown_model_is_refused(flujo: Flujo) -> None:
    result = flujo("models", "pull", "gpt-99")
    assert result.exit_code == 1
    assert "there is no local model called 'gpt-99'" in result.stderr


def test_purge_counts_first_and_then_deletes(flujo: Flujo) -> None:
    for name in ("Ada", "Bob"):
        flujo("run", "hello", "-i", name)
    flujo("run", "ask")
    would = flujo("purge", "--older-than", "0s", "--dry-run")
    assert (would.exit_code, would.stderr) == (0, "2 runs would be purged; nothing was deleted\n")
    assert json.loads(flujo("purge", "--older-than", "30d", "--yes", "--json").stdout)["runs"] == 0
    told = json.loads(flujo("purge", "--older-than", "0s", "--yes", "--json").stdout)
    assert (told["runs"], told["dry_run"]) == (2, False)
    assert [run["pipeline"] for run in json.loads(flujo("tasks", "list", "--json").stdout)] == ["ask"]
    assert flujo("purge", "--older-than", "0s", "--status", "paused", "--yes").exit_code == 0
    assert flujo("tasks", "list", "--json").stdout == "[]\n"
    assert flujo("purge", "--older-than", "soon").exit_code == 2


@pytest.mark.parametrize(
    ("age", "says"),
    [
        ("30", "--older-than 30 has no unit"),
        ("0", "--older-than 0 has no unit"),
        ("1.5", "write 1.5d for 1.5 days, 1.5h for 1.5 hours, 1.5m for 1.5 minutes, 1.5s for 1.5 seconds"),
        ("30x", "write 30d, 12h, 90m or 45s"),
        ("-1d", "is not a duration"),
        ("", "is not a duration"),
    ],
)
def test_an_age_without_a_unit_purges_nothing(flujo: Flujo, age: str, says: str) -> None:
    flujo("run", "hello", "-i", "Ada")
    refused = flujo("purge", f"--older-than={age}", "--yes")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert says in refused.stderr
    assert len(json.loads(flujo("tasks", "list", "--json").stdout)) == 1


def test_a_purge_without_a_terminal_needs_yes(flujo: Flujo) -> None:
    flujo("run", "hello", "-i", "Ada")
    flujo("run", "ask")
    words = ("purge", "--older-than", "0s", "--status", "completed", "--status", "paused")
    refused = flujo(*words)
    assert refused.exit_code == 2
    assert "2 runs last changed more than 0s ago: 1 completed, 1 paused\n" in refused.stderr
    assert "refused to delete 2 runs without a confirmation" in refused.stderr
    assert "hint: `--yes` confirms it" in refused.stderr
    assert len(json.loads(flujo("tasks", "list", "--json").stdout)) == 2
    assert "2 runs purged" in flujo(*words, "--yes").stderr


@pytest.mark.parametrize(("answer", "left"), [("no", 1), ("", 1), ("yes", 0), ("Y", 0)])
def test_a_purge_at_a_terminal_waits_for_a_confirmation(
    flujo: Flujo, project: Project, answer: str, left: int
) -> None:
    """With `--json`, stdout has one document whether the user confirms or declines."""
    flujo("run", "hello", "-i", "Ada")
    mine, terminal = os.openpty()
    command = project.command("purge", "--older-than", "0s", "--json")
    with warm.Popen(
        command, cwd=project.root, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal
    ) as purging:
        os.close(terminal)
        shown = b""
        while b"Type yes to confirm:" not in shown:
            shown += os.read(mine, 1000)
        os.write(mine, f"{answer}\n".encode())
        said, _ = purging.communicate(timeout=60)
        code = purging.returncode
    os.close(mine)
    assert b"delete 1 run?" in shown.replace(b"\r\n", b"\n")
    assert code == (1 if left else 0)
    if left:
        about = {"code": None, "type": "Declined", "hint": None, "exit_code": 1}
        assert json.loads(said) == {"error": {**about, "message": "nothing was changed"}}
    else:
        assert json.loads(said)["runs"] == 1
    assert len(json.loads(flujo("tasks", "list", "--json").stdout)) == left
