"""MCP servers: started once in each event loop, and again after they have died."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import mcp.types as protocol
from mcp import Client, MCPError
from pydantic import ValidationError

from flujo.agents import mcp_transport, mcp_values
from flujo.domain import canonical
from flujo.domain.mcp import IDEMPOTENCY_KEY, ListedTool, differences
from flujo.domain.wording import plural
from flujo.exceptions import FlujoError, LockMismatch, McpCallFailed, McpServerFailed, NotSent
from flujo.governance.screen import visible_line
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flujo.domain.mcp import ListedTools
    from flujo.settings_tables import McpServer as Table

_REFUSALS = {
    mcp_transport.NOT_SENT,
    mcp_transport.REFUSED,
    mcp_transport.SESSION_LOST,
    protocol.METHOD_NOT_FOUND,
    protocol.INVALID_PARAMS,
}
"""Codes of errors after which a call has had no effect."""
_MOST_PAGES = 100


class McpServer:
    """A server that the settings name. Its first use in an event loop starts it there.

    Args:
        name: its name in the settings.
        table: returns its settings, with variables filled in.
        folder: the working directory of its process.
        locked: the tools that it must have; None when no lock has it.
        place: the file and line of its settings, for errors.
    """

    def __init__(
        self,
        name: str,
        table: Callable[[], Table],
        folder: Path,
        locked: ListedTools | None = None,
        place: str = "",
    ) -> None:
        self.name = name
        self._place = place
        self._read_table = table
        self._folder = folder
        self._expected = locked
        self._is_locked = locked is not None
        self._by_loop: dict[asyncio.AbstractEventLoop, _Connection] = {}

    @property
    def timeout_s(self) -> float:
        """The time limit of a call."""
        return self._read_table().timeout

    @property
    def loops(self) -> list[asyncio.AbstractEventLoop]:
        """The event loops in which it was started."""
        return list(self._by_loop)

    async def tools(self) -> ListedTools:
        """Return its tools, by name.

        Raises:
            LockMismatch: they are not those of the lock, or not those that it had before.
            McpServerFailed: it cannot be started or reached.
            SettingsError: a variable of its settings is not set.
        """
        connection = await self._connected()
        if connection.is_stale:
            await connection.list_again()
        self._compare(connection.tools)
        return connection.tools

    async def call(self, tool: str, arguments: dict[str, Any], key: str | None) -> Any:
        """Call a tool once, and return its result as a value.

        Raises:
            NotSent: the call had no effect: the server was not reached, or it refused the call.
            LockMismatch: the tools of the server have changed.
            McpCallFailed: it answers with an error, or its response was lost.
        """
        try:
            await self.tools()
            return await self._call(tool, arguments, key)
        except _SessionLost:
            await self.tools()  # a server that was restarted has executed nothing
            return await self._call(tool, arguments, key)
        except McpServerFailed as error:
            raise NotSent(error.message, hint=error.hint) from error

    async def _call(self, tool: str, arguments: dict[str, Any], key: str | None) -> Any:
        connection = await self._connected()
        meta: Any = None if key is None else {IDEMPOTENCY_KEY: key}
        request = protocol.CallToolRequest(
            params=protocol.CallToolRequestParams(name=tool, arguments=arguments, _meta=meta)
        )
        what = f"tool `{tool}` of MCP server {self.name!r}"
        facts = {"server": self.name, "tool": tool}
        try:
            result = await connection.session.send_request(request, protocol.CallToolResult)
        except MCPError as error:
            if error.code == mcp_transport.SESSION_LOST:
                connection.end()
                raise _SessionLost from error
            message = f"{what}: {_safe(error.message)}"
            if error.code in _REFUSALS:
                raise NotSent(message) from error
            if error.code == protocol.CONNECTION_CLOSED:
                message = f"{what}: the connection ended before the response{connection.notes.shown()}"
            raise McpCallFailed(message, **facts) from error
        except ValidationError as error:
            raise McpCallFailed(f"{what}: its response is not a result of MCP", **facts) from error
        if result.is_error:
            raise McpCallFailed(f"{what}: {_safe(mcp_values.text(result))}", is_answer=True, **facts)
        return mcp_values.value(result)

    async def aclose(self) -> None:
        """Stop it in this event loop; its process has exited when this returns."""
        connection = self._by_loop.pop(asyncio.get_running_loop(), None)
        if connection is not None and connection.is_ours:
            await connection.aclose()

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        for other in [each for each in list(self._by_loop) if each.is_closed()]:
            self._by_loop.pop(other, None)
        connection = self._by_loop.get(loop)
        if connection is None or not connection.is_usable:
            connection = self._by_loop[loop] = _Connection(
                self.name, self._read_table(), self._folder, self._place
            )
        await connection.ready()
        return connection

    def _compare(self, tools: ListedTools) -> None:
        if self._expected is None:
            self._expected = tools
        found = list(differences(self._expected, tools))
        if found:
            before = "flujo.lock" if self._is_locked else "those that it had when it was started first"
            lines = [visible_line(each) for each in found]
            raise LockMismatch(
                "\n".join(
                    [
                        f"the tools of MCP server {self.name!r} do not match {before}:",
                        *(f"  {each}" for each in lines),
                    ]
                ),
                hint="read what has changed; once it is tested, lock it with `flujo lock`",
                differences=tuple(lines),
            )


class _SessionLost(Exception):
    """The server does not know the session of a call, which it has not executed."""


class _Connection:
    """A connection, which one task opens, keeps and closes."""

    def __init__(self, name: str, table: Table, folder: Path, place: str) -> None:
        self._name = name
        self._where = f"{place}: MCP server {name!r}" if place else f"MCP server {name!r}"
        self._table = table
        self._folder = folder
        self._pid = os.getpid()
        self._end = asyncio.Event()
        self.notes = mcp_transport.Notes(name)
        self.tools: ListedTools = {}
        self.is_stale = False
        """Whether the server has reported that its tools have changed."""
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[Client] = loop.create_future()
        self._task = loop.create_task(self._live(), name=f"flujo-mcp-{name}")

    @property
    def session(self) -> Any:
        """The session of the `mcp` package."""
        return self._started.result().session

    @property
    def is_ours(self) -> bool:
        """Whether this process has opened it: a forked child has not."""
        return self._pid == os.getpid()

    @property
    def is_usable(self) -> bool:
        """Whether it is open, or being opened, by this process."""
        return self.is_ours and not self._end.is_set() and not self._task.done()

    async def ready(self) -> None:
        """Wait until it is open.

        Raises:
            McpServerFailed: it cannot be opened.
        """
        await asyncio.shield(self._started)

    def end(self) -> None:
        """Let no further call use it."""
        self._end.set()

    async def aclose(self) -> None:
        """Close it, and wait until it is closed."""
        self._end.set()
        await asyncio.wait([self._task])

    async def list_again(self) -> None:
        """List the tools again."""
        self.is_stale = False
        self.tools = await self._listed(self._started.result())

    async def _live(self) -> None:
        try:
            async with asyncio.timeout(self._table.timeout) as limit:
                async with Client(self._transport(), cache=None, message_handler=self._notified) as client:
                    self.tools = await self._listed(client)
                    limit.reschedule(None)
                    self._started.set_result(client)
                    await self._end.wait()
        except asyncio.CancelledError:
            self._started.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets it from `ready`
            if self._started.done():
                mcp_transport.log.info("%s: the connection ended: %s", self._name, error)
            else:
                self._started.set_exception(self._failure(error))
                self._started.exception()  # read, so that asyncio does not report it
        finally:
            self._end.set()
            mcp_transport.log.info("%s: the connection is closed", self._name)

    def _transport(self) -> Any:
        if self._table.url is not None:
            return mcp_transport.http(self._table)
        return mcp_transport.process(self._table, self._folder, self.notes, self._end.set)

    async def _listed(self, client: Client) -> ListedTools:
        listed: dict[str, ListedTool] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            for each in page.tools:
                if each.name in listed:
                    raise McpServerFailed(
                        f"{self._where} lists two tools named `{visible_line(each.name)}`",
                        server=self._name,
                        retryable=False,
                    )
                listed[each.name] = ListedTool(
                    each.description or "", canonical.normalise(each.input_schema, what="schema of a tool")
                )
            cursor = page.next_cursor
            if not cursor:
                return listed
        raise McpServerFailed(
            f"{self._where} lists its tools on more than {plural(_MOST_PAGES, 'page')}",
            server=self._name,
        )

    async def _notified(self, message: Any) -> None:
        if isinstance(message, protocol.ToolListChangedNotification):
            self.is_stale = True

    def _failure(self, error: Exception) -> FlujoError:
        error = _first(error)
        if isinstance(error, FlujoError):
            return error
        if isinstance(error, TimeoutError):
            why = f"it did not answer within {self._table.timeout:g} s"
        elif isinstance(error, FileNotFoundError):
            why = f"there is no program `{self._table.command}`"
        elif isinstance(error, PermissionError):
            why = f"`{self._table.command}` cannot be executed"
        elif isinstance(error, MCPError) and error.code == protocol.CONNECTION_CLOSED:
            why = "it ended before it answered" if self._table.url is None else error.message
        else:
            why = str(error) or type(error).__name__
        verb = "started" if self._table.url is None else "reached"
        return McpServerFailed(
            f"{self._where} cannot be {verb}: {_safe(why)}{self.notes.shown()}", server=self._name
        )


def _first(error: BaseException) -> Any:
    """Return the first error of a group that is not a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _safe(text: str) -> str:
    """Return a text of a server for a message, without secrets and control characters."""
    return visible_line(GATE.text(text))
