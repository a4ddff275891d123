"""`/healthz` and `/readyz`, for what starts and watches the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from flujo.exceptions import StateBackendUnavailable
from flujo.serve.endpoints import Endpoint
from flujo.serve.serving import serving

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

ANSWERS_S = 2.0
"""How long the database may take to answer a probe, although a request waits longer for it."""


async def health(_: Request) -> Response:
    """Answer that the process is alive."""
    return JSONResponse({"status": "ok"})


async def readiness(request: Request) -> Response:
    """Answer that the database responds and has the right schema; its error otherwise, soon."""
    try:
        async with asyncio.timeout(ANSWERS_S):
            await (await serving(request).workspace.store()).probe()
    except TimeoutError:
        raise StateBackendUnavailable(f"the database has not answered within {ANSWERS_S:g} s") from None
    return JSONResponse({"status": "ok"})


ENDPOINTS = (
    Endpoint("GET", "/healthz", health, None),
    Endpoint("GET", "/readyz", readiness, None),
)
