"""What every answer has: headers that limit what browsers do with it, and no traceback."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request

from flujo.governance.logs import logger
from flujo.serve.errors import broken

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logger("flujo.serve")

_STATIC = "/static/"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Scripts and styles come from files of this server alone: a text that became HTML could run none."""


class Shield:
    """Adds the headers, and answers an unexpected exception with a page or a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False
        is_static = scope["path"].removeprefix(scope.get("root_path", "")).startswith(_STATIC)

        async def send_shielded(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-cache" if is_static else "no-store")
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_shielded)
        except ClientDisconnect:
            pass
        except Exception as error:
            reference = secrets.token_hex(4)
            log.error("%s %s failed [%s]", scope["method"], scope["path"], reference, exc_info=error)
            if not has_started:
                await broken(Request(scope, receive), reference)(scope, receive, send_shielded)
