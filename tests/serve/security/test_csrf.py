"""Changes come from pages of this server, or from programs; never from pages of other sites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import JSONResponse

from flujo.domain.access import Right
from flujo.domain.acts import Actor, Via
from flujo.serve.endpoints import Endpoint
from flujo.serve.routes import ENDPOINTS
from flujo.services.access import tokens
from flujo.settings_serve import ServeTable
from serve.pages.test_login import token_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.testclient import TestClient

    from flujo.services.workspace import Workspace


async def change(request: Request) -> Response:
    return JSONResponse({"sent": dict(await request.form())})


CHANGES = (
    Endpoint("POST", "/change", change, Right.ANSWER),
    Endpoint("POST", "/api/v1/change", change, Right.ANSWER),
    Endpoint("POST", "/api/v1/hook", change, None),
)


@pytest.fixture
def client(serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr("flujo.serve.application.ENDPOINTS", (*ENDPOINTS, *CHANGES))
    return serve(ServeTable())


def test_a_form_of_a_page_is_accepted_and_one_without_its_token_is_not(client: TestClient) -> None:
    assert client.post("/change", data={"answer": "yes"}).status_code == 403
    client.get("/")
    without = client.post("/change", data={"answer": "yes"})
    assert without.status_code == 403
    assert "reload the page and send it again; nothing was changed" in without.text
    client.cookies.clear()
    token = token_in(client.get("/"))
    sent = client.post("/change", data={"answer": "yes", "csrf_token": token})
    assert sent.json() == {"sent": {"answer": "yes", "csrf_token": token}}
    uploaded = client.post("/change", data={"csrf_token": token}, files={"file": b"x"})
    assert uploaded.status_code == 500, "a file is not JSON, so the endpoint was reached"
    assert client.post("/change", headers={"x-csrf-token": token}, content=b"").status_code == 200
    assert client.post("/change", data={"csrf_token": f"{token}x"}).status_code == 403
    client.cookies.clear()
    assert client.post("/change", data={"csrf_token": token}).status_code == 403, "it is of another browser"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8400"},
    ],
)
def test_a_page_of_another_site_is_refused_even_with_the_token(
    headers: dict[str, str], client: TestClient
) -> None:
    token = token_in(client.get("/"))
    for path in ("/change", "/api/v1/change"):
        refused = client.post(path, headers={**headers, "x-csrf-token": token})
        assert (refused.status_code, "a page of another site has sent this" in refused.text) == (403, True)


def test_a_program_needs_no_token_of_a_form_and_a_page_needs_it_for_the_api_too(
    client: TestClient, workspace: Workspace
) -> None:
    assert client.post("/api/v1/change").status_code == 200, "a program on this machine"
    own: dict[str, Any] = {"headers": {"origin": "http://127.0.0.1:8400", "sec-fetch-site": "same-origin"}}
    assert client.post("/api/v1/change", **own).status_code == 403
    assert client.post("/api/v1/hook", headers={"origin": "https://shop.example"}).status_code == 200
    assert client.portal is not None
    store = client.portal.call(workspace.store)
    made = client.portal.call(
        lambda: tokens.create(store, "billing", "operator", actor=Actor("ada", Via.CLI))
    )
    bearer = {"authorization": f"Bearer {made.secret}", "origin": "https://shop.example"}
    assert client.post("/api/v1/change", headers=bearer).status_code == 200
    assert client.post("/change", headers=bearer).status_code == 403, "pages are for people"


def test_too_many_changes_have_to_wait(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flujo.serve.application.ENDPOINTS", (*ENDPOINTS, *CHANGES))
    client = serve(ServeTable(changes_per_minute=2))
    assert [client.post("/api/v1/change").status_code for _ in range(2)] == [200, 200]
    waiting = client.post("/api/v1/change")
    assert (waiting.status_code, waiting.headers["retry-after"]) == (429, "30")
    assert client.post("/api/v1/hook").status_code == 200, "a hook checks for itself who sends"
    assert client.get("/api/v1/runs").status_code == 200
