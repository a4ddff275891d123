"""The leaves of the language as plain data, and what Python may write where one of them stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flujo.exceptions import PipelineError


@dataclass(frozen=True, slots=True)
class Expr:
    """A CEL expression, without the braces."""

    source: str

    def __str__(self) -> str:
        """Return the source, as people read it."""
        return self.source


@dataclass(frozen=True, slots=True)
class Text:
    """A text in which `{{ expression }}` is filled in once; nothing but one keeps the value's type."""

    source: str
    literal: bool = False
    """Whether braces mean nothing (`template: false`)."""

    def __str__(self) -> str:
        """Return the source in one line."""
        return " ".join(self.source.split())


@dataclass(frozen=True, slots=True)
class CallableRef:
    """`module:callable`. A live object given in Python is remembered; equality is by the name."""

    target: str
    live: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """Return the name, as people read it."""
        return self.target

    @classmethod
    def of(cls, thing: Any) -> CallableRef:
        """Return the reference of a live callable; an object without a name goes by its class's."""
        named = getattr(thing, "func", thing)  # a partial is known by what it calls
        if not hasattr(named, "__qualname__"):
            named = type(named)
        return cls(f"{named.__module__}:{named.__qualname__}", thing)


Logic = Expr | CallableRef
"""What a key that holds logic may be."""

Value = None | bool | int | float | Text | tuple["Value", ...] | Mapping[str, "Value"]
"""What a key that holds a value may be: JSON in which every text is a `Text`."""

T = TypeVar("T")

_TARGET = re.compile(r"[\w.]+:[\w.]+")

# What Python may write for them --------------------------------------------------------------------------

Logical = Expr | CallableRef | str | bool | Callable[..., Any]
"""An expression, `module:callable`, or a callable itself."""

Valued = None | bool | int | float | str | Text | Sequence["Valued"] | Mapping[str, "Valued"]
"""JSON data; texts are filled in."""


def logic(given: Logical, where: str) -> Logic:
    """Return an expression, or the reference of a callable.

    Raises:
        PipelineError: it is neither; `where` says of which key.
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


def callable_ref(given: Any, where: str, *, takes: str = "a callable, or `module:callable`") -> CallableRef:
    """Return the reference of a callable, a class, or an object with `ask`.

    Raises:
        PipelineError: it is nothing that can be called.
    """
    if isinstance(given, CallableRef):
        return given
    if isinstance(given, str) and looks_like_target(given):
        return CallableRef(given.strip())
    if callable(given) or callable(getattr(given, "ask", None)):
        return CallableRef.of(given)
    raise PipelineError(f"{where} is {_shown(given)}, and takes {takes}")


def a_class(given: Any, where: str) -> CallableRef:
    """Return the reference of a class."""
    return callable_ref(given, where, takes="a class")


def callable_refs(given: Sequence[Any], where: str) -> tuple[CallableRef, ...]:
    """Return the references of several callables."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise PipelineError(f"{where} is {_shown(given)}, and takes a list of callables")
    return tuple(callable_ref(each, where) for each in given)


def value(given: Any, where: str) -> Value:
    """Return JSON data in which every text is one that is filled in.

    Raises:
        PipelineError: there is something in it that JSON has no word for.
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
                f"{where} holds {_shown(given)}, which JSON has no word for",
                hint="give text, numbers, booleans, None, lists, and mappings with text keys",
            )


def mapping(given: Mapping[str, Any], where: str) -> Mapping[str, Value]:
    """Return a mapping of names to values.

    Raises:
        PipelineError: it is no mapping, or a key is no text.
    """
    if not isinstance(given, Mapping):
        raise PipelineError(f"{where} is {_shown(given)}, and takes a mapping")
    for key in given:
        if not isinstance(key, str):
            raise PipelineError(f"{where} has the key {key!r}, and keys are texts")
    return {key: value(each, where) for key, each in given.items()}


def texts(given: Sequence[str], where: str) -> tuple[str, ...]:
    """Return a list of texts.

    Raises:
        PipelineError: it is one text.
    """
    if isinstance(given, str):
        raise PipelineError(f"{where} is {given!r}, and takes a list of texts", hint=f"[{given!r}]")
    return tuple(given)


def count(given: Any, where: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        PipelineError: it is something else.
    """
    if type(given) is not int or given < 1:
        raise PipelineError(f"{where} is {given!r}, and takes a whole number of at least 1")
    return int(given)


def instance(kind: type[T]) -> Callable[[T, str], T]:
    """Return a converter that takes only instances of a class."""

    def convert(given: T, where: str) -> T:
        if not isinstance(given, kind):
            raise PipelineError(f"{where} is {given!r}, and takes a `{kind.__name__}`")
        return given

    return convert


def each(convert: Callable[[Any, str], T]) -> Callable[[Mapping[str, Any], str], Mapping[str, T]]:
    """Return a converter of mappings, from the one of their values."""

    def converted(given: Mapping[str, Any], where: str) -> Mapping[str, T]:
        within = where.removesuffix("`")
        return {name: convert(one, f"{within}[{name!r}]`") for name, one in given.items()}

    return converted


def schema(given: Any, where: str) -> Any:
    """Return a JSON Schema: the one given, or that of a class (a pydantic model, `list[str]`, an enum).

    Raises:
        PipelineError: it is a class that no JSON Schema describes.
    """
    if given is None or isinstance(given, Mapping | bool):
        return given
    from pydantic import PydanticUserError, TypeAdapter  # only for those who give classes

    try:
        return TypeAdapter(given).json_schema()
    except PydanticUserError as error:
        raise PipelineError(
            f"{where} is {_shown(given)}, which no JSON Schema describes",
            hint="give a JSON Schema, a pydantic model, a dataclass, or a type of Python such as `list[str]`",
        ) from error


def one_line(given: Value) -> str:
    """Return a value as its author wrote it, in one line."""
    return str(given) if isinstance(given, Text) else " ".join(json.dumps(plain(given)).split())


def plain(given: Value) -> Any:
    """Return a value as JSON data: its texts as they were written."""
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
    """Return whether a text names a callable, right or wrong, and is no expression."""
    return _TARGET.fullmatch(text.strip()) is not None


def _unwrapped(source: str) -> str:
    text = source.strip()
    return text[2:-2].strip() if text.startswith("{{") and text.endswith("}}") else text


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 80 else f"a {type(given).__name__}"
