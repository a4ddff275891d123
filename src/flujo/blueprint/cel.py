"""CEL behind one door: a source becomes a tree that can be looked at, and a program that can be run.

`cel_expr_python` shows the tree of an expression only in serialised form, a protobuf message. Reading the
dozen fields that matter takes fewer lines than a second grammar of CEL and can never disagree with CEL about
what a name is, so that is done here, by hand. The library is imported when the first expression needs it.

Two things are ours rather than CEL's: `get(map, "key", default)`, and the name `loop`, which CEL reserves.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flujo.domain.ports import Chain

MAX_SOURCE = 2048
"""The longest expression, in bytes of UTF-8."""

RESERVED = frozenset(
    """
    as break const continue else false for function if import in let loop namespace null package return
    true var void while
    """.split()  # noqa: SIM905 - a paragraph is easier to compare with CEL's than a column
)
"""Words of CEL that cannot be the name of a step, an item or a bound variable."""

TYPE_NAMES = frozenset(
    {"bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"}
)
"""Names of CEL's types: values in an expression, never names of ours."""

FUNCTIONS = frozenset(
    """
    all bool bytes charAt contains double duration dyn endsWith exists exists_one filter format get getDate
    getDayOfMonth getDayOfWeek getDayOfYear getFullYear getHours getMilliseconds getMinutes getMonth
    getSeconds has indexOf int join lastIndexOf lowerAscii map matches quote replace reverse size split
    startsWith string substring timestamp trim type uint upperAscii
    """.split()  # noqa: SIM905 - as above
)
"""What can be called: CEL's standard library, its strings extension, its macros, and `get`."""

NAMESPACES = frozenset({"strings"})
"""What stands before the dot of a function without being a value: `strings.quote(text)`."""

TOKEN = re.compile(
    r"""(?P<raw>[bB]?[rR][bB]?(?:\"\"\".*?\"\"\"|'{3}.*?'{3}|\"[^\"\n]*\"|'[^'\n]*'))"""
    r"""|(?P<long>[bB]?(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'{3}(?:[^\\]|\\.)*?'{3}))"""
    r"""|(?P<text>[bB]?(?:\"(?:[^\\\"\n]|\\.)*\"|'(?:[^\\'\n]|\\.)*'))"""
    r"""|(?P<quoted>`[^`\n]*`)|(?P<comment>//[^\n]*)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<number>[0-9][A-Za-z0-9_]*(?:\.[0-9]+)?)|(?P<space>\s+)"""
    r"""|(?P<operator>&&|\|\||[=!<>]=)|(?P<other>.)""",
    re.DOTALL,
)
"""CEL's tokens, as far as needed to tell code from literals. Every character belongs to exactly one token."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(rf"\s*{_WORD.pattern}(?:\s*\.\s*{_WORD.pattern})*\s*")
_PLAIN = ("dyn", "int", "string", "bool", "null", "map")
_LITERALS = frozenset({"in", "true", "false", "null"})

# CEL refuses the identifier `loop`. A stand-in of the same length keeps every offset true.
_LOOP, _STAND_IN = "loop", "l__p"


@dataclass(frozen=True, slots=True)
class Node:
    """One node of an expression's tree. A macro stands as the `fold` that CEL makes of it."""

    kind: Literal["const", "name", "field", "call", "list", "map", "fold"]
    at: int
    """Where CEL places it: a name's first character, a field's dot, an operator, a call's parenthesis."""
    name: str = ""
    """The identifier, the field, the function, or the fold's variable; `null` of the constant null."""
    parts: tuple[Node, ...] = ()
    """Operands in order; a fold's are range, start, condition, step and result."""
    value: Any = None
    """A constant's."""
    member: bool = False
    """Of a call: whether the first part is its receiver."""
    test: bool = False
    """Of a field: whether it stands in `has()`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What CEL says against a source: its own words, and the offset."""

    message: str
    at: int


class Refused(Exception):
    """CEL does not take a source; `faults` has at least one."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults[0].message)
        self.faults = faults


# From a source to a tree ---------------------------------------------------------------------------------


def parse(source: str) -> Node:
    """Return the tree of an expression.

    Raises:
        Refused: with CEL's syntax errors.
    """
    return _decode(_compile(_environment(()), source, unchecked=True).serialize())


def path(source: str) -> Node | None:
    """Return the tree of a bare path such as `steps.sort.output`, without asking CEL; None for all else."""
    if not _PATH.fullmatch(source):
        return None
    node: Node | None = None
    for word in _WORD.finditer(source):
        name = word.group()
        if node is None:
            if name in TYPE_NAMES or (name in RESERVED and name != _LOOP):
                return None
            node = Node("name", word.start(), name)
        elif name in _LITERALS:
            return None
        else:
            node = Node("field", source.rindex(".", 0, word.start()), name, (node,))
    return node


def chain(node: Node) -> Chain | None:
    """Return the name chain that a node is (`a.b`, `a["b"]`), or None when it is something else."""
    if node.kind == "name":
        return None if node.name.startswith("@") or node.name in TYPE_NAMES else (node.name,)
    if node.kind == "field":
        head = chain(node.parts[0])
        return (*head, node.name) if head else None
    if node.kind == "call" and node.name == "_[_]" and isinstance(node.parts[1].value, str):
        head = chain(node.parts[0])
        return (*head, node.parts[1].value) if head else None
    return None


def got(node: Node) -> Chain | None:
    """Return the chain that `get(a.b, "c", …)` asks for, `a.b.c`, or None for any other node."""
    if node.kind == "call" and node.name == "get" and len(node.parts) == 3:
        head, key = chain(node.parts[0]), node.parts[1].value
        return (*head, key) if head and isinstance(key, str) else None
    return None


def operands(node: Node) -> tuple[Node, ...]:
    """Return the parts of a node that are values: all but the namespace of a function."""
    in_namespace = node.kind == "call" and node.member and node.parts[0].name in NAMESPACES
    return node.parts[1:] if in_namespace and node.parts[0].kind == "name" else node.parts


def reads(tree: Node) -> tuple[Chain, ...]:
    """Return what an expression asks for."""
    return shortest(_asked(tree, frozenset()))


def shortest(chains: Iterable[Chain]) -> tuple[Chain, ...]:
    """Return chains in order, without those that another one contains."""
    kept: list[Chain] = []
    for one in sorted(set(chains)):  # a prefix sorts right before what it contains
        if not kept or one[: len(kept[-1])] != kept[-1]:
            kept.append(one)
    return tuple(kept)


def _asked(node: Node, bound: frozenset[str]) -> Iterator[Chain]:
    if one := chain(node):
        if one[0] not in bound:
            yield one
        return
    if wanted := got(node):
        if wanted[0] not in bound:
            yield wanted
        yield from _asked(node.parts[2], bound)
        return
    inner = bound | {node.name} if node.kind == "fold" else bound
    for index, part in enumerate(operands(node)):
        # A fold's range and start are outside its variable.
        yield from _asked(part, bound if index < 2 else inner)


# From a source to a program ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """A checked expression, ready to run. Running it changes nothing, so threads may share it."""

    result: str
    """The type that it gives, in CEL's words: `BOOL`, `LIST<STRING>`, `DYN` when it depends."""
    _expression: Any

    def run(self, data: Mapping[str, Any]) -> tuple[bool, Any]:
        """Return whether it worked, and the value or CEL's words about what went wrong."""
        try:
            value = self._expression.eval(data=data)
            return value.type() != _library().Type.ERROR, value.plain_value()
        except (RuntimeError, MemoryError) as error:  # the library's own: a spent budget, a value it refuses
            return False, str(error)


def program(source: str, names: Iterable[str]) -> Program:
    """Return the program of an expression that reads these root names, whatever their values are.

    Raises:
        Refused: with CEL's errors of syntax, functions and types.
    """
    variables = [(_STAND_IN if name == _LOOP else name, "dyn") for name in names]
    compiled = _compile(_environment(tuple(sorted(variables))), source)
    return Program(compiled.return_type().name(), compiled)


def result(source: str) -> str:
    """Return the type of an expression in which each name is one of `variable`, in CEL's words.

    One environment serves every blueprint: what CEL has to know of a name is its type alone, and an
    environment of its own for each expression would cost ten times the check.

    Raises:
        Refused: with CEL's errors of functions and types.
    """
    signatures = [*_PLAIN, *(f"list({plain})" for plain in _PLAIN)]
    variables = tuple((variable(signature), signature) for signature in signatures)
    return str(_compile(_environment(variables), source).return_type().name())


def variable(signature: str) -> str:
    """Return the name that stands for every value of a type (`dyn`, `int`, `list(string)` and so on)."""
    if signature.startswith("list(list("):
        signature = "list(dyn)"
    return "__" + signature.replace("(", "_of_").rstrip(")")


def slot(chain_: Chain) -> Chain:
    """Return where a chain's value belongs in the data of a program."""
    return (_STAND_IN if chain_[0] == _LOOP else chain_[0], *chain_[1:])


@cache
def _library() -> Any:
    from cel_expr_python import cel

    return cel


@cache
def _additions() -> dict[str, Any]:
    """Return what every environment has beside CEL's standard library."""
    from cel_expr_python.ext import ext_strings

    cel = _library()
    # `any` is the one type whose overload takes every kind of value at run time; `dyn` takes none.
    any_ = cel.Type("any")
    overload = cel.Overload(
        "get_any_string_any",
        return_type=cel.Type.DYN,
        parameters=[any_, cel.Type.STRING, any_],
        is_member=False,
        impl=_get,
    )
    return {"extensions": [ext_strings.ExtStrings()], "functions": [cel.FunctionDecl("get", [overload])]}


def _get(where: Any, key: str, default: Any) -> Any:
    if not isinstance(where, dict | None):
        raise TypeError("get() of a value that is no map")
    value = None if where is None else where.get(key)
    return default if value is None else value


@lru_cache(maxsize=512)
def _environment(names: tuple[tuple[str, str], ...]) -> Any:
    cel = _library()
    variables = {name: _type(signature) for name, signature in names}
    return cel.NewEnv(variables=variables, **_additions())


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
    if _LOOP not in source:
        return source
    return "".join(_renamed(source))


def _renamed(source: str) -> Iterator[str]:
    before = ""
    for token in TOKEN.finditer(source):
        text = token.group()
        yield _STAND_IN if text == _LOOP and before != "." else text
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
        yield Fault(re.sub(r" \[[A-Z_]+\]$", "", words).replace(_STAND_IN, _LOOP), min(at, len(source)))


# The serialised form: the few fields of cel.expr.ParsedExpr that matter -----------------------------------


def _decode(data: bytes) -> Node:
    parsed = _fields(_first(_fields(data), 2))
    places: dict[int, int] = {}
    for entry in _fields(_first(parsed, 3)).get(4, []):
        pair = _fields(entry)
        places[_first(pair, 1, 0)] = _first(pair, 2, 0)
    return _node(_first(parsed, 2), places)


def _node(data: bytes, places: Mapping[int, int]) -> Node:
    expr = _fields(data)
    at = places.get(_first(expr, 2, 0), 0)

    def nodes(fields: dict[int, list[Any]], *numbers: int) -> tuple[Node, ...]:
        return tuple(_node(item, places) for number in numbers for item in fields.get(number, []))

    def text(fields: dict[int, list[Any]], number: int) -> str:
        return str(_first(fields, number, b""), "utf-8").replace(_STAND_IN, _LOOP)

    (kind, body), *_ = [(number, _fields(_first(expr, number))) for number in expr if number != 2]
    match kind:
        case 3:
            return Node("const", at, "null" if 1 in body else "", value=_constant(body))
        case 4:
            return Node("name", at, text(body, 1).removeprefix("."))
        case 5:
            return Node("field", at, text(body, 2), nodes(body, 1), test=3 in body)
        case 6:
            return Node("call", at, text(body, 2), nodes(body, 1, 3), member=1 in body)
        case 7:
            return Node("list", at, "", nodes(body, 1))
        case 8:
            entries = [_fields(entry) for entry in body.get(2, [])]
            return Node("map", at, text(body, 1), tuple(n for entry in entries for n in nodes(entry, 3, 4)))
        case _:
            return Node("fold", at, text(body, 1), nodes(body, 2, 4, 5, 6, 7))


def _constant(body: Mapping[int, list[Any]]) -> Any:
    """Return a constant's value; None for null and for bytes, which no rule of ours looks at."""
    for number, (value, *_) in body.items():
        match number:
            case 2:
                return bool(value)
            case 3:
                return value - 2**64 if value >= 2**63 else value
            case 4:
                return value
            case 5:
                return struct.unpack("<d", value)[0]
            case 6:
                return str(value, "utf-8")
            case _:
                return None
    return None


def _first(fields: Mapping[int, list[Any]], number: int, default: Any = b"") -> Any:
    return fields.get(number, [default])[0]


def _fields(data: bytes) -> dict[int, list[Any]]:
    """Return the fields of a protobuf message: numbers for varints, bytes for everything else."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: Any
        if key & 7 == 0:
            value, at = _varint(data, at)
        elif key & 7 == 1:
            value, at = data[at : at + 8], at + 8
        else:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
