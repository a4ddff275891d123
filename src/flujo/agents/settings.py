"""The settings that agents are built with, and the source of an agent's model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from pydantic_ai.models import Model

    from flujo.agents.request_limits import RequestLimits
    from flujo.domain.executor import Executor
    from flujo.domain.mcp import ToolServer
    from flujo.domain.prices import Price
    from flujo.domain.providers import NamedProvider

NO_TAGS = ("<reasoning-of-pydantic-ai>", "</reasoning-of-pydantic-ai>")
"""Tags that no model writes, for profiles of models.

pydantic-ai removes `<think>…</think>` from answers, also inside the texts of JSON. Flujo's reader does it by
its own rules.
"""


StructuredOutput = Literal["openai_json", "prompt", "tool"]
"""Whether the schema goes into the provider's JSON mode, the instructions, or a tool for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The settings that agents are built with.

    `environment` holds the keys of providers; it is read when an agent is built, and never shown.
    """

    environment: Mapping[str, str] = field(repr=False)
    providers: Mapping[str, NamedProvider] = field(default_factory=dict)
    """The providers that the project names."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    """The prices that the project sets, by the names of models; see `price_of`."""
    cache_dir: Path
    """The folder of local models and of the state of their servers."""
    coercion_level: int = 2
    """How tolerant structured output is: 0 strict, 1 strip and coerce, 2 repair."""
    structured_output: StructuredOutput = "openai_json"
    repaired_arguments: Literal["refuse", "ask", "allow"] = "refuse"
    """Whether a tool with an effect is called with arguments whose JSON was repaired."""
    on_download: Callable[[int, int], None] | None = None
    """Called in a thread with the downloaded and the total bytes of a local model."""
    executors: Callable[[str], Executor | None] | None = None
    """Returns the executor of a name, None for `threads`; None where every tool is called in this process."""
    mcp_server: Callable[[str], ToolServer] | None = None
    """Returns the MCP server of a name; None where no server is started."""
    local_idle_s: float = 300.0
    """How long a local model's server keeps running without a request."""


class ModelSource(Protocol):
    """Where a model comes from: a provider, or a server on this machine."""

    @property
    def key_name(self) -> str | None:
        """The environment variable that holds its key."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """Its keys, for the gate."""
        ...

    @property
    def limits(self) -> RequestLimits | None:
        """What its provider allows within this process; None if everything."""
        ...

    @property
    def is_free(self) -> bool:
        """Whether its requests cost nothing."""
        ...

    @property
    def has_tool_protocol(self) -> bool:
        """Whether its requests and responses have a form for tool calls."""
        ...

    @property
    def answered_with(self) -> Mapping[str, Any]:
        """What decides its answers beside the model's name, as JSON data; a part of the keys of a cache."""
        ...

    async def prepare(self) -> None:
        """Download what a request needs on this machine."""
        ...

    def open(self) -> AbstractAsyncContextManager[Model]:
        """Return a context manager of the model, whose connections stay open inside it."""
        ...
