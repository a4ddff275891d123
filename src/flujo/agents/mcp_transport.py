"""The transports of MCP servers: a process that Flujo starts, or streamable HTTP."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

from flujo.domain.mcp import IDEMPOTENCY_KEY
from flujo.domain.wording import short
from flujo.governance.logs import logger
from flujo.governance.screen import visible_line
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from mcp.client._transport import TransportStreams

    from flujo.settings_tables import McpServer

NOT_SENT = -32097
"""The code of an error of this module: the request has not reached the server."""
REFUSED = -32098
"""The server has answered with an HTTP status 4xx, and so has not executed the request."""
SESSION_LOST = -32099
"""The server does not know the session, and so has not executed the request."""
CONNECTION_LOST = -32000
"""The code of the `mcp` package for a connection that ended before the response."""

log = logger("flujo.mcp")
for _name in ("mcp.client.stdio", "mcp.client.streamable_http", "client"):
    logger(_name).addFilter(lambda record: "Failed to parse" not in record.msg)  # `Notes` has these lines

_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_UNCLEAR_STATUS = frozenset({408, 409, 425})
"""Request Timeout, Conflict and Too Early: an earlier sending of the call may be the reason."""
_KEPT_LINES = 5
_LONGEST_LINE = 4096
_LAST_WORDS_S = 0.5


class Notes:
    """What a server has written beside its responses, for the log and for errors."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._noise = ""

    def stderr(self, line: str) -> None:
        """Log a line of its standard error."""
        log.info("%s: %s", self._server, line)
        self._lines.append(" ".join(line.split()))

    def noise(self, error: Exception) -> None:
        """Record a line of its standard output that is not a message of MCP."""
        said = error.errors()[0].get("input") if isinstance(error, ValidationError) else error
        self._noise = self._noise or str(said)

    def shown(self) -> str:
        """Return the last lines, as the end of an error message."""
        said = f"; its output is not MCP: {short(self._noise, 80)!r}" if self._noise.strip() else ""
        if self._lines:
            said += f"; its last lines: {' | '.join(self._lines)}"
        return visible_line(GATE.text(said))


@asynccontextmanager
async def process(
    table: McpServer, folder: Path, notes: Notes, on_end: Callable[[], None]
) -> AsyncGenerator[TransportStreams]:
    """Start the server of a `command`, and yield the streams of its messages.

    At the end its standard input is closed; when it does not exit, it and its children are killed.

    Args:
        table: the server.
        folder: its working directory.
        notes: gets what it writes to its standard error.
        on_end: called when its standard output ends.
    """
    parameters = StdioServerParameters(
        command=table.command or "",
        args=list(table.args),
        env=dict(table.env),
        cwd=folder,
        encoding_error_handler="replace",
    )
    reading, writing = os.pipe()
    errlog = os.fdopen(writing, "w")
    collecting = asyncio.create_task(_collect(reading, notes), name="flujo-mcp-stderr")
    try:
        async with stdio_client(parameters, errlog=errlog) as (read, write):
            errlog.close()  # the server holds the other end
            async with _forwarded(read, notes, on_end) as messages:
                yield messages, write
    finally:
        errlog.close()
        await asyncio.wait([collecting], timeout=_LAST_WORDS_S)  # a child of the server may hold the pipe
        collecting.cancel()


async def _collect(pipe: int, notes: Notes) -> None:
    """Log each line of a server's standard error, until it ends."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
    )
    try:
        rest = b""
        while piece := await reader.read(_LONGEST_LINE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                notes.stderr(line.decode(errors="replace"))
            if len(rest) > _LONGEST_LINE:
                notes.stderr(rest.decode(errors="replace"))
                rest = b""
        if rest:
            notes.stderr(rest.decode(errors="replace"))
    finally:
        transport.close()


@asynccontextmanager
async def _forwarded(read: Any, notes: Notes, on_end: Callable[[], None]) -> AsyncGenerator[Any]:
    """Yield a stream with the same messages that reports their end, which the `mcp` package does not."""
    send, receive = anyio.create_memory_object_stream[Any](0)

    async def forward() -> None:
        try:
            async with send:
                async for message in read:
                    if isinstance(message, Exception):
                        notes.noise(message)
                    await send.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the session has ended
        finally:
            on_end()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(forward)
        try:
            yield receive
        finally:
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def http(table: McpServer) -> AsyncGenerator[TransportStreams]:
    """Yield the streams of messages of the server at a `url`."""
    limits = httpx2.Timeout(table.timeout, read=None)  # a call has its own time limit, and a stream has none
    async with (
        httpx2.AsyncClient(
            headers=dict(table.headers),
            timeout=limits,
            transport=_AnswersAlways(),
            trust_env=True,
            event_hooks={"request": [_repeat_key]},
        ) as client,
        streamable_http_client(table.url or "", http_client=client) as streams,
    ):
        yield streams


async def _repeat_key(request: httpx2.Request) -> None:
    """Send the idempotency key of a call as a header too, for gateways that do not read the message.

    The `mcp` package takes no headers for a single call.
    """
    if request.method == "POST":
        meta = json.loads(request.content).get("params", {}).get("_meta") or {}
        if (key := meta.get(IDEMPOTENCY_KEY)) is not None:
            request.headers["Idempotency-Key"] = key


class _AnswersAlways(httpx2.AsyncHTTPTransport):
    """Turns each failure of a request into an error response, so that only its own call fails.

    The `mcp` package ends the whole connection instead, and does not say whether the request was sent.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the response of one that failed is an error of JSON-RPC."""
        try:
            response = await super().handle_async_request(request)
        except _UNSENT as error:
            return _response(request, NOT_SENT, str(error) or type(error).__name__)
        except httpx2.TransportError as error:
            return _response(request, CONNECTION_LOST, f"the connection was lost: {type(error).__name__}")
        if request.method != "POST" or response.status_code < 400:
            return response
        body = await response.aread()
        await response.aclose()
        status = response.status_code
        if status == 404 and "mcp-session-id" in request.headers:
            return _response(request, SESSION_LOST, "it does not know the session")
        if _is_json_rpc_error(body):
            headers = {"content-type": "application/json"}
            return httpx2.Response(status, headers=headers, content=body, request=request)
        is_refused = status < 500 and status not in _UNCLEAR_STATUS
        return _response(request, REFUSED if is_refused else CONNECTION_LOST, f"it answers HTTP {status}")


def _is_json_rpc_error(body: bytes) -> bool:
    try:
        said = json.loads(body)
    except ValueError:
        return False
    return isinstance(said, dict) and "jsonrpc" in said and "error" in said


def _response(request: httpx2.Request, code: int, message: str) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return httpx2.Response(400, json=body, request=request)
