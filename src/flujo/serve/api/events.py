"""The log of a run as server-sent events, as it is committed, with the text of models as it arrives."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field
from starlette.responses import StreamingResponse

from flujo.domain.access import Right
from flujo.exceptions import FlujoError, RequestRefused
from flujo.governance.sink import GATE
from flujo.serve.api.requests import Asked, parameters
from flujo.serve.api.runs import LAST_OFFSET, RUN, run_in
from flujo.serve.endpoints import Endpoint, Operation
from flujo.serve.serving import serving, tasks
from flujo.services.inspection.views import line_data

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from flujo.services.inspection.following import LogLine

LAST = "Last-Event-ID"
_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
_FIRST_S = 1.0
"""For how long the answer waits for the first line."""
KEEP_ALIVE_S = 15.0
"""After how long a silence a comment is sent, so that proxies keep the connection."""


class EventPart(Asked):
    """The place in the log from which events are sent."""

    after: int = Field(default=0, ge=0, le=LAST_OFFSET)
    """The offset of the last line that is known. The header `Last-Event-ID` goes before it."""


class Stream(StreamingResponse):
    """Events, whose source is closed with the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        async with aclosing(cast("AsyncGenerator[str, None]", self.body_iterator)):
            await super().__call__(scope, receive, send)


async def stream(request: Request) -> Response:
    """Answer with the log of a run until it ends, the client goes away, or the server stops."""
    asked = parameters(request, EventPart)
    after, number = _known(request.headers.get(LAST), asked.after)
    lines = tasks(request).follow(run_in(request), after=after, after_number=number)
    first = asyncio.ensure_future(anext(lines, None))
    await asyncio.wait({first}, timeout=_FIRST_S)
    if first.done():
        first.result()  # raises: the error is an answer with its status, and not an event
    return Stream(
        _events(first, lines, serving(request).ending),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


async def _events(
    coming: asyncio.Future[LogLine | None], lines: AsyncGenerator[LogLine, None], ending: asyncio.Event
) -> AsyncGenerator[str, None]:
    """Yield the events of lines; a comment in a silence; `end` at the end of the run."""
    stopped, number = asyncio.ensure_future(ending.wait()), 0
    async with aclosing(lines):
        try:
            while True:
                while not coming.done():
                    both: set[asyncio.Future[Any]] = {coming, stopped}
                    await asyncio.wait(both, timeout=KEEP_ALIVE_S, return_when="FIRST_COMPLETED")
                    if stopped.done():
                        return
                    if not coming.done():
                        yield ": waiting\n\n"
                line = coming.result()
                if line is None:
                    break
                number = max(number, line.number)
                yield _event(line, number)
                coming = asyncio.ensure_future(anext(lines, None))
            yield "event: end\ndata: {}\n\n"
        except FlujoError as error:  # such as of a run that is purged meanwhile
            problem = json.dumps({"code": error.code, "title": GATE.text(error.message)})
            yield f"event: error\ndata: {problem}\n\n"
        finally:
            await _cancelled(stopped)
            await _cancelled(coming)


async def _cancelled(task: asyncio.Future[Any]) -> None:
    """Wait until a task has ended, which it does at once."""
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _event(line: LogLine, number: int) -> str:
    """Return an event, whose id is the offset of the line, and the number of the last provisional one."""
    data = json.dumps(GATE.data(line_data(line)), ensure_ascii=False)
    return f"id: {line.offset}-{number}\nevent: {line.kind}\ndata: {data}\n\n"


def _known(last: str | None, after: int) -> tuple[int, int]:
    """Return the offset and the number of the last lines that a client knows."""
    if not last:
        return after, 0
    found = _ID.fullmatch(last)
    if found is None:
        hint = "send the `id` of an event of this run"
        raise RequestRefused(f"the header `{LAST}` is not the id of an event", hint=hint, where=LAST)
    return int(found[1]), int(found[2])


ENDPOINTS = (
    Endpoint(
        "GET",
        f"{RUN}/events",
        stream,
        Right.READ,
        Operation(
            "Follow a run",
            EventPart,
            answers="text/event-stream",
            headers={LAST: "The `id` of the last event that is known; the stream continues behind it."},
        ),
    ),
)
