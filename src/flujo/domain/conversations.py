"""The port of agents that work in turns: model requests and tool calls, one at a time.

The engine drives a conversation and records each response and each tool result before anything depends on
it. An agent keeps no state of its own: a conversation continues from its recorded messages, in any process.
Messages are JSON data in the form of pydantic-ai (`kind`, `parts`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from flujo.domain import canonical
from flujo.domain.fast_dataclass import record
from flujo.domain.ports import Agent, CheckedAgent
from flujo.domain.tool_policy import TOOL_POLICY
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import ArgumentsRejected, TransactionRefused

if TYPE_CHECKING:
    from flujo.domain.agents import Ask, Meter
    from flujo.domain.approvals import Approval
    from flujo.domain.tools import Effect, InDoubt
    from flujo.domain.transactions import TransactionalStore

Message = dict[str, Any]
"""One request to a model, or one response of it, as JSON data."""

ToolOutcome = Literal["result", "retry", "error", "refused", "denied"]
"""What a model gets for a call: the result, a request to call again, an error, or why it was not made: it
cannot be, or a human denied it."""


@record(frozen=True, slots=True)
class ToolCall:
    """A call that a model requests."""

    name: str
    arguments: Any
    """A mapping; a text when the model wrote something else."""
    call_id: str = ""
    """The model's own id, which is not always unique; the journal uses the call's place."""
    repairs: tuple[str, ...] = ()
    """The repairs of its arguments, in order, as text."""
    problem: str = ""
    """Why its arguments cannot be used, in words for the model."""
    written: str = ""
    """The arguments as the model wrote them, if a human must approve their repair."""


@record(frozen=True, slots=True)
class ToolResult:
    """What goes back to the model for a tool call."""

    content: Any
    """JSON data."""
    outcome: ToolOutcome = "result"


@record(frozen=True, slots=True)
class Response:
    """A model's response to one request."""

    message: Message
    usage: Usage = NOTHING
    model: str | None = None
    """The model id that the provider reports."""


@record(frozen=True, slots=True)
class ToolCalls:
    """A response that requests tool calls."""

    calls: tuple[ToolCall, ...]


@record(frozen=True, slots=True)
class FinalAnswer:
    """A response with the answer of the whole conversation."""

    value: Any
    repairs: tuple[str, ...] = ()
    """The repairs of structured output, in order, as text."""


BYTES_PER_TOKEN = 3
"""How many bytes of UTF-8 count as a token where no provider has counted; most texts have more."""


def text_tokens(text: str) -> int:
    """Return an estimate of the tokens of a text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def estimated_tokens(message: Message) -> int:
    """Return an estimate of the tokens of a message: of its texts, tool names, arguments and results."""
    parts = message["parts"]
    said = [part[key] for part in parts for key in ("content", "tool_name", "args") if part.get(key)]
    return text_tokens("".join(map(_text, said)))


def _text(said: Any) -> str:
    """Return the text of a part of a message; the files in a prompt have none."""
    match said:
        case str():
            return said
        case [str(text), *files] if all(map(_is_file, files)):
            return text
        case _:
            return canonical.encode(said).decode()


def _is_file(said: Any) -> bool:
    return isinstance(said, dict) and said.get("kind") == "binary"


class BackToModel(Exception):
    """Raised by a tool whose message goes back to the model, for instance about its arguments."""


@runtime_checkable
class Tool(CheckedAgent, Protocol):
    """A tool of an agent. `Ask.arguments` are the arguments of the call."""

    name: str
    """The name by which a model calls it."""
    target: str
    """The name of the code behind it, for instance `module:callable`."""
    effect: Effect
    enforce_idempotency: bool
    """Whether each call is recorded before it is made, also in a step that does not require it."""
    approve: Approval | None
    """Which calls a human approves; None for no call."""
    parameters: Any
    """The JSON Schema of the arguments."""
    in_doubt: InDoubt | None
    """The action when the result of a recorded call is unknown; None for that of the step."""
    connection: Literal["sync", "async"] | None
    """How the tool takes a connection to write in a transaction; None if it takes none."""
    is_sequential: bool
    """Whether no other call of the same response runs at the same time."""
    timeout_s: float | None


FILLED_IN = ("resources", "idempotency_key")
"""Parameters of a tool that Flujo fills in, and that a step may be unable to fill in."""


def refusal(call: ToolCall, tools: Mapping[str, Tool], ask: Ask) -> str:
    """Return why a call cannot be made, in words for the model; empty when it can be made.

    Args:
        call: the call.
        tools: the tools that may be called, by name.
        ask: what Flujo fills in.

    Raises:
        ArgumentsRejected: a parameter in `FILLED_IN` cannot be filled in (`parameter`).
        ToolDenied: the project does not allow the tool, and the step fails then.
    """
    tool = tools.get(call.name)
    if tool is None:
        names = ", ".join(f"`{name}`" for name in tools)
        return f"there is no tool `{call.name}`" + (f"; the tools are {names}" if names else "")
    if denial := TOOL_POLICY.get().denial(tool.name, tool.target):
        return denial
    if call.problem:
        return call.problem
    if not isinstance(call.arguments, dict):
        return "its arguments are not a JSON object"
    try:
        tool.check_arguments(replace(ask, arguments=call.arguments))
    except ArgumentsRejected as error:
        if error.parameter in FILLED_IN:
            raise
        return error.message
    return ""


def not_repaired(tool: str) -> str:
    """Return why a tool with an effect is not called with repaired arguments, in words for the model."""
    return (
        f"its arguments are not valid JSON, and `{tool}` has an effect, so they are not repaired; call it "
        "again with its arguments as one valid JSON object"
    )


def require_transaction(step: str, tool: Tool, store: TransactionalStore | None) -> None:
    """Refuse a transactional tool whose transactions a database cannot have.

    Args:
        step: the name of the step, for the message.
        tool: a tool of its agent, with any effect.
        store: the storage of runs; None if it is not a database.

    Raises:
        TransactionRefused: names the tool.
    """
    if tool.effect != "transactional":
        return
    if tool.connection is None:
        why, hint = "it takes no `connection`", "add a parameter `connection`, or declare another effect"
    elif store is None:
        why, hint = "the runs are not kept in a database", "set `state_uri` to SQLite or Postgres"
    elif store.lends_writer and tool.connection == "async":
        why = "it is async, and only a sync callable can write to a SQLite file"
        hint = "write `def` instead of `async def`, or use Postgres"
    else:
        return
    raise TransactionRefused(
        f"step {step!r}: its tool `{tool.target}` has `effect: transactional`, but {why}", hint=hint
    )


def runs_in_turn(calls: Sequence[ToolCall], tools: Mapping[str, Tool]) -> bool:
    """Return whether the calls of one response run one after another."""
    named = [tools[call.name] for call in calls if call.name in tools]
    return any(tool.is_sequential or tool.wants_context for tool in named)


class Session(Protocol):
    """A conversation with a model, from its recorded messages on."""

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools that the model may call, by name."""
        ...

    def prompt(self, data: Any) -> Message:
        """Return the first message: the input of the step."""
        ...

    def results(self, answers: Sequence[tuple[ToolCall, ToolResult]]) -> Message:
        """Return the message with the results of all tool calls of a response."""
        ...

    def again(self, reason: str) -> Message:
        """Return the message that rejects an answer, with the reason."""
        ...

    def last(self, turns: int) -> Message:
        """Return the message that requests the answer, because the limit of `turns` is reached."""
        ...

    def summarise(self) -> Message:
        """Return the message that requests a summary of the conversation, instead of a further turn."""
        ...

    def recap(self, task: Message, summary: str) -> Message:
        """Return the first message with a summary of the turns that are left out after it."""
        ...

    def continue_from(self, history: Sequence[Message]) -> None:
        """Continue after these messages, a part of those that the session has kept."""
        ...

    async def request(
        self,
        messages: Sequence[Message],
        *,
        may_call: bool,
        meter: Meter | None,
        on_text: Callable[[str], Awaitable[None]] | None,
    ) -> Response:
        """Send new messages, and return the response; the session keeps both, unless an exception is raised.

        Args:
            messages: the messages since the last response.
            may_call: whether the model may call tools.
            meter: reserves budget for the request.
            on_text: awaited with each piece of text.

        Raises:
            AgentError: the model cannot be reached, or its response cannot be used.
            BudgetError: the budget does not allow the request; it was not made.
        """
        ...

    def read(self, message: Message) -> ToolCalls | FinalAnswer:
        """Return what a response means; the same message always means the same.

        Raises:
            OutputRejected: it has no tool call, and its text does not fit the output schema (`reason`).
        """
        ...


@runtime_checkable
class ConversingAgent(Agent, Protocol):
    """An agent that can work in turns."""

    @property
    def corrections(self) -> int:
        """How often the model may correct an answer that does not fit."""
        ...

    def traits(self, ask: Ask) -> Mapping[str, Any]:
        """Return what a conversation depends on: model, instructions, tools and schemas, as JSON data."""
        ...

    def converse(self, ask: Ask, history: Sequence[Message]) -> Session:
        """Return the conversation that continues after `history`; `ask` has instructions and schema."""
        ...
