"""The tree of an expression, and the names that it reads.

`cel_expr_python` exposes the tree only as a serialised protobuf message. This module decodes the dozen
fields that matter, which takes fewer lines than a second CEL grammar and cannot disagree with CEL.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flujo.blueprint.expressions.cel_lexicon import LOOP, LOOP_STAND_IN, NAMESPACES, TYPE_NAMES
from flujo.domain.checks import RESERVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flujo.domain.ports import Chain

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(rf"\s*{_WORD.pattern}(?:\s*\.\s*{_WORD.pattern})*\s*")
_LITERALS = frozenset({"in", "true", "false", "null"})


@dataclass(frozen=True, slots=True)
class Node:
    """One node of an expression's tree. A macro is the `fold` that CEL expands it to."""

    kind: Literal["const", "name", "field", "call", "list", "map", "fold"]
    at: int
    """CEL's offset: a name's first character, a field's dot, an operator, a call's parenthesis."""
    name: str = ""
    """The identifier, the field, the function, or the fold's variable; `null` of the constant null."""
    parts: tuple[Node, ...] = ()
    """Operands in order; a fold's are range, start, condition, step and result."""
    value: Any = None
    """The value of a constant."""
    member: bool = False
    """For a call: whether the first part is its receiver."""
    test: bool = False
    """For a field: whether it is inside `has()`."""


def path(source: str) -> Node | None:
    """Return the tree of a bare path such as `steps.sort.output`, without CEL; None for any other source."""
    if not _PATH.fullmatch(source):
        return None
    node: Node | None = None
    for word in _WORD.finditer(source):
        name = word.group()
        if node is None:
            if name in TYPE_NAMES or (name in RESERVED and name != LOOP):
                return None
            node = Node("name", word.start(), name)
        elif name in _LITERALS:
            return None
        else:
            node = Node("field", source.rindex(".", 0, word.start()), name, (node,))
    return node


def chain(node: Node) -> Chain | None:
    """Return the name chain of a node (`a.b`, `a["b"]`), or None if it is not one."""
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
    """Return the chain that `get(a.b, "c", …)` reads, `a.b.c`, or None for any other node."""
    if node.kind == "call" and node.name == "get" and len(node.parts) == 3:
        head, key = chain(node.parts[0]), node.parts[1].value
        return (*head, key) if head and isinstance(key, str) else None
    return None


def collected(fold: Node) -> Node | None:
    """Return the element that `map` or `filter` adds for each item; None for other macros."""
    if fold.parts[1].kind != "list" or fold.parts[1].parts:
        return None
    step = fold.parts[3]
    while step.kind == "call" and step.name == "_?_:_":
        step = step.parts[1]
    added = step.parts[1] if step.kind == "call" and step.name == "_+_" else None
    return added.parts[0] if added is not None and added.kind == "list" and added.parts else None


def filtered(fold: Node) -> Node | None:
    """Return the condition of `filter`, or of `map` with a condition; None for other macros."""
    step = fold.parts[3]
    return step.parts[0] if step.kind == "call" and step.name == "_?_:_" else None


def operands(node: Node) -> tuple[Node, ...]:
    """Return the parts of a node that are values: all except the namespace of a function."""
    in_namespace = node.kind == "call" and node.member and node.parts[0].name in NAMESPACES
    return node.parts[1:] if in_namespace and node.parts[0].kind == "name" else node.parts


def functions(tree: Node) -> Iterator[str]:
    """Yield the functions and operators that an expression calls, each as often as it stands there."""
    if tree.kind == "call":
        yield tree.name
    for part in tree.parts:
        yield from functions(part)


def reads(tree: Node) -> tuple[Chain, ...]:
    """Return the chains that an expression reads."""
    return shortest(_chains_of(tree, frozenset()))


def shortest(chains: Iterable[Chain]) -> tuple[Chain, ...]:
    """Return chains in order, without those that extend another one."""
    kept: list[Chain] = []
    for one in sorted(set(chains)):  # a prefix sorts right before the chains that extend it
        if not kept or one[: len(kept[-1])] != kept[-1]:
            kept.append(one)
    return tuple(kept)


def _chains_of(node: Node, bound: frozenset[str]) -> Iterator[Chain]:
    if one := chain(node):
        if one[0] not in bound:
            yield one
        return
    if wanted := got(node):
        if wanted[0] not in bound:
            yield wanted
        yield from _chains_of(node.parts[2], bound)
        return
    inner = bound | {node.name} if node.kind == "fold" else bound
    for index, part in enumerate(operands(node)):
        # A fold's range and start are outside its variable.
        yield from _chains_of(part, bound if index < 2 else inner)


# The serialised form: the fields of cel.expr.ParsedExpr that are used ------------------------------------


def decode(data: bytes) -> Node:
    """Return the tree in a serialised `cel.expr.ParsedExpr`."""
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
        return str(_first(fields, number, b""), "utf-8").replace(LOOP_STAND_IN, LOOP)

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
    """Return a constant's value; None for null and for bytes, which no rule uses."""
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
