"""Logging in with a password, and out again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from starlette.responses import RedirectResponse

from flujo.exceptions import LoginRefused
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.rendering import page
from flujo.serve.security import cookies, csrf, passwords, peers
from flujo.serve.serving import serving
from flujo.services.access import sessions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response


def address(request: Request) -> str:
    """Return the address of the login, which returns to the page of a request."""
    base = request.scope.get("root_path", "")
    wanted = request.url.path.removeprefix(base)
    if request.url.query:
        wanted = f"{wanted}?{request.url.query}"
    return f"{base}/login?{urlencode({'next': wanted})}"


async def ended(request: Request) -> Response:
    """Say that a form came after the end of its session, with its texts.

    Raises:
        OriginRefused: a page of another site has sent it.
    """
    peers.require_same_site(request)
    sent: Mapping[str, object] = {}
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        sent = await request.form()
    written = [(name, text) for name, text in sent.items() if _is_written(name) and _text(text).strip()]
    return page(
        request, "ended.html", status=401, written=written, next=urlencode({"next": _page_before(request)})
    )


def _is_written(name: str) -> bool:
    """Return whether a field has what a person has written; others are the page's own."""
    is_of_page = name.startswith("_") or "#" in name or name in (csrf.FIELD, "q", "s", "key")
    return name == "_reason" or not is_of_page


def _page_before(request: Request) -> str:
    """Return the page whose form a request is, as its browser says; `/` when it does not."""
    try:
        parts = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return "/"
    path = parts.path.removeprefix(request.scope.get("root_path", ""))
    return _own_path(f"{path}?{parts.query}" if parts.query else path)


async def form(request: Request) -> Response:
    """Show the form; where no user has a password, say how people enter instead."""
    _require_passwords(request)
    wanted = _own_path(request.query_params.get("next", "/"))
    return page(request, "login.html", problem=None, name="", next=wanted)


async def log_in(request: Request) -> Response:
    """Begin a session. The one that the browser had before ends."""
    _require_passwords(request)
    peers.require_host(request)
    server, sent = serving(request), await request.form()
    name, password, wanted = (_text(sent.get(each)) for each in ("name", "password", "next"))
    where, now, store = peers.address_of(request), server.workspace.clock.monotonic, server.workspace.store
    server.limits.begin_login(server.settings, name, where, now())
    if not await passwords.fits(server.settings, name, password):
        await sessions.record_refusal(await store(), name, address=where)
        problem = "The name or the password is wrong."
        return page(
            request, "login.html", status=401, problem=problem, name=name[:200], next=_own_path(wanted)
        )
    server.limits.login_succeeded(name, where)
    if (before := cookies.session_of(request)) is not None:
        await sessions.end(await store(), before)
    password_hash = server.settings.users[name].password_hash or ""
    secret, _ = await sessions.begin(
        await store(), name, password_hash, lives_s=server.settings.session, address=where
    )
    response = _redirect(request, _own_path(wanted))
    cookies.keep_session(request, response, secret, server.settings.session)
    return response


async def log_out(request: Request) -> Response:
    """End the session of the browser."""
    if (secret := cookies.session_of(request)) is not None:
        await sessions.end(await serving(request).workspace.store(), secret)
    response = _redirect(request, "/login" if serving(request).settings.has_passwords else "/")
    cookies.drop_session(request, response)
    return response


def _require_passwords(request: Request) -> None:
    if not serving(request).settings.has_passwords:
        raise LoginRefused(
            "no user of this server has a password",
            hint="open the address that the proxy serves, or write [serve.users.NAME] into flujo.toml",
        )


def _own_path(text: str) -> str:
    """Return a path of this server that a login returns to; `/` instead of the address of another site."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    is_own = not parts.scheme and not parts.netloc and text.startswith("/") and text.isprintable()
    return "/" if not is_own or text.startswith("//") or "\\" in text else text


def _redirect(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", status_code=303)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


ENDPOINTS = (
    Endpoint("GET", "/login", form, None),
    Endpoint("POST", "/login", log_in, None, is_entry=True),
    Endpoint("POST", "/logout", log_out, None, is_entry=True),
)
