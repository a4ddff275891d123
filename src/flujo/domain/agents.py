"""Who can answer a step: the declaration of an agent, what it is asked, and what it replies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain.usage import NOTHING, Usage

if TYPE_CHECKING:
    from flujo.domain.ports import Meter
    from flujo.domain.steps import CallableRef, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """An `agents:` entry: pydantic-ai's AgentSpec by its field names, plus ours. Pure data."""

    name: str
    model: str
    """`provider:model`, for instance `openai:gpt-5-mini` or `local:smollm2`."""
    instructions: Text | None = None
    instructions_file: str | None = None
    """Where `instructions` were read from, relative to the project; for people and the lockfile."""
    output_schema: Any = None
    """A JSON Schema (2020-12), or None for text."""
    output_type: CallableRef | None = None
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    retries: int | None = None
    """How often an answer that does not fit is shown to the model again; default 1."""
    tool_timeout: float | None = None
    tools: tuple[CallableRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back: one value, what it cost, and what the trace should say of it."""

    output: Any
    usage: Usage = NOTHING
    model: str | None = None
    """The model id that the provider says it used."""
    repairs: tuple[str, ...] = ()
    """What structured output had to mend, in words, in order."""
