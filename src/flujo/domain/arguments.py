"""Constructors of the syntax tree: each field may have a converter, which the constructor applies.

    until: Takes[Logical, Logic] = takes(values.logic)

The constructor accepts a `Logical` (a callable, a text, an expression), and the field holds a `Logic`. Type
checkers see that by `Takes`; at run time a field holds what its converter returned.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import Any, ClassVar, Generic, Self, cast, overload

from typing_extensions import TypeVar, dataclass_transform

from flujo.domain.wording import suggest
from flujo.exceptions import PipelineError

Given = TypeVar("Given", contravariant=True)
Kept = TypeVar("Kept", covariant=True)
T = TypeVar("T")

Convert = Callable[[Any, str], Any]
"""Gets an argument and its name in errors; returns the value of the field, or raises `PipelineError`."""

# `dataclass_transform` types the constructor's parameter by the descriptor's setter (PEP 681).


class Takes(Generic[Given, Kept]):
    """A field whose constructor accepts other types than it holds. For type checkers; it has no instances."""

    @overload
    def __get__(self, of: None, kind: type) -> Self: ...
    @overload
    def __get__(self, of: object, kind: type) -> Kept: ...
    def __get__(self, of: object, kind: type) -> Any:
        """Return the value of the field."""
        raise NotImplementedError

    def __set__(self, of: object, given: Given) -> None:
        """Set the field from an argument of the constructor."""
        raise NotImplementedError


def takes(
    convert: Convert,
    *,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    otherwise: Any = None,
    spelled: str = "",
) -> Any:
    """Return a field that converts its argument.

    Args:
        convert: makes the value of the field; not called for a None that is the default.
        default: the default of the argument.
        default_factory: makes the default.
        otherwise: the value of the field when the argument is None.
        spelled: an alias of the argument, an `InitVar` of the class. One of the two names is required, unless
            there is an `otherwise`.
    """
    metadata = {"convert": convert, "otherwise": otherwise, "spelled": spelled}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


class Node:
    """A part of the tree: frozen; its constructor converts the arguments."""

    owner: ClassVar[str] = "step {name!r}: "
    """The prefix of error messages, formatted with the arguments."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Take the arguments, by position or by name.

        Raises:
            PipelineError: an argument is unknown, or its converter rejects it.
        """
        layout = _layout(type(self))  # type: ignore[arg-type]  # classes are hashable
        arguments = layout.bound(self, given, named)
        self._adapt(arguments)
        owner = self._owned_by(arguments)
        for each in layout.fields:
            object.__setattr__(self, each.name, self._converted(each, arguments, owner))

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise `FrozenInstanceError`."""
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        """Raise `FrozenInstanceError`."""
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def _owned_by(self, arguments: Mapping[str, Any]) -> str:
        return self.owner.format_map({"name": "", **arguments})

    def _adapt(self, arguments: dict[str, Any]) -> None:
        """Change the arguments, defaults included, before they are converted."""

    def _converted(self, each: Field[Any], arguments: Mapping[str, Any], owner: str) -> Any:
        given = arguments[each.name]
        if "convert" not in each.metadata:
            return given
        otherwise, alias = each.metadata["otherwise"], each.metadata["spelled"]
        if alias:
            is_required = otherwise is None
            given = self._one_of(arguments, each.name, alias, is_required=is_required)
        if given is None and each.default is None:
            return otherwise
        return each.metadata["convert"](given, f"{owner}`{each.name}`")

    def _one_of(self, arguments: Mapping[str, Any], *names: str, is_required: bool = True) -> Any:
        """Return the only one of several arguments that is given."""
        given = [name for name in names if arguments[name] is not None]
        if len(given) == 1:
            return arguments[given[0]]
        owner = self._owned_by(arguments).rstrip(": ")
        if given:
            raise PipelineError(f"{owner} has {' and '.join(f'`{name}`' for name in given)}", hint="use one")
        if is_required:
            raise PipelineError(f"{owner} has no {' or '.join(f'`{name}`' for name in names)}")
        return None


# Not frozen for type checkers: in a frozen class, mypy types an inherited field by its argument. `Node`
# itself refuses changes. Its one constructor serves all classes, which saves start-up time.


@dataclass_transform(field_specifiers=(takes, field))
def node(kind: type[T]) -> type[T]:
    """Make a subclass of `Node` a dataclass."""
    return dataclass(init=False, unsafe_hash=True)(kind)


def put(thing: Any, **values: Any) -> None:
    """Set fields of a node under construction."""
    for name, each in values.items():
        object.__setattr__(thing, name, each)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The parameters of a node's constructor."""

    fields: Sequence[Field[Any]]
    parameters: Mapping[str, Field[Any]]
    """The fields, and the aliases of arguments."""
    positional: Sequence[str]

    def bound(self, made: Node, given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, defaults included."""
        arguments = dict(zip(self.positional, given, strict=False))
        what = type(made).__name__
        if len(given) > len(self.positional):
            raise TypeError(f"{what} takes {len(self.positional)} positional arguments, not {len(given)}")
        if twice := arguments.keys() & named.keys():
            raise TypeError(f"{what} got {', '.join(sorted(twice))} by position and by name")
        arguments |= named
        for name in arguments:
            if name not in self.parameters:
                raise PipelineError(
                    f"{made._owned_by(arguments)}`{what}` has no argument `{name}`",
                    hint=suggest(name, self.parameters, what="its arguments", cutoff=0.6),
                )
        for name, each in self.parameters.items():
            if name not in arguments:
                arguments[name] = each.default if each.default_factory is MISSING else each.default_factory()
                if arguments[name] is MISSING:
                    raise TypeError(f"{what} needs the argument `{name}`")
        return arguments


@functools.cache
def _layout(kind: type[Node]) -> _Layout:
    own = fields(cast("Any", kind))
    declared: Mapping[str, Field[Any]] = cast("Any", kind).__dataclass_fields__
    spellings = {name: each for name, each in declared.items() if "InitVar" in str(each.type)}
    parameters = {each.name: each for each in own} | spellings
    return _Layout(own, parameters, [each.name for each in own if not each.kw_only])
