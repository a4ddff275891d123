"""Agents: their declaration, their requests (`Ask`), their replies, and their access to a run's budget."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from flujo.domain import values
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.fast_dataclass import constructor, record
from flujo.domain.threads import Exchange
from flujo.domain.tools import Tooled, ToolSpec, tool_specs
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.values import CallableRef, Logic, Logical, Text
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from flujo.domain.current_step import CurrentStep
    from flujo.domain.executor import Placed
    from flujo.domain.files import Contents, File
    from flujo.domain.personal_data import Pii, Pseudonyms
    from flujo.domain.transactions import Transaction


def _text(given: Text | str, _where: str) -> Text:
    return Text(given) if isinstance(given, str) else given


def _settings(given: Mapping[str, Any], _where: str) -> Mapping[str, Any]:
    return dict(given)


@node
class AgentSpec(Node):
    """An `agents:` entry: the fields of pydantic-ai's AgentSpec, and Flujo's own. Pure data."""

    owner: ClassVar[str] = "agent {name!r}: "

    name: str
    """An identifier."""
    model: str
    """`provider:model`, for instance `openai:gpt-5-mini` or `local:smollm2`."""
    _: KW_ONLY
    instructions: Takes[Text | str | None, Text | None] = takes(_text, default=None)
    """The system prompt; `{{ expression }}` placeholders are filled in."""
    instructions_file: str | None = None
    """The file of `instructions`, relative to the project; for display and the lockfile."""
    output_schema: Any = takes(values.schema, default=None)
    """A JSON Schema (2020-12) or a class that every answer must match; None for text."""
    output_type: Takes[CallableRef | type | str | None, CallableRef | None] = takes(
        values.a_class, default=None
    )
    """A class that answers are converted to and validated by."""
    model_settings: Takes[Mapping[str, Any], Mapping[str, Any]] = takes(_settings, default_factory=dict)
    """Settings of the model: `temperature`, `max_tokens`, …."""
    retries: int | None = None
    """How often the model may correct an answer that does not match; default 1."""
    tool_timeout: float | None = None
    """The timeout of a tool call in seconds."""
    tools: Takes[Sequence[Tooled], tuple[ToolSpec, ...]] = takes(tool_specs, default=())
    """Tools that the model may call: callables, or `CallableTool(callable, effect=…)`."""

    def names(self) -> Iterator[CallableRef]:
        """Yield the class of its answers and its tools."""
        if self.output_type is not None:
            yield self.output_type
        for tool in self.tools:
            yield from tool.names()

    def __str__(self) -> str:
        """Return the agent's name and its model, for display."""
        return f"{self.name} ({self.model})"


def _listed(given: Sequence[AgentSpec] | Mapping[str, Any], where: str) -> Mapping[str, Any]:
    named = given.items() if isinstance(given, Mapping) else [(each.name, each) for each in given]
    agents: dict[str, Any] = {}
    for name, each in named:
        if name in agents:
            raise PipelineError(f"{where} has two agents named {name!r}", hint="rename one of them")
        is_spec = isinstance(each, AgentSpec)
        agents[name] = each if is_spec else values.callable_ref(each, where, takes="agents")
    if len(agents) < 2:
        raise PipelineError(
            f"{where} has {len(agents)} agents; a choice needs 2", hint="without a choice, name the agent"
        )
    return agents


@node
class OneOf(Node):
    """Agents of which an expression chooses one for each execution of a step; the choice is recorded."""

    owner: ClassVar[str] = "`agent`: "

    one_of: Takes[Sequence[AgentSpec] | Mapping[str, Any], Mapping[str, AgentSpec | CallableRef]] = takes(
        _listed
    )
    """The agents: a list of `AgentSpec`, or agents by name."""
    _: KW_ONLY
    by: Takes[Logical, Logic] = takes(values.logic)
    """The expression; its value is the name of the agent."""

    def __str__(self) -> str:
        """Return the names and the expression, for display."""
        return f"{' or '.join(self.one_of)} (by {self.by})"


_LISTS_OF_TOOLS = ("openai_native_tools", "openai_builtin_tools")
_FREE_FORM = ("extra_body", "bedrock_additional_model_requests_fields")
_TOOLS_IN_A_REQUEST = (
    "tools",
    "functions",
    "mcp_servers",
    "plugins",
    "search_parameters",
    "web_search_options",
)


def native_tools(model_settings: Mapping[str, Any]) -> str:
    """Return the setting with which the provider calls tools of its own, or an empty text.

    Such calls pass neither the allow-list nor an approval, and no entry records them.
    """
    for key in _LISTS_OF_TOOLS:
        if model_settings.get(key):
            return key
    for key in _FREE_FORM:
        inside = model_settings.get(key)
        named = [name for name in _TOOLS_IN_A_REQUEST if isinstance(inside, Mapping) and inside.get(name)]
        if named:
            return f"{key}.{named[0]}"
    return ""


def answered_by(who: AgentSpec | CallableRef, model: str | None) -> dict[str, str]:
    """Return the journal's record of the model that answered: its id, and the requested model."""
    if model is None:
        return {}
    return {"model": model} | ({"asked": who.model} if isinstance(who, AgentSpec) else {})


def model_matches(asked: str, used: str) -> bool:
    """Return whether the model id that a provider reports may be the requested model.

    A provider may add a release to a name (`gpt-5-mini` → `gpt-5-mini-2025-08-07`), and a gateway may add a
    prefix (`openai/gpt-5-mini`). Another name, or another release, is another model.

    Args:
        asked: `provider:model`.
        used: the id in the response.
    """
    if asked.startswith("local:"):
        return True  # a file, whose digest is checked where it is opened
    wanted, got = (name.rpartition("/")[2].casefold() for name in (asked.partition(":")[2], used))
    wanted = wanted.removesuffix("-latest")
    return got.startswith(wanted) and _RELEASE.fullmatch(got[len(wanted) :]) is not None


_RELEASE = re.compile(r"(?:[-@:](?:\d{4}-\d{2}-\d{2}|\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|0\d{2}|v\d+))*")
"""The suffix of a release: dates and numbers."""


TIMEOUT_OF_ATTEMPT: ContextVar[Callable[[], AbstractContextManager[None]]] = ContextVar(
    "timeout_of_attempt", default=nullcontext
)
"""Suspends the timeout of the current attempt, while a request waits for the limits of its provider."""


class Reservation(Protocol):
    """A reservation in the budget for one request to a model, at its largest possible usage."""

    def settle(self, used: Usage) -> None:
        """Replace the reservation by the actual usage; `NOTHING` when the request was not sent."""
        ...

    def lose(self, known: Usage) -> None:
        """Record that the request was sent and its usage is only partly `known`: the rest stays reserved."""
        ...


class Meter(Protocol):
    """Reserves budget for the requests and tool calls of one attempt, when the run has limits."""

    @property
    def bounds_answers(self) -> bool:
        """Whether every request must limit the length of its answer."""
        ...

    @property
    def refuses_unpriced(self) -> bool:
        """Whether requests of unknown price are refused."""
        ...

    async def reserve(self, worst: Usage) -> Reservation:
        """Reserve budget for a request; the reservation is durable when this returns.

        Args:
            worst: the largest possible usage.

        Raises:
            UsageLimitExceeded: a limit has no room; the request must not be made.
        """
        ...

    async def call_tools(self, count: int) -> None:
        """Count tool calls; they are counted when this returns.

        Raises:
            UsageLimitExceeded: a limit has no room; the tools must not be called.
        """
        ...


@record(frozen=True, slots=True, kw_only=True)
class Ask:
    """The request to an agent or callable: one attempt of one step."""

    data: Any = None
    """The step's input: the prompt of a chat agent (text, or JSON data), `data` of a callable."""
    arguments: Mapping[str, Any] | None = None
    """`with:` of a `call:` step: keyword arguments. None when there is no `with:`."""
    instructions: str | None = None
    """The finished text, with its placeholders filled in."""
    output_schema: Any = None
    """The step's own `output_schema`, which overrides the agent's."""
    files: Sequence[File] = ()
    """The files that the step sends with its input."""
    contents: Contents | None = None
    """Returns the bytes of files of this run, by their digests."""
    context: Any = None
    """The attempt's own `PipelineContext`, for callables with a parameter `context`."""
    resources: Any = None
    idempotency_key: str | None = None
    """The same key for every sending of one call; None unless idempotency is enforced."""
    check: Callable[[Any], Awaitable[Any]] | None = None
    """Returns the processed answer, or raises `OutputRejected` with a `reason`.

    An agent that can retry in the same conversation awaits it for each answer, shows the reason to its model,
    and replies with the returned value. For other agents, the engine calls it after the reply.
    """
    on_text: Callable[[str], Awaitable[None]] | None = None
    """Awaited with each piece of text of the model: a slow listener slows the model."""
    meter: Meter | None = None
    """Reserves budget for each request to a model; None when the run has no limits."""
    require_lease: Callable[[], Awaitable[None]] | None = None
    """Awaited before each request and tool call of an attempt; raises if another process executes the run."""
    history: Sequence[Exchange] = ()
    """The exchanges of the step's thread before this request."""
    transaction: Transaction | None = None
    """The transaction that a tool writes in."""
    placed: Placed | None = None
    """The executor of a callable; None for this process."""
    step: CurrentStep | None = None
    """The run, the path and the attempt; only with `placed`."""
    pii: Pii | None = None
    """How personal data stands in requests to a model; None for the project's setting."""
    kept: Sequence[str] = ()
    """Texts whose personal data is not masked in requests to a model."""
    tokenised: Sequence[str] = ()
    """Texts whose personal data is tokenised in requests to a model."""
    pseudonyms: Pseudonyms | None = None
    """Makes the pseudonyms of the run; None where the storage of runs encrypts nothing."""


new_ask = constructor(Ask)
"""Creates `Ask`."""


@record(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer: one value, its usage, and details for the trace."""

    output: Any
    usage: Usage = NOTHING
    model: str | None = None
    """The model id that the provider reports."""
    repairs: tuple[str, ...] = ()
    """The repairs of structured output, in order, as text."""
    transcript: Mapping[str, Any] | None = None
    """The text of the conversation: `instructions`, `tools` (their names) and `messages`."""


new_reply = constructor(Reply)
"""Creates `Reply`."""
