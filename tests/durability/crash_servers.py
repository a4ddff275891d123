"""A real MCP server for crash programs: its tools cause effects in the world, and it outlives the killed processes."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flujo.agents.mcp_servers import McpServer
from flujo.settings_tables import McpServer as Table
from flujo.testing.crash_points import reach
from local_mcp import Http

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flujo.domain.mcp import ListedTools

NAME = "shop"


class Shop:
    """The server at an address, with a crash point before and after each call."""

    name = NAME

    def __init__(self, url: str, folder: Path) -> None:
        table = Table(url=url, timeout=60)
        self._server = McpServer(NAME, lambda: table, folder)
        self.timeout_s = self._server.timeout_s

    async def tools(self) -> ListedTools:
        """Return its tools."""
        return await self._server.tools()

    async def call(self, tool: str, arguments: dict[str, Any], key: str | None) -> Any:
        """Call a tool."""
        reach("before call")
        result = await self._server.call(tool, arguments, key)
        reach("after call")
        return result

    async def aclose(self) -> None:
        """End the connection."""
        await self._server.aclose()


@contextmanager
def shop(folder: Path) -> Iterator[str]:
    """Start the server, whose effects are in the world of `folder`; yields its address."""
    server = Http(folder / "ledger.txt", subprocess.Popen)
    server.start(WORLD=str(folder))
    try:
        yield server.url
    finally:
        server.kill()
