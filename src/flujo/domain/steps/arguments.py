"""Converters of arguments that several kinds share: agents, bodies, merges, substitutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import body
from flujo.domain.values import CallableRef

Answerer = AgentSpec | CallableRef | str | Callable[..., Any]
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


def instead(given: str | Mapping[str, Any], where: str) -> Any:
    """Return the substitute for a failure: a word, or values by name."""
    return given if isinstance(given, str) else values.mapping(given, where)
