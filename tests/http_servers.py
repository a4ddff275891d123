"""An HTTP server for tests whose clients connect at once."""

from __future__ import annotations

from http.server import ThreadingHTTPServer


class HttpServer(ThreadingHTTPServer):
    """Serves each connection in a thread; by default, the kernel drops or resets connections beyond five that wait."""

    request_queue_size = 128
