"""Dataclasses of which each step creates many: frozen for type checkers, without the cost at run time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as record
else:

    def record(*, frozen: bool, **options: Any) -> Any:
        """Return `dataclass` without the frozen guard, which makes construction four times as slow."""
        return dataclasses.dataclass(unsafe_hash=frozen, **options)


P = ParamSpec("P")
T = TypeVar("T")


def constructor(cls: Callable[P, T]) -> Callable[P, T]:
    """Return a function that creates an instance of a dataclass, three times as fast as a call of the class.

    A call of a class packs its keywords into a dictionary and unpacks it again; a function takes them as they
    are.

    Raises:
        TypeError: the class has a `__post_init__`.
    """
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls!r} has a `__post_init__`, which its constructor would skip")
    names: dict[str, Any] = {"_new": object.__new__, "_cls": cls, "_MISSING": dataclasses.MISSING}
    positional: list[str] = []
    keywords: list[str] = []
    body = ["self = _new(_cls)"]
    for field in dataclasses.fields(cast("Any", cls)):
        name, value, default = field.name, field.name, f"_default_{field.name}"
        parameter = f"{name}={default}"
        if field.default_factory is not dataclasses.MISSING:
            names[default] = field.default_factory
            parameter, value = f"{name}=_MISSING", f"{default}() if {name} is _MISSING else {name}"
        elif field.default is not dataclasses.MISSING:
            names[default] = field.default
        else:
            parameter = name
        (keywords if field.kw_only else positional).append(parameter)
        body.append(f"self.{name} = {value}")
    star = ["*"] if keywords else []
    head = f"def create({', '.join([*positional, *star, *keywords])}):"
    exec("\n    ".join([head, *body, "return self"]), names)  # noqa: S102 - as `dataclass` writes `__init__`
    return cast("Callable[P, T]", names["create"])


__all__ = ["constructor", "record"]
