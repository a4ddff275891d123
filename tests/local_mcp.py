"""Real MCP servers for tests: the program `tests/mcp_server.py`, as a process and over HTTP."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import warm
from flujo.agents.mcp_servers import McpServer
from flujo.settings_tables import McpServer as Table

PROGRAM = Path(__file__).parent / "mcp_server.py"


def process_table(ledger: Path, *faults: str, timeout: float = 60, **env: str) -> Table:
    """Return the settings of a server that is a process."""
    return Table(
        command=warm.python(),
        args=(str(PROGRAM), "stdio", *faults),
        env={"LEDGER": str(ledger), **env},
        timeout=timeout,
    )


def shop_toml(**env: object) -> str:
    """Return the table of the server `shop` for a flujo.toml, without an end: further keys may follow."""
    pairs = ", ".join(f"{name} = {str(value)!r}" for name, value in env.items())
    return f"[mcp.shop]\ncommand = {warm.python()!r}\nargs = [{str(PROGRAM)!r}, 'stdio']\nenv = {{{pairs}}}\n"


def effects(ledger: Path) -> str:
    """Return what servers have recorded."""
    return ledger.read_text()


def children() -> list[int]:
    """Return the processes of servers that this process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdigit() and PROGRAM.name in (entry / "cmdline").read_text():
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(entry.name)] if int(parent) == os.getpid() else []
    return found


class Http:
    """A server at an address, which can be killed and started again."""

    def __init__(self, ledger: Path, popen: Any = warm.Popen) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._env = {**os.environ, "LEDGER": str(ledger)}
        self._popen = popen
        self._process: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self, **env: str) -> None:
        self._process = self._popen(
            [sys.executable, str(PROGRAM), "http", str(self.port)],
            env={**self._env, **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise AssertionError("the server does not listen")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self, tmp_path: Path, **more: Any) -> McpServer:
        table = Table(url=self.url, timeout=30, **more)
        return McpServer("shop", lambda: table, tmp_path)
