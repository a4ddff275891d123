"""No part of a password in a URL is shown, whatever characters it has and however it is written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from flujo.governance.redactor import encoded_userinfo
from flujo.settings import load
from flujo.state.sql.database import parse

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Flujo, Project

PASSWORDS = [
    "p@ss",
    "c@nary-q7",
    "canary:q7x/zz",
    "canary/q7x:zz",
    "canary%q7x%40",
    "canary#q7x#zz",
    "canary?q7x?zz",
    "canary q7x zz",
    "@:/%# ?c@n:r/%20q7#x?z z",
    "canary\"q7x'zz",
    "kanäry-ß-q7x",
]
COMMANDS = [
    ("tasks", "list"),
    ("--debug", "tasks", "list"),
    ("run", "hello", "--input", "Ada"),
    ("run", "hello", "--input", "Ada", "--json"),
    ("resume", "x"),
    ("trace", "@last"),
    ("worker", "--once"),
    ("doctor",),
    ("doctor", "--json"),
    ("migrate",),
    ("migrate", "--check", "--json"),
    ("purge", "--older-than", "1d", "--yes"),
]
HOST = "127.0.0.1:1"


def parts(password: str) -> set[str]:
    """Return the pieces of a password that must not be shown."""
    size = min(4, len(password))
    return {password[at : at + size] for at in range(len(password) - size + 1)}


TURNS = 1 if os.environ.get("FLUJO_CORPUS_STRIDE") == "1" else 3
"""A third of the commands gets each password, the next third the next; in `make soak` all commands get each."""


def shown(flujo: Flujo, password: str) -> str:
    turn = PASSWORDS.index(password) % TURNS
    return "\n".join(flujo(*words).output for words in COMMANDS[turn::TURNS])


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_from_a_variable_is_not_shown(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    toml = project.root / "flujo.toml"
    toml.write_text(
        f'state_uri = "postgresql://flujo:${{PGPW}}@{HOST}/db"\n' + toml.read_text("utf-8"), "utf-8"
    )
    monkeypatch.setenv("PGPW", password)
    output = shown(flujo, password)
    assert f"postgresql://flujo:***@{HOST}/db" in output
    assert [part for part in parts(password) if part in output] == []


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_in_the_variable_of_the_url_is_not_shown(
    flujo: Flujo, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", f"postgresql://flujo:{password}@{HOST}/db")
    output = shown(flujo, password)
    assert [part for part in parts(password) if len(part) > 3 and part in output] == []


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("user", ["flujo", "a@b"])
def test_a_variable_in_the_user_part_arrives_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    monkeypatch.setenv("WHO", user)
    monkeypatch.setenv("PGPW", password)
    monkeypatch.setenv("BOTH", f"{user}:{password}")
    for userinfo in ("${WHO}:${PGPW}", "${BOTH}"):
        path = tmp_path / "flujo.toml"
        path.write_text(
            f'state_uri = "postgresql://{userinfo}@db.example:5432/runs?sslmode=require"', "utf-8"
        )
        url = parse(load(path).state_uri)
        assert (url.username, url.password, url.host, url.port) == (user, password, "db.example", 5432)
        assert url.database == "runs"


def test_a_variable_elsewhere_in_a_url_is_filled_in_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REST", "db.example:5432/runs?application_name=me@work")
    monkeypatch.setenv("ALL", "postgresql://u:p%40ss@h/db")
    path = tmp_path / "flujo.toml"
    path.write_text('state_uri = "postgresql://u:p@${REST}"', "utf-8")
    assert load(path).state_uri == "postgresql://u:p@db.example:5432/runs?application_name=me@work"
    path.write_text('state_uri = "${ALL}"', "utf-8")
    assert parse(load(path).state_uri).password == "p@ss"


@pytest.mark.parametrize(
    ("url", "password", "host"),
    [
        ("postgresql://u:p@ss@h/db", "p@ss", "h"),
        ("postgresql://u:p/ss@h/db", "p/ss", "h"),
        ("postgresql://u:p#s?s@h/db", "p#s?s", "h"),
        ("postgresql://u:50%off@h/db", "50%off", "h"),
        ("postgresql://u:p%40ss@h/db", "p@ss", "h"),
        ("postgresql://u:p@h/db?application_name=me@work", "p", "h"),
        ("postgresql://u@h/db", None, "h"),
    ],
)
def test_a_url_is_read_as_users_type_it(url: str, password: str | None, host: str) -> None:
    found = parse(url)
    assert (found.password, found.host) == (password, host)


@pytest.mark.parametrize("url", ["sqlite:///a@b.db", "sqlite:///p:q@r.db", "postgresql:///db?host=/tmp"])
def test_a_url_without_a_user_stays_as_it_is(url: str) -> None:
    assert encoded_userinfo(url) == url
    assert sa.make_url(url) == sa.make_url(encoded_userinfo(url))


def test_the_example_of_a_url_is_shown_as_written(flujo: Flujo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", "mysql://u:canary-99@h/db")
    assert "`postgresql://USER:${PASSWORD}@HOST:5432/DATABASE`" in flujo("tasks", "list").stderr
