"""A real HTTP server that speaks the wire formats of OpenAI and Anthropic, with answers made to order."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Response:
    """The response to one request."""

    text: str = ""
    status: int = 200
    error: dict[str, Any] | None = None
    raw: bytes | None = None
    delay_s: float = 0.0
    model: str = "gpt-4o-mini-2024-07-18"
    tool_call: tuple[str, dict[str, Any]] | None = None
    cut_off: bool = False


Answer = Response | Callable[[dict[str, Any]], Response]


@dataclass
class Provider:
    """The running server: its URL, its prepared responses, and the requests it got."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def will_answer(self, *answers: Answer | str) -> None:
        self.answers.extend(Response(text=a) if isinstance(a, str) else a for a in answers)

    def next(self, request: dict[str, Any]) -> Response:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, Response) else answer(request)


@contextmanager
def provider_server() -> Iterator[Provider]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    provider = Provider(f"http://127.0.0.1:{server.server_port}")
    server.provider = provider  # type: ignore[attr-defined]  # the handler finds its script here
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        provider: Provider = self.server.provider  # type: ignore[attr-defined]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        provider.requests.append(request)
        provider.paths.append(self.path)
        answer = provider.next(request)
        time.sleep(answer.delay_s)
        try:
            self._answer(request, answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, request: dict[str, Any], answer: Response) -> None:
        if answer.raw is not None:
            self._send(answer.status, answer.raw, "application/json")
        elif answer.status != 200:
            self._send(answer.status, json.dumps({"error": answer.error or {}}).encode(), "application/json")
        elif self.path.endswith("/messages"):
            self._send(200, json.dumps(_anthropic(answer)).encode(), "application/json")
        elif self.path.endswith("/responses"):
            self._send(200, json.dumps(_openai_response(answer)).encode(), "application/json")
        elif request.get("stream"):
            self._stream(answer)
        else:
            self._send(200, json.dumps(_openai(answer)).encode(), "application/json")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-should-retry", "false")  # the client's own retries would only cost time here
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, answer: Response) -> None:
        whole = _openai(answer)
        pieces = [answer.text[i : i + 5] for i in range(0, len(answer.text), 5)]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        if answer.tool_call is not None:
            [called] = whole["choices"][0]["message"]["tool_calls"]
            self._event(
                {**whole, "usage": None}, {"role": "assistant", "tool_calls": [{"index": 0, **called}]}, None
            )
        for piece in pieces:
            self._event({**whole, "usage": None}, {"role": "assistant", "content": piece}, None)
            if answer.cut_off:
                self.close_connection = True
                return
        self._event({**whole, "usage": None}, {}, whole["choices"][0]["finish_reason"])
        self.wfile.write(
            f"data: {json.dumps({**whole, 'object': 'chat.completion.chunk', 'choices': []})}\n\n".encode()
        )
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, whole: dict[str, Any], delta: dict[str, Any], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**whole, "object": "chat.completion.chunk", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()


def _openai(answer: Response) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tool_call is not None:
        name, arguments = answer.tool_call
        function = {"name": name, "arguments": json.dumps(arguments)}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        }
    finish = "tool_calls" if answer.tool_call else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


def _openai_response(answer: Response) -> dict[str, Any]:
    content = {"type": "output_text", "text": answer.text, "annotations": []}
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [content],
    }
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "model": answer.model,
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100, **details},
    }


def _anthropic(answer: Response) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [{"type": "text", "text": answer.text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 50, "output_tokens": 5},
    }
