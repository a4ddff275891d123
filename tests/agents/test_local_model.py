"""Requests to a local model reach its own server only. A small program stands in for llama.cpp here."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flujo.agents import local_server
from flujo.agents.chat import build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.exceptions import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
)


@contextlib.contextmanager
def serving(path: Path) -> Iterator[list[bytes]]:
    """Answer every request to a socket, and record what arrives."""
    received: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            received.append(self.connection.recv(65536))
            head = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}"
            self.wfile.write(f"{head}\r\n\r\n{ANSWER}".encode())

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def place() -> Iterator[Path]:
    """The path of a socket, short enough for the system, in a private folder."""
    with tempfile.TemporaryDirectory(prefix="flujo-") as folder:
        yield Path(folder) / "flujo.sock"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that looks like weights, and that llama.cpp cannot load."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(2000))
    return path


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_only_a_socket_in_a_private_folder_is_used(
    weights: Path, tmp_path: Path, place: Path, mode: int
) -> None:
    state = local_server._Files.of(weights, tmp_path).state
    published = local_server.Address(place, os.getpid(), "tiny")
    local_server._publish(state, published)
    place.parent.chmod(mode)
    with serving(place) as received:
        if mode == 0o700:
            assert local_server.address(weights, cache_dir=tmp_path, idle_s=1) == published
        else:
            with pytest.raises(ModelUnavailable, match="did not start"):
                local_server.address(weights, cache_dir=tmp_path, idle_s=1)
            assert received == []


async def test_a_prompt_goes_past_the_proxy_of_the_environment(
    weights: Path, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = local_server.Address(place, os.getpid(), "tiny")
    monkeypatch.setattr(local_server, "address", lambda *_, **__: published)
    settings = AgentSettings(environment={}, cache_dir=tmp_path)
    agent = build_agent(
        AgentSpec(name="writer", model=f"local:{weights}", model_settings={"timeout": 5}), settings=settings
    )
    with serving(place) as received, socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        reply = await agent.ask(Ask(data="Say hello."))
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert reply.output == "hello"
    assert len(received) == 1
