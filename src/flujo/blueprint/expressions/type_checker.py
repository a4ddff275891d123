"""Checks an expression before a run: its names, its types, and the schema of its value.

A walk follows every name chain through the schemas of its scope. It knows which fields are required or may
be null, and suggests names for misspelt ones. If all names are known, CEL's type check then runs on the
source with each name replaced by a variable of its type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from flujo.blueprint.diagnostics import suggest
from flujo.blueprint.expressions import arithmetic, cel, cel_ast
from flujo.blueprint.expressions.cel_lexicon import FUNCTIONS, NAMESPACES, TOKEN
from flujo.blueprint.expressions.error_messages import Problem, refused, unusable
from flujo.blueprint.expressions.foreign_templates import foreign
from flujo.blueprint.expressions.name_suggestions import unknown_function, unknown_name
from flujo.blueprint.expressions.narrowing import facts, narrowed
from flujo.blueprint.expressions.templates import scan, unwrap
from flujo.blueprint.schemas.algebra import BOOLEAN, NUMBER, closed
from flujo.blueprint.schemas.shapes import (
    NoField,
    Shape,
    Trail,
    either,
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
    from flujo.blueprint.expressions.templates import Piece
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
        expect: the type that the key needs: `bool`, `int`, `list`, `number`, `string`, or None for any.
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
    values_of: dict[Piece, Shape] = {}
    for piece in found.pieces:
        if piece.code and piece.source.strip():
            checked = _check(piece.source, names, null_is_fine=piece is single)
            problems += [one.moved(piece.start) for one in checked.problems]
            reads += checked.reads
            schema = checked.schema if piece is single else schema
            values_of[piece] = shape(checked.schema)
    problems += foreign(found.pieces, names, values_of)
    return Checked(schema, tuple(sorted(problems, key=lambda one: one.start)), cel_ast.shortest(reads))


def _check(source: str, scope: Shape, *, expect: str | None = None, null_is_fine: bool = True) -> Checked:
    if problem := unusable(source):
        return Checked(None, (problem,))
    try:
        tree = cel_ast.path(source) or cel.parse(source)
    except cel.Refused as error:
        return Checked(None, (refused(source, error.faults[0]),))
    walk = _Walk(source, scope, tuple(_guards(tree)), frozenset(_asked_types(tree)))
    end = walk.visit(tree, _NO_NAMES, null_is_fine=null_is_fine)
    problems = list(dict.fromkeys(walk.problems))
    if any(one.severity == "error" for one in problems):
        return Checked(None, tuple(sorted(problems, key=lambda one: one.start)), cel_ast.reads(tree))
    result = "DYN"
    if cel_ast.chain(tree) is None:
        typed = walk.typed()
        try:
            result = cel.result(typed.source)
            end = end if end.schema else shape(of_result(result))
        except cel.Refused as error:
            faults = [replace(fault, at=typed.offset(fault.at)) for fault in error.faults]
            problems += [refused(source, fault) for fault in faults]
    problems += _unexpected(source, end, result, expect, null_is_fine=null_is_fine)
    return Checked(end.standalone(), tuple(sorted(problems, key=lambda one: one.start)), cel_ast.reads(tree))


_EXPECTED = {
    "bool": (("boolean",), "a boolean", "compare it, for instance with `== true` or `size(…) > 0`"),
    "int": (("integer",), "a whole number", "convert it with `int(…)`"),
    "list": (("array",), "a list", "use a list, or create one with `map` or `split`"),
    "number": (("integer", "number"), "a number", "convert it with `double(…)`"),
    "string": (("string",), "text", "convert it to text with `string(…)`"),
}
_NOT_JSON = {
    "BYTES": "bytes",
    "TIMESTAMP": "a timestamp",
    "DURATION": "a duration",
    "TYPE": "a type",
    "MAP<INT": "a map with keys that are not text",
    "MAP<UINT": "a map with keys that are not text",
    "MAP<BOOL": "a map with keys that are not text",
}


def _unexpected(
    source: str, end: Shape, result: str, expect: str | None, *, null_is_fine: bool
) -> Iterator[Problem]:
    """Yield the finding for a value that does not fit its key or is not JSON."""
    whole = (len(source) - len(source.lstrip()), len(source.rstrip()))
    may_be = end.alternatives()
    if kind := next((words for name, words in _NOT_JSON.items() if name in result), None):
        hint = "convert it to text: `string(…)`"
        yield Problem(f"its value is {kind}, which is not JSON", hint, *whole, "error", "not-json")
    elif expect is not None:
        kinds, words, hint = _EXPECTED[expect]
        others = [one for one in may_be if one.kind not in kinds]
        if others and len(others) == len(may_be):
            message = f"this is {others[0].words}; the key needs {words}"
            yield Problem(message, hint, *whole, "error", f"not-{expect}")
        elif others:
            message = f"this may be {others[0].words}; the key needs {words}"
            yield Problem(message, hint, *whole, "warning", f"not-{expect}")
    elif not null_is_fine and any(one.kind == "null" for one in may_be):
        hint = 'add a default, for instance `a == null ? "" : a`'
        yield Problem(
            "this may be null, which cannot be inserted into a text", hint, *whole, "warning", "may-be-null"
        )


# The walk ------------------------------------------------------------------------------------------------

# How many parts of a name belong to the scope and exist whatever its schema requires.
_ALWAYS_THERE = {"steps": 2, "loop": 2, "run": 2}
_ARITHMETIC = frozenset({*arithmetic.FUNCTIONS, "-_"})
_MIXING = frozenset({"_+_", "_-_", "_*_", "_/_", "-_", "_<_", "_<=_", "_>_", "_>=_"})
_INFIX = {f"_{each}_": f"{{}} {each} {{}}" for each in (*"+-*/%<>", "<=", ">=", "==", "!=", "&&", "||")} | {
    "-_": "-{}",
    "!_": "!{}",
    "@in": "{} in {}",
    "_[_]": "{}[{}]",
    "_?_:_": "{} ? {} : {}",
}
_NULL_IS_FINE = frozenset({"_==_", "_!=_", "@in", "dyn", "type", "get"})
_NUMERIC = frozenset({"int", "double"})
_KEYS = frozenset({"dyn", "string", "int", "bool"})
"""The types of a map's keys."""


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

    def __init__(
        self, source: str, scope: Shape, guards: tuple[tuple[Chain, bool], ...], asked: frozenset[Chain]
    ) -> None:
        self.source = source
        self.scope = scope
        self.guards = guards
        self.asked = asked
        """The names whose type the expression checks; their values count as of any type."""
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
        if found.other is not None and one[: before + found.other + 1] not in self.asked:
            self._maybe_no_map(one, before + found.other, found.end, spans)
            return Shape()
        if found.missing is not None and not asked:
            self._maybe("missing", one, before + found.missing, spans)
        if found.null is not None and not asked:
            self._maybe("null", one, before + found.null, spans)
        if found.end.nullable and not null_is_fine and not asked:
            self._maybe("null", one, len(one) - 1, spans)
        if asked:
            return shape(BOOLEAN)
        if one in self.asked and found.end.kind is None:
            return Shape()
        # A null that is not fine has been reported.
        return found.end if null_is_fine and not self._is_checked(one, "null") else found.end.without_null()

    def _step(self, node: Node, of: Shape) -> Shape:
        """Follow one field of a value that is not a name: `items[0].title`, `f(x).title`."""
        found = follow(of, (node.name,))
        said = self.source[_start(node) : node.at].strip()
        spans = [(_start(node), node.at), _field_span(node, self.source)]
        if isinstance(found, NoField):
            self._unknown((said, node.name), 1, found, spans)
            return Shape()
        if found.other is not None:
            self._maybe_no_map((said, node.name), 0, found.end, spans)
            return Shape()
        if found.null is not None and not node.test:
            self._maybe("null", (said,), 0, spans)
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
        if self._is_checked(name, what):
            return
        start, end = spans[0][0], spans[min(at, len(spans) - 1)][1]
        said, parent = ".".join(name), ".".join(name[:-1])
        ask = f"has({said}) ? {said} : …" if what == "missing" else f"{said} != null ? {said} : …"
        hint = f'write `get({parent}, "{name[-1]}", …)`, or `{ask}`' if parent else f"write `{ask}`"
        slug = f"may-be-{what}"
        self.problems.append(Problem(f"`{said}` may be {what}", hint, start, end, "warning", slug))

    def _maybe_no_map(self, one: Chain, at: int, here: Shape, spans: list[tuple[int, int]]) -> None:
        """Report a field of a value that may be of another type than a map."""
        said, name = ".".join(one[: at + 1]), one[at + 1]
        other = next(each.words for each in here.alternatives() if each.kind not in {"object", "null"})
        message = f"`{said}` may be {other}, which has no `{name}`"
        hint = f"check the type first, for instance `type({said}) == map ? … : …`"
        self.problems.append(Problem(message, hint, spans[0][0], spans[at][1], "warning", "type-mismatch"))

    def _is_checked(self, name: Chain, what: Literal["missing", "null"]) -> bool:
        """Return whether the expression checks that a name exists or is not null."""
        return any(
            asked[: len(name)] == name and (what == "null" or not only_null)
            for asked, only_null in self.guards
        )

    # Calls and macros

    def _call(self, node: Node, bound: Mapping[str, Shape], *, null_is_fine: bool) -> Shape:
        if node.name.isidentifier() and node.name not in FUNCTIONS:
            self._unknown_function(node, bound)
        if wanted := cel_ast.got(node):
            return self._get(node, wanted, bound)
        shapes = []
        for index, part in enumerate(cel_ast.operands(node)):
            fine = node.name in _NULL_IS_FINE or (node.name == "_?_:_" and index > 0 and null_is_fine)
            if part.kind == "map" and not part.name and (node.name, index) in {("_[_]", 0), ("@in", 1)}:
                shapes.append(self._literal(part, bound, is_table=True))
                continue
            shapes.append(self.visit(part, bound, null_is_fine=fine or (node.name == "get" and index != 1)))
        if node.name in {"_==_", "_!=_", "@in"}:
            self._compared(node, shapes)
        elif node.name in {"_/_", "_%_"}:
            self._divided(node, shapes)
        result = self._result(node, shapes)
        if node.name == "_?_:_":
            return either(shapes[1:])
        if node.name == "_[_]" and shapes[0].kind == "array":
            return element(shapes[0], node.parts[1].value)
        return result

    def _result(self, node: Node, shapes: list[Shape]) -> Shape:
        """Return the shape of a call's value; report an operator or a function that may fail.

        In CEL's check of the whole expression, a number or a value of several types counts as any value; see
        `Shape.cel`. Here the call is checked with every type of its operands, and takes an int and a float
        together as `arithmetic` does.
        """
        if node.name == "_+_" and all(one.kind == "array" and not one.nullable for one in shapes):
            return _array(either([element(one) for one in shapes]))
        if node.name not in FUNCTIONS | _INFIX.keys():
            return Shape()  # a part of a macro, or unknown
        kinds = [one.cel_types() for one in shapes]
        if node.name == "_?_:_":
            kinds[1:] = [("dyn",), ("dyn",)]
        results: list[Shape] = []
        faults: list[cel.Fault] = []
        for given in product(*kinds):
            try:
                results.append(_applied(node, given))
            except cel.Refused as error:
                faults.append(replace(error.faults[0], at=node.at))
        if node.name in {"_==_", "_!=_"} and results:
            return shape(BOOLEAN)
        if faults:
            self._mismatch(faults[0], always=not results)
            return Shape()
        return either(results)

    def _mismatch(self, fault: cel.Fault, *, always: bool) -> None:
        """Report a call that fails for all or for some types of its operands."""
        problem = refused(self.source, fault)
        if not always:
            message = f"{problem.message}, for some of the possible values"
            hint = problem.hint or "check the type first, for instance `type(a) == string ? … : …`"
            problem = replace(problem, message=message, hint=hint, severity="warning")
        self.problems.append(problem)

    def _literal(self, node: Node, bound: Mapping[str, Shape], *, is_table: bool = False) -> Shape:
        """Return the shape of a list or a map that is written out.

        Args:
            node: the list or the map.
            bound: the variables of macros.
            is_table: whether the map is only read, as in `{1: "low"}[n]`; its keys need not be text.
        """
        if node.kind == "list":
            return _array(either([self.visit(part, bound, null_is_fine=True) for part in node.parts]))
        for key in node.parts[::2]:
            self._key(
                key, self.visit(key, bound), allowed=_KEYS if is_table else frozenset({"dyn", "string"})
            )
        keys = [part.value for part in node.parts[::2]]
        shapes = [self.visit(part, bound, null_is_fine=True) for part in node.parts[1::2]]
        if not keys or not all(isinstance(key, str) for key in keys):
            return Shape()
        return shape(closed({key: one.standalone() for key, one in zip(keys, shapes, strict=True)}))

    def _key(self, key: Node, found: Shape, *, allowed: frozenset[str]) -> None:
        """Report a key of a map that CEL does not take."""
        may_be = found.alternatives()
        others = [one for one in may_be if not allowed.issuperset(one.cel_types())]
        if others:
            spans = (
                list(_spans(key, self.source)) if cel_ast.chain(key) else [_token_span(self.source, key.at)]
            )
            start, end = spans[0][0], spans[-1][1]
            some = "is" if len(others) == len(may_be) else "may be"
            message = f"this key {some} {others[0].words}; a map needs keys of text"
            severity: Literal["error", "warning"] = "error" if some == "is" else "warning"
            hint = "convert it to text: `string(…)`"
            self.problems.append(Problem(message, hint, start, end, severity, "type-mismatch"))

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

    def _divided(self, node: Node, shapes: list[Shape]) -> None:
        """Report a division by the constant zero, and one that drops the fraction only of some numbers."""
        divisor = node.parts[1]
        if divisor.kind == "const" and type(divisor.value) is int and divisor.value == 0:
            # 1.0 / 0.0 is infinite and does not fail.
            start, end = _token_span(self.source, divisor.at)
            message = "this divides by zero"
            hint = "divide by a value that is never zero, or check it first: `n != 0 ? …`"
            self.problems.append(Problem(message, hint, start, end, "error", "division-by-zero"))
        elif node.name == "_/_" and _may_be_whole_or_not(node, shapes):
            start, end = _token_span(self.source, node.at)
            message = "this division drops the fraction if both numbers are whole: `3 / 2` is 1, not 1.5"
            if divisor.kind == "const":
                by = divisor.value
                hint = f"write `/ {by}.0` to keep the fraction, or `int(…) / {by}` to drop it"
            else:
                hint = "write `double(…)` around one of them to keep the fraction, or `int(…)` around both"
            self.problems.append(Problem(message, hint, start, end, "warning", "whole-division"))

    def _get(self, node: Node, wanted: Chain, bound: Mapping[str, Shape]) -> Shape:
        """Check `get(a.b, "c", …)`: `a.b.c` may be missing or null, but an unknown name is a finding."""
        where, key, default = node.parts
        is_bound = wanted[0] in bound
        start, rest = (bound[wanted[0]], wanted[1:]) if is_bound else (self.scope, wanted)
        found = follow(start, rest, certain=0 if is_bound else _ALWAYS_THERE.get(wanted[0], 1))
        otherwise = self.visit(default, bound, null_is_fine=True)
        if isinstance(found, NoField):
            spans = [*_spans(where, self.source), _token_span(self.source, key.at)]
            self._unknown(wanted, len(wanted) - len(rest) + found.at, found, spans)
            return Shape()
        if not is_bound:
            self._declare(where, Shape())
        if found.other is not None:
            spans = list(_spans(where, self.source))
            self._maybe_no_map(wanted, len(wanted) - len(rest) + found.other, found.end, spans)
            return Shape()
        if found.missing is None and found.null is None and not found.end.nullable:
            return found.end
        return either([found.end.without_null(), otherwise])

    def _fold(self, node: Node, bound: Mapping[str, Shape]) -> Shape:
        over = self.visit(node.parts[0], bound)
        may_be = over.alternatives()
        faults = [
            cel.Fault(f"expression of type '{each}' cannot be the range of a comprehension", node.at)
            for each in over.cel_types()
            if each not in {"dyn", "map"} and not each.startswith("list")
        ]
        if faults:
            self._mismatch(faults[0], always=len(faults) == len(over.cel_types()))
        inner = {**bound, node.name: either([element(one) for one in may_be])}
        for part in node.parts[2:]:
            self.visit(part, inner, null_is_fine=True)
        made = cel_ast.collected(node)
        if made is None:
            return shape(BOOLEAN)
        before = len(self.problems)
        items = self.visit(made, inner, null_is_fine=True)
        del self.problems[before:]  # reported above
        if made.kind == "name" and made.name == node.name and (asked := cel_ast.filtered(node)):
            for fact in facts(asked):
                if fact.chain[0] == node.name:
                    items = narrowed(items, fact.chain[1:], fact.flag)
        return _array(items)

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


def _array(items: Shape) -> Shape:
    """Return the shape of a list."""
    schema = items.standalone()
    return shape({"type": "array"} | ({"items": schema} if schema else {}))


def _applied(call: Node, kinds: tuple[str, ...]) -> Shape:
    """Return the shape of a call's value for operands of these CEL types.

    Raises:
        Refused: the call does not take them.
    """
    given = set(kinds)
    match call.name:
        # CEL's check accepts null where it accepts a timestamp.
        case name if "null" in given and name not in {"_?_:_", *_NULL_IS_FINE}:
            raise _no_overload(call, kinds)
        case "get" if kinds[0] in {"map", "null", "dyn"} and kinds[1] in {"string", "dyn"}:
            return Shape()
        case "get":
            raise _no_overload(call, kinds)
        case "duration" if "int" in given:  # CEL's check takes it, and its evaluation does not
            raise _no_overload(call, kinds)
        case "_?_:_" if kinds[0] == "null":
            raise _no_overload(call, kinds)
        case "_==_" | "_!=_" if "null" in given or given <= _NUMERIC:
            return shape(BOOLEAN)
        case "@in" if kinds[1] == "map" and kinds[0] not in _KEYS | _NUMERIC:
            raise _no_overload(call, kinds)
        case "@in":
            kinds = ("dyn", kinds[1])
        case name if name in _MIXING and "double" in given and given <= {"dyn", *_NUMERIC}:
            return shape(NUMBER if name in _ARITHMETIC else BOOLEAN)
        case _:
            pass
    return shape(of_result(cel.result(_written(call, [cel.variable(kind) for kind in kinds]))))


def _no_overload(call: Node, kinds: tuple[str, ...]) -> cel.Refused:
    message = f"found no matching overload for '{call.name}' applied to '({', '.join(kinds)})'"
    return cel.Refused((cel.Fault(message, call.at),))


def _written(call: Node, parts: list[str]) -> str:
    """Return the source of a call on these operands."""
    if call.name in _INFIX:
        return _INFIX[call.name].format(*parts)
    if not call.member:
        return f"{call.name}({', '.join(parts)})"
    in_namespace = call.parts[0].name in NAMESPACES
    receiver, given = (call.parts[0].name, parts) if in_namespace else (parts[0], parts[1:])
    return f"{receiver}.{call.name}({', '.join(given)})"


def _may_be_whole_or_not(division: Node, shapes: list[Shape]) -> bool:
    """Return whether a division gets a JSON number that may be whole or not, and no certain fraction."""
    kinds = [one.kind for one in shapes]
    is_number = set(kinds) <= {"integer", "number"} and "number" in kinds
    return is_number and not any(map(_has_fraction, division.parts))


def _has_fraction(node: Node) -> bool:
    """Return whether a number is never one of CEL's whole numbers: `2.0`, `double(n)`, `n * 0.5`."""
    if node.kind != "call":
        return isinstance(node.value, float)
    if node.name == "_?_:_":
        return all(map(_has_fraction, node.parts[1:]))
    return node.name == "double" or (node.name in _ARITHMETIC and any(map(_has_fraction, node.parts)))


def _asked_types(node: Node) -> Iterator[Chain]:
    """Yield the chains whose type an expression checks: `type(a.b)`."""
    if node.kind == "call" and node.name == "type" and (one := cel_ast.chain(node.parts[0])):
        yield one
    for part in node.parts:
        yield from _asked_types(part)


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
