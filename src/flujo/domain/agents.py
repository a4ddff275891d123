"""Who can answer a step: the declaration of an agent, what it is asked, and what it replies."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flujo.domain import values
from flujo.domain.fast_dataclass import record
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.values import CallableRef, Text

if TYPE_CHECKING:
    from flujo.domain.ports import Meter

NOTHING_SET: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, init=False)
class AgentSpec:
    """An `agents:` entry: pydantic-ai's AgentSpec by its field names, plus ours. Pure data."""

    name: str
    model: str
    """`provider:model`, for instance `openai:gpt-5-mini` or `local:smollm2`."""
    instructions: Text | None
    instructions_file: str | None
    """Where `instructions` were read from, relative to the project; for people and the lockfile."""
    output_schema: Any
    """A JSON Schema (2020-12), or None for text."""
    output_type: CallableRef | None
    model_settings: Mapping[str, Any]
    retries: int | None
    """How often an answer that does not fit is shown to the model again; default 1."""
    tool_timeout: float | None
    tools: tuple[CallableRef, ...]

    def __init__(
        self,
        name: str,
        model: str,
        *,
        instructions: Text | str | None = None,
        instructions_file: str | None = None,
        output_schema: Any = None,
        output_type: CallableRef | type | str | None = None,
        model_settings: Mapping[str, Any] = NOTHING_SET,
        retries: int | None = None,
        tool_timeout: float | None = None,
        tools: Sequence[CallableRef | str | Callable[..., Any]] = (),
    ) -> None:
        """Take what a model is told, and what it may answer and call.

        Args:
            name: an identifier.
            model: `provider:model`.
            instructions: the system prompt; texts in braces are filled in.
            instructions_file: the file that they were read from.
            output_schema: a JSON Schema or a class that every answer has to fit.
            output_type: a class that answers are made into and checked by.
            model_settings: what the model is told beside: `temperature`, `max_tokens`, ….
            retries: how often an answer that does not fit is shown to the model again.
            tool_timeout: the seconds that a tool may take.
            tools: callables that the model may call.

        Raises:
            PipelineError: an argument is of another kind.
        """
        where = f"agent {name!r}: "
        kept = {
            "name": name,
            "model": model,
            "instructions": Text(instructions) if isinstance(instructions, str) else instructions,
            "instructions_file": instructions_file,
            "output_schema": values.schema(output_schema, f"{where}`output_schema`"),
            "output_type": None
            if output_type is None
            else values.callable_ref(output_type, f"{where}`output_type`", takes="a class"),
            "model_settings": dict(model_settings),
            "retries": retries,
            "tool_timeout": tool_timeout,
            "tools": values.callable_refs(tools, f"{where}`tools`"),
        }
        for key, value in kept.items():
            object.__setattr__(self, key, value)


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
