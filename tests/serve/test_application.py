"""Endpoints behind their checks, and errors in the form of who asked."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.engine import make_url

from flujo.serve.api import health
from flujo.settings_serve import ServeTable
from flujo.state.sql.retry import RETRY_S

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace


def test_an_unknown_path_is_a_problem_for_programs_and_a_page_for_people(browser: TestClient) -> None:
    program, person = browser.get("/api/v1/nothing"), browser.get("/nothing")
    assert (program.status_code, person.status_code) == (404, 404)
    assert program.headers["content-type"] == "application/problem+json"
    assert program.json() == {"title": "Not Found", "status": 404}
    assert "<h1>Not Found</h1>" in person.text


def test_a_new_project_has_no_runs_and_no_questions(browser: TestClient) -> None:
    assert browser.get("/api/v1/runs").json() == {"runs": [], "cursor": None}
    assert "Nothing waits for an answer" in browser.get("/").text


def test_a_token_that_is_unknown_is_refused(browser: TestClient) -> None:
    answer = browser.get("/api/v1/runs", headers={"authorization": "Bearer flujo_nobody"})
    assert (answer.status_code, answer.json()["code"]) == (401, "FLJ661")


def test_the_server_says_whether_it_is_alive_and_ready(browser: TestClient) -> None:
    assert browser.get("/healthz").json() == browser.get("/readyz").json() == {"status": "ok"}


def test_a_database_that_is_silent_makes_the_server_unready_and_not_dead(
    browser: TestClient, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert browser.get("/readyz").status_code == 200
    assert browser.portal is not None
    monkeypatch.setattr(health, "ANSWERS_S", 0.01)
    monkeypatch.setattr(browser.portal.call(workspace.store), "probe", partial(asyncio.sleep, 60))
    assert [browser.get(path).status_code for path in ("/readyz", "/healthz")] == [503, 200]


def test_a_database_that_refuses_connections_makes_the_server_unready_before_other_requests_give_up(
    postgres_uri: str, tmp_path_factory: pytest.TempPathFactory, root: Path, request: pytest.FixtureRequest
) -> None:
    server = make_url(postgres_uri)
    there, way = Path(str(server.query["host"])), tmp_path_factory.mktemp("way")
    for socket in there.glob(".s.PGSQL.*"):
        (way / socket.name).symlink_to(socket)
    uri = server.update_query_dict({"host": str(way)}).render_as_string(hide_password=False)
    (root / "flujo.toml").write_text(f'state_uri = "{uri}"\n')
    client: TestClient = request.getfixturevalue("serve")(ServeTable())  # it reads the settings
    assert client.get("/readyz").status_code == 200
    for name in way.iterdir():
        name.unlink()
    with psycopg.connect(postgres_uri, autocommit=True) as others:
        others.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    began = time.monotonic()
    assert [client.get(path).status_code for path in ("/readyz", "/healthz")] == [503, 200]
    assert time.monotonic() - began < RETRY_S / 2


def test_a_database_of_a_newer_flujo_makes_the_server_unready_and_not_dead(
    root: Path, serve: Callable[..., TestClient]
) -> None:
    with closing(sqlite3.connect(root / "state.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE schema_info SET revision = '9999', oldest_reader = '9998'")
    client = serve(ServeTable())
    assert [client.get(path).status_code for path in ("/readyz", "/healthz")] == [503, 200]
