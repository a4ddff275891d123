"""A model as an agent: pydantic-ai makes the requests, with tools and streaming; Flujo reads the answer."""

from __future__ import annotations

import functools
import inspect
from importlib import metadata
from typing import TYPE_CHECKING, Any

from flujo.agents import messages
from flujo.agents.structured_output import OutputReader
from flujo.agents.thread_pool import THREADS
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask, Reply
from flujo.exceptions import AgentError, OutputRejected, OutputTruncated
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic_ai import Agent as Runtime
    from pydantic_ai.messages import ModelMessage

    from flujo.agents.metered_model import MeteredModel
    from flujo.agents.output_type import OutputType
    from flujo.agents.settings import AgentSettings, ModelSource
    from flujo.agents.tools import FunctionTool
    from flujo.domain.conversations import Message, Session


def build_agent(
    spec: AgentSpec,
    *,
    tools: Sequence[Callable[..., Any]] = (),
    output_type: Any = None,
    settings: AgentSettings,
) -> ChatAgent:
    """Return the agent that `spec` declares, without a network request.

    Args:
        spec: the declaration.
        tools: the imported callables of `spec.tools`.
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
    if spec.model.startswith("local:"):
        from flujo.agents.local_model import LocalModel

        source: ModelSource = LocalModel.of(spec.model.removeprefix("local:"), settings)
    else:
        from flujo.agents.providers import remote_model

        source = remote_model(spec.model, settings.environment)
    return ChatAgent(spec, source, tools=tools, output_type=output_type, settings=settings)


class ChatAgent:
    """Asks a model once per attempt, and again for each answer that does not fit, up to `retries` times."""

    wants_context = False

    def __init__(
        self,
        spec: AgentSpec,
        source: ModelSource,
        *,
        tools: Sequence[Callable[..., Any]] = (),
        output_type: Any = None,
        settings: AgentSettings,
    ) -> None:
        self.spec = spec
        self.source = source
        self.settings = settings
        self._readers: dict[bytes, OutputReader] = {}
        self._typed = None if output_type is None else _typed(output_type)
        if spec.output_schema is not None:
            self._reader(spec.output_schema)  # raises here, at build time, when it is not a JSON Schema
        self._retries = 1 if spec.retries is None else spec.retries
        self._callables = tools
        self._runtime = self._built(tools)

    @functools.cached_property
    def tools(self) -> Mapping[str, FunctionTool]:
        """Its tools, by name."""
        from flujo.agents.tools import tools_of

        return tools_of(self.spec.name, self._callables, timeout_s=self.spec.tool_timeout)

    @property
    def corrections(self) -> int:
        """How often the model may correct an answer that does not fit."""
        return self._retries

    def traits(self, ask: Ask) -> Mapping[str, Any]:
        """Return what a conversation depends on: model, instructions, schema and tools."""
        return {
            "model": self.spec.model,
            "instructions": ask.instructions,
            "output_schema": self._schema_of(ask),
            "tools": {name: tool.traits for name, tool in self.tools.items()},
        }

    def converse(self, ask: Ask, history: Sequence[Message]) -> Session:
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
            instructions=ask.instructions,
            json_mode=self.settings.structured_output == "openai_json",
        )

    def _built(self, tools: Sequence[Callable[..., Any]]) -> Runtime[None, str]:
        import pydantic_ai

        pydantic_ai.BANNER_ENABLED = False  # the banner would overwrite the live tree of a terminal
        try:
            return pydantic_ai.Agent(
                name=self.spec.name,
                deps_type=type(None),
                tools=[_in_thread(tool) for tool in tools],
                retries=self._retries,
                tool_timeout=self.spec.tool_timeout,
            )
        except pydantic_ai.UserError as error:
            raise AgentError(
                f"agent {self.spec.name!r} cannot be built with its tools: {error}",
                hint="give each tool a unique name, and annotate its parameters",
            ) from error

    @property
    def answered_with(self) -> Mapping[str, Any]:
        """What decides the answers beside the declaration: the model's endpoint, packages, and settings."""
        return {
            **self.source.answered_with,
            "pydantic-ai-slim": metadata.version("pydantic-ai-slim"),
            "coercion_level": self.settings.coercion_level,
            "structured_output": self.settings.structured_output,
        }

    async def prepare(self) -> None:
        """Download the weights of a local model when they are missing, before the step's timeout starts.

        Raises:
            ModelUnavailable: the download failed.
            ModelDigestMismatch: the file differs from the published one.
        """
        await self.source.prepare()

    async def ask(self, ask: Ask) -> Reply:
        """Return the model's answer: text, or the value that fits the schema.

        Every exception has `usage`: the usage of the attempt until then.

        Raises:
            ModelUnavailable: the model cannot be reached or refuses (`status`, `retryable`).
            OutputRejected: no answer fits after `retries` retries (`reason`, `answer`).
            OutputTruncated: the last answer was cut off.
            BudgetError: the run's budget does not allow a request or a tool call; it was not made.
        """
        from flujo.agents.metered_model import MeteredModel

        reader = self._reader_of(ask)
        async with self.source.open() as opened:
            GATE.know(self.source.secrets, of=self.source.key_name or f"the key of {self.spec.model}")
            model = MeteredModel(
                opened,
                schema=None if reader.is_text else reader.asked_schema,
                json_mode=self.settings.structured_output == "openai_json",
                is_free=self.source.is_free,
                meter=ask.meter,
            )
            try:
                output, repairs = await self._conversation(model, ask, reader)
            except BaseException as error:
                # A failed attempt is paid for too, whether Flujo, the provider, a tool or a timeout ended it.
                error.usage = model.spent  # type: ignore[attr-defined]  # exceptions take attributes
                raise
        return Reply(output=output, usage=model.spent, model=model.answered_by, repairs=repairs)

    async def _conversation(
        self, model: MeteredModel, ask: Ask, reader: OutputReader
    ) -> tuple[Any, tuple[str, ...]]:
        """Return the first answer that fits, with its repairs."""
        prompt = messages.prompt(ask.data)
        history: list[ModelMessage] = []
        notes: tuple[str, ...] = ()
        for left in range(self._retries, -1, -1):
            text, history = await self._answer(model, prompt, history, ask)
            try:
                if isinstance(text, OutputTruncated):
                    raise text
                value, repairs = self._read(reader, text, ask)
                if ask.check is not None:
                    value = await ask.check(value)
                return value, notes + repairs
            except OutputRejected as rejected:
                if not left:
                    raise self._given_up(rejected) from rejected
                reason = rejected.reason
                notes = (*notes, f"asked again because {reason}")
                prompt = (
                    f"That answer cannot be used: {reason}. Answer again, with the requested output only."
                )
        raise AssertionError("unreachable: the last round returns or raises")

    async def _answer(
        self, model: MeteredModel, prompt: str, history: list[ModelMessage], ask: Ask
    ) -> tuple[str | OutputTruncated, list[ModelMessage]]:
        """Return the model's text, after its tool calls, and the conversation so far.

        A cut answer is returned as its error; the conversation then ends before it.
        """
        from pydantic_ai import capture_run_messages
        from pydantic_ai.exceptions import AgentRunError, UserError

        from flujo.agents.conversation import before_the_cut, sendable, text_to
        from flujo.agents.error_translation import cause_of, translated

        with capture_run_messages() as exchanged:
            try:
                result = await self._runtime.run(
                    prompt,
                    model=model,
                    message_history=history or None,
                    # Finished text: pydantic-ai fills in templates only in specs that it loads itself.
                    instructions=ask.instructions,
                    model_settings=dict(self.spec.model_settings) or None,  # type: ignore[arg-type]  # a TypedDict
                    event_stream_handler=None if ask.on_text is None else text_to(ask.on_text),
                )
            except OutputTruncated as cut:
                return cut, before_the_cut(exchanged)
            except (AgentRunError, UserError) as error:
                failure = translated(
                    error,
                    agent=self.spec.name,
                    model=self.spec.model,
                    key_name=self.source.key_name,
                    address=model.base_url,
                )
                raise failure from cause_of(error)
        return result.output, sendable(result.all_messages())

    def _read(self, reader: OutputReader, text: str, ask: Ask) -> tuple[Any, tuple[str, ...]]:
        reading = reader.read(text)
        if self._typed is None or ask.output_schema is not None:
            return reading.value, reading.repairs
        return self._typed.load(reading.value, text), reading.repairs

    def _given_up(self, rejected: OutputRejected) -> OutputRejected:
        facts = {**rejected.facts, "agent": self.spec.name, "retryable": True}
        return type(rejected)(f"agent {self.spec.name!r}: {rejected.message}", hint=rejected.hint, **facts)

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


def _in_thread(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Return a tool that neither blocks the event loop nor waits for a hung thread on cancellation."""
    if inspect.iscoroutinefunction(tool):
        return tool

    @functools.wraps(tool)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await THREADS.submit(functools.partial(tool, *args, **kwargs))

    return call
