"""A deployed project: blueprints and lock, agents, schedules, workers, queues, budgets and the outbox."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from flujo.domain.access import Right
from flujo.exceptions import FlujoError, MessageNotFound
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.rendering import page
from flujo.serve.serving import deployed, principal, serving

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.services.deployed import Deployed
    from flujo.services.inspection.schedule_views import ScheduleView

_LOCKS = {"locked": "good", "differs": "warning", "invalid": "bad"}


async def show(request: Request) -> Response:
    """Show the project. A principal that is limited to some runs sees the blueprints only."""
    there = deployed(request)
    blueprints = there.blueprints()
    sees_all = there.sees_everything
    schedules, wrong = await _schedules(there) if sees_all else ([], None)
    may_change = Right.OPERATE in principal(request).role.rights and not serving(request).settings.read_only
    return page(
        request,
        "deployed.html",
        blueprints=blueprints,
        locks=_LOCKS,
        agents=sorted(Counter(agent for each in blueprints for agent in each.agents).items()),
        sees_all=sees_all,
        schedules=schedules,
        wrong_schedules=wrong,
        workers=await there.workers() if sees_all else [],
        queues=await there.queues() if sees_all else [],
        budgets=await there.budgets() if sees_all else [],
        messages=await there.outbox() if sees_all else [],
        may_change=may_change,
    )


async def redeliver(request: Request) -> Response:
    """Make a message of the outbox due again."""
    given = request.path_params["message"]
    if not given.isascii() or not given.isdecimal() or len(given) > 18:
        raise MessageNotFound(f"there is no message {given!r} in this database")
    await deployed(request).redeliver(int(given))
    return RedirectResponse(f"{request.scope.get('root_path', '')}/deployed#outbox", 303)


async def _schedules(there: Deployed) -> tuple[list[ScheduleView], FlujoError | None]:
    """Return the schedules, or why the files do not define them."""
    try:
        return await there.schedules(), None
    except FlujoError as error:
        return [], error


ENDPOINTS = (
    Endpoint("GET", "/deployed", show, Right.READ),
    Endpoint("POST", "/deployed/outbox/{message}", redeliver, Right.OPERATE),
)
