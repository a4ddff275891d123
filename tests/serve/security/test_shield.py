"""Headers of every answer, and unexpected exceptions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from starlette.responses import Response, StreamingResponse

from flujo.serve.endpoints import Endpoint
from flujo.serve.routes import ENDPOINTS
from flujo.settings_serve import ServeTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.testclient import TestClient


async def fails(request: Request) -> Response:
    raise ZeroDivisionError("secret state of the server")


async def fails_late(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ZeroDivisionError("late")

    return StreamingResponse(chunks())


async def cached(request: Request) -> Response:
    return Response(headers={"cache-control": "max-age=60"})


OTHERS = (
    Endpoint("GET", "/fails", fails, None),
    Endpoint("GET", "/api/v1/fails", fails, None),
    Endpoint("GET", "/fails-late", fails_late, None),
    Endpoint("GET", "/cached", cached, None),
)


@pytest.fixture
def client(serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr("flujo.serve.application.ENDPOINTS", (*ENDPOINTS, *OTHERS))
    return serve(ServeTable())


def test_every_answer_has_the_headers(client: TestClient) -> None:
    paths = ("/", "/nothing", "/api/v1/runs", "/fails", "/static/flujo.css", "/login", "/healthz")
    for path in paths:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "camera=()" in headers["permissions-policy"]
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")
    assert client.get("/cached").headers["cache-control"] == "max-age=60"


def test_no_page_has_a_script_or_a_style_of_its_own(client: TestClient) -> None:
    for path in ("/", "/nothing", "/fails"):
        text = client.get(path).text.lower()
        for inline in ("<script>", "<style", "style=", "onclick=", "javascript:"):
            assert inline not in text, path


def test_an_unexpected_exception_is_logged_once_and_its_answer_has_no_traceback(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    page, problem = client.get("/fails"), client.get("/api/v1/fails")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2
    assert "ZeroDivisionError: secret state of the server" in caplog.text
    for answer in (page, problem):
        assert answer.status_code == 500
        assert "secret state" not in answer.text
        assert "Traceback" not in answer.text
    reference = errors[0].getMessage().rpartition(" ")[2]
    assert reference in page.text, "whoever sees the page can name the line of the log"
    assert problem.headers["content-type"] == "application/problem+json"


def test_an_exception_after_the_begin_of_an_answer_is_logged_once(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get("/fails-late").content == b"begun"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
