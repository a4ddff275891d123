"""Finds the model of the language for one of pydantic's error locations."""

from __future__ import annotations

from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Tag

from flujo.blueprint.language.models import Strict

if TYPE_CHECKING:
    from flujo.blueprint.language.traversal import Path

Language = type[Strict]


def path_of(loc: Path) -> Path:
    """Return a pydantic location as keys and indexes, without the labels of alternatives."""
    return tuple(part for part in loc if not str(part).startswith("\0") and part != "[key]")


def model_at(language: Language, loc: Path) -> type[BaseModel] | None:
    """Return the model that validated the value at a pydantic location."""
    here: Any = language
    for part in loc:
        here = into(here, part)
    here = bare(here)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def into(kind: Any, part: str | int) -> Any:
    """Return the type one step further along a location."""
    kind = bare(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        names = {field.alias or name: name for name, field in kind.model_fields.items()}
        return _hints(kind).get(names.get(str(part), ""))
    if get_origin(kind) in (Union, UnionType):
        return next((one for one in get_args(kind) if _label(one) == part), None)
    if get_origin(kind) in (list, dict):
        return get_args(kind)[-1]
    return None


def bare(kind: Any) -> Any:
    """Return a type without annotations and without the None of an optional key."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType) and type(None) in get_args(kind):
            kind = next(one for one in get_args(kind) if one is not type(None))
        else:
            return kind


@cache
def _hints(model: type[BaseModel]) -> dict[str, Any]:
    return get_type_hints(model, include_extras=True)


def _label(kind: Any) -> str | None:
    return next((extra.tag for extra in getattr(kind, "__metadata__", ()) if isinstance(extra, Tag)), None)


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys of a model of the language."""
    return [field.alias or name for name, field in model.model_fields.items()]
