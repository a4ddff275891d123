"""A payment service that misbehaves on command, and real HTTP clients that pay with it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import socketserver
import threading
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx2
import requests
import urllib3

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

READ_S = 0.4
"""How long the clients wait for a reply."""
CONNECT_S = 10.0
"""How long they wait for a connection; a test of clients that cannot connect sets less."""

ACTS_AND_ANSWERS = (500, 502, 503, 409, 408, 425)
ACTS = ("silent", "cut", "drop", "reset", "redirect", "redirect_to_missing", *map(str, ACTS_AND_ANSWERS))
"""Behaviours after which the payment is made and the client has no receipt."""
REFUSES = ("400", "401", "402", "404", "422", "429")
"""Behaviours after which the payment is not made: answers of the service."""
_RST = b"\x01\0\0\0\0\0\0\0"


class Service:
    """The payment service: how it behaves, and the payments that it has made."""

    def __init__(self) -> None:
        self.behaviours: list[str] = []
        """The behaviour towards each next request; without one, the service pays and answers."""
        self.received: list[str] = []
        """The key of each request that it has read."""
        self.paid: Counter[str] = Counter()
        """How often it has paid for each key."""
        self.honours_keys = True
        self.url = ""
        self.is_called = threading.Event()

    def next_behaviour(self, key: str) -> str:
        """Record a request, pay unless the service refuses, and return the behaviour."""
        self.received.append(key)
        self.is_called.set()
        behaviour = self.behaviours.pop(0) if self.behaviours else "answer"
        if behaviour not in REFUSES and not (self.honours_keys and key in self.paid):
            self.paid[key] += 1
        return behaviour


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while (request := self._request()) is not None:
            path, key = request
            if path == "/missing":
                self._reply(404)
                continue
            if not self._behave(self.server.service.next_behaviour(key)):
                return

    def _request(self) -> tuple[str, str] | None:
        try:
            line = self.rfile.readline().split()
            if not line:
                return None
            headers = http.client.parse_headers(self.rfile)
            self.rfile.read(int(headers.get("content-length", "0")))
        except OSError:
            return None
        return line[1].decode(), headers.get("idempotency-key", "")

    def _behave(self, behaviour: str) -> bool:
        """Reply, and return whether the connection stays open."""
        match behaviour:
            case "silent":
                self.rfile.read()  # until the client disconnects
            case "cut":
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"receipt": ')
            case "drop":
                pass
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            case "redirect":
                self._reply(303, Location=f"{closed_url()}/receipt")
            case "redirect_to_missing":
                self._reply(303, Location="/missing")
            case "answer":
                self._reply(200)
            case status:
                self._reply(int(status))
        return behaviour not in ("silent", "cut", "drop", "reset")

    def _reply(self, status: int, **headers: str) -> None:
        body = json.dumps({"receipt": len(self.server.service.paid)}).encode()
        lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + body)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: clients close connections in the middle of a reply."""


@contextmanager
def payment_service() -> Iterator[Service]:
    """Start the service on a free port."""
    service = Service()
    with _Server(service) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield service
        server.shutdown()
        thread.join()


def closed_url() -> str:
    """Return an address whose port refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{reserved.getsockname()[1]}"


@contextmanager
def deaf_url() -> Iterator[str]:
    """Yield an address whose queue of connections is full, so that connecting takes too long."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            waiting.append(client)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for client in waiting:
            client.close()


UNKNOWN_HOST = "http://bank.invalid"


def with_urllib(url: str, key: str) -> Any:
    """Pay with the standard library."""
    request = urllib.request.Request(url, b"{}", {"Idempotency-Key": key}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=READ_S) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        error.close()
        raise


def with_urllib3(url: str, key: str) -> Any:
    """Pay with urllib3, whose default retries do not send a POST twice; it raises no error for a status."""
    timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
    with urllib3.PoolManager() as pool:
        reply = pool.request("POST", url, body=b"{}", headers={"Idempotency-Key": key}, timeout=timeout)
        if reply.status >= 400:
            raise RuntimeError(f"status {reply.status}")
        return reply.json()


def with_requests(url: str, key: str) -> Any:
    """Pay with requests."""
    headers = {"Idempotency-Key": key}
    reply = requests.post(url, data=b"{}", headers=headers, timeout=(CONNECT_S, READ_S))
    reply.raise_for_status()
    return reply.json()


def with_httpx(url: str, key: str) -> Any:
    """Pay with httpx."""
    timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
    headers = {"Idempotency-Key": key}
    reply = httpx.post(url, content=b"{}", headers=headers, timeout=timeout, follow_redirects=True)
    reply.raise_for_status()
    return reply.json()


async def with_async_httpx(url: str, key: str) -> Any:
    """Pay with the async client of httpx."""
    return await _with_async(httpx, url, key)


async def with_httpx2(url: str, key: str) -> Any:
    """Pay with the async client of httpx2."""
    return await _with_async(httpx2, url, key)


async def _with_async(library: Any, url: str, key: str) -> Any:
    """Pay with the async client of httpx or httpx2, which have the same interface."""
    timeout = library.Timeout(READ_S, connect=CONNECT_S)
    async with library.AsyncClient(timeout=timeout, follow_redirects=True) as client:
        reply = await client.post(url, content=b"{}", headers={"Idempotency-Key": key})
        reply.raise_for_status()
        return reply.json()


async def with_aiohttp(url: str, key: str) -> Any:
    """Pay with aiohttp."""
    timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=READ_S)
    headers = {"Idempotency-Key": key}
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        reply = await session.post(url, data=b"{}", headers=headers)
        return json.loads(await reply.read())


CLIENTS: dict[str, Callable[[str, str], Any]] = {
    "urllib": with_urllib,
    "urllib3": with_urllib3,
    "requests": with_requests,
    "httpx": with_httpx,
    "async_httpx": with_async_httpx,
    "httpx2": with_httpx2,
    "aiohttp": with_aiohttp,
}


async def pay(client: str, url: str, key: str) -> Any:
    """Pay with one of the clients; a blocking client runs in a thread."""
    call = CLIENTS[client]
    if asyncio.iscoroutinefunction(call):
        paying: Awaitable[Any] = call(url, key)
        return await paying
    return await asyncio.to_thread(call, url, key)
