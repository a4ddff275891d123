"""Whether what one callable returns can be what the next one takes, judged by their annotations alone."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

_JSON = {str: "text", bool: "flag", int: "integer", float: "number", type(None): "null"}


def fits(given: Any, taken: Any) -> bool:
    """Return False when a value annotated `given` is certainly none for a parameter annotated `taken`.

    Values travel as JSON: a mapping may become a model and a model a mapping, a list any sequence. What is
    not annotated, or annotated with something that JSON does not settle, fits.
    """
    given, taken = _plain(given), _plain(taken)
    if isinstance(given, Sequence):
        return all(fits(each, taken) for each in given)
    if isinstance(taken, Sequence):
        return any(fits(given, each) for each in taken)
    return _fits(given, taken)


def repr_short(hint: Any) -> str:
    """Return an annotation as a person would write it."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__qualname__
    return str(hint).replace("typing.", "")


def item(hint: Any) -> Any:
    """Return the annotation of a list's items; `Any` when it says nothing of them."""
    arguments = typing.get_args(_plain(hint))
    return arguments[0] if _kind(_plain(hint)) == "list" and arguments else Any


def _plain(hint: Any) -> Any:
    """Return a class or a generic alias; of a union or a literal, a list of what it may be."""
    if isinstance(hint, typing.NewType):
        return _plain(hint.__supertype__)
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _plain(typing.get_args(hint)[0])
    if origin is typing.Literal:
        return [type(each) for each in typing.get_args(hint)]
    if origin in (typing.Union, types.UnionType):
        return list(typing.get_args(hint))
    return type(None) if hint is None else hint


def _fits(given: Any, taken: Any) -> bool:
    giver, taker = typing.get_origin(given) or given, typing.get_origin(taken) or taken
    if not (isinstance(giver, type) and isinstance(taker, type)) or object in (giver, taker):
        return True
    if _is_subclass(giver, taker):
        return _arguments_fit(given, taken)
    kinds = _kind(given), _kind(taken)
    if None in kinds:
        return True
    if kinds == ("integer", "number"):
        return True
    if _is_model(giver) and _is_model(taker):
        return False
    return kinds[0] == kinds[1] and _arguments_fit(given, taken)


def _arguments_fit(given: Any, taken: Any) -> bool:
    """Judge the items of lists; what else has arguments is left alone."""
    if _kind(given) != "list" or _kind(taken) != "list":
        return True
    return fits(item(given), item(taken))


def _kind(hint: Any) -> str | None:
    """Return what JSON a value of this annotation is; None when that is not settled."""
    origin = typing.get_origin(hint) or hint
    if origin in (list, Sequence):
        return "list"
    if _is_model(origin) or origin in (dict, Mapping):
        return "map"
    return _JSON.get(origin)


def _is_model(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)


def _is_subclass(giver: type, taker: type) -> bool:
    try:
        return issubclass(giver, taker)
    except TypeError:  # a protocol or typed dict that does not support `issubclass`
        return False
