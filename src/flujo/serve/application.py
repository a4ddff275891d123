"""The ASGI application: endpoints behind the checks that all of them need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flujo.exceptions import AccessDenied, FlujoError, LoginRequired
from flujo.serve.errors import refused, shown
from flujo.serve.pages import login
from flujo.serve.routes import ENDPOINTS
from flujo.serve.security import bodies, cookies, csrf, peers
from flujo.serve.security.identity import bearer_of, principal_of
from flujo.serve.security.prefix import Prefixed
from flujo.serve.security.shield import Shield
from flujo.serve.serving import principal, serving

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.serve.endpoints import Endpoint, Handler
    from flujo.serve.serving import Serving

_STATIC = Path(__file__).parent / "static"


def application(server: Serving) -> Starlette:
    """Return the application of a server. It opens nothing: the caller opens and closes the workspace."""
    routes = [Route(each.path, _guarded(each), methods=[each.method]) for each in ENDPOINTS]
    app = Starlette(
        routes=[*routes, Mount("/static", StaticFiles(directory=_STATIC), name="static")],
        exception_handlers={HTTPException: refused, FlujoError: shown},
        middleware=[Middleware(Prefixed, prefix=server.settings.prefix), Middleware(Shield)],
    )
    app.state.serving = server
    app.state.endpoints = ENDPOINTS
    return app


def _guarded(endpoint: Endpoint) -> Handler:
    """Return an endpoint's function behind the checks of its row."""

    async def answer(request: Request) -> Response:
        room = endpoint.files * serving(request).settings.max_upload
        request = bodies.limited(request, endpoint.body_limit + room)
        try:
            await _admit(request, endpoint)
            response = await endpoint.answer(request)
        except LoginRequired:
            if endpoint.is_api or not serving(request).settings.has_passwords:
                raise
            if endpoint.changes:
                return await login.ended(request)
            return RedirectResponse(login.address(request), status_code=303)
        finally:
            await request.close()  # the files of a form
        cookies.keep_visitor(request, response)
        return response

    return answer


async def _admit(request: Request, endpoint: Endpoint) -> None:
    """Return if a request may reach its endpoint, with its principal in the state of the request.

    Raises:
        FlujoError: it may not; nothing of it was done.
    """
    server = serving(request)
    if endpoint.changes and server.settings.read_only and not endpoint.is_entry:
        raise AccessDenied("this server is read-only", hint="start it without `--read-only`")
    if endpoint.right is not None:
        request.state.principal = await principal_of(request)
        principal(request).require(endpoint.right)
    if endpoint.changes and _may_be_forged(request, endpoint):
        await csrf.require(request)
    if endpoint.changes and endpoint.right is not None:
        server.limits.count_change(
            server.settings, principal(request).name, server.workspace.clock.monotonic()
        )


def _may_be_forged(request: Request, endpoint: Endpoint) -> bool:
    """Return whether a page of another site could send a change, because the browser adds what lets it in.

    A program sends a token, which browsers do not add, or has none of the headers that browsers add. A public
    endpoint of the API checks for itself who sends to it.
    """
    if not endpoint.is_api:
        return True
    return endpoint.right is not None and bearer_of(request) is None and peers.is_from_browser(request)
