"""The ASGI application: endpoints behind the checks that all of them need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flujo.exceptions import AccessDenied, FlujoError
from flujo.serve.errors import refused, shown
from flujo.serve.routes import ENDPOINTS
from flujo.serve.security.identity import principal_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.serve.endpoints import Endpoint, Handler
    from flujo.serve.serving import Serving

_STATIC = Path(__file__).parent / "static"


def application(serving: Serving) -> Starlette:
    """Return the application of a server. It opens nothing: the caller opens and closes the workspace."""
    routes = [Route(each.path, _guarded(each), methods=[each.method]) for each in ENDPOINTS]
    app = Starlette(
        routes=[*routes, Mount("/static", StaticFiles(directory=_STATIC), name="static")],
        exception_handlers={HTTPException: refused, FlujoError: shown},
    )
    app.state.serving = serving
    return app


def _guarded(endpoint: Endpoint) -> Handler:
    """Return an endpoint's function behind the checks of its row."""

    async def answer(request: Request) -> Response:
        serving = request.app.state.serving
        if endpoint.changes and serving.settings.read_only:
            raise AccessDenied("this server is read-only", hint="start it without `--read-only`")
        if endpoint.right is not None:
            principal = await principal_of(request)
            principal.require(endpoint.right)
            request.state.principal = principal
        return await endpoint.answer(request)

    return answer
