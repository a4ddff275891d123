"""Translates CEL's errors of syntax, types and values into findings.

CEL names its parser's tokens and overloads; the author of a blueprint needs the operator in the source,
the kinds of value in plain words, and what to write instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from flujo.blueprint.expressions.cel_lexicon import FUNCTIONS, MAX_SOURCE, TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flujo.blueprint.expressions.cel import Fault

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in an expression or a text; `start` and `end` are offsets into its source."""

    message: str
    hint: str | None
    start: int
    end: int
    severity: Severity = "error"
    slug: str = "expression-syntax"

    def moved(self, by: int) -> Problem:
        """Return the same finding for a source in which the expression starts at `by`."""
        return replace(self, start=self.start + by, end=self.end + by)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return a hint: the closest known name, or all known names."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1) or [one for one in names if one.lower() == name.lower()]
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known names: {listed(names)}" if names else None


def listed(names: Iterable[str]) -> str:
    """Return names as prose: `a`, `b`, `c` and 4 more."""
    all_names = list(names)
    shown = ", ".join(f"`{name[:60]}`" for name in all_names[:8])
    return shown if len(all_names) <= 8 else f"{shown} and {len(all_names) - 8} more"


def unusable(source: str) -> Problem | None:
    """Return the finding about an empty or too long source, or None."""
    if not source.strip():
        return Problem("the expression is empty", None, 0, len(source), slug="empty-expression")
    if len(source.encode(errors="replace")) > MAX_SOURCE:
        message = f"the expression is longer than {MAX_SOURCE} bytes"
        hint = "compute it in a step with `call: module:function`, or in parts"
        return Problem(message, hint, 0, len(source), slug="expression-too-long")
    return None


def refused(source: str, fault: Fault) -> Problem:
    """Return the finding for an error of CEL."""
    if "recursion" in fault.message:
        message = "the expression is nested deeper than 32 levels, or chains more than 32 operators"
        hint = 'compute a part of it in an earlier step, or join a list: `[a, b].join(", ")`'
        return Problem(message, hint, 0, len(source), slug="expression-too-long")
    is_type = re.match(r"found no matching|undeclared reference|expression of type", fault.message)
    return types(source, fault) if is_type else syntax(source, fault)


# Syntax --------------------------------------------------------------------------------------------------

_LOOK_ALIKES = {
    "and": "write `a && b`",
    "or": "write `a || b`",
    "not": "write `!a`",
    "is": "write `a == b`",
    "if": "write `condition ? one : other`",
    "for": "write `items.map(item, item.title)`",
    "lambda": "write `items.map(item, item.title)`",
}

_FILTERS = {
    "upper": "`{}.upperAscii()`",
    "lower": "`{}.lowerAscii()`",
    "trim": "`{}.trim()`",
    "length": "`size({})`",
    "count": "`size({})`",
    "join": '`{}.join(", ")`',
    "default": '`get(map, "key", "default")`',
    "replace": '`{}.replace("old", "new")`',
    "first": "`{}[0]`",
    "reverse": "`{}.reverse()`",
    "tojson": "only the value: lists and maps become JSON automatically",
    "string": "`string({})`",
    "int": "`int({})`",
}

_OPERATORS = (
    ("===", "=="),
    ("??", 'get(map, "key", "default")'),
    ("?.", "has(a.b) ? a.b : default"),
    ("**", "*"),
)

_SYNTAX = (
    (r"reserved identifier: (\w+)", "`{}` is a reserved word of expressions", "choose another name"),
    (r"invalid (\w+) literal", "this number does not fit into 64 bits", None),
    (r"has\(\) argument", "`has()` takes a field", "write `has(input.note)`"),
    (
        r"(\w+)\(\) variable name",
        "the first argument of `{}()` is a variable name",
        "write `items.{}(item, …)`",
    ),
    (r"unsupported syntax", "optional syntax is not available", "write `has(…)` or `get(…)`"),
    (r"'<EOF>'|parsetree", "unexpected end", "close all brackets and quotes, and add the missing value"),
    (r"at: '[\"']", "a quote is never closed", "close it; write `\\n` for a new line"),
    (r"(?:input|at:?) '(.*?)\s*'(?: expecting|$)", "`{}` is not expected here", None),
)


def syntax(source: str, fault: Fault) -> Problem:
    """Return the finding for a source that does not parse."""
    hint = _look_alike(source)
    for pattern, reason, advice in _SYNTAX:
        if match := re.search(pattern, fault.message):
            words = match.groups() or ("",)
            hint = hint or (advice.format(*words) if advice else None)
            return _at(f"this is not an expression: {reason.format(*words)}", hint, source, fault.at)
    return _at(f"this is not an expression: {fault.message}", hint, source, fault.at)


def _look_alike(source: str) -> str | None:
    """Return a hint for syntax of another language."""
    tokens = [token for token in TOKEN.finditer(source) if token.lastgroup not in {"space", "comment"}]
    texts = [token.group() if token.lastgroup in {"name", "operator", "other"} else "" for token in tokens]
    joined = "".join(text or " " for text in texts)
    if "{{" in joined or "}}" in joined:
        return "this key takes one expression: write it bare, or all of it in one `{{ … }}`"
    for operator, instead in _OPERATORS:
        if operator in joined:
            return f"there is no `{operator}`: write `{instead}`"
    for index, text in enumerate(texts):
        after = texts[index + 1] if index + 1 < len(texts) else ""
        before = texts[index - 1] if index else ""
        if text == "|" and after.isidentifier():
            instead = _FILTERS.get(after, "a function: `{}.trim()`")
            said = source[: tokens[index].start()].strip() or "x"
            return f"there are no filters: write {instead.format(said)}"
        if text in {"&", "="}:
            return f"write `{text}{text}`"
        if text in _LOOK_ALIKES and before != ".":
            return _LOOK_ALIKES[text]
    return None


def _at(message: str, hint: str | None, source: str, at: int, slug: str = "expression-syntax") -> Problem:
    token = TOKEN.match(source, at)
    return Problem(message, hint, at, token.end() if token else at, "error", slug)


# Types ---------------------------------------------------------------------------------------------------

_KINDS = {
    "string": "text",
    "int": "a whole number",
    "int64": "a whole number",
    "uint": "a whole number",
    "uint64": "a whole number",
    "double": "a number with a fraction",
    "bool": "a boolean",
    "null": "null",
    "null_type": "null",
    "dyn": "a value",
    "bytes": "bytes",
    "timestamp": "a timestamp",
    "duration": "a duration",
    "google.protobuf.Timestamp": "a timestamp",
    "google.protobuf.Duration": "a duration",
    "list": "a list",
    "map": "a map",
}
_WHOLE = frozenset({"int", "int64", "uint", "uint64"})
_WHOLE_ONLY = frozenset(
    {"%", "charAt", "indexOf", "lastIndexOf", "replace", "split", "substring", "timestamp"}
)
_NAMED_OPERATORS = {"_?_:_": "? :", "_[_]": "[ ]", "@in": "in"}


def types(source: str, fault: Fault) -> Problem:
    """Return the finding for an operator or a function with operands of the wrong type."""
    if match := re.match(r"found no matching overload for '(.+?)' applied to '(.*)'", fault.message):
        name, given = match.group(1), _arguments(match.group(2))
        message, hint = mismatch(name, given)
        return _at(message, hint, source, fault.at, "type-mismatch")
    if match := re.match(r"expression of type '(.*)' cannot be the range", fault.message):
        message = f"`map`, `filter`, `all` and `exists` take a list or a map, not {_kind(match.group(1))}"
        return _at(message, None, source, fault.at, "type-mismatch")
    if match := re.match(r"undeclared reference to '(\w+)'", fault.message):
        if match.group(1) not in FUNCTIONS:
            return _at(f"there is no function `{match.group(1)}`", None, source, fault.at, "unknown-function")
        message = f"`{match.group(1)}` does not take these arguments"
        return _at(
            message, "check their number, and the value before the dot", source, fault.at, "type-mismatch"
        )
    return _at(fault.message, None, source, fault.at, "type-mismatch")


def mismatch(function: str, given: list[str]) -> tuple[str, str | None]:
    """Return the message and hint for a call on values of these kinds."""
    shown = _NAMED_OPERATORS.get(function, function.strip("_"))
    kinds = [_kind(one) for one in given]
    if function == "_?_:_" and given[:1] in (["bool"], ["dyn"]):
        return (
            f"the two results of `? :` differ: {kinds[1]} and {kinds[2]}",
            "wrap one of them in `dyn(…)`",
        )
    if function == "_?_:_":
        return (
            f"the condition of `? :` is {kinds[0]}, not a boolean",
            "compare it, for instance with `== true`",
        )
    return f"`{shown}` does not take {' and '.join(kinds) or 'this kind of value'}", _advice(
        shown, set(given)
    )


def _advice(function: str, given: set[str]) -> str | None:
    """Return what to write instead of a function or an operator on values of these kinds."""
    numbers = given & (_WHOLE | {"double"})
    rules = (
        (function == "get", 'write `get(map, "key", "default")`'),
        (
            bool(given & {"null", "null_type"}),
            'check it first: `a != null ? … : …`, or write `get(map, "key", "default")`',
        ),
        (
            "double" in given
            and (function in _WHOLE_ONLY or (function == "[ ]" and "list" in "".join(given))),
            "declare the number as `integer`, or write `int(n)`",
        ),
        (function == "[ ]", "write `items[0]` for an item, `map.field` for a field, `text.charAt(0)`"),
        (function in {"&&", "||", "!"}, "it needs booleans: compare the value first"),
        ("double" in given and bool(given & _WHOLE), "write `1.0` instead of `1`, or `double(n)`"),
        (
            function == "+" and bool(given) and all(one.startswith("list") for one in given),
            "the items of both lists need one type: wrap one list in `dyn(…)`",
        ),
        (function == "+" and "string" in given, "write `string(n)`, or build the text with `{{ … }}`"),
        ("string" in given and bool(numbers), "convert the text to a number: `int(text)`, `double(text)`"),
    )
    return next((advice for applies, advice in rules if applies), None)


def _kind(name: str) -> str:
    return _KINDS.get(name) or (
        "a list" if name.startswith("list") else "a map" if name.startswith("map") else name
    )


def _arguments(words: str) -> list[str]:
    """Return the types in `(list(int), string)`; a method's receiver comes before a dot."""
    found, depth = [""], 0
    for char in words.replace(").(", ", ").removeprefix("(").removesuffix(")"):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and not depth:
            found.append("")
        else:
            found[-1] += char
    return [one.strip() for one in found if one.strip()]


# Values --------------------------------------------------------------------------------------------------

_VALUES: tuple[tuple[str, str, str | None], ...] = (
    (
        r"Key not found in map : \"?(.*?)\"?$",
        "the map has no key `{}`",
        'check with `has(…)` first, or write `get(map, "{}", "")`',
    ),
    (r"index=(-?\d+) size=(\d+)", "the list has {1} items, so [{0}] does not exist", "check `size(…)` first"),
    (
        r"^INVALID_ARGUMENT: index \d+ out of range",
        "`format` has more placeholders than values",
        "add a value to its list for each `%`",
    ),
    (r"unrecognized formatting clause \"(.*)\"", "`format` does not have the placeholder `%{}`", None),
    (
        r"supported for conversion to double|clause can only",
        "`format` does not support this value for this placeholder",
        "use `%s` for any value",
    ),
    (
        r"\.(?:substring|charAt)\(|index out of range: ",
        "a position is outside the text",
        "check `size(…)` of the text first",
    ),
    (r"Index error: expected", "an index of a list is not a whole number", "write `int(n)`"),
    (
        r"Invalid container type",
        "`[ ]` does not take this value",
        "write `items[0]` for an item, `map.field` for a field, `text.charAt(0)`",
    ),
    (r"map key type", "a key of a map is not text", "convert it to text: `string(…)`"),
    (r"timezone", "the time zone does not exist", "write a name such as `Europe/Berlin`, or `+02:00`"),
    (r"<iter_range>", "`map`, `filter`, `all` and `exists` take a list or a map", None),
    (r"<jump_condition>", "a condition is not a boolean", "compare it, for instance with `== true`"),
    (r"non-message type", "a field is read from something that is not a map", None),
    (r"(?:divide|modulus) by zero", "it divides by zero", "check it first: `n != 0 ? … : …`"),
    (r"overflow|int out of range", "a whole number does not fit into 64 bits", "use `double(n)`"),
    (r"regular expression", "the pattern of `matches` is not a regular expression", None),
    (r"get\(\) of", "the first argument of `get` is not a map", 'write `get(map, "key", "default")`'),
    (
        r"Iteration budget",
        "it needs more than 10,000 iterations over lists",
        "compute this in Python: a step with `call: module:function`",
    ),
    (r"bad_alloc|memory", "its value does not fit into memory", "make the value smaller"),
    (r"No value with name \"(.*)\"", "`{}` has no value here", None),
)
_CONVERSIONS = (
    r"cannot convert (\w+) to (\w+)",
    r"conversion error from '(\w+)' to '(\w+)'",
    r"(\w+) out of (\w+) range",
    r"(String) to (Timestamp|Duration) conversion",
)
_BOUNDED = {
    "int64": "a whole number of 64 bits",
    "uint": "an unsigned whole number",
    "uint64": "an unsigned whole number",
}


def value(message: str) -> tuple[str, str | None]:
    """Return the reason and the hint for CEL's message about a failed evaluation."""
    if match := re.search(r"No matching overloads found : (?:\((\w+)\)\.)?([^\s(]+)(?:\((.*)\))?$", message):
        receiver, name, given = match.groups()
        if not name.startswith("<"):
            return mismatch(name, _arguments(", ".join(filter(None, (receiver, given)))))
    for pattern in _CONVERSIONS:
        if match := re.search(pattern, message):
            given, wanted = (word.lower() for word in match.groups())
            why = f"{_kind(given)} cannot be read as {_BOUNDED.get(wanted) or _kind(wanted)}"
            return why, "check the value before it is converted"
    for pattern, reason, advice in _VALUES:
        if match := re.search(pattern, message):
            words = tuple(word[:60] for word in match.groups())
            return reason.format(*words), advice.format(*words) if advice else None
    return re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", message)[:200], None
