"""The open questions, for the people who answer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.access import Right
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.rendering import page
from flujo.serve.serving import tasks

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def inbox(request: Request) -> Response:
    """Show the runs that wait for an answer."""
    return page(request, "inbox.html", runs=await tasks(request).list_tasks("paused", order="oldest"))


ENDPOINTS = (Endpoint("GET", "/", inbox, Right.READ),)
