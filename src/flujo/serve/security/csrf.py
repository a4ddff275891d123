"""Tokens that only pages of this server know: without one, a page of another site cannot change anything."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

from markupsafe import Markup

from flujo.exceptions import OriginRefused
from flujo.serve.security import cookies, peers

if TYPE_CHECKING:
    from starlette.requests import Request

FIELD, HEADER = "csrf_token", "x-csrf-token"
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def token_of(secret: str) -> str:
    """Return the token of a cookie's secret."""
    digest = hmac.digest(secret.encode("ascii"), b"flujo form", hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def token(request: Request) -> str:
    """Return the token for the forms of an answer; scripts send it as the header `X-CSRF-Token`."""
    return token_of(cookies.new_form_secret(request))


def field(request: Request) -> Markup:
    """Return the hidden field that each form has."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, token(request))


async def require(request: Request) -> None:
    """Return if a change comes from a page of this server.

    Raises:
        OriginRefused: it may come from elsewhere.
    """
    peers.require_same_site(request)
    secret = cookies.form_secret(request)
    sent = request.headers.get(HEADER)
    if sent is None and request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS:
        found = (await request.form()).get(FIELD)
        sent = found if isinstance(found, str) else None
    if secret is None or sent is None or not hmac.compare_digest(token_of(secret).encode(), sent.encode()):
        raise OriginRefused(
            "the form is out of date, or this did not come from a page of this server",
            hint="reload the page and send it again; nothing was changed",
        )
