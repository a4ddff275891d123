"""Bodies that are too long, too slow, or no forms."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from flujo.exceptions import BodyTooLarge
from flujo.serve.security import bodies
from flujo.settings_serve import ServeTable
from serve.pages.test_login import BASE, SETTINGS, token_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.testclient import TestClient


def request(*parts: bytes, length: str | None = None) -> Request:
    """Return a request whose body comes in parts, and then never ends."""
    left = list(parts)

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    headers = [] if length is None else [(b"content-length", length.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def test_a_body_is_read_up_to_the_limit() -> None:
    with pytest.raises(BodyTooLarge, match="the body has more than 10 bytes"):
        bodies.limited(request(length="11"), 10)
    limited = bodies.limited(request(b"12345", b"67890", b"1"), 10)
    with pytest.raises(BodyTooLarge):
        await limited.body()
    for length in ("-1", "1e3", "٣", ""):
        with pytest.raises(HTTPException, match="400"):
            bodies.limited(request(length=length), 10)


async def test_a_body_that_is_too_slow_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_PATIENCE_S", 0.0)
    with pytest.raises(HTTPException, match="408"):
        await bodies.limited(request(b"1"), 10).body()


async def test_after_the_body_a_connection_may_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_PATIENCE_S", 0.05)
    messages = iter(({"type": "http.request", "body": b""}, {"type": "http.disconnect"}))

    async def receive() -> Any:
        message = next(messages)
        if message["type"] == "http.disconnect":
            await asyncio.sleep(0.1)
        return message

    limited = bodies.limited(Request({"type": "http", "method": "GET", "headers": []}, receive), 10)
    assert await limited.body() == b""
    assert await limited.receive() == {"type": "http.disconnect"}


def _chunks() -> Iterator[bytes]:
    for _ in range(3):
        yield b"x" * 500_000


def test_hostile_forms_are_refused_without_a_fault_of_the_server(serve: Callable[..., TestClient]) -> None:
    client = serve(SETTINGS)
    token = token_in(client.get(f"{BASE}/login"))
    form = {"content-type": "application/x-www-form-urlencoded"}
    many = "&".join(f"a{number}=1" for number in range(1500))
    cases: list[tuple[int, dict[str, Any]]] = [
        (413, {"content": b"x" * 1_000_001, "headers": form}),
        (413, {"content": _chunks(), "headers": form}),
        (400, {"content": f"csrf_token={token}&{many}", "headers": form}),
        (400, {"content": b"--x", "headers": {"content-type": "multipart/form-data"}}),
        (400, {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=x"}}),
        (403, {"content": b"{}", "headers": {"content-type": "application/json"}}),
        (403, {"content": b"csrf_token=%ff%00&name=%ed%a0%80", "headers": form}),
        (401, {"content": f"csrf_token={token}&name=%ff%00&password=%ed%a0%80", "headers": form}),
        (401, {"content": f"csrf_token={token}&name=ada&name=bob", "headers": form}),
        (401, {"data": {"csrf_token": token, "next": "x"}, "files": {"name": b"ada", "password": b"x"}}),
    ]
    for number, (status, sent) in enumerate(cases):
        client.app.state.serving.limits._logins.clear()  # type: ignore[attr-defined]
        assert client.post(f"{BASE}/login", **sent).status_code == status, number


def test_hostile_headers_are_refused_without_a_fault_of_the_server(serve: Callable[..., TestClient]) -> None:
    client = serve(ServeTable())
    hostile: tuple[Any, ...] = (
        {"authorization": b"Bearer \xff\x00"},
        {"authorization": "Bearer"},
        {"authorization": "Basic YTpi", "cookie": "flujo_session=" + "x" * 5000},
        {"cookie": b"flujo_session=\xff; =; ;;flujo_visitor"},
        {"origin": "http://[::1", "sec-fetch-site": "?"},
        {"content-type": "multipart/form-data; boundary=" + "y" * 3000},
    )
    for headers in hostile:
        assert client.get("/", headers=headers).status_code in (200, 401), headers
        assert client.post("/login", headers=headers, content=b"x").status_code in (400, 403), headers
    for path in (
        "/%ff",
        "/%00",
        "/..%2f..%2fetc/passwd",
        "/static/..%2f..%2fserver.py",
        "/login?next=%ed%a0%80",
    ):
        assert client.get(path).status_code in (401, 404), path
