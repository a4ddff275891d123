"""A tool of an MCP server checks its arguments by the schema of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.agents.mcp_tools import McpTool
from flujo.domain.agents import Ask
from flujo.domain.tools import McpTools
from flujo.exceptions import ArgumentsRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.agents.mcp_servers import McpServer


async def test_arguments_are_checked_against_the_schema_of_the_server(
    make_server: Callable[..., McpServer],
) -> None:
    server = make_server()
    tool = McpTool(server, "refund", (await server.tools())["refund"], McpTools("shop"))
    with pytest.raises(ArgumentsRejected, match="cents"):
        tool.check_arguments(Ask(arguments={"order": "a", "cents": "x"}))
    tool.check_arguments(Ask(arguments={"order": "a", "cents": 1}))
    assert tool.target == "mcp:shop/refund"
