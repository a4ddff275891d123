"""What a callable's answer depends on, by value: its code, its captured values, and the globals it reads.

Two callables with equal data give equal answers to equal input. A value that cannot be compared, such as a
client or an open file, raises `NotCacheable`: a wrong answer is worse than a second call.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import re
import sys
import types
import typing
import uuid
import zoneinfo
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from flujo.domain import canonical
from flujo.domain.models import AppResources, PipelineContext
from flujo.exceptions import NotCacheable
from flujo.services.binding.code_names import code_data, imported_globals, local_imports, outside_names
from flujo.services.binding.module_origins import READS_PROCESS, is_library, sources, version
from flujo.services.binding.source_values import DO_NOT_DECIDE, changed_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DECLARED = "cache_key"
"""The attribute or method by which an object is compared instead of by its value."""


_EXITS = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)
"""What foreign code may raise; Ctrl-C is not among them."""


class _Row(typing.NamedTuple):
    field: None


_PRINTED = (
    complex,
    range,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    PurePath,
    zoneinfo.ZoneInfo,
    type(Ellipsis),
    type(NotImplemented),
    type(vars(_Row)["field"]),
)
"""Types whose `repr` tells their whole value."""

_BASES = (object, BaseModel, PipelineContext, AppResources, typing.Generic, enum.Enum)
"""Classes outside the project from which a comparable class may inherit, beside the containers."""

_SCALARS = (str, int, float, bytes)
_CONTAINERS = (
    *(list, tuple, set, frozenset, dict, types.SimpleNamespace),
    *(collections.OrderedDict, collections.defaultdict, collections.Counter, collections.deque),
)
_FUNCTION_PARTS = (staticmethod, classmethod)
_ANNOTATIONS = (types.GenericAlias, types.UnionType, type(typing.Union[int, None]), type(typing.List[int]))  # noqa: UP006, UP007 - their runtime types
_PLUMBING = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__slots__"}
    | {"__abstractmethods__", "__parameters__", "__orig_bases__", "__match_args__", "__signature__"}
    | {"__static_attributes__", "__firstlineno__", "__classcell__", "__annotate__", "__annotate_func__"}
    | {
        "__slotnames__",
        "__annotations_cache__",
        "__hash__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__class_vars__",
    }
    | {"__private_attributes__", "__fields_set__", "__protocol_attrs__", "__type_params__"}
)
"""Attributes of a class that Python and pydantic make from the rest of it."""


def identity(thing: Any, what: str) -> Any:
    """Return what the answers of `thing` depend on, as JSON data.

    Args:
        thing: a callable, an agent or a class.
        what: its name in errors.

    Raises:
        NotCacheable: it depends on an object that cannot be compared by value.
    """
    try:
        return _Walk(what).of(thing, what)
    except NotCacheable:
        raise
    except _EXITS as error:  # foreign code: an attribute of an object
        deep = isinstance(error, RecursionError)
        raise NotCacheable(
            f"{what} depends on objects that "
            + ("are nested too deeply" if deep else f"raise {type(error).__name__} when they are read")
            + ", so they cannot be compared by value",
            hint=f"give it an attribute `{DECLARED}` with what decides its answers",
        ) from None


def identity_of_resources(resources: Any, what: str) -> Any:
    """Return the declared `cache_key` of the application's resources.

    Raises:
        NotCacheable: they declare none.
    """
    kind = type(resources).__name__
    if _declaration(resources) is None:
        raise NotCacheable(
            f"{what} takes `resources`, and {kind} has no `{DECLARED}`",
            hint=f"give {kind} an attribute or a method `{DECLARED}` with what decides the answers, for "
            "instance the tenant and the address of the database",
        )
    return _Walk(what).of(resources, "resources")


class _Walk:
    """One walk over an object and what it refers to; each object is visited once."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._known: dict[int, tuple[str, Any]] = {}  # with the object: an id is taken only while it lives
        self._open: dict[int, int] = {}

    def of(self, thing: Any, where: str) -> Any:
        """Return a plain value as JSON data, another object as a digest; `where` is its place, for errors."""
        match thing:
            case None | bool():
                return thing
            case str() | int() | float() | bytes() if type(thing) in _SCALARS:
                return [type(thing).__name__, _printed(thing)]
            case _ if isinstance(thing, _PRINTED) and is_library(type(thing).__module__):
                return [_name(type(thing)), ascii(thing)]
        if id(thing) in self._open:  # a cycle
            return ["around", len(self._open) - self._open[id(thing)]]
        if id(thing) not in self._known:
            self._open[id(thing)] = len(self._open)
            data = self._object(thing, where)
            del self._open[id(thing)]
            self._known[id(thing)] = canonical.digest(canonical.encode(data)), thing
        return self._known[id(thing)][0]

    def _object(self, thing: Any, where: str) -> Any:
        if isinstance(thing, types.ModuleType):
            return self._module(thing, where)
        if (declared := _declaration(thing)) is not None:
            return self._declared(thing, declared, where)
        if isinstance(thing, type):
            return self._class(thing, where)
        way = next((method for kinds, method in _WAYS if isinstance(thing, kinds)), _Walk._instance)
        return way(self, thing, where)

    # Functions --------------------------------------------------------------------------------------------

    def _function(self, fn: types.FunctionType, where: str) -> Any:
        home = fn.__globals__.get("__name__", "")
        if f"{home}.{fn.__qualname__}" in READS_PROCESS:
            raise self._refused(where, "reads the state of the process")
        own = ["function", code_data(fn.__code__)]
        if is_library(home):  # its own globals and defaults change only with its version
            return [*own, version(home), self._captured(fn, where)]
        given = [self._captured(fn, where), *self._given(fn, where)]
        return [*own, *given, sources(home), [*self._globals(fn, where), *self._imported(fn, where)]]

    def _captured(self, fn: types.FunctionType, where: str) -> list[Any]:
        names = fn.__code__.co_freevars
        return [
            self.of(_content(cell), f"`{name}`, which {where} captures")
            for name, cell in zip(names, fn.__closure__ or (), strict=True)
        ]

    def _given(self, fn: types.FunctionType, where: str) -> Iterator[Any]:
        """Yield the defaults and the attributes of a function."""
        yield self.of(fn.__defaults__, f"a default of {where}")
        yield self.of(fn.__kwdefaults__, f"a default of {where}")
        yield [
            [name, self.of(value, f"attribute `{name}` of {where}")]
            for name, value in sorted(vars(fn).items())
        ]

    def _globals(self, fn: types.FunctionType, where: str) -> Iterator[Any]:
        for chain in outside_names(fn.__code__):
            if chain[0] in fn.__globals__ and not self._is_imported(fn, chain[0]):
                yield [list(chain), self._chain(fn.__globals__[chain[0]], chain, where)]

    def _is_imported(self, fn: types.FunctionType, name: str) -> bool:
        """Return whether a global name stands for a module that the function imports itself, now or later."""
        if name not in imported_globals(fn.__code__):
            return False
        value = fn.__globals__[name]
        named = local_imports(fn.__code__, fn.__globals__.get("__package__") or "")
        homes = [module for each in named if (module := sys.modules.get(each)) is not None]
        return value is None or any(value is home or vars(home).get(name) is value for home in homes)

    def _chain(self, found: Any, chain: tuple[str, ...], where: str) -> Any:
        """Return the value of `module.name`, or of the global name itself."""
        read = chain[0]
        for name in chain[1:]:
            if not isinstance(found, types.ModuleType) or not hasattr(found, name):
                break
            read, found = f"{read}.{name}", getattr(found, name)
        return self.of(found, f"`{read}`, which {where} reads")

    def _imported(self, fn: types.FunctionType, where: str) -> Iterator[Any]:
        """Yield what counts of the modules that a function imports itself, beside their sources.

        It is the same before and after the import, unless a module has values that its source does not tell.
        """
        for name in local_imports(fn.__code__, fn.__globals__.get("__package__") or ""):
            if is_library(name):
                yield [name, version(name)]
        for name, value in changed_values(fn):
            yield [name, self.of(value, f"`{name}`, which {where} reads")]

    def _method(self, method: types.MethodType, where: str) -> Any:
        own = f"the object of {where}"
        return ["method", self.of(method.__func__, where), self.of(method.__self__, own)]

    def _builtin(self, fn: types.BuiltinFunctionType, where: str) -> Any:
        name = f"{fn.__module__}.{fn.__qualname__}"
        if name in READS_PROCESS:
            raise self._refused(where, "reads the state of the process")
        bound = fn.__self__
        own = None if bound is None or isinstance(bound, types.ModuleType) else self.of(bound, where)
        return ["built in", name, own]

    def _partial(self, partial: functools.partial[Any], where: str) -> Any:
        given = f"an argument of {where}"
        return [
            "partial",
            self.of(partial.func, where),
            self.of(partial.args, given),
            self.of(partial.keywords, given),
        ]

    def _descriptor(self, thing: Any, where: str) -> Any:
        return [type(thing).__name__, self.of(thing.__func__, where)]

    def _property(self, thing: property, where: str) -> Any:
        return ["property", *(self.of(each, where) for each in (thing.fget, thing.fset, thing.fdel))]

    def _cached_property(self, thing: functools.cached_property[Any], where: str) -> Any:
        return ["cached property", self.of(thing.func, where)]

    def _memoised(self, thing: Any, where: str) -> Any:
        return ["memoised", self.of(thing.__wrapped__, where)]

    def _slot(self, thing: Any, _where: str) -> Any:
        return ["slot", _name(thing.__objclass__), thing.__name__]

    # Classes and modules ----------------------------------------------------------------------------------

    def _class(self, kind: type, where: str) -> Any:
        if is_library(kind.__module__):
            return ["class", _name(kind), version(kind.__module__)]
        bases = [self.of(base, where) for base in kind.__bases__]
        return ["class", _name(kind), sources(kind.__module__), bases, list(self._members(kind, where))]

    def _members(self, kind: type, where: str) -> Iterator[Any]:
        if type(kind) not in (type, enum.EnumMeta) and not is_library(type(kind).__module__):
            yield ["metaclass", self.of(type(kind), where)]
        if issubclass(kind, enum.Enum):
            yield [[name, self.of(member.value, where)] for name, member in kind.__members__.items()]
        for field in getattr(kind, "__dataclass_fields__", {}).values():
            yield [field.name, self._default(field.default_factory, where)]
        if issubclass(kind, BaseModel):
            for name, info in kind.model_fields.items():
                yield [name, *(self._default(each, where) for each in (info.default, info.default_factory))]
                yield [self.of(each, where) for each in (info.annotation, *info.metadata)]
        for name, value in sorted(vars(kind).items()):
            if not _is_made(name, value, kind):
                yield [name, self.of(value, f"`{kind.__name__}.{name}`")]

    def _default(self, value: Any, where: str) -> Any:
        absent = value is dataclasses.MISSING or type(value).__name__ == "PydanticUndefinedType"
        return None if absent else [self.of(value, where)]

    def _module(self, module: types.ModuleType, where: str) -> Any:
        if is_library(module.__name__):
            return ["module", module.__name__, version(module.__name__)]
        raise self._refused(where, f"is the module `{module.__name__}`, used as a value")

    def _annotation(self, hint: Any, where: str) -> Any:
        return ["annotation", repr(hint), [self.of(each, where) for each in typing.get_args(hint)]]

    # Data -------------------------------------------------------------------------------------------------

    def _declared(self, thing: Any, key: Any, where: str) -> Any:
        """Return an object by its declared key, and the source of its class."""
        code = thing if isinstance(thing, types.FunctionType) else type(thing)
        own = code_data(code.__code__) if isinstance(code, types.FunctionType) else _name(code)
        home = code.__globals__["__name__"] if isinstance(code, types.FunctionType) else code.__module__
        where = f"the `{DECLARED}` of {where}"
        try:
            value = key() if isinstance(key, types.MethodType | types.FunctionType) else key
        except _EXITS as error:  # foreign code
            raise self._refused(where, f"raised {type(error).__name__}") from error
        if inspect.iscoroutine(value):
            value.close()
        return ["declared", own, sources(home), self.of(value, where)]

    def _enum(self, member: enum.Enum, where: str) -> Any:
        return ["member", self.of(type(member), where), member.name, self.of(member.value, where)]

    def _pattern(self, pattern: re.Pattern[Any], _where: str) -> Any:
        return ["pattern", ascii(pattern.pattern), pattern.flags]

    def _without_effect(self, thing: Any, _where: str) -> Any:
        return ["ignored", _name(type(thing))]

    def _instance(self, thing: Any, where: str) -> Any:
        kind = type(thing)
        if not _is_comparable(kind):
            raise self._refused(where, f"is of the type `{_name(kind)}`, which cannot be compared by value")
        return [
            "object",
            self.of(kind, f"the class of {where}"),
            self._content(thing, where),
            [[name, self.of(value, f"`{name}` of {where}")] for name, value in _state(thing)],
        ]

    def _content(self, thing: Any, where: str) -> Any:
        """Return what a container holds. The order of a mapping counts, because code can see it."""
        item = f"an item of {where}"
        match thing:
            case str() | int() | float() | bytes():
                plain: Any = next(kind for kind in _SCALARS if isinstance(thing, kind))
                return _printed(plain(thing))
            case dict():
                extra = getattr(thing, "default_factory", None)
                pairs = dict.items(thing)
                return [self.of(extra, where), [[self.of(k, item), self.of(v, item)] for k, v in pairs]]
            case types.MappingProxyType():
                return [[self.of(key, item), self.of(value, item)] for key, value in thing.items()]
            case set() | frozenset():
                return sorted((self.of(each, item) for each in thing), key=repr)
            case list() | tuple() | collections.deque():
                size = getattr(thing, "maxlen", None)
                return [size, [self.of(each, item) for each in thing]]
            case _:
                return None

    def _container(self, thing: Any, where: str) -> Any:
        return [_name(type(thing)), self._content(thing, where)]

    def _refused(self, where: str, why: str) -> NotCacheable:
        what = where if where == self._what else f"{self._what} depends on {where}. It"
        return NotCacheable(
            f"{what} {why}",
            hint=f"give the object or the callable an attribute `{DECLARED}` with what decides its answers, "
            "or pass the value as input",
        )


_WAYS: tuple[tuple[Any, Callable[[_Walk, Any, str], Any]], ...] = (
    (types.FunctionType, _Walk._function),
    (types.MethodType, _Walk._method),
    (types.BuiltinFunctionType, _Walk._builtin),
    (functools.partial, _Walk._partial),
    (_FUNCTION_PARTS, _Walk._descriptor),
    (property, _Walk._property),
    (functools.cached_property, _Walk._cached_property),
    (type(functools.lru_cache(int)), _Walk._memoised),
    (
        (
            types.MethodDescriptorType,
            types.WrapperDescriptorType,
            types.MemberDescriptorType,
            types.GetSetDescriptorType,
            types.ClassMethodDescriptorType,
        ),
        _Walk._slot,
    ),
    (_ANNOTATIONS, _Walk._annotation),
    ((typing.TypeVar, typing.ForwardRef, type(typing.Any)), _Walk._without_effect),
    (enum.Enum, _Walk._enum),
    (re.Pattern, _Walk._pattern),
    (DO_NOT_DECIDE, _Walk._without_effect),
    (types.MappingProxyType, _Walk._container),
)


def _declaration(thing: Any) -> Any:
    """Return the declared key of an object, or the method that returns it; None when it declares none."""
    if isinstance(thing, type | types.MethodType | functools.partial | types.ModuleType):
        return None
    try:
        return getattr(thing, DECLARED, None)
    except _EXITS:  # foreign code; without a key the object is compared by value
        return None


def _printed(value: Any) -> str:
    """Return a plain value as text; in base 16, because Python refuses to print long integers in base 10."""
    return hex(value) if isinstance(value, int) else ascii(value)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _state(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object: of its `__dict__`, its slots, and pydantic's private ones."""
    yield from sorted(getattr(thing, "__dict__", {}).items())
    for kind in type(thing).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = (
                f"_{kind.__name__.lstrip('_')}{slot}"
                if slot.startswith("__") and not slot.endswith("__")
                else slot
            )
            if name not in ("__dict__", "__weakref__", "__pydantic_fields_set__") and hasattr(thing, name):
                yield name, getattr(thing, name)


def _is_comparable(kind: type) -> bool:
    """Return whether all state of its instances is visible: every class of it is written in Python.

    Classes of libraries are refused unless they are data classes or pydantic models: others may hold
    connections, or state in C.
    """
    known: tuple[Any, ...] = (*_BASES, *_SCALARS, *_CONTAINERS)
    for each in kind.__mro__:
        if each in known or each.__module__ in ("abc", "typing", "typing_extensions"):
            continue
        is_data = "__dataclass_fields__" in vars(each) or issubclass(each, BaseModel)
        if is_library(each.__module__) and not is_data:
            return False
        if not is_data and not _has_source(each):
            return False
    return kind is not object


def _has_source(kind: type) -> bool:
    """Return whether a class of the project is written in Python."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is None or file.endswith((".py", ".pyc"))


def _is_made(name: str, value: Any, kind: type) -> bool:
    """Return whether Python or pydantic makes an attribute from the rest of its class."""
    if name in _PLUMBING or name.startswith(("__pydantic", "_abc_", "model_", "_Generic")):
        return name != "model_config"
    if isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
        return True
    if isinstance(value, types.FunctionType) and value.__code__.co_filename == "<string>":
        return True  # generated by `dataclass` from the fields
    return issubclass(kind, enum.Enum) and (name.startswith("_") or name in kind.__members__)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
