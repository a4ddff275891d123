"""Server-sent events: an answer that lasts until its source ends, the reader leaves or the server stops."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import StreamingResponse

from flujo.serve.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from starlette.requests import Request

Item = TypeVar("Item")

ALIVE_S = 15.0
"""How long a stream may be silent, in seconds: then it gets a comment, so that no proxy gives it up."""
_ENDED = "event: ended\ndata:\n\n"


def event(name: str, data: str, event_id: str | None = None) -> str:
    """Return an event; its data must not have line breaks. Its id is what the reader continues after."""
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {name}\ndata: {data}\n\n"


def stream(
    request: Request, items: AsyncGenerator[Item, None], event_of: Callable[[Item], str]
) -> StreamingResponse:
    """Return an answer with an event for each item, and `ended` after the last one.

    When the server stops, the stream breaks off without `ended`, so that its reader connects again.

    Args:
        request: the request.
        items: the source, which is closed with the stream.
        event_of: returns the event of an item, or several.
    """
    parts = _parts(items, event_of, serving(request).ending)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(parts, media_type="text/event-stream", headers=headers)


async def _parts(
    items: AsyncGenerator[Item, None], event_of: Callable[[Item], str], closing: asyncio.Event
) -> AsyncIterator[str]:
    end = asyncio.ensure_future(closing.wait())
    following: asyncio.Future[Item] | None = None
    async with aclosing(items):
        try:
            while not end.done():
                following = following or asyncio.ensure_future(anext(items))
                ways: set[asyncio.Future[Any]] = {following, end}
                await asyncio.wait(ways, timeout=ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    yield ":\n\n"
                    continue
                try:
                    part = event_of(following.result())
                except StopAsyncIteration:
                    yield _ENDED
                    return
                following = None
                yield part
        finally:
            left = [each for each in (end, following) if each is not None and not each.done()]
            for each in left:
                each.cancel()
            if left:
                await asyncio.wait(left)
