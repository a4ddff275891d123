"""The clients of providers that take no number of retries per request send a request once all the same."""

from __future__ import annotations

import importlib.util
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_ai.models.test import TestModel

from flujo.agents.chat import build_agent
from flujo.agents.providers import remote_model
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.exceptions import ModelUnavailable, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic_ai.models import Model


@contextmanager
def refusing_server(status: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server that refuses every request, and the paths of the requests."""
    paths: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            paths.append(self.path)
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", paths
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def bedrock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    return monkeypatch


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_bedrock_sends_a_refused_request_once(
    status: int, bedrock: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bedrock.setenv("AWS_MAX_ATTEMPTS", "4")
    settings = AgentSettings(environment={}, cache_dir=tmp_path)
    with refusing_server(status) as (address, paths):
        bedrock.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", address)
        agent = build_agent(AgentSpec(name="a", model="bedrock:amazon.nova-lite-v1:0"), settings=settings)
        with pytest.raises(ModelUnavailable):
            await agent.ask(Ask(data="x"))
    assert len(paths) == 1


def test_bedrock_keeps_the_settings_of_its_client(bedrock: pytest.MonkeyPatch) -> None:
    bedrock.setenv("AWS_BEARER_TOKEN_BEDROCK", "token")
    bedrock.setenv("AWS_READ_TIMEOUT", "77")
    model: Any = remote_model("bedrock:amazon.nova-lite-v1:0", {}).connection.model
    meta = model.client.meta
    assert (meta.region_name, meta.config.read_timeout) == ("eu-north-1", 77)
    assert meta.config.signature_version == "bearer"
    sent: list[Any] = []

    def stop(request: Any, **_: Any) -> None:
        sent.append(request.headers["Authorization"])
        raise InterruptedError

    meta.events.register("before-send.bedrock-runtime.Converse", stop)
    with pytest.raises(InterruptedError):
        model.client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "x"}]}])
    assert sent == [b"Bearer token"]


@pytest.mark.guarantee("G20")
@pytest.mark.skipif(importlib.util.find_spec("xai_sdk") is None, reason="needs xai-sdk")
def test_xai_opens_channels_that_do_not_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAI_API_KEY", "k")
    model: Any = remote_model("xai:grok-4", {}).connection.model
    assert model._provider._lazy_client._kwargs["channel_options"] == [("grpc.enable_retries", 0)]


@pytest.mark.guarantee("G20")
def test_a_client_that_retries_by_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Retrying(TestModel):
        unsupported_settings = frozenset({"max_retries"})

    def infer(name: str, _: Any) -> Model:
        return Retrying()

    monkeypatch.setattr("flujo.agents.providers.infer_model", infer)
    with pytest.raises(ProviderUnavailable, match="retries by itself") as refused:
        remote_model("gateway/bedrock:nova", {})
    assert refused.value.hint is not None
    assert "`bedrock`" in refused.value.hint
