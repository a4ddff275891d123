"""What happens in a run as it happens, for its page: lines of the log, and that something has changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flujo.domain.access import Right
from flujo.exceptions import SettingsError
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.log_lines import line_html
from flujo.serve.serving import tasks
from flujo.serve.streams import event, stream

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from flujo.services.inspection.following import LogLine

_PLACE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")


async def follow_run(request: Request) -> Response:
    """Answer with the events of a run from a place in its log on.

    `line` has a line of the log as HTML. `changed` says that the journal has more than the page shows. The id
    of an event is the place after which a reader continues with `Last-Event-ID`.
    """
    run_id, client = request.path_params["run_id"], tasks(request)
    offset, number = _place(request.headers.get("last-event-id") or request.query_params.get("after", "0"))
    await client.get_log(run_id, after=offset)  # its errors are answers; those of a stream are not
    last = number

    def event_of(line: LogLine) -> str:
        nonlocal last
        last = max(last, line.number)
        said = event("line", line_html(line), f"{line.offset}-{last}")
        return said if line.provisional else said + event("changed", "")

    return stream(request, client.follow(run_id, after=offset, after_number=number), event_of)


def _place(text: str) -> tuple[int, int]:
    """Return the offset and the number of a place in a log: `12-3`, or `12` for one without a number.

    Raises:
        SettingsError: it does not name a place.
    """
    if found := _PLACE.fullmatch(text):
        return int(found[1]), int(found[2] or 0)
    raise SettingsError(
        f"{text!r} does not name a place in a log", hint="send the id of an event, or 0 for all of them"
    )


ENDPOINTS = (Endpoint("GET", "/runs/{run_id}/live", follow_run, Right.READ),)
