"""Logging in with a password: sessions, where a login returns to, and the acts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from starlette.testclient import TestClient

from flujo.domain.acts import OF_LOGINS, ActQuery
from flujo.serve.application import application
from flujo.serve.serving import Serving
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.settings_serve import ServeTable, UserTable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from httpx2 import Response

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ADA = UserTable(role="operator", password_hash=CHEAP.hash("analytical"))
SETTINGS = ServeTable(users={"ada": ADA}, public_url="https://flujo.example.com/desk")
BASE = "https://flujo.example.com/desk"


def token_in(answer: Response) -> str:
    """Return the token of the forms of a page."""
    found = re.search(r'name="csrf_token" value="([\w-]+)"', answer.text)
    assert found is not None
    return found[1]


def log_in(client: TestClient, password: str = "analytical", **fields: str) -> Response:
    token = token_in(client.get(f"{BASE}/login"))
    return client.post(
        f"{BASE}/login", data={"name": "ada", "password": password, "csrf_token": token, **fields}
    )


def test_a_page_asks_for_the_login_and_the_login_returns_to_it(serve: Callable[..., TestClient]) -> None:
    client = serve(SETTINGS)
    asked = client.get(f"{BASE}/?queue=support")
    assert (asked.status_code, asked.headers["location"]) == (303, "/desk/login?next=%2F%3Fqueue%3Dsupport")
    form = client.get(f"https://flujo.example.com{asked.headers['location']}")
    assert '<input type="hidden" name="next" value="/?queue=support">' in form.text
    entered = log_in(client, next="/?queue=support")
    assert (entered.status_code, entered.headers["location"]) == (303, "/desk/?queue=support")
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith("__Secure-flujo_session=")
    for attribute in ("HttpOnly", "Secure", "SameSite=lax", "Path=/desk", "Max-Age=43200"):
        assert attribute in cookie
    assert "ada (operator)" in client.get(f"{BASE}/").text
    assert client.get(f"{BASE}/api/v1/runs").json() == {"runs": [], "cursor": None}


def test_a_session_ends_with_the_logout_and_each_login_begins_a_new_one(
    serve: Callable[..., TestClient], workspace: Workspace
) -> None:
    client = serve(SETTINGS)
    log_in(client)
    first = client.cookies["__Secure-flujo_session"]
    log_in(client)
    second = client.cookies["__Secure-flujo_session"]
    assert first != second
    client.cookies.clear()
    for ended in (first, "w" * 43, "forged"):
        answer = client.get(f"{BASE}/", headers={"cookie": f"__Secure-flujo_session={ended}"})
        assert answer.status_code == 303
    cookie = {"cookie": f"__Secure-flujo_session={second}"}
    token = token_in(client.get(f"{BASE}/", headers=cookie))
    left = client.post(f"{BASE}/logout", data={"csrf_token": token}, headers=cookie)
    assert (left.status_code, left.headers["location"]) == (303, "/desk/login")
    assert client.get(f"{BASE}/", headers=cookie).status_code == 303
    assert client.portal is not None
    store = client.portal.call(workspace.store)
    acts = client.portal.call(store.recorded_acts, ActQuery(object="ada", verbs=OF_LOGINS))
    assert [str(act.verb) for act in acts] == ["log_out", "log_in", "log_out", "log_in"]
    assert acts[-1].after == b'{"address":"127.0.0.1"}'


def test_a_session_is_known_to_another_server_on_the_same_database(
    serve: Callable[..., TestClient], root: Path
) -> None:
    first = serve(SETTINGS)
    log_in(first)
    other = Workspace(find_project(root))
    cookie = {"cookie": f"__Secure-flujo_session={first.cookies['__Secure-flujo_session']}"}
    with TestClient(application(Serving(other, SETTINGS)), base_url=BASE) as second:
        assert "ada (operator)" in second.get(f"{BASE}/", headers=cookie).text
        assert second.portal is not None
        second.portal.call(other.aclose)


def test_another_password_or_a_user_who_is_gone_ends_the_session(
    serve: Callable[..., TestClient],
) -> None:
    users = {"ada": ADA}
    client = serve(SETTINGS.model_copy(update={"users": users}))
    log_in(client)
    assert client.get(f"{BASE}/").status_code == 200
    users["ada"] = ADA.model_copy(update={"password_hash": CHEAP.hash("engine")})
    assert client.get(f"{BASE}/").status_code == 303
    users["ada"] = ADA
    assert client.get(f"{BASE}/").status_code == 200
    del users["ada"]
    assert client.get(f"{BASE}/api/v1/runs").status_code == 401


def test_wrong_passwords_are_refused_recorded_and_soon_have_to_wait(
    serve: Callable[..., TestClient], workspace: Workspace
) -> None:
    client = serve(SETTINGS.model_copy(update={"login_attempts": 2}))
    for name in ("ada", "nobody\x07"):
        refused = log_in(client, "wrong", name=name)
        assert refused.status_code == 401
        assert "The name or the password is wrong." in refused.text
    waiting = log_in(client)
    assert (waiting.status_code, int(waiting.headers["retry-after"])) == (429, 1)
    assert "too many wrong passwords" in waiting.text
    assert client.portal is not None
    store = client.portal.call(workspace.store)
    acts = client.portal.call(store.recorded_acts, ActQuery(verbs=OF_LOGINS))
    assert [act.object for act in acts] == ["nobody?", "ada"]


def test_a_login_never_leads_to_another_site(serve: Callable[..., TestClient]) -> None:
    client = serve(SETTINGS)
    for wanted in (
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:1",
        "/\n/x",
        "http://[",
    ):
        assert log_in(client, next=wanted).headers["location"] == "/desk/"


def test_without_passwords_there_is_no_form(browser: TestClient) -> None:
    refused = browser.get("/login")
    assert refused.status_code == 401
    assert "no user of this server has a password" in refused.text


def test_a_form_after_the_end_of_its_session_shows_its_texts(serve: Callable[..., TestClient]) -> None:
    client = serve(SETTINGS)
    written = {
        "v/note": "a <b>long</b> text",
        "v/empty": " ",
        "v#": "1",
        "_reason": "why",
        "csrf_token": "secret",
    }

    def sent(**headers: str) -> Response:
        return client.post(f"{BASE}/batch", data={**written, "_do": "answer", "q": "r:ask"}, headers=headers)

    answer = sent(referer=f"{BASE}/batch?q=r%3Aask")
    assert answer.status_code == 401
    assert "/desk/login?next=%2Fbatch%3Fq%3Dr%253Aask" in answer.text
    assert "a &lt;b&gt;long&lt;/b&gt; text" in answer.text
    assert re.findall("<dt><code>(.*)</code></dt>", answer.text) == ["v/note", "_reason"]
    assert '/desk/login?next=%2F"' in sent(referer="http://[").text
    assert '/desk/login?next=%2F"' in sent(referer="https://evil.example//evil.example").text
    other_site = sent(origin="https://evil.example")
    assert (other_site.status_code, "long" in other_site.text) == (403, False)
    file = client.post(f"{BASE}/batch", files={"v": b"large"})
    assert (file.status_code, "What you have written" in file.text) == (401, False)
