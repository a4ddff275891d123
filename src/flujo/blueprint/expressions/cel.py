"""The interface to CEL: parses a source into a tree and compiles it into a program.

Flujo adds three things to CEL: `get(map, "key", default)`, the name `loop`, which CEL reserves, and
arithmetic of an int and a float. The library is imported when the first expression is compiled.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions import arithmetic, cel_ast
from flujo.blueprint.expressions.cel_ast import Node, decode
from flujo.blueprint.expressions.cel_lexicon import LOOP, LOOP_STAND_IN, TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flujo.domain.ports import Chain

_PLAIN = ("dyn", "int", "double", "string", "bool", "null", "map")


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of CEL: its message and the offset."""

    message: str
    at: int


class Refused(Exception):
    """CEL rejected a source; `faults` has at least one entry."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults[0].message)
        self.faults = faults


@lru_cache(maxsize=1024)
def parse(source: str) -> Node:
    """Return the tree of an expression, cached: blueprints repeat many expressions.

    Raises:
        Refused: with CEL's syntax errors.
    """
    return decode(_compile(_environment(()), source, unchecked=True).serialize())


@dataclass(frozen=True, slots=True)
class Program:
    """A checked expression, ready to run. It has no state, so threads may share it."""

    _expression: Any

    def run(self, data: Mapping[str, Any]) -> tuple[bool, Any]:
        """Return whether the evaluation succeeded, and the value or CEL's error message."""
        try:
            value = self._expression.eval(data=data)
            return value.type() != _library().Type.ERROR, value.plain_value()
        except (
            RuntimeError,
            MemoryError,
        ) as error:  # from the library: an exhausted budget, an unsupported value
            return False, str(error)


def program(source: str, names: Iterable[str]) -> Program:
    """Return the program of an expression that reads these root names, whatever their values are.

    Raises:
        Refused: with CEL's errors of syntax, functions and types.
    """
    return Program(_compile(_environment(_any(names)), source))


def mixed_program(source: str, names: Iterable[str], tree: Node) -> Program | None:
    """Return the program of an expression that `program` accepts, with the operators of `arithmetic`.

    None when a text in the source looks like an operator in CEL's serialised form.
    """
    environment = _environment(_any(names), mixed=True)
    compiled = _compile(environment, source, unchecked=True).serialize()
    used = Counter(cel_ast.functions(tree))
    for operator, function in arithmetic.FUNCTIONS.items():
        old, new = (b"\x12\x03" + name.encode() for name in (operator, function))  # field 2, three bytes
        if compiled.count(old) != used[operator]:
            return None
        compiled = compiled.replace(old, new)
    return Program(environment.deserialize(compiled))


@lru_cache(maxsize=1024)
def result(source: str) -> str:
    """Return the type of an expression in which each name is a `variable`: `BOOL`, `DYN` and so on.

    All blueprints share one environment: CEL only needs to know the type of a name, and creating an
    environment per expression would take ten times as long as the check.

    Raises:
        Refused: with CEL's errors of functions and types.
    """
    signatures = [*_PLAIN, *(f"list({plain})" for plain in _PLAIN)]
    variables = tuple((variable(signature), signature) for signature in signatures)
    compiled = _compile(_environment(variables), source)
    try:
        return str(compiled.return_type().name())
    except RuntimeError as error:  # a map with keys of a type that CEL does not have
        raise Refused((Fault(str(error), 0),)) from error


def variable(signature: str) -> str:
    """Return the variable name that represents every value of a type (`dyn`, `int`, `list(string)` …)."""
    if signature.startswith("list(list("):
        signature = "list(dyn)"
    return "__" + signature.replace("(", "_of_").rstrip(")")


def slot(chain_: Chain) -> Chain:
    """Return where a chain's value is placed in the data of a program."""
    return (LOOP_STAND_IN if chain_[0] == LOOP else chain_[0], *chain_[1:])


@cache
def _library() -> Any:
    from cel_expr_python import cel

    return cel


def _any(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return root names as variables of any type."""
    return tuple(sorted((LOOP_STAND_IN if name == LOOP else name, "dyn") for name in names))


@cache
def _additions(*, mixed: bool) -> dict[str, Any]:
    """Return the functions besides CEL's standard library; with `mixed`, also those of `arithmetic`."""
    from cel_expr_python.ext import ext_strings

    cel = _library()
    # At run time only an overload of `any` accepts every kind of value; one of `dyn` accepts none.
    any_ = cel.Type("any")

    def function(name: str, parameters: list[Any], impl: Any) -> Any:
        overload = cel.Overload(
            f"{name}_any", return_type=cel.Type.DYN, parameters=parameters, is_member=False, impl=impl
        )
        return cel.FunctionDecl(name, [overload])

    functions = [function("get", [any_, cel.Type.STRING, any_], _get)]
    if mixed:
        functions += [
            function(name, [any_, any_], partial(arithmetic.compute, operator))
            for operator, name in arithmetic.FUNCTIONS.items()
        ]
    return {"extensions": [ext_strings.ExtStrings()], "functions": functions}


def _get(where: Any, key: str, default: Any) -> Any:
    if not isinstance(where, dict | None):
        raise TypeError("get() of a value that is not a map")
    value = None if where is None else where.get(key)
    return default if value is None else value


@lru_cache(maxsize=512)
def _environment(names: tuple[tuple[str, str], ...], *, mixed: bool = False) -> Any:
    cel = _library()
    variables = {name: _type(signature) for name, signature in names}
    return cel.NewEnv(variables=variables, **_additions(mixed=mixed))


def _type(signature: str) -> Any:
    """Return CEL's type for `dyn`, `int`, `string`, `bool`, `null`, `map`, or `list(…)` of one of them."""
    types = _library().Type
    if signature.startswith("list("):
        return types.List(_type(signature[len("list(") : -1]))
    return types.Map(types.STRING, types.DYN) if signature == "map" else getattr(types, signature.upper())


def _compile(environment: Any, source: str, *, unchecked: bool = False) -> Any:
    try:
        return environment.compile(_rename(source), unchecked)
    except RuntimeError as error:
        raise Refused(tuple(_faults(str(error), source))) from error


def _rename(source: str) -> str:
    """Return `source` with the root name `loop` replaced by its stand-in."""
    if LOOP not in source:
        return source
    return "".join(_renamed(source))


def _renamed(source: str) -> Iterator[str]:
    before = ""
    for token in TOKEN.finditer(source):
        text = token.group()
        yield LOOP_STAND_IN if text == LOOP and before != "." else text
        if token.lastgroup not in {"space", "comment"}:
            before = text


_FAULT = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")


def _faults(message: str, source: str) -> Iterator[Fault]:
    found = _FAULT.findall(message) or [("1", "1", message.removeprefix("INVALID_ARGUMENT: "))]
    lines = source.split("\n")
    for line, column, words in found:
        row = int(line) - 1
        known = 0 <= row < len(lines)
        at = sum(len(text) + 1 for text in lines[:row]) + int(column) - 1 if known else 0
        yield Fault(re.sub(r" \[[A-Z_]+\]$", "", words).replace(LOOP_STAND_IN, LOOP), min(at, len(source)))
