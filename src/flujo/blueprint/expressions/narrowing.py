"""What a condition says about the values that it reads, and schemas that are narrowed by it.

After `r.output != null` a value is there and not null; after `!r.ok` a flag is false. A schema with `if`,
`then` and `else` over such a flag, as that of collected results, gets the properties of the way taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions import cel, cel_ast
from flujo.blueprint.expressions.error_messages import unusable
from flujo.blueprint.expressions.templates import unwrap
from flujo.blueprint.schemas.shapes import Shape, shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.expressions.cel_ast import Node
    from flujo.domain.ports import Chain

_ORDERS = frozenset({"_<_", "_<=_", "_>_", "_>=_"})


@dataclass(frozen=True, slots=True)
class Fact:
    """A name whose value is there and not null."""

    chain: Chain
    flag: bool | None = None
    """Whether it is true or false, if it is a flag."""


def facts_of(source: str, *, holds: bool = True) -> tuple[Fact, ...]:
    """Return what is known where a condition is true, or false; nothing of one that cannot be parsed."""
    piece, problem = unwrap(source)
    if problem is not None or unusable(piece.source):
        return ()
    try:
        return tuple(facts(cel_ast.path(piece.source) or cel.parse(piece.source), holds=holds))
    except cel.Refused:
        return ()


def facts(node: Node, *, holds: bool = True) -> Iterator[Fact]:
    """Yield what is known where the condition `node` is true, or false."""
    if node.kind == "field" and node.test:
        if holds and (asked := cel_ast.chain(node)):
            yield Fact(asked)
    elif (flag := cel_ast.chain(node)) is not None:
        yield Fact(flag, holds)
    elif node.kind == "call":
        yield from _of_call(node, holds=holds)


def _of_call(node: Node, *, holds: bool) -> Iterator[Fact]:
    match node.name, node.parts:
        case "!_", (inner,):
            yield from facts(inner, holds=not holds)
        case ("_&&_", parts) if holds:
            yield from (fact for part in parts for fact in facts(part))
        case ("_||_", parts) if not holds:
            yield from (fact for part in parts for fact in facts(part, holds=False))
        case ("_==_" | "_!=_", (left, right)):
            is_equal = holds is (node.name == "_==_")
            for side, other in ((left, right), (right, left)):
                if (asked := cel_ast.chain(side)) and other.kind == "const":
                    yield from _compared(asked, other, is_equal=is_equal)
        case (name, (left, right)) if name in _ORDERS:
            yield from (Fact(asked) for side in (left, right) if (asked := cel_ast.chain(side)))
        case ("@in", (left, right)) if holds and isinstance(left.value, str):
            if asked := cel_ast.chain(right):
                yield Fact((*asked, left.value))
        case _:
            return


def _compared(asked: Chain, constant: Node, *, is_equal: bool) -> Iterator[Fact]:
    if constant.name == "null":
        if not is_equal:
            yield Fact(asked)
    elif isinstance(constant.value, bool):
        yield Fact(asked, constant.value if is_equal else None)
    elif is_equal:
        yield Fact(asked)


def narrowed(of: Shape, chain: Chain, flag: bool | None = None) -> Shape:
    """Return the shape of a value of which a part is there and not null.

    Args:
        of: the shape of the value.
        chain: the names that lead to the part; none for the value itself.
        flag: whether the part is true or false, if it is a flag.
    """
    here = _not_null(of.without_null())
    if not chain or here.kind != "object":
        return here
    name, *rest = chain
    schema = here.schema
    properties = schema.get("properties") or {}
    if name not in properties:
        return here
    inner = narrowed(shape(properties[name], here.documents), tuple(rest), flag)
    properties = {**properties, name: inner.standalone()}
    if not rest and flag is not None and schema.get("if") == _is_true(name):
        way = schema.get("then" if flag else "else")
        properties |= way.get("properties", {}) if isinstance(way, dict) else {}
    required = [*(each for each in schema.get("required", ()) if each != name), name]
    return shape({**schema, "properties": properties, "required": required}, here.documents)


def _not_null(of: Shape) -> Shape:
    """Return a shape that is not null, whose schema does not list null either."""
    if not isinstance(of.schema, dict):
        return of
    said, listed = of.schema.get("type"), of.schema.get("enum", ())
    schema = dict(of.schema)
    if isinstance(said, list) and "null" in said:
        schema["type"] = [each for each in said if each != "null"]
    if None in listed:
        schema["enum"] = [each for each in listed if each is not None]
    return replace(of, schema=schema)


def _is_true(name: str) -> Any:
    return {"properties": {name: {"const": True}}}


def by_flag(schema: dict[str, Any], flag: str, then: dict[str, Any], otherwise: dict[str, Any]) -> Any:
    """Return the schema of an object whose other properties depend on whether `flag` is true."""
    return {
        **schema,
        "if": _is_true(flag),
        "then": {"properties": then},
        "else": {"properties": otherwise},
    }
