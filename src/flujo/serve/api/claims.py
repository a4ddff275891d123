"""Who works on a question: claimed, released, and left to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.access import Right
from flujo.serve.api.requests import Asked, answered, body
from flujo.serve.api.runs import RUN, run_in
from flujo.serve.endpoints import Endpoint, Operation
from flujo.serve.serving import tasks
from flujo.services.inspection.views import claim_data

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class Release(Asked):
    """A question whose claim ends."""

    pause_id: str
    """The question."""


class Claim(Release):
    """A question that a person works on."""

    take: bool = False
    """Whether to take it over from another person."""


class Escalation(Release):
    """A question that someone else has to decide."""

    reason: str
    """Why, for those who decide."""


async def claim_question(request: Request) -> Response:
    """Claim an open question for 15 minutes; others may answer it nevertheless."""
    asked = await body(request, Claim)
    claim = await tasks(request).claim_question(run_in(request), asked.pause_id, take=asked.take)
    return answered(claim_data(claim))


async def release_question(request: Request) -> Response:
    """End the claim of the caller, and answer whether there was one."""
    asked = await body(request, Release)
    return answered({"released": await tasks(request).release_question(run_in(request), asked.pause_id)})


async def escalate_question(request: Request) -> Response:
    """Leave an open question to others: it comes first in the inbox."""
    asked = await body(request, Escalation)
    await tasks(request).escalate_question(run_in(request), asked.pause_id, asked.reason)
    return answered({"escalated": True})


ENDPOINTS = (
    Endpoint("POST", f"{RUN}/claim", claim_question, Right.ANSWER, Operation("Claim a question", Claim)),
    Endpoint(
        "POST",
        f"{RUN}/release",
        release_question,
        Right.ANSWER,
        Operation("Release a claimed question", Release),
    ),
    Endpoint(
        "POST",
        f"{RUN}/escalate",
        escalate_question,
        Right.ANSWER,
        Operation("Leave a question to others", Escalation),
    ),
)
