"""A wire to Postgres that is cut, slow, in pieces, or open and dead: between what a client has sent and what it is told."""

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
    """Passes on what clients and server say, until a fault is due.

    A request that is lost never reaches the server. An answer that is lost is one whose request the server has executed.
    Then the wire is cut; or, when they were swallowed, it stays open and never carries anything again.

    Args:
        upstream: the server's socket.
        fault: what happens.
        at: to which message of the clients, counted from 1 over all connections; the slow and the broken wire are so
            from there on.
    """

    def __init__(self, upstream: str, fault: Fault, at: int) -> None:
        self._upstream = upstream
        self._fault = fault
        self._at = at
        self.messages = 0
        """How many the clients have sent."""

    @property
    def has_struck(self) -> bool:
        """Whether the fault has happened."""
        return self.messages >= self._at

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one client, until either side is gone or the wire is cut."""
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
            pass  # the server has hung up, or the test is over: the client is told by the end of this connection
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
    # Part of a request has no answer yet, so the rest of it is still passed on: the answer is what cuts the wire.
    await reader.read(1)
    writer.transport.abort()


@asynccontextmanager
async def proxied(uri: str, fault: Fault, at: int) -> AsyncIterator[tuple[str, Proxy]]:
    """Lend a URI by which the database at `uri` is reached through a wire with a fault, and the wire."""
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
