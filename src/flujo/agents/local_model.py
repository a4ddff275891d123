"""`local:` models as pydantic-ai models; weights, server and connection are prepared at first use."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.agents import local_server, local_weights
from flujo.agents.settings import NO_TAGS
from flujo.agents.thread_pool import THREADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from httpx2 import AsyncClient
    from pydantic_ai.models import Model

    from flujo.agents.settings import AgentSettings

# Small models tend to write endlessly and to leave the subject; `model_settings` overrides these values.
DEFAULTS = {"max_tokens": 512, "temperature": 0.0}

TIMEOUT_S = 600.0
"""The longest silence of the server within a request."""


@dataclass(slots=True)
class LocalModel:
    """A model that runs on this machine, free of cost and without a key."""

    name: str
    settings: "AgentSettings"
    key_name: str | None = None
    is_free: bool = True
    has_tool_protocol: bool = False
    secrets: tuple[str, ...] = ()
    limits: None = None
    _verified: Path | None = None

    @classmethod
    def of(cls, name: str, settings: "AgentSettings") -> "LocalModel":
        """Return the model called `name`; nothing is downloaded or started yet.

        Raises:
            ProviderUnavailable: llama.cpp is not installed.
            ModelUnavailable: there is no such model.
        """
        local_server.require_runtime()
        local_weights.path_of(name, settings.cache_dir)
        return cls(name, settings)

    @property
    def answered_with(self) -> "Mapping[str, Any]":
        """Its weights, and the version of llama.cpp."""
        known = local_weights.CATALOGUE.get(self.name)
        version = metadata.version("xllamacpp")
        if known is not None:
            return {"weights": known.sha256, "version": version}
        path = local_weights.path_of(self.name, self.settings.cache_dir)
        there = path.stat() if path.exists() else None
        weights = [str(path), there and there.st_size, there and there.st_mtime_ns]
        return {"weights": weights, "version": version}

    async def prepare(self) -> None:
        """Download the weights when they are missing, and verify them.

        Raises:
            ModelUnavailable: the download failed.
            ModelDigestMismatch: the file differs from the published one.
        """
        await THREADS.submit(self._weights)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Model", None]:
        """Yield the model, with its weights verified and its server running.

        Raises:
            ModelUnavailable: the download failed, or the server does not start.
            ModelDigestMismatch: its file differs from the published one.
        """
        from httpx2 import AsyncClient, AsyncHTTPTransport

        address = await THREADS.submit(self._running)
        # A connection per request: each goes to the server that was checked just now. A transport of its own
        # also leaves out the proxy of the environment.
        transport = AsyncHTTPTransport(uds=str(address.socket), verify=False)
        async with AsyncClient(transport=transport, timeout=TIMEOUT_S) as client:
            yield _model_at(address, client)

    def _running(self) -> local_server.Address:
        settings = self.settings
        return local_server.address(
            self._weights(), cache_dir=settings.cache_dir, idle_s=settings.local_idle_s
        )

    def _weights(self) -> Path:
        if self._verified is None or not self._verified.exists():
            settings = self.settings
            self._verified = local_weights.ensure(
                self.name, cache_dir=settings.cache_dir, on_progress=settings.on_download
            )
        return self._verified


def _model_at(address: local_server.Address, client: "AsyncClient") -> "Model":
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.settings import ModelSettings

    return OpenAIChatModel(
        address.model,
        provider=OpenAIProvider(base_url="http://localhost/v1", api_key="none", http_client=client),
        profile=OpenAIModelProfile(supports_json_schema_output=True, thinking_tags=NO_TAGS),
        settings=ModelSettings(**DEFAULTS),  # type: ignore[typeddict-item]  # two keys of two types
    )
