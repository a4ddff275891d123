"""A receiver of webhooks: a real HTTP server on loopback that checks each signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from http_servers import HttpServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Receiver:
    """The messages that arrived, and how they are answered."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """The statuses of the first answers; 200 afterwards."""
    arrived: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """The id and the body of each request whose signature is right."""
    on_request: Callable[[], object] = lambda: None
    """Called before a request is answered."""

    @property
    def ids(self) -> list[str]:
        return [one for one, _ in self.arrived]


def is_signed(headers: Any, body: bytes) -> bool:
    """Return whether a request is signed as the specification says, by its own words."""
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(KEY, content, hashlib.sha256)).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive webhooks at `url` until the context is left."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert is_signed(self.headers, body)
            receiver.arrived.append((self.headers["webhook-id"], json.loads(body)))
            receiver.on_request()
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Write nothing."""

    server = HttpServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
