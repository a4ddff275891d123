"""A model as an agent: its conversations, in turns that the engine drives or whole within one attempt."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from flujo.agents.outgoing import Door
from flujo.agents.structured_output import OutputReader
from flujo.agents.tool_arguments import ArgumentsReader
from flujo.domain import canonical
from flujo.domain.agents import native_tools
from flujo.domain.ports import SecretsReader
from flujo.domain.prices import price_of
from flujo.domain.tools import McpTools
from flujo.exceptions import AgentError
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.agents.output_type import OutputType
    from flujo.agents.session import ChatSession
    from flujo.agents.settings import AgentSettings, ModelSource
    from flujo.agents.tools import ModelTool
    from flujo.domain.agents import AgentSpec, Ask, Reply
    from flujo.domain.conversations import Message
    from flujo.domain.tools import Tooled


def build_agent(
    spec: AgentSpec,
    *,
    tools: Sequence[Tooled] = (),
    output_type: Any = None,
    settings: AgentSettings,
) -> ChatAgent:
    """Return the agent that `spec` declares, without a network request.

    Args:
        spec: the declaration.
        tools: `spec.tools`, whose callables are imported.
        output_type: the imported type of `spec.output_type`: a pydantic model, a dataclass, or any type.
        settings: keys, folders and tolerance.

    Raises:
        ProviderUnavailable: a package is not installed, or a key is not set.
        ModelUnavailable: the model's name is not of the form `provider:model`, or names no local model.
        AgentError: the output schema is not a JSON Schema, or the model's client would retry by itself.
    """
    if retries := spec.model_settings.get("max_retries"):
        raise AgentError(
            f"agent {spec.name!r}: `model_settings` has `max_retries: {retries}`, but only steps retry: a "
            "budget does not count the retries of a provider's client",
            hint=f"remove it, and give the step `config: {{max_retries: {retries}}}`",
        )
    if setting := native_tools(spec.model_settings):
        raise AgentError(
            f"agent {spec.name!r}: `model_settings` has `{setting}`, with which the provider calls tools of "
            "its own: no journal, budget or approval sees these calls",
            hint="remove it, and give the agent a tool: a callable, or the tools of an MCP server",
        )
    if spec.model.startswith("local:"):
        from flujo.agents.local_model import LocalModel

        source: ModelSource = LocalModel.of(spec.model.removeprefix("local:"), settings)
    else:
        from flujo.agents.providers import remote_model

        source = remote_model(spec.model, settings.environment, settings.providers)
    return ChatAgent(spec, source, tools=tools, output_type=output_type, settings=settings)


class ChatAgent:
    """A model with instructions, tools and an output schema; `converse` is the only way to its model."""

    def __init__(
        self,
        spec: AgentSpec,
        source: ModelSource,
        *,
        tools: Sequence[Tooled] = (),
        output_type: Any = None,
        settings: AgentSettings,
    ) -> None:
        self.spec = spec
        self.source = source
        self.settings = settings
        self._readers: dict[bytes, OutputReader] = {}
        self._arguments = ArgumentsReader(level=settings.coercion_level, repaired=settings.repaired_arguments)
        self._typed = None if output_type is None else _typed(output_type)
        if spec.output_schema is not None:
            self._reader(spec.output_schema)  # raises here, at build time, when it is not a JSON Schema
        self.corrections = 1 if spec.retries is None else spec.retries
        """How often the model may correct an answer that does not fit."""
        self.tools: Mapping[str, ModelTool] = {}
        """Its tools, by name; those of MCP servers only when it is prepared."""
        self._of_servers = [each for each in tools if isinstance(each, McpTools)]
        if tools:
            from flujo.agents.tools import tools_of

            self.tools = tools_of(spec.name, tools, timeout_s=spec.tool_timeout, executors=settings.executors)
        self._functions = self.tools
        self.wants_context = any(tool.wants_context for tool in self.tools.values())

    def read_secrets(self, environment: Mapping[str, str]) -> None:
        """Read the secrets of its tools.

        Raises:
            SecretNotSet: one is not set, or too short to be hidden.
        """
        for tool in self.tools.values():
            if isinstance(tool, SecretsReader):
                tool.read_secrets(environment)

    def traits(self, ask: Ask) -> Mapping[str, Any]:
        """Return what a conversation depends on: model, named provider, instructions, schema and tools."""
        named = self.settings.providers.get(self.spec.model.partition(":")[0])
        return {
            "model": self.spec.model,
            **({} if named is None else {"provider": named.identity}),
            "instructions": ask.instructions,
            "output_schema": self._schema_of(ask),
            "tools": {name: tool.traits for name, tool in self.tools.items()},
        }

    def converse(self, ask: Ask, history: Sequence[Message]) -> ChatSession:
        """Return the conversation that continues after `history`."""
        from flujo.agents.session import ChatSession

        reader = self._reader_of(ask)
        return ChatSession(
            self.spec,
            self.source,
            history,
            tools=self.tools,
            reader=reader,
            read=lambda text: self._read(reader, text, ask),
            arguments=self._arguments,
            instructions=ask.instructions,
            mode=self.settings.structured_output,
            thread=ask.history,
            files=ask.files,
            contents=ask.contents,
            price=price_of(self.spec.model, self.settings.prices),
            door=Door.of(ask),
        )

    @property
    def answered_with(self) -> Mapping[str, Any]:
        """What decides the answers beside the declaration: the model's endpoint, packages, and settings."""
        return {
            **self.source.answered_with,
            "pydantic-ai-slim": metadata.version("pydantic-ai-slim"),
            "coercion_level": self.settings.coercion_level,
            "structured_output": self.settings.structured_output,
            **GATE.masks_of_requests,
            **({"mcp": of_servers} if (of_servers := self._traits_of_servers()) else {}),
            "repaired_arguments": self.settings.repaired_arguments,
        }

    def _traits_of_servers(self) -> Mapping[str, Any]:
        return {name: one.traits for name, one in self.tools.items() if name not in self._functions}

    async def prepare(self) -> None:
        """Download missing weights of a local model and start MCP servers, before the step's timeout starts.

        Raises:
            McpServerFailed: a server of its tools cannot be started.
            LockMismatch: the tools of a server are not those of the lock.
            ModelUnavailable: the download failed.
            ModelDigestMismatch: the file differs from the published one.
        """
        await self.source.prepare()
        if not self._of_servers:
            return
        from flujo.agents.mcp_tools import with_mcp_tools

        self.tools = await with_mcp_tools(
            self.spec.name,
            self._functions,
            self._of_servers,
            self.settings.mcp_server,
            timeout_s=self.spec.tool_timeout,
        )

    async def ask(self, ask: Ask) -> Reply:
        """Return the model's answer: text, or the value that fits the schema.

        Every exception has `usage`: the usage of the attempt until then.

        Raises:
            ModelUnavailable: the model cannot be reached or refuses (`status`, `retryable`).
            OutputRejected: no answer fits after `retries` retries (`reason`, `answer`).
            OutputTruncated: the last answer was cut off.
            BudgetError: the run's budget does not allow a request or a tool call; it was not made.
        """
        from flujo.agents.conversation import Conversation

        session = self.converse(ask, [])
        return await Conversation(session, ask, agent=self.spec.name, corrections=self.corrections).reply()

    def _read(self, reader: OutputReader, text: str, ask: Ask) -> tuple[Any, tuple[str, ...]]:
        reading = reader.read(text)
        if self._typed is None or ask.output_schema is not None:
            return reading.value, reading.repairs
        return self._typed.load(reading.value, text), reading.repairs

    def _reader_of(self, ask: Ask) -> OutputReader:
        return self._reader(self._schema_of(ask))

    def _schema_of(self, ask: Ask) -> Any:
        schema = ask.output_schema if ask.output_schema is not None else self.spec.output_schema
        return self._typed.schema if schema is None and self._typed is not None else schema

    def _reader(self, schema: Any) -> OutputReader:
        key = canonical.encode(schema, what=f"output schema of agent {self.spec.name!r}")
        if key not in self._readers:
            self._readers[key] = OutputReader(schema, level=self.settings.coercion_level)
        return self._readers[key]


def _typed(output_type: Any) -> OutputType:
    from flujo.agents.output_type import OutputType

    return OutputType(output_type)
