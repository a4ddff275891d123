"""An agent that answers from a script, for tests."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flujo.agents import messages as written
from flujo.agents.conversation import Conversation
from flujo.agents.mcp_tools import with_mcp_tools
from flujo.agents.tools import ModelTool, tools_of
from flujo.domain import canonical
from flujo.domain.agents import Ask, Meter, Reply
from flujo.domain.conversations import FinalAnswer, Message, Response, ToolCall, ToolCalls
from flujo.domain.mcp import ToolServer
from flujo.domain.ports import SecretsReader
from flujo.domain.tools import ComposedTool, McpTools, Tooled
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.wording import plural
from flujo.exceptions import AgentError


class ScriptedAgent:
    """Returns prepared answers, one per `ask`, and records each `Ask` in `asked`.

    Args:
        answers: values in the order of the calls, or a callable (sync or async) that gets the `Ask` and
            returns a value. An exception is raised; a `Reply` is returned unchanged.
        usage: the usage of each answer that is not a `Reply`.
        worst: the usage that is reserved of a run's budget before each answer. Default: `usage`.
        model: the model id of the replies.
        wants_context: whether the engine passes a separate context to each call; always when a tool takes it.
        tools: what it may call: callables, or `CallableTool`, `BlueprintTool`, `AgentTool` and `McpTools`.
        servers: the MCP servers of its tools, by name: real ones, or fakes that have the same methods.
        corrections: how often an agent with tools, or in a `granular` step, may correct an answer.
        summary: the text, or a callable that gets the `Ask`, for each request for a summary of older turns.

    With tools, or in a `granular` step, an answer is a `ToolCall`, a list of them, or the final answer, and a
    callable gets the messages so far as the `data` of its `Ask`. In a `granular` step each turn takes the
    answer of its number, also in a resumed run.
    """

    def __init__(
        self,
        answers: Sequence[Any] | Callable[[Ask], Any],
        *,
        usage: Usage = NOTHING,
        worst: Usage | None = None,
        model: str | None = "scripted",
        wants_context: bool = False,
        tools: Sequence[Tooled] = (),
        servers: Mapping[str, ToolServer] | None = None,
        corrections: int = 1,
        summary: Any = "a summary",
    ) -> None:
        self.answers = answers
        self.usage = usage
        self.worst = usage if worst is None else worst
        self.model = model
        self.corrections = corrections
        self.summary = summary
        self.asked: list[Ask] = []
        self._servers = dict(servers or {})
        self.wants_context = wants_context
        self.set_tools(tools)

    def set_tools(self, tools: Sequence[Tooled]) -> None:
        """Replace its tools, as `scripted_runner` does with those that the blueprint gives the agent."""
        self.composed = tuple(each for each in tools if isinstance(each, ComposedTool))
        """The declarations of its tools that consist of steps."""
        self._of_servers = [each for each in tools if isinstance(each, McpTools)]
        self._functions = tools_of("scripted", tools)
        self.tools: Mapping[str, ModelTool] = self._functions
        """Its tools, by name; those of MCP servers only when it is prepared."""
        self.wants_context = self.wants_context or any(tool.wants_context for tool in self.tools.values())

    async def prepare(self) -> None:
        """Start the MCP servers of its tools, before a run.

        Raises:
            AgentError: `servers` does not have one of them.
            McpServerFailed: one of them cannot be started.
        """
        self.tools = await with_mcp_tools("scripted", self._functions, self._of_servers, self._server)

    def _server(self, name: str) -> ToolServer:
        if name not in self._servers:
            raise AgentError(
                f"a `ScriptedAgent` has tools of MCP server {name!r}, which its `servers` do not have",
                hint=f"write `servers={{{name!r}: …}}`, or give it a callable of the same name",
            )
        return self._servers[name]

    def read_secrets(self, environment: Mapping[str, str]) -> None:
        """Read the secrets of its tools.

        Raises:
            SecretNotSet: one is not set, or too short to be hidden.
        """
        for tool in self.tools.values():
            if isinstance(tool, SecretsReader):
                tool.read_secrets(environment)

    def traits(self, ask: Ask) -> Mapping[str, Any]:
        """Return what a conversation depends on: the model and the tools, not the script."""
        return {
            "model": self.model,
            "output_schema": ask.output_schema,
            "tools": {name: tool.traits for name, tool in self.tools.items()},
        }

    def converse(self, ask: Ask, history: Sequence[Message]) -> "ScriptedSession":
        """Return the conversation that continues after `history`."""
        return ScriptedSession(self, ask, history)

    @property
    def count(self) -> int:
        """The number of calls so far."""
        return len(self.asked)

    async def ask(self, ask: Ask) -> Reply:
        """Return the next answer of the script.

        Raises:
            AgentError: the script has no answer left.
            UsageLimitExceeded: the run's budget has no room for the answer; the call is not recorded.
        """
        if self.tools:
            session = ScriptedSession(self, ask, [], is_recorded=False)
            return await Conversation(session, ask, agent="scripted", corrections=self.corrections).reply()
        return await self.answer(ask, self.count)

    async def answer(self, ask: Ask, number: int | None) -> Reply:
        """Return the answer of a number, within the budget; for None, a summary."""
        if ask.meter is None or not self.worst:
            return await self._reply(ask, number)
        reserved = await ask.meter.reserve(self.worst)
        try:
            reply = await self._reply(ask, number)
        except BaseException:
            reserved.settle(NOTHING)
            raise
        reserved.settle(reply.usage)
        return reply

    async def _reply(self, ask: Ask, number: int | None) -> Reply:
        self.asked.append(ask)
        script = self.summary if number is None else self.answers
        if callable(script):
            answer = script(ask)
        else:
            answer = script if number is None else self._of(script, number)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Reply):
            return answer
        if ask.on_text is not None and isinstance(answer, str):
            await ask.on_text(answer)
        return Reply(output=answer, usage=self.usage, model=self.model)

    def _of(self, answers: Sequence[Any], number: int) -> Any:
        if number >= len(answers):
            raise AgentError(
                f"the script has {plural(len(answers), 'answer')}, and this is call number {number + 1}",
                hint="add an answer, or check `asked` for a step that calls more often than you expect",
            )
        return answers[number]


_JSON = {"format": "json"}
"""Marks a response whose text is JSON, which a text answer may look like."""


class ScriptedSession(written.MessageWriter):
    """The port `Session` for a script.

    Args:
        agent: the agent with the script.
        ask: the request of the step.
        history: the recorded messages.
        is_recorded: whether each turn has a number, which determines its answer; otherwise it takes the next.
    """

    def __init__(
        self, agent: ScriptedAgent, ask: Ask, history: Sequence[Message], *, is_recorded: bool = True
    ) -> None:
        self.tools = agent.tools
        self._is_recorded = is_recorded
        self._agent = agent
        self._ask = ask
        self.files = ask.files
        self._messages = list(history)
        self._turns = sum(message["kind"] == "response" for message in history)

    def continue_from(self, history: Sequence[Message]) -> None:
        """Continue after these messages."""
        self._messages = list(history)

    async def request(
        self,
        messages: Sequence[Message],
        *,
        may_call: bool,  # noqa: ARG002 - the script decides
        meter: Meter | None,
        on_text: Callable[[str], Awaitable[None]] | None,
    ) -> Response:
        """Return the answer of the script for this turn.

        Raises:
            AgentError: the script has no answer left.
            UsageLimitExceeded: the run's budget has no room for the request.
        """
        sent = [*self._messages, *messages]
        ask = replace(self._ask, data=sent, meter=meter, on_text=on_text)
        is_summary = list(messages) == [self.summarise()]
        number = self._turns if self._is_recorded else self._agent.count
        reply = await self._agent.answer(ask, None if is_summary else number)
        message = _response(reply, self._turns)
        self._messages = [*sent, message]
        self._turns += 1
        return Response(message, usage=reply.usage, model=reply.model)

    def read(self, message: Message) -> ToolCalls | FinalAnswer:
        """Return the tool calls of a response, or its answer."""
        calls, text = written.calls_in(message), written.text_in(message)
        if calls:
            return ToolCalls(calls)
        return FinalAnswer(
            canonical.decode(text.encode()) if message.get("provider_details") == _JSON else text
        )


def _response(reply: Reply, number: int) -> Message:
    answer = reply.output
    given = [answer] if isinstance(answer, ToolCall) else answer
    if isinstance(given, list | tuple) and given and all(isinstance(each, ToolCall) for each in given):
        calls = [
            replace(call, call_id=call.call_id or f"call_{number}_{place}")
            for place, call in enumerate(given)
        ]
        return written.from_model(calls=calls, model=reply.model)
    if isinstance(answer, str):
        return written.from_model(answer, model=reply.model)
    text = canonical.encode(answer, what="a scripted answer").decode()
    return {**written.from_model(text, model=reply.model), "provider_details": _JSON}
