"""The path of the server behind a proxy, which may pass it on or take it off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Prefixed:
    """Gives each request the prefix of `public_url`, as ASGI wants it: in `path` and in `root_path`.

    A request without the prefix is served too: that of a proxy which takes it off, or of a health check.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and self._prefix:
            path = scope["path"]
            is_inside = path == self._prefix or path.startswith(f"{self._prefix}/")
            path = path if is_inside else f"{self._prefix}{path}"
            scope = {**scope, "root_path": self._prefix, "path": path}
        await self._app(scope, receive, send)
