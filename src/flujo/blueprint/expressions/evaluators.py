"""Compiled expressions and texts: compiled once per source, checked against a scope, called often.

An expression gets only the values that it names. Its data is a tree of the chains that it reads, so
`context.label` costs one leaf however large the context is, `has(input.note)` and `get(input, "note", "")`
see a map with or without the field, and other data cannot be reached. A bare path
(`steps.sort.output.label`) does not use CEL. Compiled expressions have no state: threads may share them.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions import arithmetic, cel, cel_ast, cost
from flujo.blueprint.expressions.cel_lexicon import MAX_SOURCE
from flujo.blueprint.expressions.error_messages import Problem, did_you_mean, listed, refused, unusable, value
from flujo.blueprint.expressions.templates import Piece, Scan, scan, unwrap
from flujo.blueprint.expressions.type_checker import Checked, check_expression, check_text
from flujo.domain import canonical
from flujo.domain.wording import size
from flujo.exceptions import ExpressionFailed, ExpressionSyntax, NotJournalable

if TYPE_CHECKING:
    from flujo.domain.ports import Chain, Evaluator, Lookup

# The public interface of this package.
__all__ = [
    "MAX_RESULT",
    "MAX_SOURCE",
    "Checked",
    "CompiledExpression",
    "CompiledPath",
    "CompiledText",
    "Problem",
    "check_expression",
    "check_text",
    "compile_expression",
    "compile_text",
]

_WHOLE = 1e16
"""Larger floats are written with an exponent."""

MAX_RESULT = 1024 * 1024
"""The largest value that an expression may compute, in bytes of JSON; a bare path has no limit."""


def compile_expression(source: str) -> Evaluator:
    """Compile an expression, written bare or as `"{{ … }}"`.

    Its names are not checked here; see `check_expression`.

    Raises:
        ExpressionSyntax: with the reason and the offsets in `source`.
    """
    piece, problem = unwrap(source)
    if problem is not None:
        raise _syntax_error(problem, source)
    return _placed(piece)


def compile_text(source: str, *, literal: bool = False) -> Evaluator:
    """Compile a text with `{{ … }}`. With `literal` its braces are plain text.

    Raises:
        ExpressionSyntax: with the reason and the offsets in `source`.
    """
    found = Scan(()) if literal else scan(source)
    for problem in found.problems:
        if problem.severity == "error" and problem.slug != "logic-in-text":
            raise _syntax_error(problem, source)
    if piece := found.single:
        return CompiledText(source, (_placed(piece),), single=True)
    if not any(part.code for part in found.pieces):
        return CompiledText(source, (source,))
    return CompiledText(source, tuple(_placed(one) if one.code else one.source for one in found.pieces))


class CompiledPath:
    """A bare path: returns the value unchanged."""

    __slots__ = ("reads", "source")

    def __init__(self, source: str, chain: Chain) -> None:
        self.source = source
        self.reads: tuple[Chain, ...] = (chain,)

    def __call__(self, lookup: Lookup) -> Any:
        """Return the value at the path.

        Raises:
            ExpressionFailed: a part of the path does not exist; the message names it and the existing keys.
        """
        try:
            return lookup(self.reads[0])
        except KeyError as error:
            why, hint = _absent(self.reads[0], lookup)
            raise _failed(self.source, why, hint) from error


class CompiledExpression:
    """A CEL expression: JSON data in, JSON data out."""

    __slots__ = ("_mixed", "_program", "_slots", "_tree", "_unbounded", "reads", "source")

    def __init__(self, source: str, tree: cel_ast.Node, program: cel.Program) -> None:
        self.source = source
        self._tree = tree
        self.reads = reads = cel_ast.reads(tree)
        self._program = program
        self._mixed: cel.Program | None = None
        self._unbounded = None if cost.is_bounded(tree) else tree
        self._slots = [(chain, cel.slot(chain)) for chain in reads]

    def __call__(self, lookup: Lookup) -> Any:
        """Return the value as plain JSON data; ints stay int, floats stay float.

        Raises:
            ExpressionFailed: naming the expression and the reason.
        """
        data: dict[str, Any] = {}
        for chain, (*way, last) in self._slots:
            place = data
            for name in way:
                place = place.setdefault(name, {})
            try:
                place[last] = lookup(chain)
            except KeyError:
                continue  # the expression decides whether that matters: has(), get(), `a || b`
        if self._unbounded is not None:
            try:
                cost.check(self._unbounded, data)
            except cost.TooExpensive as error:
                hint = (
                    "make the values smaller, or compute this in Python: a step with `call: module:function`"
                )
                raise _failed(self.source, str(error), hint) from error
        worked, result = self._program.run(data)
        if not worked and arithmetic.is_mixed(str(result)):
            worked, result = self._with_mixed_numbers().run(data)
        if worked:
            return _json(result, self.source)
        raise _failed(self.source, *self._why(str(result), lookup))

    def _with_mixed_numbers(self) -> cel.Program:
        if self._mixed is None:
            names = {name for name, *_ in self.reads}
            self._mixed = cel.mixed_program(self.source, names, self._tree) or self._program
        return self._mixed

    def _why(self, message: str, lookup: Lookup) -> tuple[str, str | None]:
        """Return the reason and the hint; a missing key is named with its chain."""
        why, hint = value(message)
        absent = _NO_KEY.search(message)
        for chain in self.reads:
            if absent is None or absent.group(1) != chain[-1]:
                continue
            try:
                lookup(chain)
            except KeyError:
                return _absent(chain, lookup)
        return why, hint


class CompiledText:
    """A text with `{{ … }}`. Inserted values are not evaluated again."""

    __slots__ = ("_parts", "_single", "reads", "source")

    def __init__(self, source: str, parts: tuple[str | Evaluator, ...], *, single: bool = False) -> None:
        self.source = source
        self._parts = parts
        self._single = single
        self.reads = cel_ast.shortest(
            chain for part in parts if not isinstance(part, str) for chain in part.reads
        )

    def __call__(self, lookup: Lookup) -> Any:
        """Return the filled text; for a text that is only one `{{ … }}`, the value with its type.

        Raises:
            ExpressionFailed: naming the expression and the reason, for instance null in the middle of a text.
        """
        if self._single and not isinstance(self._parts[0], str):
            return self._parts[0](lookup)
        return "".join(
            part if isinstance(part, str) else _shown(part(lookup), part.source) for part in self._parts
        )


def _placed(piece: Piece) -> Evaluator:
    """Return the compiled expression of a piece; an error has offsets in the whole text."""
    try:
        return _compiled(piece.source)
    except _Unreadable as error:
        raise _syntax_error(error.problem.moved(piece.start), piece.source.strip()) from error.__cause__


@lru_cache(maxsize=8192)
def _compiled(source: str) -> Evaluator:
    if problem := unusable(source):
        raise _Unreadable(problem)
    said = source.strip()
    if (tree := cel_ast.path(source)) and (chain := cel_ast.chain(tree)):
        return CompiledPath(said, chain)
    try:
        tree = cel.parse(source)
        return CompiledExpression(said, tree, cel.program(source, {name for name, *_ in cel_ast.reads(tree)}))
    except cel.Refused as error:
        raise _Unreadable(refused(source, error.faults[0])) from error


class _Unreadable(Exception):
    """A source that cannot be compiled. It has no place: the same source may occur at many."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _syntax_error(problem: Problem, source: str) -> ExpressionSyntax:
    return ExpressionSyntax(
        f"{problem.message}: `{_short(source)}`",
        hint=problem.hint,
        expression=source,
        start=problem.start,
        end=problem.end,
    )


def _failed(source: str, why: str, hint: str | None) -> ExpressionFailed:
    message = f"expression `{_short(source)}` has no value: {why}"
    return ExpressionFailed(message, hint=hint, expression=source, reason=why)


def _short(source: str) -> str:
    said = " ".join(source.split())
    return said if len(said) <= 120 else f"{said[:119]}…"


def _absent(chain: Chain, lookup: Lookup) -> tuple[str, str | None]:
    """Return which part of a chain does not exist, and the existing keys; values are never shown."""
    # Under `steps` only outputs can be looked up, so there is no parent to list.
    for length in range(len(chain) - 1, 1 if chain[0] == "steps" else 0, -1):
        try:
            here = lookup(chain[:length])
        except KeyError:
            continue
        said, name = ".".join(chain[:length]), chain[length]
        if isinstance(here, dict):
            there = f"it has {listed(sorted(here))}" if here else "it is empty"
            advice = did_you_mean(name, here) if here else None
            optional = f'`get({said}, "{name}", "")` reads a key that may be missing'
            close = advice if advice and advice.startswith("did you mean") else optional
            return f"`{said}` has no `{name}`; {there}", close
        kind = "null" if here is None else f"{_KINDS.get(type(here), 'a value')}, not a map"
        return f"`{said}` is {kind}, so it has no `{name}`", None
    if chain[0] == "steps" and len(chain) > 1:
        hint = f"its branch was not taken, or it runs later: check with `has(steps.{chain[1]}.output)`"
        return f"step `{chain[1]}` has no output here", hint
    return f"`{'.'.join(chain)}` does not exist", None


_NO_KEY = re.compile(r"not found in map : \"(.*)\"$")
_KINDS = {str: "text", int: "a number", float: "a number", bool: "a boolean", list: "a list"}
_NOT_JSON = {bytearray: "bytes", bytes: "bytes", datetime: "a timestamp", timedelta: "a duration"}


def _json(result: Any, source: str) -> Any:
    """Return a result that is valid JSON and within the size limit."""
    if type(result) in (bool, int, type(None)) or (type(result) is str and len(result) * 4 <= MAX_RESULT):
        return result
    if reason := _refusal(result):
        hint = "an expression returns JSON: text, finite numbers, booleans, null, lists, maps with text keys"
        raise _failed(source, reason, hint)
    try:
        length = 0 if type(result) is float else len(canonical.encode(result, what="its value"))
    except NotJournalable as error:
        raise _failed(source, error.message, error.hint) from error
    if length > MAX_RESULT:
        hint = "use a bare path for a large value, or compute it in a step with `call: module:function`"
        raise _failed(source, f"its value is larger than {size(MAX_RESULT)} of JSON", hint)
    return result


def _refusal(result: Any) -> str | None:
    """Return why a value, or one inside it, is not JSON; None when it is."""
    match result:
        case None | str() | bool() | int():
            return None
        case float():
            return None if math.isfinite(result) else "its value is not a finite number"
        case dict() if any(type(key) is not str for key in result):
            return "its value is a map with a key that is not text"
        case dict():
            return next((why for item in result.values() if (why := _refusal(item))), None)
        case list():
            return next((why for item in result if (why := _refusal(item))), None)
        case _:
            return f"its value is {_NOT_JSON.get(type(result), 'a type')}, which is not JSON"


def _shown(result: Any, source: str) -> str:
    """Return a value as it appears in the middle of a text."""
    if isinstance(result, str):
        return result
    if result is None:
        hint = 'add a default, for instance `get(input, "note", "")` or `a == null ? "" : a`'
        raise _failed(source, "it is null, which cannot be inserted into a text", hint)
    shown = canonical.encode(result, what=f"expression `{_short(source)}`")
    return (canonical.encode(_short_numbers(result)) if b".0" in shown else shown).decode()


def _short_numbers(value: Any) -> Any:
    """Return data with whole floats as integers: a text has 3 for 3.0, as in CEL's `string(3.0)`."""
    match value:
        case dict():
            return {key: _short_numbers(item) for key, item in value.items()}
        case list():
            return [_short_numbers(item) for item in value]
        case float() if value.is_integer() and abs(value) < _WHOLE:
            return int(value)
        case _:
            return value
