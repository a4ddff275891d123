"""The two cookies: of a session, and of a visitor without one, to whom forms are bound.

Both are random secrets. The server believes nothing that is in them, so they need no signature.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from flujo.serve.serving import serving

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.settings_serve import ServeTable

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_SESSION, _VISITOR = "flujo_session", "flujo_visitor"


def session_of(request: Request) -> str | None:
    """Return the secret of the session that a request names; it may have ended."""
    return _read(request, _SESSION)


def keep_session(request: Request, response: Response, secret: str, lives_s: float) -> None:
    """Send the secret of a session."""
    _set(request, response, _SESSION, secret, max_age=int(lives_s))


def drop_session(request: Request, response: Response) -> None:
    """Delete the secret of a session."""
    _set(request, response, _SESSION, "", max_age=0)


def form_secret(request: Request) -> str | None:
    """Return what the forms of a browser are bound to: its session, or else its visitor cookie."""
    return session_of(request) or _read(request, _VISITOR)


def new_form_secret(request: Request) -> str:
    """Return what the forms of a browser are bound to; a new visitor gets a cookie with the answer."""
    secret: str | None = form_secret(request) or getattr(request.state, "new_visitor", None)
    if secret is None:
        secret = request.state.new_visitor = secrets.token_urlsafe(32)
    return secret


def keep_visitor(request: Request, response: Response) -> None:
    """Send a new visitor the cookie that the forms of the answer are bound to."""
    if (secret := getattr(request.state, "new_visitor", None)) is not None:
        _set(request, response, _VISITOR, secret, max_age=None)


def _read(request: Request, name: str) -> str | None:
    found = request.cookies.get(_name(serving(request).settings, name), "")
    return found if _SECRET.fullmatch(found) else None


def _set(request: Request, response: Response, name: str, value: str, *, max_age: int | None) -> None:
    settings = serving(request).settings
    response.set_cookie(
        _name(settings, name),
        value,
        max_age=max_age,
        path=settings.prefix or "/",
        secure=_is_https(settings),
        httponly=True,
        samesite="lax",
    )


def _name(settings: ServeTable, name: str) -> str:
    """Return the name of a cookie: its prefix makes browsers refuse it from other hosts and without TLS."""
    if not _is_https(settings):
        return name
    return f"__Secure-{name}" if settings.prefix else f"__Host-{name}"


def _is_https(settings: ServeTable) -> bool:
    return settings.public is not None and settings.public.scheme == "https"
