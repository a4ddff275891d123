"""The path of a server behind a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.settings_serve import ProxyTable, ServeTable, UserTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.testclient import TestClient


def test_a_proxy_may_pass_the_prefix_on_or_take_it_off(serve: Callable[..., TestClient]) -> None:
    proxy = ProxyTable(trusted=("127.0.0.1",), user_header="X-User")
    settings = ServeTable(
        public_url="https://example.com/flujo", proxy=proxy, users={"ada": UserTable(role="viewer")}
    )
    client = serve(settings)
    client.headers["x-user"] = "ada"
    for path in ("/flujo/", "/"):
        page = client.get(f"https://example.com{path}")
        assert 'href="/flujo/static/flujo.css"' in page.text
    for path in ("/flujo/healthz", "/healthz", "/flujo/static/flujo.css", "/static/flujo.css"):
        assert client.get(f"https://example.com{path}").status_code == 200
    for path in ("/flujo/api/v1/nothing", "/api/v1/nothing"):
        assert client.get(f"https://example.com{path}").json() == {"title": "Not Found", "status": 404}
    assert client.get("https://example.com/flujoish").status_code == 404
