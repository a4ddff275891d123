"""Every endpoint of the table, called with every role: the table says who gets in, and no other rule does."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import PlainTextResponse

from flujo.domain.access import Role
from flujo.serve.endpoints import API_PREFIX
from flujo.serve.routes import ENDPOINTS
from flujo.serve.security import csrf
from flujo.settings_serve import ProxyTable, ServeTable, UserTable
from flujo.testing.store_suite import new_run
from serve.served import VISITOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.testclient import TestClient

    from flujo.serve.endpoints import Endpoint
    from flujo.services.workspace import Workspace

USERS = {str(role): UserTable(role=role) for role in Role}
PROXY = ProxyTable(trusted=("127.0.0.1",), user_header="X-User")
SETTINGS = ServeTable(users=USERS, proxy=PROXY)
SESSION = "s" * 43
"""The secret of a session that has ended."""
REACHED = 299


async def reached(request: Request) -> Response:
    return PlainTextResponse("", REACHED)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> tuple[Endpoint, ...]:
    """The table, with functions that only answer that they were reached."""
    table = tuple(replace(each, answer=reached) for each in ENDPOINTS)
    monkeypatch.setattr("flujo.serve.application.ENDPOINTS", table)
    return table


def call(client: TestClient, endpoint: Endpoint, **headers: str) -> int:
    path = re.sub(r"\{[^}]*\}", "1", endpoint.path)
    if endpoint.changes:
        secret = SESSION if "cookie" in headers else VISITOR
        headers = {csrf.HEADER: csrf.token_of(secret), "cookie": f"flujo_visitor={secret}", **headers}
    answer = client.request(endpoint.method, f"http://127.0.0.1:8400{path}", headers=headers)
    if answer.status_code == REACHED:
        return REACHED
    is_problem = answer.headers["content-type"] == "application/problem+json"
    assert is_problem == endpoint.is_api, endpoint.path
    return answer.status_code


def test_a_role_reaches_the_endpoints_whose_right_it_has(
    table: tuple[Endpoint, ...], serve: Callable[..., TestClient]
) -> None:
    client = serve(SETTINGS)
    for endpoint in table:
        for role in Role:
            wanted = REACHED if endpoint.right is None or endpoint.right in role.rights else 403
            assert call(client, endpoint, **{"x-user": str(role)}) == wanted, (endpoint.path, role)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cookie": f"flujo_session={SESSION}"},
        {"authorization": "Bearer flujo_unknown"},
        {"authorization": "Basic YWRtaW46YWRtaW4="},
        {"x-user": "unknown"},
        {"x-forwarded-user": "admin"},
    ],
)
def test_without_a_login_only_public_endpoints_are_reached(
    headers: dict[str, str], table: tuple[Endpoint, ...], serve: Callable[..., TestClient]
) -> None:
    client = serve(SETTINGS)
    for endpoint in table:
        wanted = REACHED if endpoint.right is None else 401
        assert call(client, endpoint, **headers) == wanted, endpoint.path


def test_a_read_only_server_lets_no_role_change_anything(
    table: tuple[Endpoint, ...], serve: Callable[..., TestClient]
) -> None:
    client = serve(SETTINGS.model_copy(update={"read_only": True}))
    for endpoint in table:
        wanted = 403 if endpoint.changes and not endpoint.is_entry else REACHED
        assert call(client, endpoint, **{"x-user": "admin"}) == wanted, endpoint.path


def test_no_page_is_changed_without_the_token_of_its_form(
    table: tuple[Endpoint, ...], serve: Callable[..., TestClient]
) -> None:
    client = serve(SETTINGS)
    for endpoint in table:
        is_guarded = endpoint.changes and not (endpoint.is_api and endpoint.right is None)
        path = re.sub(r"\{[^}]*\}", "1", endpoint.path)
        headers = {"x-user": "admin", "origin": "http://127.0.0.1:8400"}
        status = client.request(endpoint.method, path, headers=headers).status_code
        assert status == (403 if is_guarded else REACHED), endpoint.path


def test_the_table_is_well_formed() -> None:
    keys = [(each.method, each.path) for each in ENDPOINTS]
    assert len(set(keys)) == len(keys)
    public = {each.path for each in ENDPOINTS if each.right is None and not each.path.startswith(API_PREFIX)}
    assert public == {"/healthz", "/readyz", "/login", "/logout"}
    for endpoint in ENDPOINTS:
        assert endpoint.path.startswith("/")
        assert endpoint.method in ("GET", "POST", "PUT", "DELETE")
        assert endpoint.is_entry <= (endpoint.right is None)


def test_a_person_with_a_reach_sees_the_runs_in_it_alone(
    serve: Callable[..., TestClient], workspace: Workspace
) -> None:
    limits: dict[str, Any] = {
        "triage": {"blueprints": ("triage",)},
        "north": {"metadata": {"team": "north"}},
        "none": {"queues": ("q",)},
    }
    users = {name: UserTable(role=Role.ADMIN, **limit) for name, limit in limits.items()}
    client = serve(ServeTable(users=users, proxy=PROXY))

    async def accept() -> None:
        store = await workspace.store()
        await store.accept(new_run("run-1", metadata={"team": "south"}), {})
        await store.accept(new_run("run-2", pipeline="billing", metadata={"team": "north"}), {})

    assert client.portal is not None
    client.portal.call(accept)
    seen = {
        name: [run["run_id"] for run in client.get("/api/v1/runs", headers={"x-user": name}).json()["runs"]]
        for name in limits
    }
    assert seen == {"triage": ["run-1"], "north": ["run-2"], "none": []}
