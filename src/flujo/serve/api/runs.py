"""Runs as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from flujo.domain.access import Right
from flujo.serve.endpoints import API_PREFIX, Endpoint
from flujo.serve.serving import tasks

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def list_runs(request: Request) -> Response:
    """Answer with a page of runs, the newest first."""
    found = await tasks(request).list_tasks(limit=int(request.query_params.get("limit", "100")))
    return JSONResponse(
        {"runs": [{"run_id": each.run_id, "status": str(each.display_status)} for each in found]}
    )


ENDPOINTS = (Endpoint("GET", f"{API_PREFIX}/runs", list_runs, Right.READ),)
