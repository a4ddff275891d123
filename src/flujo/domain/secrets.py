"""Secrets by reference: of a secret, a tree, a lock and a journal hold the name only.

In a blueprint `with: {api_key: {secret: BILLING_KEY}}`, in Python `with_={"api_key": Secret("BILLING_KEY")}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flujo.exceptions import PipelineError

KEY = "secret"
"""The only key of a mapping that names a secret."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Secret:
    """The value of an environment variable, for a parameter of a tool. It is read when a run starts."""

    name: str
    """The name of the variable."""

    def __post_init__(self) -> None:
        """Raise `PipelineError` for what cannot name a variable."""
        if (problem := name_problem(self.name)) is not None:
            message, hint = problem
            raise PipelineError(message, hint=hint)

    def __str__(self) -> str:
        """Return the name, for display."""
        return f"the secret {self.name}"


def name_problem(name: Any) -> tuple[str, str] | None:
    """Return why a value cannot be the name of a secret, with a hint, or None."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return None
    # Anything else may be the secret itself, so it is not shown.
    return (
        "a secret is referred to by the name of an environment variable: letters, digits and `_`",
        "for instance BILLING_KEY; the value itself belongs into the environment",
    )


Bound = None | bool | int | float | str | Secret | tuple["Bound", ...] | Mapping[str, "Bound"]
"""JSON data in which secrets stand by name."""


def bound(given: Any, where: str) -> Mapping[str, Bound]:
    """Return the values of parameters, with a `Secret` for each mapping of the form `{secret: NAME}`.

    Raises:
        PipelineError: a value is not JSON data, or a name cannot be that of a secret.
    """
    if not isinstance(given, Mapping):
        raise PipelineError(
            f"{where} is a {type(given).__name__}; expected a mapping of parameters to values"
        )
    return {_text(name, where): _bound(value, where) for name, value in given.items()}


def _bound(given: Any, where: str) -> Bound:
    match given:
        case Secret() | None | bool() | int() | str():
            return given
        case float() if math.isfinite(given):
            return given
        case Mapping() if is_reference(given):
            return Secret(given[KEY])
        case Mapping():
            return {_text(key, where): _bound(value, where) for key, value in given.items()}
        case list() | tuple():
            return tuple(_bound(each, where) for each in given)
        case _:
            raise PipelineError(
                f"{where} contains a {type(given).__name__}, which is not JSON data",
                hint="live objects come from the parameter `resources`",
            )


def _text(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise PipelineError(f"{where} has the key {key!r}; keys must be text")
    return key


def is_reference(given: Mapping[Any, Any]) -> bool:
    """Return whether a mapping is of the form `{secret: NAME}`."""
    return list(given) == [KEY]


def secrets_in(value: Any) -> Iterator[Secret]:
    """Yield the secrets in a value, at any depth."""
    match value:
        case Secret():
            yield value
        case Mapping():
            for each in value.values():
                yield from secrets_in(each)
        case tuple():
            for each in value:
                yield from secrets_in(each)
        case _:
            return


def revealed(value: Bound, values: Mapping[str, str]) -> Any:
    """Return a value as JSON data, with the values of its secrets."""
    match value:
        case Secret(name=name):
            return values[name]
        case Mapping():
            return {key: revealed(each, values) for key, each in value.items()}
        case tuple():
            return [revealed(each, values) for each in value]
        case _:
            return value


def named(value: Bound) -> Any:
    """Return a value as JSON data, with the names of its secrets."""
    match value:
        case Secret(name=name):
            return {KEY: name}
        case Mapping():
            return {key: named(each) for key, each in value.items()}
        case tuple():
            return [named(each) for each in value]
        case _:
            return value
