"""Endpoints behind their checks, and errors in the form of who asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.testclient import TestClient


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
