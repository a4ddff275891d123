"""Compares the values in modules that a callable imports during its call with the sources of the modules.

Before the import only the source of a module is known, so a cached answer may depend on nothing else. A
source tells functions, classes and constants. It does not tell the value of `os.environ["TENANT"]`, or of a
constant that other code has changed.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import logging
import operator
import pathlib
import re
import sys
import threading
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from flujo.services.binding.code_names import attribute_names, local_imports, outside_names
from flujo.services.binding.module_origins import READS_PROCESS, is_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PLAIN = (
    *(str, bytes, int, float, complex, bool, type(None)),
    *(list, tuple, set, frozenset, dict, range, slice),
)
_PURE = (
    *_PLAIN,
    *(len, min, max, sum, sorted, abs, round, zip, enumerate, reversed, type(Ellipsis)),
    *(re.compile, types.MappingProxyType, typing.TypeVar),
    *(decimal.Decimal, fractions.Fraction, pathlib.PurePath, pathlib.PurePosixPath),
    *(datetime.timedelta, datetime.date, datetime.time),
    *(pydantic.Field, pydantic.ConfigDict, dataclasses.field, enum.auto, operator.itemgetter),
)
"""What a constant may call: it returns equal values for equal arguments."""
_MEMOISED = type(functools.lru_cache(int))
_CODE = (types.FunctionType, types.BuiltinFunctionType, type)
_EXPRESSIONS = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.keyword, ast.Starred, ast.expr_context),
    *(ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Subscript, ast.Slice, ast.JoinedStr, ast.FormattedValue),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


DO_NOT_DECIDE = (
    logging.Logger,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Semaphore,
    asyncio.Lock,
    asyncio.Semaphore,
)
"""Types of objects that do not decide an answer."""


class _NotTold(Exception):
    """The source does not tell the value of an expression."""


def changed_values(fn: types.FunctionType) -> list[tuple[str, Any]]:
    """Return what a function reads of the modules that it imports itself and no source tells, by name."""
    reader = _Reader()
    reader.imports_of(fn)
    return sorted(reader.changed.items(), key=operator.itemgetter(0))


class _Reader:
    """Follows the names that code reads through the modules that are loaded; each name is visited once."""

    def __init__(self) -> None:
        self.changed: dict[str, Any] = {}
        self._seen: set[Any] = set()

    def imports_of(self, fn: types.FunctionType) -> None:
        """Visit what a function reads of the modules that it imports itself."""
        names = attribute_names(fn.__code__)
        for name in local_imports(fn.__code__, fn.__globals__.get("__package__") or ""):
            if (module := sys.modules.get(name)) is not None:
                self._names(module, names)

    def _names(self, module: types.ModuleType, names: frozenset[str]) -> None:
        for name in sorted(names & vars(module).keys()):
            value = vars(module)[name]
            is_module = isinstance(value, types.ModuleType)
            key = (value.__name__, names) if is_module else (module.__name__, name)
            if key in self._seen:
                continue
            self._seen.add(key)
            if is_module:
                self._names(value, names)
            elif not self._is_told(module, name, value):
                self.changed[f"{module.__name__}.{name}"] = value

    def _is_told(self, module: types.ModuleType, name: str, value: Any) -> bool:
        if isinstance(value, DO_NOT_DECIDE) or (is_library(module.__name__) and _is_of_its_version(value)):
            return True
        node = _bindings_of(module).get(name)
        if is_library(module.__name__):
            return isinstance(node, ast.expr) and self._is_constant(module, node, value)
        match node:
            case ast.ImportFrom():
                return self._is_imported(module, node, name, value)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                return self._is_function(module, node, value)
            case ast.ClassDef():
                return self._is_class(module, node, value)
            case ast.expr():
                return self._is_constant(module, node, value)
            case _:
                return False

    def _is_imported(self, module: types.ModuleType, node: ast.ImportFrom, name: str, value: Any) -> bool:
        package = getattr(module, "__package__", "") or ""
        above = package.rsplit(".", node.level - 1)[0] if node.level else ""
        home = sys.modules.get(".".join(filter(None, [above, node.module])))
        there = next(each.name for each in node.names if (each.asname or each.name) == name)
        if home is None or vars(home).get(there, self) is not value:
            return False
        self._names(home, frozenset({there}))
        return True

    def _is_function(self, module: types.ModuleType, node: Any, value: Any) -> bool:
        fn = value.__wrapped__ if isinstance(value, _MEMOISED) else value
        if isinstance(fn, staticmethod | classmethod):
            fn = fn.__func__
        if not isinstance(fn, types.FunctionType) or fn.__globals__ is not vars(module):
            return False
        own = isinstance(node, ast.Lambda) or fn.__qualname__.rpartition(".")[2] == node.name
        if (
            not own
            or {*fn.__code__.co_freevars} - {"__class__"}
            or vars(fn)
            or not self._has_defaults(module, node.args, fn)
        ):
            return False
        for chain in outside_names(fn.__code__):
            self._names(module, frozenset(chain))
        self.imports_of(fn)
        return True

    def _has_defaults(self, module: types.ModuleType, given: ast.arguments, fn: types.FunctionType) -> bool:
        named = zip(given.kwonlyargs, given.kw_defaults, strict=True)
        told = [*given.defaults, *(each for _, each in named if each is not None)]
        values = [*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()]
        return len(told) == len(values) and all(
            self._is_constant(module, node, value) for node, value in zip(told, values, strict=True)
        )

    def _is_class(self, module: types.ModuleType, node: ast.ClassDef, kind: Any) -> bool:
        if not isinstance(kind, type) or (kind.__module__, kind.__qualname__) != (module.__name__, node.name):
            return False
        for base in (base for base in kind.__bases__ if not is_library(base.__module__)):
            self._names(sys.modules[base.__module__], frozenset({base.__qualname__}))
        return all(self._is_member(module, name, each, kind) for name, each in _bindings(node.body).items())

    def _is_member(self, module: types.ModuleType, name: str, node: Any, kind: type) -> bool:
        value = vars(kind).get(name, dataclasses.MISSING)
        hidden = value is dataclasses.MISSING or isinstance(value, types.MemberDescriptorType)
        if node is None:
            return hidden  # a field without a default
        if isinstance(value, property):
            value = value.fget
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return self._is_function(module, node, value)
        if not isinstance(node, ast.expr):
            return False
        try:
            told = self._value(module, node)
        except _NotTold:
            return False
        if hidden or issubclass(kind, enum.Enum) or type(told) not in _PLAIN:  # made from it
            return True
        return _is_same(told, value)

    def _is_constant(self, module: types.ModuleType, node: ast.expr, value: Any) -> bool:
        try:
            return _is_same(self._value(module, node), value)
        except _NotTold:
            return False

    def _value(self, module: types.ModuleType, node: ast.expr) -> Any:
        """Return the value of an expression that consists of constants.

        Raises:
            _NotTold: it does not.
        """
        names: dict[str, Any] = {}
        for each in ast.walk(node):
            if not isinstance(each, _EXPRESSIONS):
                raise _NotTold
            if isinstance(each, ast.Name):
                names[each.id] = self._named(module, each.id)
            elif isinstance(each, ast.Attribute) and not isinstance(each.value, ast.Constant):
                _require_pure(module, each)
        code = compile(ast.Expression(node), "<constant>", "eval")
        try:
            return eval(code, {"__builtins__": {}}, names)  # noqa: S307 - constants of a module that is loaded
        except Exception as error:
            raise _NotTold from error

    def _named(self, module: types.ModuleType, name: str) -> Any:
        if name == "__name__":
            return module.__name__
        value = vars(module).get(name, vars(builtins).get(name, self))
        if any(value is each for each in _PURE) or isinstance(value, types.ModuleType):
            return value
        if type(value) not in _PLAIN or not self._is_told(module, name, value):
            raise _NotTold
        return value


def _require_pure(module: types.ModuleType, node: ast.Attribute) -> None:
    """Check that `module.name` is one of the pure callables, or a flag."""
    home = vars(module).get(node.value.id) if isinstance(node.value, ast.Name) else None
    value = vars(home).get(node.attr) if isinstance(home, types.ModuleType) else None
    if not isinstance(value, enum.Enum) and all(value is not each for each in _PURE):
        raise _NotTold


def _is_same(told: Any, value: Any) -> bool:
    if type(told) is not type(value):
        return False
    unordered = isinstance(told, set | frozenset)
    return bool(told == value) and (unordered or type(told) not in _PLAIN or repr(told) == repr(value))


def _is_of_its_version(value: Any) -> bool:
    """Return whether the version of a library tells a value: it is code, a type for annotations or a flag."""
    if isinstance(value, _CODE):
        name = f"{value.__module__}.{value.__qualname__}"
        return is_library(value.__module__ or "builtins") and name not in READS_PROCESS
    return isinstance(value, _MEMOISED | enum.Enum) or type(value).__module__ in ("typing", "types")


def _bindings_of(module: types.ModuleType) -> Mapping[str, ast.AST | None]:
    file = getattr(module, "__file__", None)
    return _read(file) if file and file.endswith(".py") else {}


@functools.lru_cache(maxsize=256)
def _read(file: str) -> Mapping[str, ast.AST | None]:
    """Return what the names of a source are bound to, as first read."""
    try:
        return _bindings(ast.parse(Path(file).read_bytes()).body)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _bindings(body: list[ast.stmt]) -> Mapping[str, ast.AST | None]:
    """Return what each name is bound to; None for several statements, or one that cannot be followed."""
    found: dict[str, ast.AST | None] = {}
    for name, node in _bound(body):
        found[name] = None if name in found else node
    return found


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST | None]]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                yield name, value
            case ast.ImportFrom():
                yield from ((each.asname or each.name, node) for each in node.names)
            case ast.If() | ast.Try():
                inner = [node.body, node.orelse]
                inner += [handler.body for handler in node.handlers] if isinstance(node, ast.Try) else []
                for each in inner:
                    yield from _bound(each)
            case _:
                stored = (each for each in ast.walk(node) if isinstance(each, ast.Name))
                yield from ((each.id, None) for each in stored if isinstance(each.ctx, ast.Store))
