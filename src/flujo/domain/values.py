"""The leaves of the syntax tree as plain data, and their converters from Python values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from flujo.domain.sent_events import is_event_name
from flujo.domain.wording import did_you_mean, span
from flujo.exceptions import PipelineError


@dataclass(frozen=True, slots=True)
class Expr:
    """A CEL expression, without the braces."""

    source: str

    def __str__(self) -> str:
        """Return the source."""
        return self.source


@dataclass(frozen=True, slots=True)
class Text:
    """A text with `{{ expression }}` placeholders; a text of a single placeholder keeps the value's type."""

    source: str
    literal: bool = False
    """Whether the braces are literal (`template: false`)."""

    def __str__(self) -> str:
        """Return the source in one line."""
        return " ".join(self.source.split())


@dataclass(frozen=True, slots=True)
class CallableRef:
    """`module:callable`. Keeps a live Python object; equality is by name."""

    target: str
    live: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """Return the name."""
        return self.target

    @classmethod
    def of(cls, thing: Any) -> CallableRef:
        """Return the reference of a live callable; an object without a name gets the name of its class."""
        named = getattr(thing, "func", thing)  # a partial has the name of its function
        if not hasattr(named, "__qualname__"):
            named = type(named)
        return cls(f"{named.__module__}:{named.__qualname__}", thing)


Logic = Expr | CallableRef
"""The type of a key with logic."""

Value = None | bool | int | float | Text | tuple["Value", ...] | Mapping[str, "Value"]
"""The type of a key with a value: JSON in which every text is a `Text`."""

T = TypeVar("T")
N = TypeVar("N", int, float)

_TARGET = re.compile(r"[\w.]+:[\w.]+")

# Conversion from Python ----------------------------------------------------------------------------------

Logical = Expr | CallableRef | str | bool | Callable[..., Any]
"""An expression, `module:callable`, or a callable."""

Valued = None | bool | int | float | str | Text | Sequence["Valued"] | Mapping[str, "Valued"]
"""JSON data; placeholders in texts are filled in."""


def logic(given: Logical, where: str) -> Logic:
    """Return an expression, or the reference of a callable.

    Raises:
        PipelineError: it is neither; the message begins with `where`.
    """
    match given:
        case Expr() | CallableRef():
            return given
        case bool():
            return Expr("true" if given else "false")
        case str() if looks_like_target(given):
            return CallableRef(given.strip())
        case str():
            return Expr(_unwrapped(given))
        case _:
            return callable_ref(given, where, takes="an expression, `module:callable`, or a callable")


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d[^'\"\\]*")


def moment(given: Logical, where: str) -> Logic:
    """Return an expression or the reference of a callable; a date with a time becomes a text."""
    return logic(quoted_moment(given), where)


def quoted_moment(given: Any) -> Any:
    """Return a date with a time as the expression of a text; other values unchanged."""
    return f'"{given}"' if isinstance(given, str) and _MOMENT.fullmatch(given) else given


def callable_ref(given: Any, where: str, *, takes: str = "a callable, or `module:callable`") -> CallableRef:
    """Return the reference of a callable, a class, or an object with `ask`.

    Raises:
        PipelineError: it is not callable.
    """
    if isinstance(given, CallableRef):
        return given
    if isinstance(given, str) and looks_like_target(given):
        return CallableRef(given.strip())
    if callable(given) or callable(getattr(given, "ask", None)):
        return CallableRef.of(given)
    raise PipelineError(f"{where} is {_repr_or_type(given)}; expected {takes}")


def a_class(given: Any, where: str) -> CallableRef:
    """Return the reference of a class."""
    return callable_ref(given, where, takes="a class")


def callable_refs(given: Sequence[Any], where: str) -> tuple[CallableRef, ...]:
    """Return the references of several callables."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise PipelineError(f"{where} is {_repr_or_type(given)}; expected a list of callables")
    return tuple(callable_ref(each, where) for each in given)


def value(given: Any, where: str) -> Value:
    """Return JSON data in which every text is a `Text`.

    Raises:
        PipelineError: it contains a value that is not JSON.
    """
    match given:
        case None | bool() | int() | float() | Text():
            return given
        case str():
            return Text(given)
        case Mapping():
            return mapping(given, where)
        case list() | tuple():
            return tuple(value(each, where) for each in given)
        case _:
            raise PipelineError(
                f"{where} contains {_repr_or_type(given)}, which is not JSON data",
                hint="use text, numbers, booleans, None, lists, and mappings with text keys",
            )


def mapping(given: Mapping[str, Any], where: str) -> Mapping[str, Value]:
    """Return a mapping of names to values.

    Raises:
        PipelineError: it is not a mapping, or a key is not text.
    """
    if not isinstance(given, Mapping):
        raise PipelineError(f"{where} is {_repr_or_type(given)}; expected a mapping")
    for key in given:
        if not isinstance(key, str):
            raise PipelineError(f"{where} has the key {key!r}; keys must be text")
    return {key: value(each, where) for key, each in given.items()}


def texts(given: Sequence[str], where: str) -> tuple[str, ...]:
    """Return a list of texts.

    Raises:
        PipelineError: it is a single text.
    """
    if isinstance(given, str):
        raise PipelineError(f"{where} is {given!r}; expected a list of texts", hint=f"[{given!r}]")
    return tuple(given)


def count(given: Any, where: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        PipelineError: it is something else.
    """
    if type(given) is not int or given < 1:
        raise PipelineError(f"{where} is {given!r}; expected a whole number of at least 1")
    return int(given)


@dataclass(frozen=True, slots=True)
class FromData(Generic[N]):
    """A number that an expression sets, up to a maximum that is known before the run."""

    value: Expr
    max: N


class Limit(FromData[int]):
    """A whole number of at least 1 from data."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the expression and the maximum."""
        return f"{{{{ {self.value} }}}} (at most {self.max})"


class TimeLimit(FromData[float]):
    """Seconds from data."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the expression and the maximum."""
        return f"{{{{ {self.value} }}}} seconds (up to {span(self.max)})"


Limited = int | Limit | Mapping[str, Any]
"""A whole number, or `{"value": EXPRESSION, "max": NUMBER}`."""

TimeLimited = float | TimeLimit | Mapping[str, Any]
"""Seconds, or `{"value": EXPRESSION, "max": SECONDS}`."""


def limit(given: Limited, where: str) -> int | Limit:
    """Return a limit: a whole number of at least 1, or an expression with a maximum.

    Raises:
        PipelineError: it is something else.
    """
    both = "write both: `{'value': '{{ input.n }}', 'max': 100}`"
    return _number_or_data(given, where, Limit, count, both)


def time_limit(given: TimeLimited, where: str) -> float | TimeLimit:
    """Return seconds above 0, or an expression with a maximum.

    Raises:
        PipelineError: it is something else.
    """
    both = "write both, in seconds: `{'value': '{{ input.seconds }}', 'max': 600}`"
    return _number_or_data(given, where, TimeLimit, seconds, both)


def _number_or_data(
    given: Any, where: str, kind: Callable[[Expr, N], T], number: Callable[[Any, str], N], hint: str
) -> N | T:
    match given:
        case FromData():
            return kind(given.value, number(given.max, f"the `max` of {where}"))
        case {"value": str() | Expr() as value, "max": most, **others} if not others:
            source = value.source if isinstance(value, Expr) else _unwrapped(value)
            return kind(Expr(source), number(most, f"the `max` of {where}"))
        case Mapping():
            raise PipelineError(
                f"{where} is {_repr_or_type(given)}; expected an expression and its maximum", hint=hint
            )
        case _:
            return number(given, where)


def most(given: int | Limit) -> int:
    """Return the number that a limit is at most."""
    return given.max if isinstance(given, Limit) else given


def event_name(given: Any, where: str) -> str | None:
    """Return the name of an event.

    Raises:
        PipelineError: it is not of the form that names have.
    """
    if given is not None and not (isinstance(given, str) and is_event_name(given)):
        raise PipelineError(
            f"{where} is {given!r}; expected the name of an event",
            hint="letters, digits and `_ . : -`, at most 128, with a letter or `_` first: `order.paid`",
        )
    return None if given is None else str(given)


def seconds(given: Any, where: str) -> float:
    """Return a number of seconds above 0.

    Raises:
        PipelineError: it is something else.
    """
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise PipelineError(f"{where} is {given!r}; expected seconds, more than 0")
    return float(given)


def one_of(*choices: str) -> Callable[[Any, str], Any]:
    """Return a converter that takes only certain texts."""

    def convert(given: Any, where: str) -> Any:
        if given not in choices:
            raise PipelineError(
                f"{where} is {given!r}; expected one of {', '.join(map(repr, choices))}",
                hint=did_you_mean(given, choices) if isinstance(given, str) else None,
            )
        return given

    return convert


def instance(kind: type[T]) -> Callable[[T, str], T]:
    """Return a converter that takes only instances of a class."""

    def convert(given: T, where: str) -> T:
        if not isinstance(given, kind):
            raise PipelineError(f"{where} is {given!r}; expected an instance of `{kind.__name__}`")
        return given

    return convert


def each(convert: Callable[[Any, str], T]) -> Callable[[Mapping[str, Any], str], Mapping[str, T]]:
    """Return a converter of mappings, given the converter of their values."""

    def converted(given: Mapping[str, Any], where: str) -> Mapping[str, T]:
        within = where.removesuffix("`")
        return {name: convert(one, f"{within}[{name!r}]`") for name, one in given.items()}

    return converted


def schema(given: Any, where: str) -> Any:
    """Return a JSON Schema: the one given, or that of a class (a pydantic model, `list[str]`, an enum).

    Raises:
        PipelineError: it is a class without a JSON Schema.
    """
    if given is None or isinstance(given, Mapping | bool):
        return given
    from pydantic import PydanticUserError, TypeAdapter  # slow to import, and needed only for classes

    try:
        return TypeAdapter(given).json_schema()
    except PydanticUserError as error:
        raise PipelineError(
            f"{where} is {_repr_or_type(given)}, which has no JSON Schema",
            hint="use a JSON Schema, a pydantic model, a dataclass, or a Python type such as `list[str]`",
        ) from error


def one_line(given: Value) -> str:
    """Return a value in its source form, on one line."""
    return str(given) if isinstance(given, Text) else " ".join(json.dumps(plain(given)).split())


def plain(given: Value) -> Any:
    """Return a value as JSON data, with the source of its texts."""
    match given:
        case Text(source=source):
            return source
        case tuple():
            return [plain(item) for item in given]
        case Mapping():
            return {key: plain(item) for key, item in given.items()}
        case _:
            return given


def looks_like_target(text: str) -> bool:
    """Return whether a text is of the form `module:callable`, not an expression."""
    return _TARGET.fullmatch(text.strip()) is not None


def _unwrapped(source: str) -> str:
    text = source.strip()
    return text[2:-2].strip() if text.startswith("{{") and text.endswith("}}") else text


def _repr_or_type(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 80 else f"a value of type {type(given).__name__}"
