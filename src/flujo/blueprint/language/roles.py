"""Roles of model fields, by which generic code walks the fields of any kind of step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel


class Role(Enum):
    """The role of a field's value."""

    LOGIC = "an expression, or a callable"
    VALUE = "JSON data in which every text is filled in"
    ANSWERER = "an agent's name, or a callable"
    STEPS = "the steps inside this one"


class Sees(Enum):
    """The names that an expression sees."""

    BEFORE = "the names in scope of the step, where its `when` is true"
    WHEN = "the names in scope of the step, whether its `when` is true or not"
    AFTER = "the scope after the steps inside"
    OUTPUT = "the scope of the step, and its `output`"
    BODY = "the scope after the body that the expression belongs to"
    NODE = "a node of a search as `previous`"
    CANDIDATE = "a candidate of a search, with its score and depth"


@dataclass(frozen=True, slots=True)
class Site:
    """The site of expressions: the names in scope, and the required type."""

    sees: Sees = Sees.BEFORE
    expect: str | None = None


@cache
def roles(model: type[BaseModel]) -> Mapping[str, Role]:
    """Return the fields of a model that have a role, with the role."""
    found = {name: _role((hint,)) for name, hint in get_type_hints(model, include_extras=True).items()}
    return {name: role for name, role in found.items() if role is not None and name in model.model_fields}


@cache
def in_role(model: type[BaseModel], role: Role) -> Sequence[str]:
    """Return the fields of a model that have a role."""
    return [name for name, one in roles(model).items() if one is role]


@cache
def keys(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the fields of a model with the key of each."""
    return {name: field.alias or name for name, field in model.model_fields.items()}


@cache
def sites(model: type[BaseModel]) -> Mapping[str, Site]:
    """Return the fields of a model whose expressions have their own site, with the site."""
    hints = get_type_hints(model, include_extras=True).items()
    return {name: mark for name, hint in hints for mark in get_args(hint) if isinstance(mark, Site)}


def _role(parts: Iterable[Any]) -> Role | None:
    for part in parts:
        role = part if isinstance(part, Role) else _role(get_args(part))
        if role is not None:
            return role
    return None
