"""A context object that copies and validates a field at first access."""

from __future__ import annotations

import dataclasses
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from flujo.domain import canonical
from flujo.domain.models import PipelineContext

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Measured with a step that reads one field: loading a context of 100 kB whole makes the step 1.6 times as
# slow, one of 1 MB 2.5 times, and each concurrent step holds a copy. So views override internals of
# pydantic; `test_pydantic_2_has_the_internals_of_a_view` fails when that changes.
_OWN: Any = vars(BaseModel)["__dict__"]
"""The object's own dict, which a view hides behind a property."""

_LEFT = "fields left"
"""The key of unread fields in that dict; not a valid attribute name, so it cannot clash."""

_HOOKS = ("__init__", "__new__", "__getattr__", "__setattr__", "__eq__", "model_post_init")


def view(model: type[PipelineContext], tree: Mapping[str, Any]) -> PipelineContext:
    """Return a new context object.

    A field is copied from `tree` at first access, so a step that reads one field of a large context pays for
    that field only. A model with validators, computed fields or private attributes may read any field at any
    time, so it is loaded in full.
    """
    lazy = _lazy(model)
    if lazy is None:
        return model.model_validate(canonical.copied(tree))
    unset = {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if name not in tree and not field.is_required()
    }
    return _bare(lazy, {_LEFT: dict(tree), **unset}, set(tree))


def untouched(context: PipelineContext) -> dict[str, Any]:
    """Return the unread fields of a view, as in its tree."""
    return dict(_OWN.__get__(context).get(_LEFT, {}))


def touched(context: PipelineContext) -> PipelineContext:
    """Return the fields that were read, as a plain object of the view's model."""
    if not isinstance(context, _View):
        return context
    own = _OWN.__get__(context)
    return _plain(context, {name: value for name, value in own.items() if name != _LEFT})


def validated(
    model: type[PipelineContext], tree: Mapping[str, Any], changed: Collection[str] | None
) -> dict[str, Any]:
    """Return the fields `changed`, or all, as the model writes them; `tree` must fit the model.

    Raises:
        ValidationError: it does not fit.
    """
    known = changed is not None and all(name in model.model_fields and name in tree for name in changed)
    if changed is None or not known or _lazy(model) is None:
        dumped = model.model_validate(tree).model_dump(mode="json")
        names = tree if changed is None else changed
        return {name: dumped[name] for name in names if name in dumped and name in tree}
    alone = _bare(model, {}, set())
    for name in changed:
        alone.__pydantic_validator__.validate_assignment(alone, name, tree[name])
    return alone.model_dump(mode="json", include=set(changed))


class _View:
    """Mixed into a context's model. Reading `__dict__` loads every field; pydantic does that to dump."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        own = _OWN.__get__(self)
        if name not in own.get(_LEFT, ()):
            return super().__getattr__(name)  # type: ignore[misc]  # the model's
        _put(self, name, canonical.copied(own[_LEFT][name]))
        return own[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).model_fields:  # type: ignore[attr-defined]  # the model's
            _put(self, name, value)
            self.__pydantic_fields_set__.add(name)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        getattr(self, name)
        super().__delattr__(name)

    @property
    def __dict__(self) -> dict[str, Any]:
        own: dict[str, Any] = _OWN.__get__(self)
        if _LEFT in own:
            for name in tuple(own[_LEFT]):
                getattr(self, name)
            del own[_LEFT]
            for name in type(self).model_fields:  # type: ignore[attr-defined]  # the model's; in its order
                if name in own:
                    own[name] = own.pop(name)
        return own

    @__dict__.setter
    def __dict__(self, values: dict[str, Any]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # meant
        _OWN.__set__(self, values)

    def __eq__(self, other: object) -> bool:
        theirs = _plain(other, other.__dict__) if isinstance(other, _View) else other
        return bool(_plain(self, self.__dict__) == theirs)

    __hash__ = None  # type: ignore[assignment]  # a context can change

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copy, (_plain(self, self.__dict__),)


@lru_cache(maxsize=256)
def _lazy(model: type[PipelineContext]) -> type[PipelineContext] | None:
    """Return the view class of a model, or None if the model must be loaded in full."""
    rules = model.__pydantic_decorators__
    config = model.model_config
    is_plain = (
        bool(config.get("validate_assignment"))
        and not config.get("frozen")
        and not model.__private_attributes__
        and not any(getattr(rules, field.name) for field in dataclasses.fields(rules))
        and not any(field.alias or field.validation_alias for field in model.model_fields.values())
        and all(getattr(model, name) is getattr(PipelineContext, name) for name in _HOOKS)
    )
    names = {"__module__": model.__module__, "__qualname__": model.__qualname__}
    build: Any = type(model)
    return build(model.__name__, (_View, model), names) if is_plain else None


def _put(view: Any, name: str, value: Any) -> None:
    """Validate a field and set it in a view."""
    alone = _plain(view, {})
    alone.__pydantic_validator__.validate_assignment(alone, name, value)
    own = _OWN.__get__(view)
    own[name] = _OWN.__get__(alone)[name]
    own.get(_LEFT, {}).pop(name, None)


def _plain(view: Any, values: dict[str, Any]) -> PipelineContext:
    return _bare(type(view).__mro__[2], values, set(view.__pydantic_fields_set__))


def _bare(model: type[PipelineContext], values: dict[str, Any], given: set[str]) -> PipelineContext:
    made = model.__new__(model)
    _OWN.__set__(made, values)
    for slot, value in (("fields_set", given), ("extra", None), ("private", None)):
        object.__setattr__(made, f"__pydantic_{slot}__", value)
    return made
