"""The MCP servers of a project, each started at its first use and stopped once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.domain.forks import NO_FORK
from flujo.domain.mcp import locked_tools
from flujo.exceptions import ProviderUnavailable
from flujo.services.lifetime import within
from flujo.services.project.project import LOCK_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flujo.agents.mcp_servers import McpServer
    from flujo.domain.mcp import ListedTools
    from flujo.services.project.project import Project


def locked_servers(project: Project) -> Mapping[str, ListedTools]:
    """Return the tools of each MCP server in the project's lock, by name; none without a lock.

    Raises:
        LockUnreadable: the lock is broken, truncated, or of another version.
    """
    from flujo.blueprint.lock import lockfile

    try:
        held = lockfile.read((project.root / LOCK_FILE).read_text("utf-8"))
    except (OSError, UnicodeError):
        return {}
    return {name: locked_tools(server.get("tools", {})) for name, server in held["mcp"].items()}


class McpServers:
    """The servers that `[mcp.NAME]` names.

    Args:
        project: the project, whose folder is the working directory of their processes.
        locked: returns the tools of each server in the lock, by name.
    """

    def __init__(self, project: Project, locked: Callable[[], Mapping[str, ListedTools]] = dict) -> None:
        self._project = project
        self._locked = locked
        self._servers: dict[str, McpServer] = {}

    def named(self, name: str) -> McpServer:
        """Return a server, without starting it.

        Raises:
            ProviderUnavailable: the package `mcp` is not installed.
            SettingsError: the settings have no server of this name.
        """
        if name not in self._servers:
            settings = self._project.settings
            settings.require_mcp(name)
            with NO_FORK:
                try:
                    from flujo.agents.mcp_servers import McpServer
                except ImportError as error:
                    raise ProviderUnavailable(
                        f"MCP server {name!r} needs a package that is not installed",
                        hint=command("pip", "install", "flujo[mcp]"),
                        provider="mcp",
                        retryable=False,
                    ) from error
            self._servers[name] = McpServer(
                name,
                lambda: settings.mcp_server(name),
                self._project.root,
                self._locked().get(name),
                settings.mcp_place(name),
            )
        return self._servers[name]

    async def listed(self, names: Iterable[str]) -> Mapping[str, ListedTools]:
        """Start servers, and return the tools of each.

        Raises:
            McpServerFailed: one cannot be started or reached.
        """
        try:
            return {name: await self.named(name).tools() for name in names}
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Stop all servers; their processes have exited when this returns."""
        work = [within(loop, server.aclose) for server in self._servers.values() for loop in server.loops]
        await asyncio.gather(*work)
