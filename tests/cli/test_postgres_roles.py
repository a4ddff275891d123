"""The grants of docs/how-to/use-postgres.md are enough: one role migrates, another one runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

PAGE = Path(__file__).parents[2] / "docs/how-to/use-postgres.md"


@dataclass(frozen=True)
class Roles:
    """A database with the roles of the page, under names of this test."""

    uri: str
    owner: str
    app: str


@pytest.fixture
def roles(empty_postgres_uri: str) -> Iterator[Roles]:
    found = re.search(r"```sql title=\"roles.sql\"\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    own = uuid4().hex[:8]
    names = {name: f"{name}_{own}" for name in ("flujo_owner", "flujo_app")}
    with psycopg.connect(empty_postgres_uri, autocommit=True) as admin:
        admin.execute(re.sub("flujo_owner|flujo_app", lambda name: names[name[0]], found[1]).encode())
        url = sa.make_url(empty_postgres_uri)
        uris = [
            url.set(username=name, password=word).render_as_string(hide_password=False)
            for name, word in zip(names.values(), ("change-me-1", "change-me-2"), strict=True)
        ]
        yield Roles(empty_postgres_uri, *uris)
        for name in names.values():
            admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


def test_one_role_migrates_and_another_one_runs(
    roles: Roles, flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", roles.app)
    refused = flujo("migrate")
    assert refused.exit_code == 8
    assert "permission denied" in refused.stderr
    assert "docs/how-to/use-postgres.md lists what each role needs" in refused.stderr

    monkeypatch.setenv("FLUJO_STATE_URI", roles.owner)
    assert flujo("migrate").exit_code == 0

    monkeypatch.setenv("FLUJO_STATE_URI", roles.app)
    for words, code in (
        ("migrate", 0),
        ("migrate --check", 0),
        ("run hello --input Ada", 0),
        ("run ask --run-id a1", 5),
        ("tasks resume a1 --field ok=true", 0),
        ("run flaky --input x --run-id f1", 1),
        ("resume f1 --retry-failed", 1),
        ("tasks cancel f1", 0),
        ("tasks list", 0),
        ("trace a1", 0),
        ("worker --once", 0),
        ("purge --older-than 0s --yes", 0),
        ("doctor", 0),
    ):
        result = flujo(*words.split())
        assert result.exit_code == code, (words, result.output)
        assert "permission denied" not in result.output, words


def test_a_role_that_may_not_create_a_schema_migrates_the_one_that_it_owns(
    roles: Roles, flujo: Flujo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(roles.uri, autocommit=True) as admin:
        name = sa.make_url(roles.owner).username
        row = admin.execute(
            "SELECT has_database_privilege(%s, current_database(), 'CREATE')", [name]
        ).fetchone()
        assert row == (False,)
    monkeypatch.setenv("FLUJO_STATE_URI", roles.owner)
    assert flujo("migrate").exit_code == 0
    assert flujo("migrate").exit_code == 0


def test_a_role_without_any_right_to_write_migrates_when_there_is_nothing_to_do(
    roles: Roles, flujo: Flujo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", roles.owner)
    assert flujo("migrate").exit_code == 0
    reader = sa.make_url(roles.app).username
    with psycopg.connect(roles.uri, autocommit=True) as admin:
        admin.execute(f"REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA flujo FROM {reader}".encode())
    monkeypatch.setenv("FLUJO_STATE_URI", roles.app)
    assert flujo("migrate").exit_code == 0
