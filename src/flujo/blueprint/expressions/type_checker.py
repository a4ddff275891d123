"""Checks an expression before a run: its names, its types, and the schema of its value.

A walk follows every name chain through the schemas of its scope. It knows which fields are required or may
be null, and suggests names for misspelt ones. If all names are known, CEL's type check then runs on the
source with each name replaced by a variable of its type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from flujo.blueprint.diagnostics import suggest
from flujo.blueprint.expressions import arithmetic, cel, cel_ast
from flujo.blueprint.expressions.cel_lexicon import FUNCTIONS, NAMESPACES, TOKEN
from flujo.blueprint.expressions.error_messages import Problem, refused, unusable
from flujo.blueprint.expressions.name_suggestions import unknown_function, unknown_name
from flujo.blueprint.expressions.templates import scan, unwrap
from flujo.blueprint.schemas.algebra import NUMBER, closed
from flujo.blueprint.schemas.shapes import (
    NoField,
    Shape,
    Trail,
    element,
    follow,
    of_constant,
    of_result,
    shape,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.blueprint.expressions.cel_ast import Node
    from flujo.domain.ports import Chain

_NO_NAMES: Mapping[str, Shape] = {}


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check: the schema of the value (None: unknown), findings, and the names read."""

    schema: Any
    problems: tuple[Problem, ...] = ()
    reads: tuple[Chain, ...] = ()


def check_expression(source: str, scope: Any, *, expect: str | None = None) -> Checked:
    """Check an expression against the names of its scope.

    Args:
        source: the expression, bare or as `"{{ … }}"`.
        scope: one JSON Schema of an object whose properties are the names in scope; None, True and `{}` are
            values of unknown type.
        expect: the type that the key needs: `bool`, `list`, `string`, or None for any.
    """
    piece, problem = unwrap(source)
    if problem is not None:
        return Checked(None, (problem,))
    found = _check(piece.source, shape(scope), expect=expect, null_is_fine=expect is None)
    return Checked(found.schema, tuple(one.moved(piece.start) for one in found.problems), found.reads)


def check_text(source: str, scope: Any) -> Checked:
    """Check every `{{ … }}` of a text; the schema is that of the value if the text is only one of them."""
    found = scan(source)
    names, single = shape(scope), found.single
    problems = list(found.problems)
    reads: list[Chain] = []
    schema: Any = {"type": "string"}
    for piece in found.pieces:
        if piece.code and piece.source.strip():
            checked = _check(piece.source, names, null_is_fine=piece is single)
            problems += [one.moved(piece.start) for one in checked.problems]
            reads += checked.reads
            schema = checked.schema if piece is single else schema
    return Checked(schema, tuple(sorted(problems, key=lambda one: one.start)), cel_ast.shortest(reads))


def _check(source: str, scope: Shape, *, expect: str | None = None, null_is_fine: bool = True) -> Checked:
    if problem := unusable(source):
        return Checked(None, (problem,))
    try:
        tree = cel_ast.path(source) or cel.parse(source)
    except cel.Refused as error:
        return Checked(None, (refused(source, error.faults[0]),))
    walk = _Walk(source, scope, tuple(_guards(tree)))
    end = walk.visit(tree, _NO_NAMES, null_is_fine=null_is_fine)
    problems = list(dict.fromkeys(walk.problems))
    if any(one.severity == "error" for one in problems):
        return Checked(None, tuple(sorted(problems, key=lambda one: one.start)), cel_ast.reads(tree))
    result, schema = "DYN", end.standalone()
    if cel_ast.chain(tree) is None:
        typed = walk.typed()
        try:
            result = cel.result(typed.source)
            schema = schema or of_result(result)
        except cel.Refused as error:
            faults = [replace(fault, at=typed.offset(fault.at)) for fault in error.faults]
            problems += [refused(source, fault) for fault in faults]
    problems += _unexpected(source, shape(schema), result, expect)
    return Checked(schema, tuple(sorted(problems, key=lambda one: one.start)), cel_ast.reads(tree))


_EXPECTED = {
    "bool": ("boolean", "a boolean", "compare it, for instance with `== true` or `size(…) > 0`"),
    "list": ("array", "a list", "use a list, or create one with `map` or `split`"),
    "string": ("string", "text", "convert it to text with `string(…)`"),
}
_NOT_JSON = {"BYTES": "bytes", "TIMESTAMP": "a timestamp", "DURATION": "a duration"}


def _unexpected(source: str, end: Shape, result: str, expect: str | None) -> Iterator[Problem]:
    """Yield the finding for a value that does not fit its key or is not JSON."""
    whole = (len(source) - len(source.lstrip()), len(source.rstrip()))
    if result in _NOT_JSON or result.startswith("TYPE"):
        kind = _NOT_JSON.get(result, "a type")
        yield Problem(
            f"its value is {kind}, which is not JSON",
            "convert it to text: `string(…)`",
            *whole,
            "error",
            "not-json",
        )
    elif expect is not None and end.kind is not None:
        kind, words, hint = _EXPECTED[expect]
        if end.kind != kind:
            yield Problem(
                f"this is {end.words}; the key needs {words}", hint, *whole, "error", f"not-{expect}"
            )


# The walk ------------------------------------------------------------------------------------------------

# How many parts of a name belong to the scope and exist whatever its schema requires.
_ALWAYS_THERE = {"steps": 2, "loop": 2, "run": 2}
_SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})
_ARITHMETIC = frozenset({*arithmetic.FUNCTIONS, "-_"})
_MIXING = frozenset({"_+_", "_-_", "_*_", "_/_", "-_", "_<_", "_<=_", "_>_", "_>=_"})
_INFIX = {f"_{each}_": f"{{}} {each} {{}}" for each in (*"+-*/%<>", "<=", ">=", "==", "!=", "&&", "||")} | {
    "-_": "-{}",
    "!_": "!{}",
    "@in": "{} in {}",
    "_[_]": "{}[{}]",
    "_?_:_": "{} ? {} : {}",
}
_NULL_IS_FINE = frozenset({"_==_", "_!=_", "@in", "dyn", "type"})


@dataclass(frozen=True, slots=True)
class _Typed:
    """A source with names replaced by variables; `anchors` map its offsets to the original's."""

    source: str
    anchors: tuple[tuple[int, int], ...]

    def offset(self, at: int) -> int:
        """Return the offset in the original for an offset in this source."""
        new, old = max(anchor for anchor in self.anchors if anchor[0] <= at)
        return old + at - new


class _Walk:
    """One walk over a tree: follows names, collects findings and the types for CEL."""

    def __init__(self, source: str, scope: Shape, guards: tuple[tuple[Chain, bool], ...]) -> None:
        self.source = source
        self.scope = scope
        self.guards = guards
        self.problems: list[Problem] = []
        self.names: dict[int, tuple[int, str]] = {}
        """Start of each name → its end and its CEL type."""

    def typed(self) -> _Typed:
        """Return the source with a variable of its type for each name."""
        parts, anchors, at, length = [], [(0, 0)], 0, 0
        for start, (end, signature) in sorted(self.names.items()):
            parts += [self.source[at:start], cel.variable(signature)]
            length += start - at
            anchors += [(length, start), (length + len(parts[-1]), end)]
            length, at = anchors[-1][0], end
        return _Typed("".join([*parts, self.source[at:]]), tuple(anchors))

    def visit(self, node: Node, bound: Mapping[str, Shape], *, null_is_fine: bool = False) -> Shape:
        """Return the shape of a node's value."""
        if one := cel_ast.chain(node):
            return self._chain(node, one, bound, null_is_fine=null_is_fine)
        match node.kind:
            case "const" if node.name == "null":
                return shape({"type": "null"})
            case "const":
                return of_constant(node.value) if node.value is not None else Shape()
            case "field":
                return self._step(node, self.visit(node.parts[0], bound))
            case "call":
                return self._call(node, bound, null_is_fine=null_is_fine)
            case "fold":
                return self._fold(node, bound)
            case "list" | "map" if not node.name:
                return self._literal(node, bound)
            case "map":
                self._report(
                    node.at, f"`{node.name}{{…}}` is a message type; expressions only have JSON", None
                )
            case _:
                pass
        for part in node.parts:
            self.visit(part, bound, null_is_fine=True)
        return Shape()

    # Names

    def _chain(self, node: Node, one: Chain, bound: Mapping[str, Shape], *, null_is_fine: bool) -> Shape:
        """Follow a chain from the scope, or from a macro's variable."""
        is_bound = one[0] in bound
        start, rest = (bound[one[0]], one[1:]) if is_bound else (self.scope, one)
        certain = 0 if is_bound else _ALWAYS_THERE.get(one[0], 1)
        found = _without_dunder(follow(start, rest, certain=certain), rest)
        spans = list(_spans(node, self.source))
        before = len(one) - len(rest)
        if isinstance(found, NoField):
            self._unknown(one, before + found.at, found, spans)
            return Shape()
        if not is_bound:
            self._declare(node, found.end)
            self._incomplete(one, spans)
        asked = node.test
        if found.missing is not None and not asked:
            self._maybe("missing", one, before + found.missing, spans)
        if found.null is not None and not asked:
            self._maybe("null", one, before + found.null, spans)
        if found.end.nullable and not null_is_fine and not asked:
            self._maybe("null", one, len(one) - 1, spans)
        return Shape({"type": "boolean"}, "boolean") if asked else found.end

    def _step(self, node: Node, of: Shape) -> Shape:
        """Follow one field of a value that is not a name: `items[0].title`, `f(x).title`."""
        found = follow(of, (node.name,))
        said = self.source[_start(node) : node.at].strip()
        spans = [(_start(node), node.at), _field_span(node, self.source)]
        if isinstance(found, NoField):
            self._unknown((said, node.name), 1, found, spans)
            return Shape()
        if found.missing is not None and not node.test:
            self._maybe("missing", (said, node.name), 1, spans)
        return Shape({"type": "boolean"}, "boolean") if node.test else found.end

    def _declare(self, node: Node, end: Shape) -> None:
        """Record a name for CEL: a leaf by its type; names in `has()` or with an index as any value."""
        plain = node
        while plain.kind == "call" or (plain.kind == "field" and (plain.test or _is_indexed(plain))):
            plain = plain.parts[0]
        spans = list(_spans(plain, self.source))
        self.names[spans[0][0]] = (spans[-1][1], end.cel() if plain is node else "dyn")

    def _incomplete(self, one: Chain, spans: list[tuple[int, int]]) -> None:
        if one[0] == "steps" and len(one) < 3:
            said = ".".join(one)
            hint = f"write `{said}.output`" if len(one) == 2 else "write `steps.NAME.output`"
            message = f"`{said}` is not a value: name the step's output"
            self.problems.append(Problem(message, hint, spans[0][0], spans[-1][1], "error", "unknown-name"))

    def _unknown(self, one: Chain, at: int, found: NoField, spans: list[tuple[int, int]]) -> None:
        start, end = spans[min(at, len(spans) - 1)]
        message, hint, slug = unknown_name(one, at, found)
        self.problems.append(Problem(message, hint, start, end, "error", slug))

    def _maybe(
        self, what: Literal["missing", "null"], one: Chain, at: int, spans: list[tuple[int, int]]
    ) -> None:
        """Report a name that may be missing or null, unless the expression checks it."""
        name = one[: at + 1]
        for asked, only_null in self.guards:
            if asked[: len(name)] == name and (what == "null" or not only_null):
                return
        start, end = spans[0][0], spans[min(at, len(spans) - 1)][1]
        said, parent = ".".join(name), ".".join(name[:-1])
        ask = f"has({said}) ? {said} : …" if what == "missing" else f"{said} != null ? {said} : …"
        hint = f'write `get({parent}, "{name[-1]}", …)`, or `{ask}`' if parent else f"write `{ask}`"
        slug = f"may-be-{what}"
        self.problems.append(Problem(f"`{said}` may be {what}", hint, start, end, "warning", slug))

    # Calls and macros

    def _call(self, node: Node, bound: Mapping[str, Shape], *, null_is_fine: bool) -> Shape:
        if node.name.isidentifier() and node.name not in FUNCTIONS:
            self._unknown_function(node, bound)
        if wanted := cel_ast.got(node):
            return self._get(node, wanted, bound)
        shapes = []
        for index, part in enumerate(cel_ast.operands(node)):
            fine = node.name in _NULL_IS_FINE or (node.name == "_?_:_" and index > 0 and null_is_fine)
            shapes.append(self.visit(part, bound, null_is_fine=fine or (node.name == "get" and index != 1)))
        if node.name in {"_==_", "_!=_", "@in"}:
            self._compared(node, shapes)
        elif node.name in {"_/_", "_%_"}:
            self._divided(node)
        result = self._result(node, shapes)
        if node.name == "_?_:_":
            return _common(shapes[1:])
        return element(shapes[0]) if node.name == "_[_]" and shapes[0].kind == "array" else result

    def _result(self, node: Node, shapes: list[Shape]) -> Shape:
        """Return the shape of a call's value; report an operator or function that does not take every number.

        For CEL's check of the whole expression a number is a value of any type, because an operator takes an
        int and a float together; see `arithmetic`. Here it is a float.
        """
        kinds = ["double" if one.kind == "number" and not one.nullable else one.cel() for one in shapes]
        match node.name:
            case "get":
                return Shape()
            case "_==_" | "_!=_":
                kinds = ["dyn", "dyn"]
            case "@in":
                kinds[0] = "dyn"
            case "_?_:_":
                kinds[1:] = ["dyn", "dyn"]
            case name if name in _MIXING and "double" in kinds and set(kinds) <= {"dyn", "int", "double"}:
                return shape(NUMBER if name in _ARITHMETIC else {"type": "boolean"})
        try:
            return shape(of_result(cel.result(_written(node, [cel.variable(kind) for kind in kinds]))))
        except cel.Refused as error:
            if "double" in kinds:
                self.problems.append(refused(self.source, replace(error.faults[0], at=node.at)))
            return Shape()

    def _literal(self, node: Node, bound: Mapping[str, Shape]) -> Shape:
        """Return the shape of a list or a map that is written out."""
        shapes = [self.visit(part, bound, null_is_fine=True) for part in node.parts]
        if node.kind == "list":
            items = _common(shapes).standalone()
            return shape({"type": "array"} | ({"items": items} if items else {}))
        keys = [part.value for part in node.parts[::2]]
        if not keys or not all(isinstance(key, str) for key in keys):
            return Shape()
        fields = zip(keys, shapes[1::2], strict=True)
        return shape(closed({key: one.standalone() for key, one in fields}))

    def _compared(self, node: Node, shapes: list[Shape]) -> None:
        """Report a comparison with a constant that the name never equals."""
        left, right = node.parts
        constants = right.parts if right.kind == "list" else (right,)
        pairs = [(left, shapes[0], constant) for constant in constants]
        if node.name != "@in":
            pairs.append((right, shapes[1], left))
        for name, one, constant in pairs:
            listed = values(one)
            same = [value for value in listed if type(value) is type(constant.value)]
            if same and constant.value not in listed:
                said = [value if isinstance(value, str) else str(value) for value in listed]
                start, end = _token_span(self.source, constant.at)
                message = f"`{'.'.join(cel_ast.chain(name) or ('it',))}` is never {constant.value!r}"
                hint = suggest(str(constant.value), said, what="possible values")
                self.problems.append(Problem(message, hint, start, end, "warning", "impossible-value"))

    def _divided(self, node: Node) -> None:
        """Report an integer division by the constant zero; 1.0 / 0.0 is infinite and does not fail."""
        divisor = node.parts[1]
        if divisor.kind == "const" and type(divisor.value) is int and divisor.value == 0:
            start, end = _token_span(self.source, divisor.at)
            message, hint = (
                "this divides by zero",
                "divide by a value that is never zero, or check it first: `n != 0 ? …`",
            )
            self.problems.append(Problem(message, hint, start, end, "error", "division-by-zero"))

    def _get(self, node: Node, wanted: Chain, bound: Mapping[str, Shape]) -> Shape:
        """Check `get(a.b, "c", …)`: `a.b.c` may be missing or null, but an unknown name is a finding."""
        where, key, default = node.parts
        is_bound = wanted[0] in bound
        start, rest = (bound[wanted[0]], wanted[1:]) if is_bound else (self.scope, wanted)
        found = follow(start, rest)
        otherwise = self.visit(default, bound, null_is_fine=True)
        if isinstance(found, NoField):
            spans = [*_spans(where, self.source), _token_span(self.source, key.at)]
            self._unknown(wanted, len(wanted) - len(rest) + found.at, found, spans)
            return Shape()
        if not is_bound:
            self._declare(where, Shape())
        kinds = {found.end.kind, otherwise.kind}
        if None in kinds or otherwise.nullable or not (len(kinds) == 1 or kinds == {"integer", "number"}):
            return Shape()
        return shape(NUMBER if len(kinds) == 2 else {"type": otherwise.kind})

    def _fold(self, node: Node, bound: Mapping[str, Shape]) -> Shape:
        over = self.visit(node.parts[0], bound)
        if over.kind == "number":
            fault = cel.Fault("expression of type 'double' cannot be the range of a comprehension", node.at)
            self.problems.append(refused(self.source, fault))
        inner = {**bound, node.name: element(over)}
        for part in node.parts[2:]:
            self.visit(part, inner, null_is_fine=True)
        made = cel_ast.collected(node)
        if made is None:
            return Shape({"type": "boolean"}, "boolean")
        items = self.visit(made, inner, null_is_fine=True).standalone()
        return shape({"type": "array"} | ({"items": items} if items else {}))

    def _unknown_function(self, node: Node, bound: Mapping[str, Shape]) -> None:
        start = max(self.source.rfind(node.name, 0, node.at + 1), 0)
        message, hint, slug = unknown_function(node, is_value=self._is_value(node, bound))
        self.problems.append(Problem(message, hint, start, start + len(node.name), "error", slug))

    def _is_value(self, call: Node, bound: Mapping[str, Shape]) -> bool:
        """Return whether the callee is a name: `input()`, `input.text()`."""
        if not call.member:
            return call.name in bound or call.name in ((self.scope.schema or {}).get("properties") or {})
        receiver = cel_ast.chain(call.parts[0])
        if receiver is None or receiver[0] in bound:
            return False
        found = follow(self.scope, (*receiver, call.name))
        return isinstance(found, Trail) and found.end.kind is not None

    def _report(self, at: int, message: str, hint: str | None) -> None:
        self.problems.append(
            Problem(message, hint, *_token_span(self.source, at), "error", "expression-syntax")
        )


def _without_dunder(found: Trail | NoField, rest: Chain) -> Trail | NoField:
    """Return `found`, unless its type is unknown and the field looks like a Python attribute."""
    attribute = next((index for index, name in enumerate(rest) if name.startswith("__")), None)
    if attribute is None or isinstance(found, NoField) or found.end.kind is not None:
        return found
    return NoField(attribute, Shape())


def _common(shapes: list[Shape]) -> Shape:
    """Return the shape of a value that is one of several; an integer or a number is a number."""
    if not shapes or all(one == shapes[0] for one in shapes):
        return shapes[0] if shapes else Shape()
    kinds = {None if one.nullable else one.kind for one in shapes}
    if kinds == {"integer", "number"}:
        return shape(NUMBER)
    return shape({"type": kinds.pop()}) if len(kinds) == 1 and kinds <= _SCALARS else Shape()


def _written(call: Node, parts: list[str]) -> str:
    """Return the source of a call on these operands."""
    if call.name in _INFIX:
        return _INFIX[call.name].format(*parts)
    if not call.member:
        return f"{call.name}({', '.join(parts)})"
    in_namespace = call.parts[0].name in NAMESPACES
    receiver, given = (call.parts[0].name, parts) if in_namespace else (parts[0], parts[1:])
    return f"{receiver}.{call.name}({', '.join(given)})"


def _guards(node: Node) -> Iterator[tuple[Chain, bool]]:
    """Yield the chains that an expression checks, and whether it only checks for null."""
    one = cel_ast.chain(node)
    if one and node.test:
        yield one, False
    if node.kind == "call" and len(node.parts) == 2:
        left, right = node.parts
        if node.name in {"_==_", "_!=_"}:
            for side, other in ((left, right), (right, left)):
                if (asked := cel_ast.chain(side)) and other.kind == "const" and other.name == "null":
                    yield asked, True
        elif node.name == "@in" and isinstance(left.value, str) and (asked := cel_ast.chain(right)):
            yield (*asked, left.value), False
    for part in node.parts:
        yield from _guards(part)


# The offsets of a chain's parts --------------------------------------------------------------------------

_AFTER_DOT = re.compile(r"\.?\s*(`[^`\n]*`|[A-Za-z_][A-Za-z0-9_]*)")


def _start(node: Node) -> int:
    """Return the start offset of a node's source."""
    while node.parts and node.kind in {"field", "call", "fold"}:
        if node.kind == "call" and node.name.isidentifier() and not node.member:
            return node.at - len(node.name)
        node = node.parts[0]
    return node.at


def _spans(node: Node, source: str) -> Iterator[tuple[int, int]]:
    """Yield the offsets of each part of a chain in the source, in order."""
    if node.kind == "name":
        yield _field_span(node, source)
        return
    yield from _spans(node.parts[0], source)
    yield _field_span(node, source) if node.kind == "field" else _token_span(source, node.parts[1].at)


def _field_span(node: Node, source: str) -> tuple[int, int]:
    match = _AFTER_DOT.match(source, node.at)
    # In `has(a.b)` CEL places the field at the parenthesis of the macro.
    if match is None or match.group(1).strip("`") != node.name:
        start = source.find(node.name, node.at)
        return (start, start + len(node.name)) if start >= 0 else (node.at, node.at + 1)
    return match.span(1)


def _token_span(source: str, at: int) -> tuple[int, int]:
    token = TOKEN.match(source, at)
    return (at, token.end() if token else at)


def _is_indexed(node: Node) -> bool:
    """Return whether the chain is not a dotted name for CEL: it has an index, or a field in backticks."""
    while node.kind == "field":
        if not node.name.isidentifier():
            return True
        node = node.parts[0]
    return node.kind == "call"
