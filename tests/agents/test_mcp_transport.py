"""Both transports, with servers that die, are silent, or write what is not MCP."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import McpCallFailed, McpServerFailed, NotSent
from flujo.governance.sink import GATE
from local_mcp import PROGRAM, Http, effects

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.agents.mcp_servers import McpServer


async def test_a_line_of_text_before_the_protocol_is_passed_over(
    make_server: Callable[..., McpServer],
) -> None:
    assert "lookup" in await make_server("greets").tools()


async def test_its_standard_error_is_logged_without_secrets(
    make_server: Callable[..., McpServer], caplog: pytest.LogCaptureFixture
) -> None:
    GATE.know(["sdt-ioc-erv"], of="TOKEN")
    caplog.set_level(logging.INFO, "flujo.mcp")
    await make_server(secret="sdt-ioc-erv").tools()
    assert "shop: serving stdio" in caplog.messages


async def test_over_http_tools_are_listed_and_called(http: Http, tmp_path: Path, ledger: Path) -> None:
    http.start()
    server = http.client(tmp_path)
    assert "lookup" in await server.tools()
    assert await server.call("lookup", {"name": "ada"}, None) == {"result": "ada: gold"}
    await server.call("refund", {"order": "a", "cents": 5}, "key-1")
    assert effects(ledger) == "refund a 5 key-1\n"
    await server.aclose()


@pytest.mark.parametrize("key", [None, "key-1"])
async def test_over_http_the_key_of_a_call_is_also_a_header(
    http: Http, tmp_path: Path, key: str | None
) -> None:
    http.start()
    server = http.client(tmp_path)
    sent = {"result": key or "unset"}
    assert await server.call("header", {"name": "idempotency-key"}, key) == sent
    assert await server.call("header", {"name": "idempotency-key"}, None) == {"result": "unset"}
    await server.aclose()


async def test_over_http_a_server_that_dies_in_a_call_loses_it_and_may_come_back(
    http: Http, tmp_path: Path, ledger: Path
) -> None:
    http.start()
    server = http.client(tmp_path)
    with pytest.raises(McpCallFailed, match="the connection ended before the response"):
        await server.call("refund_and_die", {"order": "a"}, None)
    http.kill()
    with pytest.raises(NotSent, match="All connection attempts failed"):
        await server.call("lookup", {"name": "ada"}, None)
    http.start()
    assert await server.call("lookup", {"name": "ada"}, None) == {"result": "ada: gold"}
    assert effects(ledger) == "refund a None\n"
    await server.aclose()


async def test_an_address_without_a_server_is_an_error(http: Http, tmp_path: Path) -> None:
    with pytest.raises(McpServerFailed, match="cannot be reached: All connection attempts failed"):
        await http.client(tmp_path).tools()


def test_a_killed_client_leaves_no_server(tmp_path: Path, ledger: Path) -> None:
    script = f"""
import asyncio, os, sys
from pathlib import Path
from flujo.agents.mcp_servers import McpServer
from flujo.settings_tables import McpServer as Table
table = Table(command=sys.executable, args=({str(PROGRAM)!r}, "stdio"), env={{"LEDGER": {str(ledger)!r}}})
async def main():
    server = McpServer("shop", lambda: table, Path({str(tmp_path)!r}))
    await server.call("refund", {{"order": "a", "cents": 1}}, None)
    children = Path(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children").read_text().split()
    print(*children, flush=True)
    await server.call("sleep", {{"seconds": 1}}, None)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        servers = [int(each) for each in client.stdout.readline().split()]
        client.kill()
    assert servers
    until = time.monotonic() + 30
    while any(Path(f"/proc/{each}").exists() for each in servers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [each for each in servers if Path(f"/proc/{each}").exists()]
