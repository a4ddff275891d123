"""A tool of an MCP server checks its arguments by the schema of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.agents.mcp_tools import McpTool
from flujo.domain.agents import Ask
from flujo.domain.conversations import BackToModel
from flujo.domain.tools import McpEffect, McpTools
from flujo.exceptions import ArgumentsRejected, McpCallFailed, NotSent
from local_mcp import effects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


async def tool(server: McpServer, name: str, effect: McpEffect) -> McpTool:
    return McpTool(server, name, (await server.tools())[name], McpTools("shop", effect=effect))


@pytest.mark.parametrize(("effect", "times"), [("unsafe", 1), ("idempotent", 2), ("read", 2)])
async def test_a_lost_response_is_sent_again_with_its_key_only_where_that_is_harmless(
    make_server: Callable[..., McpServer], ledger: Path, effect: McpEffect, times: int
) -> None:
    dying = await tool(make_server(), "refund_and_die", effect)
    with pytest.raises(McpCallFailed, match="the connection ended before the response"):
        await dying.ask(Ask(arguments={"order": "a"}, idempotency_key="k-1"))
    assert effects(ledger) == "refund a k-1\n" * times


@pytest.mark.parametrize(
    ("effect", "error"), [("read", BackToModel), ("idempotent", McpCallFailed), ("unsafe", McpCallFailed)]
)
async def test_only_a_tool_that_reads_offers_the_model_to_call_again(
    make_server: Callable[..., McpServer], effect: McpEffect, error: type[Exception]
) -> None:
    failing = await tool(make_server(), "fail", effect)
    with pytest.raises(error, match="Error executing tool fail"):
        await failing.ask(Ask(arguments={"why": "no"}))


async def test_a_lost_response_stays_lost_when_the_server_does_not_start_again(
    make_server: Callable[..., McpServer], ledger: Path, tmp_path: Path
) -> None:
    dying = await tool(make_server("once", ONCE=str(tmp_path / "once")), "refund_and_die", "idempotent")
    with pytest.raises(McpCallFailed, match="the connection ended before the response") as raised:
        await dying.ask(Ask(arguments={"order": "a"}, idempotency_key="k-1"))
    assert isinstance(raised.value.__cause__, NotSent)
    assert effects(ledger) == "refund a k-1\n"
