"""The clients of providers that take no number of retries per request send a request once all the same."""

from __future__ import annotations

import importlib.util
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_ai.models.test import TestModel

from agents.provider_server import Fault, Provider, Response, provider_server
from flujo.agents.chat import build_agent
from flujo.agents.providers import ACCESS, remote_model
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.providers import BUILT_IN, NamedProvider
from flujo.exceptions import ModelUnavailable, ProviderUnavailable
from http_servers import HttpServer

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

    with HttpServer(("127.0.0.1", 0), Refusing) as server:
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


# Providers that a project names ----------------------------------------------------------------------------

CANARY = "canary-of-a-test"
KINDS = {
    "openai-chat": ("/v1", "/v1/chat/completions", "authorization", f"Bearer {CANARY}"),
    "openai-responses": ("/v1", "/v1/responses", "authorization", f"Bearer {CANARY}"),
    "anthropic": ("", "/v1/messages", "authorization", f"Bearer {CANARY}"),
    "google": ("", "/v1beta/models/fox-1:generateContent", "x-goog-api-key", CANARY),
}


def named(server: Provider, kind: str = "openai-chat", **more: Any) -> NamedProvider:
    prefix = KINDS[kind][0] if kind in KINDS else ""
    return NamedProvider(**{"name": "kennel", "kind": kind, "base_url": server.url + prefix, **more})


def agent_of(
    provider: NamedProvider, folder: Path, environment: dict[str, str] | None = None, **spec: Any
) -> Any:
    settings = AgentSettings(
        environment=environment or {}, cache_dir=folder, providers={provider.name: provider}
    )
    spec = {"model_settings": {"max_tokens": 200}, **spec}
    return build_agent(AgentSpec(name="a", model=f"{provider.name}:fox-1", **spec), settings=settings)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_named_provider_gets_its_key_and_headers_in_each_kind_of_api(
    kind: str, tmp_path: Path
) -> None:
    with provider_server() as server:
        server.will_answer("Foxes.")
        provider = named(server, kind, key="${KEY}", headers={"X-Team": "dogs"})
        agent = agent_of(provider, tmp_path, {"KEY": CANARY})
        assert (await agent.ask(Ask(data="x"))).output == "Foxes."
    _, path, header, value = KINDS[kind]
    assert server.paths == [path]
    assert (server.headers[0]["x-team"], server.headers[0][header]) == ("dogs", value)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_address_of_ones_own_never_gets_the_key_of_the_built_in_provider(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"OPENAI_API_KEY": CANARY, "ANTHROPIC_API_KEY": CANARY, "GOOGLE_API_KEY": CANARY}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with provider_server() as server:
        server.will_answer("Foxes.")
        await agent_of(named(server, kind), tmp_path, keys).ask(Ask(data="x"))
    assert CANARY not in str(server.headers)


async def test_a_name_of_a_built_in_provider_keeps_its_api_key_and_address(tmp_path: Path) -> None:
    with provider_server() as server:
        server.will_answer("Foxes.")
        provider = NamedProvider(name="openai", kind="openai", headers={"X-Team": "dogs"})
        await agent_of(provider, tmp_path, server.environment).ask(Ask(data="x"))
    assert server.paths == ["/v1/responses"]
    assert server.headers[0]["authorization"] == "Bearer key-of-a-test"
    assert server.headers[0]["x-team"] == "dogs"


async def test_headers_of_an_agent_are_added_to_those_of_its_provider(tmp_path: Path) -> None:
    with provider_server() as server:
        server.will_answer("Foxes.")
        agent = agent_of(
            named(server, headers={"X-Team": "dogs", "X-Kind": "a"}),
            tmp_path,
            model_settings={"extra_headers": {"X-Kind": "b"}},
        )
        await agent.ask(Ask(data="x"))
    assert (server.headers[0]["x-team"], server.headers[0]["x-kind"]) == ("dogs", "b")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_silent_server_is_given_up_after_the_timeout_of_its_provider(
    kind: str, tmp_path: Path
) -> None:
    with provider_server() as server:
        server.will_answer(Fault.STALL)
        with pytest.raises(ModelUnavailable) as caught:
            await agent_of(named(server, kind, timeout_s=0.2), tmp_path).ask(Ask(data="x"))
    assert caught.value.retryable
    assert len(server.requests) == 1


async def test_a_server_that_repeats_its_secrets_in_an_error_shows_none_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    provider_headers = {"Authorization": "Bearer ${TOKEN}", "X-Team": "literal-canary"}
    with provider_server() as server:
        said = {"message": f"no entry with {CANARY} and literal-canary", "type": "invalid_request_error"}
        server.will_answer(Response(status=401, error=said))
        agent = agent_of(named(server, headers=provider_headers), tmp_path, {"TOKEN": CANARY})
        with pytest.raises(ModelUnavailable) as caught:
            await agent.ask(Ask(data="x"))
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    assert "canary" not in f"{caught.value} {caught.value.hint} {caplog.text} {agent.answered_with}"


async def test_the_answers_of_a_named_provider_depend_on_its_api_address_and_headers(tmp_path: Path) -> None:
    with provider_server() as server:
        base = named(server, headers={"X-Team": "dogs"})
        found = agent_of(base, tmp_path).answered_with
        assert found["base_url"].startswith(server.url)
        assert (found["kind"], found["headers"]) == ("openai-chat", ["x-team"])
        assert agent_of(replace(base, timeout_s=1.0), tmp_path).answered_with == found
        for changed in (
            replace(base, kind="openai-responses"),
            replace(base, base_url=f"{server.url}/v2"),
            replace(base, headers={}),
        ):
            agent = agent_of(changed, tmp_path)
            assert agent.answered_with != found
            assert agent.traits(Ask())["provider"] != agent_of(base, tmp_path).traits(Ask())["provider"]


@pytest.mark.parametrize(("name", "near"), [("kenel", "did you mean `kennel:fox-1`? "), ("zzz", "")])
def test_an_unknown_provider_lists_those_of_the_project(name: str, near: str, tmp_path: Path) -> None:
    provider = NamedProvider(name="kennel", kind="openai-chat", base_url="http://kennel")
    with pytest.raises(ProviderUnavailable) as caught:
        remote_model(f"{name}:fox-1", {}, {"kennel": provider})
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"{near}known providers: `kennel`, `openai`, ")


def test_every_built_in_provider_has_a_key() -> None:
    assert tuple(ACCESS) == BUILT_IN
