"""Converters of arguments that several kinds share: agents, bodies, merges, substitutes, fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.arguments import Takes
from flujo.domain.pipeline import FALLBACK, NO_ITEMS, BaseStep, Instead, Pipeline, body
from flujo.domain.ports import Agent
from flujo.domain.values import CallableRef, Valued
from flujo.exceptions import PipelineError

S = TypeVar("S", bound=BaseStep)

Answerer = AgentSpec | CallableRef | str | Agent | Callable[..., Any]
"""An agent or a callable."""

Callables = Sequence[CallableRef | str | Callable[..., Any]]
"""Several callables, each as an object or as `module:callable`."""

Merge = str | CallableRef | Callable[..., Any]
"""A `MergeStrategy` or its value, or a callable that gets the branches' contexts."""


def answerer(given: Answerer, where: str) -> AgentSpec | CallableRef:
    """Return an agent or the reference of a callable."""
    if isinstance(given, AgentSpec):
        return given
    return values.callable_ref(given, where, takes="an `AgentSpec`, a callable, or `module:callable`")


bodies = values.each(body)
"""Return a mapping of pipelines."""


def merge(given: Merge, where: str) -> str | CallableRef:
    """Return a merge strategy or the reference of a callable."""
    if isinstance(given, str) and not values.looks_like_target(given):
        return str(given)
    return values.callable_ref(given, where, takes="a `MergeStrategy`, or a callable")


OnDeadline = Takes[Literal["fail"] | Mapping[str, Valued], Literal["fail"] | Mapping[str, Any]]
"""What happens at a deadline."""


OnFailing = Takes[Literal["fail", "skip"] | Mapping[str, Valued], Instead]
"""What happens when a step fails."""


def instead(given: str | Mapping[str, Any], where: str) -> Any:
    """Return the substitute for a failure: a word, or values by name."""
    return given if isinstance(given, str) else values.mapping(given, where)


def fallback(given: S, where: str) -> S:
    """Return a step as the fallback of another one."""
    if getattr(given, "kind", "") != "step":
        raise PipelineError(f"{where} is of type {type(given).__name__}; expected a `Step`")
    if given.when is not None:
        raise PipelineError(
            f"{where} is a step with `when`",
            hint="remove it: a fallback runs when every attempt of the step has failed",
        )
    return given if given.name == FALLBACK else replace(given, name=FALLBACK)


def on(thread: str | None) -> str:
    """Return the thread of a step in words."""
    return "" if thread is None else f" on the thread {thread}"


def fallback_body(
    spare: Any, *, input: Any, arguments: Any = None, files: Any, thread: str | None, pii: Any
) -> Mapping[str, Pipeline]:
    """Return the body of a fallback; without its own input it gets that of its step, and its files.

    A fallback that asks an agent gets the thread of its step, and each fallback gets its `pii`, unless it has
    its own.
    """
    if spare is None:
        return NO_ITEMS
    if spare.thread is None and spare.asks_agent:
        spare = replace(spare, thread=thread)
    if spare.pii is None and pii is not None:
        spare = replace(spare, pii=pii)
    if spare.input is None and spare.arguments is None:
        spare = replace(spare, input=input, **({"arguments": arguments} if spare.call is not None else {}))
        if spare.call is None and spare.files is None:
            spare = replace(spare, files=files)
    return {FALLBACK: Pipeline((spare,))}
