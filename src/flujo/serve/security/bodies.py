"""Bodies of requests: not longer than their endpoint takes, and not slower than a bad line."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request

from flujo.exceptions import BodyTooLarge

if TYPE_CHECKING:
    from starlette.types import Message

_PATIENCE_S = 20.0
_SLOWEST = 10_000
"""Bytes in a second, after the first `_PATIENCE_S` seconds."""


def limited(request: Request, limit: int) -> Request:
    """Return a request whose body ends with an error when it is too long or too slow.

    Args:
        request: the request; its body is not read yet.
        limit: the number of bytes that its endpoint takes.

    Raises:
        BodyTooLarge: it says that it is longer.
        HTTPException: it does not say its length in digits (400).
    """
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise HTTPException(400, "the header Content-Length is not a number")
    if int(length[:20]) > limit:
        raise _too_long(limit)
    return Request(request.scope, _Limited(request, limit).receive)


class _Limited:
    """Receives the messages of a request."""

    def __init__(self, request: Request, limit: int) -> None:
        self._receive = request.receive
        self._limit = limit
        self._began = asyncio.get_running_loop().time()
        self._count = 0
        self._is_whole = False

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            BodyTooLarge: the body is too long.
            HTTPException: it is too slow (408).
        """
        if self._is_whole:  # what follows is the end of the connection, which may be hours later
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._began + _PATIENCE_S + self._count / _SLOWEST):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the body of the request did not arrive in time") from None
        self._count += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._count > self._limit:
            raise _too_long(self._limit)
        return message


def _too_long(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {limit:,} bytes", hint="send a smaller one", where="body", limit=limit
    )
