"""`/healthz` and `/readyz`, for what starts and watches the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from flujo.serve.endpoints import Endpoint
from flujo.serve.serving import serving

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def health(_: Request) -> Response:
    """Answer that the process is alive."""
    return JSONResponse({"status": "ok"})


async def readiness(request: Request) -> Response:
    """Answer that the database can be used; its error otherwise."""
    await serving(request).workspace.store()
    return JSONResponse({"status": "ok"})


ENDPOINTS = (
    Endpoint("GET", "/healthz", health, None),
    Endpoint("GET", "/readyz", readiness, None),
)
