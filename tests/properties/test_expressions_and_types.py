"""What validates does not fail: an expression without findings has a value on every value of its schemas.

Values of unknown type are left out: the results of `dyn`, and lists of different types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import assume, given
from hypothesis import strategies as st

from flujo.blueprint.expressions.evaluators import check_expression, compile_expression
from flujo.blueprint.schemas.validator import compile_schema
from flujo.exceptions import ExpressionFailed

if TYPE_CHECKING:
    from flujo.domain.ports import Chain, Lookup

TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "number": ({"type": "number"}, st.one_of(st.integers(-20, 20), st.floats(-20, 20), st.just(2**53 + 1))),
    "integer": ({"type": "integer"}, st.one_of(st.integers(-20, 20), st.integers(-20, 20).map(float))),
    "level": ({"enum": [0.5, 1.0]}, st.sampled_from([0.5, 1, 1.0])),
    "string": ({"type": "string"}, st.text("ab1 ", max_size=4)),
    "boolean": ({"type": "boolean"}, st.booleans()),
    "numbers": ({"type": "array", "items": {"type": "number"}, "minItems": 1}, st.lists(st.one_of(st.integers(-9, 9), st.floats(-9, 9)), min_size=1, max_size=3)),
    "integers": ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, st.lists(st.one_of(st.integers(0, 9), st.just(2.0)), min_size=1, max_size=3)),
    "map": ({"type": "object", "properties": {"n": {"type": "number"}, "i": {"type": "integer"}}, "required": ["n", "i"]}, st.fixed_dictionaries({"n": st.one_of(st.integers(-9, 9), st.floats(-9, 9)), "i": st.one_of(st.integers(-9, 9), st.just(3.0))})),
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
    *(f"input.{name}" for name in TYPES),
    *("input.map.n", "input.map.i", "input.numbers[0]", "input.integers[0]", "0", "2", "1.5", "'a'", "true", "[1, 2.5]"),
])  # fmt: skip
OPERATORS = ["+", "-", "*", "/", "%", "<", "<=", ">", ">=", "==", "!=", "&&", "||", "in"]
CALLS = ["size({})", "string({})", "double({})", "int({})", "-({})", "!({})", "({}).size()", "({})[0]", "dyn({}) == 1", "({}).map(v, v * 2)", "({}).map(v, v % 2)", "({}).filter(v, v > 1)", "({}).exists(v, v == 1)", "[{}]", "{{'k': {}}}.k", "get(input.map, 'n', 0) * ({})"]  # fmt: skip
PAIRS = ["({}) {} ({})".replace("{}", "{{}}", 1).replace(" {} ", f" {each} ").replace("{{}}", "{}") for each in OPERATORS]  # fmt: skip
PAIRS += ["({})[{}]", "({}).contains({})"]  # fmt: skip

EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(str.format, st.sampled_from(CALLS), inner),
        st.builds(str.format, st.sampled_from(PAIRS), inner, inner),
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
