"""The table of runs: its conditions stand in the address, and so does its page."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from flujo.domain.access import Right
from flujo.domain.queues import RunKind
from flujo.domain.run import RunOrder
from flujo.domain.wording import dollars
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.rendering import page
from flujo.serve.serving import tasks
from flujo.services.inspection import formatting
from flujo.services.inspection.tasks import STATUSES
from flujo.services.project.inputs import read_conditions, read_moment

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.services.inspection.tasks import Status, Task, TaskConditions

PAGE = 50
"""How many runs a page has."""

_WORDS = ("blueprint", "user_id", "queue", "pause", "parent", "chain")
"""The conditions that are one text."""
_TONES = {
    "completed": "good",
    "failed": "bad",
    "parked": "bad",
    "orphaned": "bad",
    "in_doubt": "bad",
    "paused": "warning",
    "interrupted": "warning",
}
"""The colours of statuses; others have none."""


async def list_runs(request: Request) -> Response:
    """Show a page of runs, and how many there are in each status."""
    given, client = request.query_params, tasks(request)
    conditions = _conditions(given)
    found = await client.list_tasks(**conditions, limit=PAGE + 1)
    counted: TaskConditions = {**conditions, "status": None, "cursor": None}
    counts = await client.count(**counted)
    more = found[PAGE - 1].cursor if len(found) > PAGE else None
    return page(
        request,
        "runs.html",
        rows=[_row(task) for task in found[:PAGE]],
        counts=[
            (status, tone(str(status)), count, _address(given, status=str(status)))
            for status, count in sorted(counts.items(), key=lambda each: str(each[0]))
        ],
        total=sum(counts.values()),
        every=_address(given, status=None),
        following=None if more is None else _address(given, cursor=more),
        first=_address(given) if given.get("cursor") else None,
        given=given,
        statuses=STATUSES,
        kinds=tuple(RunKind),
        orders=tuple(RunOrder),
    )


def tone(status: str) -> str:
    """Return the class of the badge of a status."""
    return _TONES.get(status, "")


def lasted(task: Task) -> float:
    """Return the seconds from the acceptance of a run to its end, or to now while it has not ended."""
    has_ended = task.status.is_settled or task.status == "failed"
    return max(0.0, (task.updated_at if has_ended else time()) - task.created_at)


@dataclass(frozen=True, slots=True)
class _Row:
    """A run in the table."""

    run_id: str
    short_id: str
    blueprint: str
    status: Status
    tone: str
    by: str
    started: float
    lasted: str
    cost: str
    tokens: int


def _row(task: Task) -> _Row:
    return _Row(
        run_id=task.run_id,
        short_id=formatting.short_id(task.run_id),
        blueprint=task.pipeline,
        status=task.display_status,
        tone=tone(str(task.display_status)),
        by=task.user_id or "",
        started=task.created_at,
        lasted=formatting.seconds(lasted(task)),
        cost="unknown" if task.usage.cost_usd is None else dollars(task.usage.cost_usd),
        tokens=task.usage.total_tokens,
    )


def _conditions(given: QueryParams) -> TaskConditions:
    """Return the conditions that an address has. An empty field of the form is none.

    Raises:
        SettingsError: a time or a condition on metadata cannot be read.
    """
    conditions: TaskConditions = {
        "status": [status for status in given.getlist("status") if status] or None,
        "kind": [kind for kind in given.getlist("kind") if kind] or None,
        "order": given.get("order") or RunOrder.NEWEST,
        "cursor": given.get("cursor") or None,
    }
    for name in _WORDS:
        if word := given.get(name, "").strip():
            conditions[name] = word  # type: ignore[literal-required]
    if since := given.get("since", "").strip():
        conditions["since"] = read_moment(since, option="since")
    if until := given.get("until", "").strip():
        conditions["until"] = read_moment(until, option="until")
    if metadata := given.get("metadata", "").split():
        conditions["metadata_filter"] = read_conditions(metadata, option="metadata")
    return conditions


def _address(given: QueryParams, **changed: str | None) -> str:
    """Return the address with some conditions changed, from its first page unless a cursor is given."""
    changed = {"cursor": None, **changed}
    kept = [(name, value) for name, value in given.multi_items() if value and name not in changed]
    return "?" + urlencode([*kept, *((name, value) for name, value in changed.items() if value)])


ENDPOINTS = (Endpoint("GET", "/runs", list_runs, Right.READ),)
