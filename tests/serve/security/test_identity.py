"""Who a request is from: this machine, a trusted proxy, or unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.domain.access import Role
from flujo.settings_serve import ProxyTable, ServeTable, UserTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.testclient import TestClient

PROXY = ProxyTable(
    trusted=("10.0.0.0/8", "fd00::/8"),
    user_header="X-Forwarded-User",
    groups_header="X-Forwarded-Groups",
    roles={"desk": Role.ANSWERER, "ops": Role.ADMIN},
)
SETTINGS = ServeTable(host="0.0.0.0", users={"ada": UserTable(role="viewer")}, proxy=PROXY)


@pytest.mark.parametrize(
    ("address", "headers", "hint"),
    [
        ("192.0.2.7", {}, "for the machine that it runs on"),
        ("127.0.0.1", {"host": "evil.example"}, "this server is not &#39;evil.example&#39;"),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example:8400"}, "this server is not"),
        ("127.0.0.1", {"host": "[::1"}, "this server is not"),
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.7"}, "came through a proxy"),
    ],
)
def test_a_server_without_login_answers_this_machine_alone(
    address: str, headers: dict[str, str], hint: str, serve: Callable[..., TestClient]
) -> None:
    refused = serve(ServeTable(), address=address).get("/", headers=headers)
    assert (refused.status_code, hint in refused.text) == (403, True), refused.text


@pytest.mark.parametrize("host", ["localhost:8400", "127.0.0.1", "[::1]:8400"])
def test_the_user_of_this_machine_is_its_administrator(host: str, serve: Callable[..., TestClient]) -> None:
    assert "(admin)" in serve(ServeTable()).get("/", headers={"host": host}).text


@pytest.mark.parametrize(
    ("headers", "status", "shown"),
    [
        ({"x-forwarded-user": "ada"}, 200, "ada (viewer)"),
        ({"x-forwarded-user": "ada", "x-forwarded-groups": "ops"}, 200, "ada (viewer)"),
        ({"x-forwarded-user": "eve", "x-forwarded-groups": "staff, ops,desk"}, 200, "eve (admin)"),
        ({"x-forwarded-user": "Zoë".encode(), "x-forwarded-groups": "desk"}, 200, "Zoë (answerer)"),
        ({"x-forwarded-user": "eve", "x-forwarded-groups": "staff"}, 401, "eve has no role here"),
        ({"x-forwarded-user": "<b>", "x-forwarded-groups": "desk"}, 200, "&lt;b&gt; (answerer)"),
        ({"x-forwarded-user": " ", "x-forwarded-groups": "desk"}, 403, "a name that cannot be used"),
        ({"x-forwarded-user": "e" * 201}, 403, "a name that cannot be used"),
        ({}, 401, "does not say who sends it"),
    ],
)
def test_a_trusted_proxy_says_who_it_is(
    headers: dict[str, str], status: int, shown: str, serve: Callable[..., TestClient]
) -> None:
    answer = serve(SETTINGS, address="10.1.2.3").get("/", headers=headers)
    assert (answer.status_code, shown in answer.text) == (status, True), answer.text


@pytest.mark.parametrize(
    ("address", "status"), [("::ffff:10.1.2.3", 200), ("fd00::5", 200), ("192.0.2.7", 401)]
)
def test_the_same_header_from_another_address_is_ignored_and_logged(
    address: str, status: int, serve: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    assert (
        serve(SETTINGS, address=address).get("/", headers={"x-forwarded-user": "ada"}).status_code == status
    )
    assert ("X-Forwarded-User from 192.0.2.7 is ignored" in caplog.text) == (status == 401)


def test_two_names_are_refused(serve: Callable[..., TestClient]) -> None:
    client = serve(SETTINGS, address="10.1.2.3")
    refused = client.get("/", headers=[("x-forwarded-user", "ada"), ("x-forwarded-user", "root")])
    assert (refused.status_code, "2 headers X-Forwarded-User" in refused.text) == (403, True)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("flujo.example.com", 200),
        ("flujo.example.com:443", 200),
        ("FLUJO.example.com", 200),
        ("flujo.example.com:8400", 403),
        ("evil.example", 403),
    ],
)
def test_only_the_public_host_is_answered(host: str, status: int, serve: Callable[..., TestClient]) -> None:
    settings = SETTINGS.model_copy(update={"public_url": "https://flujo.example.com"})
    client = serve(settings, address="10.1.2.3")
    assert client.get("/", headers={"host": host, "x-forwarded-user": "ada"}).status_code == status
    assert client.get("/healthz", headers={"host": host}).status_code == 200
