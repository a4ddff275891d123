"""A real HTTP server that speaks the wire formats of OpenAI, Anthropic and Google, and misbehaves on command.

    with provider_server() as server:
        server.will_answer(Fault.RATE_LIMITED, "Good day.")
        ...  # an agent with `server.environment`, or a subprocess with it in its environment
        assert server.paths == ["/v1/responses", "/v1/responses"]

It serves chat completions and responses of OpenAI, messages of Anthropic and generateContent of Google, as a stream
when the request asks for one. Each request takes the next answer of the script; the last one stays for all later
requests. An answer is a text, a `Fault`, a `Response`, or a function from the request to a `Response`. Every
request is recorded in `requests` and `paths`, also one that gets no answer.

Clients are built as in production: the server sends no header that turns a client's own retries off, and the
environment names nothing but the keys and addresses that a user sets.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from agents.wire_formats import FORMATS, Event, Format
from http_servers import HttpServer

REPORTED: Any = object()
"""The usage that follows from `tokens` and `cached`."""

RETRY_AFTER_S = 7.0
"""What a rate limit asks to wait. Tests turn the clock, or send a shorter one."""


BreakOff = Literal[
    "", "reset", "stall", "in_event", "before_last_event", "stall_in_body", "early_end", "error_event"
]
Kind = Literal["text", "empty", "content_filter", "refusal", "length"]


@dataclass(frozen=True)
class Response:
    """The answer to one request. `Response.of` makes one from a text or a fault."""

    text: str = ""
    _: KW_ONLY
    kind: Kind = "text"
    """`empty` has no choice; `length` was cut off by the limit on its tokens."""
    tool_call: tuple[str, Any] | None = None
    """The name of a tool and its arguments: an object, or text that may be broken JSON."""
    more_calls: tuple[tuple[str, Any], ...] = ()
    """Further calls beside `tool_call`, for chat completions of OpenAI."""
    tokens: tuple[Any, Any] = (1000, 100)
    """Tokens in and out, as reported: any JSON value."""
    cached: int = 0
    """How many of the tokens in were read from a cache."""
    usage: Any = REPORTED
    """Replaces the whole usage of the response; None leaves it out."""
    model: str | None = None
    """The model that answered; None for a usual one."""
    status: int = 200
    error: Mapping[str, Any] | None = None
    """The provider's error object; None for one that fits `status`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Replaces the whole body."""
    delay_s: float = 0.0
    """The wait before the first byte."""
    break_off: BreakOff = ""
    """Before the answer, the connection is closed (`reset`) or stays silent (`stall`). Within it, the connection
    is closed (`in_event`, `before_last_event`) or stays silent (`stall_in_body`); or the stream ends properly but
    too early (`early_end`), or with an error of the provider (`error_event`)."""

    def reported(self, name: str, usage: Mapping[str, Any]) -> dict[str, Any]:
        """Return the field `name` of the body: the usage, its replacement, or nothing."""
        shown = usage if self.usage is REPORTED else self.usage
        return {} if shown is None else {name: shown}

    @staticmethod
    def of(answer: str | Fault | Response) -> Response:
        """Return the response that a text or a fault stands for."""
        if isinstance(answer, Response):
            return answer
        return Response(text=answer) if isinstance(answer, str) else answer.value


class Fault(Enum):
    """The usual ways in which providers fail, by name. Their texts and usage are complete where there are any."""

    RATE_LIMITED = Response(status=429, headers={"retry-after": f"{RETRY_AFTER_S:g}"})
    BAD_REQUEST = Response(status=400)
    REQUEST_TIMEOUT = Response(status=408)
    CONFLICT = Response(status=409)
    SERVER_ERROR = Response(status=500)
    OVERLOADED = Response(status=529)
    CUT_IN_EVENT = Response(text="The quick brown fox.", break_off="in_event")
    CUT_BEFORE_LAST_EVENT = Response(text="The quick brown fox.", break_off="before_last_event")
    EARLY_END = Response(text="The quick brown fox.", break_off="early_end")
    ERROR_EVENT = Response(text="The quick brown fox.", break_off="error_event")
    STALL = Response(break_off="stall")
    STALL_IN_BODY = Response(text="The quick brown fox.", break_off="stall_in_body")
    RESET = Response(break_off="reset")
    SLOW_HEADERS = Response(text="Good day.", delay_s=0.1)
    MALFORMED_JSON = Response(raw=b'{"id": "chatcmpl-1", "choices": [{"index"')
    NOT_JSON = Response(raw=b"<html>the page of a proxy</html>")
    EMPTY_CHOICES = Response(kind="empty")
    CONTENT_FILTER = Response(kind="content_filter")
    REFUSAL = Response(kind="refusal")
    CUT_AT_LIMIT = Response(text="The quick", kind="length")
    BAD_TOOL_ARGUMENTS = Response(tool_call=("lookup", '{"name": "Ad'))
    UNKNOWN_TOOL = Response(tool_call=("no_such_tool", {"name": "Ada"}))
    NO_USAGE = Response(text="Good day.", usage=None)
    CACHED_USAGE = Response(text="Good day.", cached=800)


Answer = str | Fault | Response | Callable[[dict[str, Any]], Response]


@dataclass
class Provider:
    """The running server: its URL, the script of its answers, and the requests that it got."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request, their names in small letters."""
    connections: set[Any] = field(default_factory=set)
    """Those that are open."""
    closing: threading.Event = field(default_factory=threading.Event)
    """Ends the silence of stalled answers."""

    @property
    def environment(self) -> dict[str, str]:
        """The keys and addresses that a user of this server sets."""
        return {
            "OPENAI_API_KEY": "key-of-a-test",
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "ANTHROPIC_API_KEY": "key-of-a-test",
            "ANTHROPIC_BASE_URL": self.url,
            "GOOGLE_API_KEY": "key-of-a-test",
            "GOOGLE_GEMINI_BASE_URL": self.url,
        }

    def will_answer(self, *answers: Answer) -> None:
        """Add answers to the script."""
        self.answers.extend(answers)

    def answer(self, request: dict[str, Any]) -> Response:
        """Take the next answer of the script; the last one stays."""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Response.of(answer(request) if callable(answer) else answer)


@contextmanager
def provider_server() -> Iterator[Provider]:
    """Run the server on a free port of this machine."""
    server = HttpServer(("127.0.0.1", 0), _Handler)
    provider = Provider(f"http://127.0.0.1:{server.server_port}")
    server.provider = provider  # type: ignore[attr-defined]  # the handler finds its script here
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


_PATHS = (
    (re.compile(r"/chat/completions$"), "openai-chat"),
    (re.compile(r"/responses$"), "openai-responses"),
    (re.compile(r"/messages$"), "anthropic"),
    (re.compile(r"/models/(?P<model>[^/]+):(?:generate|streamGenerate)Content$"), "google"),
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    provider: Provider

    def setup(self) -> None:
        super().setup()
        self.provider = self.server.provider  # type: ignore[attr-defined]  # set by `provider_server`
        self.provider.connections.add(self)

    def finish(self) -> None:
        self.provider.connections.discard(self)
        super().finish()

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self) -> None:
        self._serve({})

    def _serve(self, request: dict[str, Any]) -> None:
        path = self.path.partition("?")[0]
        found = next(((m, api) for pattern, api in _PATHS if (m := pattern.search(path))), None)
        # Before the request is counted: a test may close its script as soon as it sees the count.
        response = self.provider.answer(request)
        self.provider.requests.append(request)
        self.provider.paths.append(path)
        self.provider.headers.append({name.lower(): value for name, value in self.headers.items()})
        try:
            if found is None:
                self._send(Response(status=404, raw=b"{}"), b"{}")
                return
            match, api = found
            request |= match.groupdict()
            is_streamed = bool(request.get("stream")) or path.endswith(":streamGenerateContent")
            self._answer(FORMATS[api], request, response, is_streamed=is_streamed)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, api: Format, request: dict[str, Any], response: Response, *, is_streamed: bool) -> None:
        self.provider.closing.wait(response.delay_s)
        if response.break_off == "stall":
            self._fall_silent()
        elif response.break_off == "reset":
            self._reset()
        elif response.raw is not None:
            self._send(response, response.raw)
        elif response.status != 200:
            error = api.error(response.status, f"HTTP {response.status}")
            if response.error is not None:
                error["error"] = dict(response.error)
            self._send(response, json.dumps(error).encode())
        elif is_streamed:
            self._stream(list(api.events(response, request)), response, api)
        else:
            self._send(response, json.dumps(api.body(response, request)).encode())

    def _send(self, response: Response, body: bytes) -> None:
        self._head(response, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if response.break_off:
            half = len(body) - 1 if response.break_off == "before_last_event" else len(body) // 2
            self.wfile.write(body[:half])
            self._break(response.break_off)
        else:
            self.wfile.write(body)

    def _stream(self, events: list[Event], response: Response, api: Format) -> None:
        self._head(response, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        whole = [_written(event) for event in events]
        match response.break_off:
            case "":
                sent = whole
            case "before_last_event":
                sent = whole[:-1]
            case "in_event":
                sent = [*whole[: len(whole) // 2], whole[len(whole) // 2][:-12]]
            case "error_event":
                sent = [*whole[: len(whole) // 2], _written(api.error_event(500, "the stream failed"))]
            case _:
                sent = whole[: len(whole) // 2]
        for event in sent:
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            self.wfile.flush()
        if response.break_off in ("in_event", "before_last_event", "stall_in_body"):
            self._break(response.break_off)
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _head(self, response: Response, headers: Mapping[str, str]) -> None:
        self.send_response(response.status)
        for name, value in {**headers, **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _break(self, how: str) -> None:
        self.wfile.flush()
        if how == "stall_in_body":
            self._fall_silent()
        self.close_connection = True

    def _fall_silent(self) -> None:
        self.provider.closing.wait()
        self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _written(event: Event) -> bytes:
    name, data = event
    head = f"event: {name}\n" if name else ""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"{head}data: {text}\n\n".encode()
