"""A proxy to Postgres whose connections break, are slow, fragment messages, or hang."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Fault = Literal["lost request", "lost answer", "swallowed request", "swallowed answer", "slow", "in pieces"]

SLOW_S = 0.02


class Proxy:
    """Forwards messages between clients and server until a fault is due.

    A lost request never reaches the server. A lost reply belongs to a request that the server has executed.
    Then the connection is cut; with a swallowed one it stays open and silent.

    Args:
        upstream: the server's socket.
        fault: the fault to inject.
        at: the client message to affect, counted from 1 over all connections; slow and fragmented connections are so
            from that message on.
    """

    def __init__(self, upstream: str, fault: Fault, at: int) -> None:
        self._upstream = upstream
        self._fault = fault
        self._at = at
        self.messages = 0
        """How many messages the clients have sent."""

    @property
    def has_struck(self) -> bool:
        """Whether the fault has happened."""
        return self.messages >= self._at

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one client until either side closes or the connection is cut."""
        answers, requests = await asyncio.open_unix_connection(self._upstream)
        back: asyncio.Future[None] = asyncio.ensure_future(_pass_on(answers, writer))
        try:
            while data := await reader.read(65536):
                self.messages += 1
                if self.messages == self._at and self._fault == "lost request":
                    break
                if self.messages == self._at and self._fault == "swallowed request":
                    back.cancel()
                    await _swallow(reader)
                    break
                if self.messages == self._at and self._fault == "swallowed answer":
                    back.cancel()
                    back = asyncio.ensure_future(_swallow(answers))
                if self.messages == self._at and self._fault == "lost answer":
                    back.cancel()
                    back = asyncio.ensure_future(_lose(answers, writer))
                await self._send(requests, data)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the server has closed, or the test is over: closing this connection informs the client
        finally:
            back.cancel()
            requests.transport.abort()
            writer.transport.abort()

    async def _send(self, requests: asyncio.StreamWriter, data: bytes) -> None:
        if self.has_struck and self._fault == "slow":
            await asyncio.sleep(SLOW_S)
        if self.has_struck and self._fault == "in pieces":
            for place in range(len(data)):
                requests.write(data[place : place + 1])
                if not place % 16:
                    await asyncio.sleep(0)
        else:
            requests.write(data)
        await requests.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


async def _swallow(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _lose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # A partial request has no reply yet, so the rest is still forwarded: the reply triggers the cut.
    await reader.read(1)
    writer.transport.abort()


@asynccontextmanager
async def proxied(uri: str, fault: Fault, at: int) -> AsyncIterator[tuple[str, Proxy]]:
    """Yield a URI that reaches the database at `uri` through a faulty proxy, and the proxy."""
    url = sa.make_url(uri)
    port = str(url.query.get("port") or url.port or 5432)
    proxy = Proxy(f"{url.query.get('host') or url.host}/.s.PGSQL.{port}", fault, at)
    with tempfile.TemporaryDirectory(prefix="flujo-wire-") as folder:
        server = await asyncio.start_unix_server(proxy.serve, Path(folder) / f".s.PGSQL.{port}")
        through = url.set(host=None, port=None, query={"host": folder, "port": port})
        try:
            yield through.render_as_string(hide_password=False), proxy
        finally:
            server.close()
