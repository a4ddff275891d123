"""A binding whose models, tools and callables are answered from a cassette: without key, network, weights."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from flujo.agents.chat import ChatAgent
from flujo.agents.function import FunctionAgent
from flujo.agents.mcp_tools import with_mcp_tools
from flujo.agents.messages import MessageWriter
from flujo.domain.agents import Reply
from flujo.domain.conversations import BackToModel, Response
from flujo.domain.mcp import ListedTool
from flujo.domain.steps import Step
from flujo.domain.tools import CallableTool
from flujo.exceptions import ResourcesMissing, SecretNotSet
from flujo.services.binding.binding import PipelineBinding
from flujo.services.project.imports import importable
from flujo.services.replay.cassette_messages import response
from flujo.services.workspace import agent_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from flujo.agents.tools import ModelTool
    from flujo.domain.agents import AgentSpec, Ask, Meter
    from flujo.domain.approvals import Approval
    from flujo.domain.conversations import FinalAnswer, Message, Session, ToolCalls
    from flujo.domain.mcp import ListedTools
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Agent
    from flujo.domain.tools import Effect, InDoubt, ToolSpec
    from flujo.domain.values import CallableRef
    from flujo.services.project.project import Project
    from flujo.services.replay.tape import Playing, Tape


def cassette_binding(project: Project, pipeline: Pipeline, tape: Tape) -> CassetteBinding:
    """Return a pipeline made runnable with the answers of a cassette.

    Raises:
        CallableError: a callable that runs is not available.
    """
    settings = project.settings
    binding = CassetteBinding(
        tape,
        {step.call.target for _, step in pipeline.walk() if isinstance(step, Step) and step.call is not None},
        allow_callables=settings.blueprints.allow_callables,
        agent_settings=replace(agent_settings(settings), environment={}),
    )
    if project.config_file is not None:  # otherwise no callable is allowed
        importable(project.root)
    binding.bind(pipeline)
    return binding


class CassetteBinding(PipelineBinding):
    """The binding of a pipeline that is played from a cassette."""

    def __init__(self, tape: Tape, called: set[str], **options: Any) -> None:
        super().__init__(**options)
        self._tape = tape
        recorded = {call.name for call in tape.cassette.calls if not call.is_tool}
        self._recorded = (called | recorded) - set(tape.cassette.live)
        """The callables of steps that the cassette answers; those of blueprints as tools are only in it."""
        self.called: set[str] = set()
        """The callables and tools that are called, because they take the context."""

    def _function(self, ref: CallableRef) -> Agent:
        agent = super()._function(ref)
        if ref.target not in self._recorded:
            return agent
        if agent.wants_context:  # a result alone would leave the change of the context out
            self.called.add(ref.target)
            return agent
        return RecordedFunction(ref.target, agent, self._tape)

    def _model_agent(self, spec: AgentSpec, tools: Sequence[ToolSpec], output_type: Any) -> ChatAgent:
        callables = {tool.call.target for tool in tools if isinstance(tool, CallableTool)}
        agent = CassetteAgent(
            spec, self._tape, callables, tools=tools, output_type=output_type, settings=self._agent_settings
        )
        self.called |= {
            each.target for each in agent.tools.values() if each.wants_context and each.target in callables
        }
        return agent


class RecordedFunction:
    """A callable of a step, answered from a cassette."""

    wants_context = False
    wants_resources = False

    def __init__(self, target: str, agent: Agent, tape: Tape) -> None:
        self._target = target
        self._agent = agent
        self._tape = tape

    def check_arguments(self, ask: Ask) -> None:
        """Refuse arguments that the callable does not take; its resources are not needed.

        Raises:
            ArgumentsRejected: they do not match the parameters.
        """
        if isinstance(self._agent, FunctionAgent):
            with suppress(ResourcesMissing):
                self._agent.check_arguments(ask)

    async def ask(self, ask: Ask) -> Reply:
        """Return the recorded result.

        Raises:
            ArgumentsRejected: the arguments do not match the parameters.
            CassetteMismatch: the call is not recorded.
            Exception: the recorded error of the call.
        """
        self.check_arguments(ask)
        given = ask.data if ask.arguments is None else dict(ask.arguments)
        return Reply(output=self._tape.call(self._target, given, is_tool=False).result)


class RecordedTool:
    """A tool of an agent, answered from a cassette."""

    connection: Literal["sync", "async"] | None = None
    wants_context = False

    def __init__(self, tool: ModelTool, tape: Tape) -> None:
        self._tool = tool
        self._tape = tape
        self.name = tool.name
        self.target = tool.target
        # Nothing is written, so it needs no transaction.
        self.effect: Effect = "idempotent" if tool.effect == "transactional" else tool.effect
        self.enforce_idempotency = tool.enforce_idempotency
        self.approve: Approval | None = tool.approve
        self.parameters: Any = tool.parameters
        self.in_doubt: InDoubt | None = tool.in_doubt
        self.is_sequential = tool.is_sequential
        self.timeout_s = tool.timeout_s

    @property
    def definition(self) -> Any:
        """What a model sees."""
        return self._tool.definition

    @property
    def traits(self) -> Mapping[str, Any]:
        """What a conversation depends on."""
        return self._tool.traits

    def check_arguments(self, ask: Ask) -> None:
        """Refuse arguments that do not fit the schema; secrets and resources are not needed.

        Raises:
            ArgumentsRejected: names the arguments.
        """
        with suppress(SecretNotSet, ResourcesMissing):
            self._tool.check_arguments(ask)

    async def ask(self, ask: Ask) -> Reply:
        """Return the recorded result.

        Raises:
            BackToModel: the model got a text instead of a result.
            CassetteMismatch: the call is not recorded.
            Exception: the recorded error of the call.
        """
        call = self._tape.call(self.name, dict(ask.arguments or {}), is_tool=True)
        if call.outcome != "result":
            raise BackToModel(str(call.result))
        return Reply(output=call.result)


class RecordedServer:
    """An MCP server that is not started: its tools are those of a cassette."""

    timeout_s = 60.0

    def __init__(self, name: str, tape: Tape) -> None:
        self.name = name
        self._tape = tape

    async def tools(self) -> ListedTools:
        """Return the recorded tools.

        Raises:
            CassetteMismatch: the cassette does not have the server.
        """
        return {name: ListedTool("", parameters) for name, parameters in self._tape.server(self.name).items()}

    async def call(self, tool: str, arguments: dict[str, Any], key: str | None) -> Any:
        """Refuse a call: its answer is recorded."""
        del arguments, key
        raise AssertionError(tool)


class _NoSource:
    """The source of a model that is never opened."""

    key_name = None
    secrets = ()
    limits = None
    is_free = True
    has_tool_protocol = True
    answered_with: Mapping[str, Any] = {}

    async def prepare(self) -> None:
        """Do nothing."""

    def open(self) -> AbstractAsyncContextManager[Any]:
        """Refuse: every answer is recorded."""
        raise AssertionError


class CassetteAgent(ChatAgent):
    """An agent whose model is a cassette. What is sent and how an answer is read are those of a model."""

    def __init__(self, spec: AgentSpec, tape: Tape, callables: set[str], **options: Any) -> None:
        super().__init__(spec, _NoSource(), **options)
        self.tape = tape
        self.tools = {
            name: RecordedTool(tool, tape) if tool.target in callables and not tool.wants_context else tool
            for name, tool in self.tools.items()
        }
        self._functions = self.tools
        self.wants_context = any(tool.wants_context for tool in self.tools.values())

    def converse(self, ask: Ask, history: Sequence[Message]) -> Session:  # type: ignore[override]  # as the port says
        """Return the conversation that continues after `history`."""
        return CassetteSession(self, super().converse(ask, history), ask, history)

    async def prepare(self) -> None:
        """Take the tools of MCP servers from the cassette; no weights and no servers are needed.

        Raises:
            CassetteMismatch: the cassette does not have one of the servers.
            McpServerFailed: a server in it does not have one of the tools that the agent may call.
        """
        if self._of_servers:
            tools = await with_mcp_tools(
                self.spec.name,
                self._functions,
                self._of_servers,
                lambda name: RecordedServer(name, self.tape),
                timeout_s=self.spec.tool_timeout,
            )
            self.tools = {
                name: tool if name in self._functions else RecordedTool(tool, self.tape)
                for name, tool in tools.items()
            }


class CassetteSession(MessageWriter):
    """The port `Session` for a cassette.

    Args:
        agent: the agent.
        inner: the same conversation with a model, which only reads answers.
        ask: the request of the step.
        history: the recorded messages.
    """

    def __init__(self, agent: CassetteAgent, inner: Session, ask: Ask, history: Sequence[Message]) -> None:
        self.tools = agent.tools
        self.files = ask.files
        self._agent = agent
        self._inner = inner
        self._instructions = ask.instructions
        self._playing: Playing | None = None
        if history:
            tape = agent.tape
            self._playing = tape.continued(agent.spec.model, self._instructions, history)

    def continue_from(self, history: Sequence[Message]) -> None:
        """Continue after a part of the conversation; the cassette knows the whole of it."""

    def read(self, message: Message) -> ToolCalls | FinalAnswer:
        """Return what a response means.

        Raises:
            OutputRejected: it does not fit the output schema.
        """
        return self._inner.read(message)

    async def request(
        self,
        messages: Sequence[Message],
        *,
        may_call: bool,  # noqa: ARG002 - the recorded model decided
        meter: Meter | None,  # noqa: ARG002 - nothing is spent
        on_text: Callable[[str], Awaitable[None]] | None,
    ) -> Response:
        """Return the recorded response.

        Raises:
            CassetteMismatch: the request is not the recorded one.
            Exception: the recorded error of the request.
        """
        tape, name, model = self._agent.tape, self._agent.spec.name, self._agent.spec.model
        if self._playing is not None and list(messages) == [self.summarise()]:
            said = [{"text": tape.summary(name, self._playing)}]
            return Response(response(said, 0, self._playing.recorded.answered_by))
        if self._playing is None:
            self._playing = tape.begin(name, model, self._instructions, messages)
        number = self._playing.exchanges
        answer = tape.answer(name, self._playing, messages)
        message = response(answer, number, self._playing.recorded.answered_by)
        if on_text is not None:
            for part in answer:
                if "text" in part:
                    await on_text(part["text"])
        return Response(message, model=self._playing.recorded.answered_by)
