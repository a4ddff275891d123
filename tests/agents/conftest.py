"""Servers for the tests of agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.agents.mcp_servers import McpServer
from local_mcp import Http, children, process_table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """The file of the effects of MCP servers."""
    file = tmp_path / "ledger.txt"
    file.touch()
    return file


@pytest.fixture
async def make_server(tmp_path: Path, ledger: Path) -> AsyncIterator[Callable[..., McpServer]]:
    """Return a function that returns an MCP server; all of them are stopped at the end."""
    made: list[McpServer] = []

    def server(*faults: str, locked: Any = None, timeout: float = 60, **env: str) -> McpServer:
        table = process_table(ledger, *faults, timeout=timeout, **env)
        made.append(McpServer("shop", lambda: table, tmp_path, locked))
        return made[-1]

    yield server
    for each in made:
        await each.aclose()
    assert not children(), "no server outlives its connection"


@pytest.fixture
def http(ledger: Path) -> Iterator[Http]:
    """An MCP server at an address, which is not started."""
    server = Http(ledger)
    yield server
    server.kill()
