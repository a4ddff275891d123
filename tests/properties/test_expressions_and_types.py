"""What validates does not fail: an expression without findings has a value on every value of its schemas.

Two things are left out: the results of `dyn`, whose type is unknown, and a name that is checked in one part of an
expression and read in another. `FLUJO_FUZZ=100` tries a hundred times as many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import assume, given
from hypothesis import strategies as st

from flujo.blueprint.expressions.evaluators import check_expression, compile_expression
from flujo.blueprint.schemas.validator import compile_schema
from flujo.exceptions import ExpressionFailed
from properties.sample import tries

if TYPE_CHECKING:
    from flujo.domain.ports import Chain, Lookup

NUMBERS = st.one_of(st.integers(-20, 20), st.floats(-20, 20), st.just(2**53 + 1))
TEXTS = st.text("ab1 ", max_size=4)
NUMBER, TEXT = {"type": "number"}, {"type": "string"}
TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "number": (NUMBER, NUMBERS),
    "integer": ({"type": "integer"}, st.one_of(st.integers(-20, 20), st.integers(-20, 20).map(float))),
    "level": ({"enum": [0.5, 1.0]}, st.sampled_from([0.5, 1, 1.0])),
    "rank": ({"enum": [1, 2.5, "top", None]}, st.sampled_from([1, 1.0, 2.5, "top", None])),
    "string": (TEXT, TEXTS),
    "boolean": ({"type": "boolean"}, st.booleans()),
    "maybe": ({"type": ["number", "null"]}, st.one_of(NUMBERS, st.none())),
    "perhaps": ({"type": ["number", "null"]}, st.one_of(NUMBERS, st.none())),
    "sure": ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, st.one_of(st.booleans(), st.none())),
    "either": ({"anyOf": [NUMBER, TEXT]}, st.one_of(NUMBERS, TEXTS)),
    "any": ({"type": ["integer", "string", "null", "array"], "items": NUMBER}, st.one_of(st.integers(-9, 9), TEXTS, st.none(), st.lists(NUMBERS, max_size=2))),
    "counter": ({"type": ["integer", "number"]}, st.one_of(st.integers(-9, 9), st.floats(-9, 9))),
    "numbers": ({"type": "array", "items": NUMBER, "minItems": 1}, st.lists(st.one_of(st.integers(-9, 9), st.floats(-9, 9)), min_size=1, max_size=3)),
    "integers": ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, st.lists(st.one_of(st.integers(0, 9), st.just(2.0)), min_size=1, max_size=3)),
    "gaps": ({"type": "array", "items": {"type": ["number", "null"]}, "minItems": 1}, st.lists(st.one_of(NUMBERS, st.none()), min_size=1, max_size=3)),
    "mixed": ({"type": "array", "items": {"anyOf": [NUMBER, TEXT]}, "minItems": 1}, st.lists(st.one_of(NUMBERS, TEXTS), min_size=1, max_size=3)),
    "pair": ({"type": "array", "prefixItems": [NUMBER, TEXT], "items": False, "minItems": 2}, st.tuples(NUMBERS, TEXTS).map(list)),
    "lists": ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1}, "minItems": 1}, st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=2), min_size=1, max_size=2)),
    "map": ({"type": "object", "properties": {"n": NUMBER, "i": {"type": "integer"}, "t": TEXT, "note": TEXT, "o": {"type": ["integer", "null"]}}, "required": ["n", "i"]}, st.fixed_dictionaries({"n": st.one_of(st.integers(-9, 9), st.floats(-9, 9)), "i": st.one_of(st.integers(-9, 9), st.just(3.0))}, optional={"t": TEXTS, "note": TEXTS, "o": st.one_of(st.integers(-9, 9), st.none())})),
    "labels": ({"type": "object", "additionalProperties": {"type": "integer"}}, st.dictionaries(st.sampled_from(["a", "b"]), st.integers(-9, 9))),
}  # fmt: skip
SCOPE = {
    "type": "object",
    "properties": {
        "input": {
            "type": "object",
            "properties": {name: schema for name, (schema, _) in TYPES.items()},
            "required": list(TYPES),
        }
    },
}
INPUT = compile_schema(SCOPE["properties"]["input"])  # type: ignore[index]  # a schema

LEAVES = st.sampled_from([
    *(f"input.{name}" for name in TYPES if name != "perhaps"),
    *("input.map.n", "input.map.i", "input.map.t", "input.map.o", "input.numbers[0]", "input.integers[0]", "input.gaps[0]", "input.mixed[0]", "input.pair[0]", "input.pair[1]", "input.lists[0]"),
    *("0", "2", "1.5", "'a'", "true", "[null][0]", "string(null)", "int(null)", "size(null)", "[1, 2.5]", "[1, 'a', null]", "[]", "{'a': 1, 'b': 'x'}"),
    *("has(input.map.note)", "(has(input.map.note) ? input.map.note : '')", "(input.perhaps != null ? input.perhaps : 0)", "get(input.map, 'o', 0)", "get(input.map, 't', 2)", "get(input.labels, 'a', 1)"),
])  # fmt: skip
OPERATORS = ["+", "-", "*", "/", "%", "<", "<=", ">", ">=", "==", "!=", "&&", "||", "in"]
CALLS = [
    *("size({})", "string({})", "double({})", "int({})", "bool({})", "uint({})", "-({})", "!({})", "({}).size()", "({})[0]", "({})['a']", "dyn({}) == 1", "type([{}][0]) == int", "string(timestamp({}))", "duration({}) == duration('1s')"),
    *("({}).map(v, v * 2)", "({}).map(v, v % 2)", "({}).map(v, string(v))", "({}).map(w, w != null ? w : 0)", "({}).map(v, v == 'a' ? v : 1)", "({}).filter(v, v > 1)", "({}).filter(v, v)", "({}).exists(v, v == 1)", "({}).exists(v, v < 1)", "({}).exists_one(v, v > 1)", "({}).all(v, v in [1, 2])", "({}).map(v, v > 1, v)"),
    *("[{}]", "[{}, 1]", "[{}, 'a']", "{{'k': {}}}.k", "{{'k': {}}}", "{{{}: 1}}", "get(input.map, 'n', 0) * ({})", "get(input.map, 't', {})", "get({}, 'a', 1)"),
    *("({}).join(',')", "({}).trim()", "({}).contains('a')", "({}).startsWith('a')", "({}).split('a')", "({}).lowerAscii()", "'ab'.replace({}, 'x')", "'ab'.indexOf({})", "'%s'.format([{}])", "strings.quote({})", "({}).matches('a')", "({}).reverse()"),
]  # fmt: skip
PAIRS = ["({}) {} ({})".replace("{}", "{{}}", 1).replace(" {} ", f" {each} ").replace("{{}}", "{}") for each in OPERATORS]  # fmt: skip
PAIRS += ["({})[{}]", "({}).contains({})", "({}) + string({})", "[{}, {}]", "({}).join({})"]
TRIPLES = ["({}) ? ({}) : ({})", "input.boolean ? dyn({}) == 1 : ({}) == ({})"]
CHOICES = ["(input.boolean ? ({}) : ({}))", "(input.boolean ? ({}) : input.number)"]

EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(str.format, st.sampled_from(CALLS), inner),
        st.builds(str.format, st.sampled_from(PAIRS), inner, inner),
        st.builds(str.format, st.sampled_from(CHOICES), inner, inner),
        st.builds(str.format, st.sampled_from(TRIPLES), inner, inner, inner),
    ),
    max_leaves=4,
)

OF_THE_VALUE = (
    "divides by zero",
    "64 bits",
    "not a finite number",
    "does not exist",
    "cannot be read as",
    "out of range",
    "larger than",
    "whose value is null",
)
"""The failures that depend on a value and not on its type."""


@tries(100)
@given(EXPRESSIONS, st.fixed_dictionaries({name: values for name, (_, values) in TYPES.items()}))
def test_an_expression_without_findings_has_a_value(source: str, given_input: Any) -> None:
    assume(not check_expression(source, SCOPE).problems)
    values = {"input": INPUT.check(given_input, what="input")}

    def lookup(chain: Chain) -> Any:
        here: Any = values
        for name in chain:
            here = here[name]
        return here

    assert failure(source, lookup) in ("", *OF_THE_VALUE), source


def failure(source: str, lookup: Lookup) -> str:
    """Return the words of a failure that depends on a value, or the whole message of another one."""
    try:
        compile_expression(source)(lookup)
    except ExpressionFailed as error:
        return next((words for words in OF_THE_VALUE if words in error.message), error.message)
    return ""
