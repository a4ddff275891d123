"""Who can answer a step: the declaration of an agent, what it is asked, and what it replies."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Protocol

from flujo.domain import values
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.fast_dataclass import record
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.values import CallableRef, Text


def _text(given: Text | str, _where: str) -> Text:
    return Text(given) if isinstance(given, str) else given


def _settings(given: Mapping[str, Any], _where: str) -> Mapping[str, Any]:
    return dict(given)


@node
class AgentSpec(Node):
    """An `agents:` entry: pydantic-ai's AgentSpec by its field names, plus ours. Pure data."""

    owner: ClassVar[str] = "agent {name!r}: "

    name: str
    """An identifier."""
    model: str
    """`provider:model`, for instance `openai:gpt-5-mini` or `local:smollm2`."""
    _: KW_ONLY
    instructions: Takes[Text | str | None, Text | None] = takes(_text, default=None)
    """The system prompt; expressions in braces are filled in."""
    instructions_file: str | None = None
    """Where `instructions` were read from, relative to the project; for people and the lockfile."""
    output_schema: Any = takes(values.schema, default=None)
    """A JSON Schema (2020-12) or a class that every answer has to fit; None for text."""
    output_type: Takes[CallableRef | type | str | None, CallableRef | None] = takes(
        values.a_class, default=None
    )
    """A class that answers are made into and checked by."""
    model_settings: Takes[Mapping[str, Any], Mapping[str, Any]] = takes(_settings, default_factory=dict)
    """What the model is told beside: `temperature`, `max_tokens`, …."""
    retries: int | None = None
    """How often an answer that does not fit is shown to the model again; default 1."""
    tool_timeout: float | None = None
    """The seconds that a tool may take."""
    tools: Takes[Sequence[CallableRef | str | Callable[..., Any]], tuple[CallableRef, ...]] = takes(
        values.callable_refs, default=()
    )
    """Callables that the model may call."""

    def names(self) -> Iterator[CallableRef]:
        """Yield the class of its answers and the tools that it may call."""
        if self.output_type is not None:
            yield self.output_type
        yield from self.tools

    def __str__(self) -> str:
        """Return the agent and its model, as people read it."""
        return f"{self.name} ({self.model})"


def answered_by(who: AgentSpec | CallableRef, model: str | None) -> dict[str, str]:
    """Return what the journal keeps of a model that answered: its id, and which one was asked for."""
    if model is None:
        return {}
    return {"model": model} | ({"asked": who.model} if isinstance(who, AgentSpec) else {})


def model_matches(asked: str, used: str) -> bool:
    """Return whether the model id that a provider reports may be the model that was asked for.

    A provider may add a release to a name (`gpt-5-mini` → `gpt-5-mini-2025-08-07`), and a gateway what
    stands before it (`openai/gpt-5-mini`). Another name, or another release, is another model.

    Args:
        asked: `provider:model`.
        used: the id that came back.
    """
    if asked.startswith("local:"):
        return True  # a file, whose digest is checked where it is opened
    wanted, got = (name.rpartition("/")[2].casefold() for name in (asked.partition(":")[2], used))
    wanted = wanted.removesuffix("-latest")
    return got.startswith(wanted) and _RELEASE.fullmatch(got[len(wanted) :]) is not None


_RELEASE = re.compile(r"(?:[-@:](?:\d{4}-\d{2}-\d{2}|\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|0\d{2}|v\d+))*")
"""What stands behind a name to tell a release of it: dates and numbers."""


class Reservation(Protocol):
    """A request to a model that the budget has room for, at its worst."""

    def settle(self, used: Usage) -> None:
        """Say what the request really used; nothing when it was never sent."""
        ...

    def lose(self, known: Usage) -> None:
        """Say that the request was sent, and that `known` is not all it cost: the rest stays held."""
        ...


class Meter(Protocol):
    """Stands between an agent and its model when a run has limits: one attempt's door to the budget."""

    @property
    def bounds_answers(self) -> bool:
        """Whether a request must have a limit on the length of its answer."""
        ...

    @property
    def refuses_unpriced(self) -> bool:
        """Whether a request whose price nobody knows must not be made."""
        ...

    async def reserve(self, worst: Usage) -> Reservation:
        """Return when there is room for a request, durable by then.

        Args:
            worst: what it uses at most.

        Raises:
            UsageLimitExceeded: there is no room; the request must not be made.
        """
        ...

    async def call_tools(self, count: int) -> None:
        """Return when tools may be called that often, counted by then.

        Raises:
            UsageLimitExceeded: they must not be called.
        """
        ...


@record(frozen=True, slots=True, kw_only=True)
class Ask:
    """What an agent or callable is asked: one attempt of one step."""

    data: Any = None
    """The step's input: the prompt of a chat agent (text, or JSON data), `data` of a callable."""
    arguments: Mapping[str, Any] | None = None
    """`with:` of a `call:` step: keyword arguments. None when there is no `with:`."""
    instructions: str | None = None
    """Finished text: placeholders are filled in already."""
    output_schema: Any = None
    """The step's own `output_schema`, which goes before the agent's."""
    context: Any = None
    """A `PipelineContext` of the attempt's own, for callables that ask for it."""
    resources: Any = None
    idempotency_key: str | None = None
    """The same for every sending of one call, for callables that ask for it; None when it is not enforced."""
    check: Callable[[Any], Awaitable[Any]] | None = None
    """Takes an answer and returns what becomes of it, or raises `OutputRejected` with a `reason`.

    An agent that can be asked again in the same conversation awaits it, shows the reason to its model, and
    replies with what it returned. Answers of an agent that does not are judged after its reply.
    """
    on_text: Callable[[str], Awaitable[None]] | None = None
    """Told each piece of text as the model writes it, and awaited: a slow listener slows the model."""
    meter: Meter | None = None
    """What each request to a model is reserved with before it is made; None when the run has no limits."""


@record(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back: one value, what it cost, and what the trace should say of it."""

    output: Any
    usage: Usage = NOTHING
    model: str | None = None
    """The model id that the provider says it used."""
    repairs: tuple[str, ...] = ()
    """What structured output had to mend, in words, in order."""
