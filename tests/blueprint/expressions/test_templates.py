"""Texts: the value of a `{{ … }}`, where it ends, and findings about wrong braces."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.expressions.evaluators import check_text, compile_text
from flujo.blueprint.expressions.templates import scan
from flujo.domain import canonical
from flujo.exceptions import ExpressionFailed, ExpressionSyntax

if TYPE_CHECKING:
    from flujo.domain.ports import Chain

INPUT: dict[str, Any] = {
    "text": "printer on fire",
    "count": 3,
    "score": 2.0,
    "open": True,
    "nothing": None,
    "tags": ["a", "b"],
    "by": {"z": 1, "a": {"q": None}},
}


def filled(source: str, values: dict[str, Any] | None = None) -> Any:
    """Return the filled text; names are `input.…`."""
    known = INPUT if values is None else values

    def lookup(chain: Chain) -> Any:
        root, *rest = chain
        here: Any = {"input": known}[root]
        for name in rest:
            here = here[name]
        return here

    return compile_text(source)(lookup)


# What a placeholder becomes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("Ticket: {{ input.text }}!", "Ticket: printer on fire!"),
        ("{{input.count}} of {{ input.count + 1 }}", "3 of 4"),
        ("{{ input.score }} {{ input.open }}", "2 true"),
        ("{{ input.tags }};", '["a","b"];'),
        ("{{ input.by }};", '{"a":{"q":null},"z":1};'),
        ('{"a": {"b": {{ input.count }}}}', '{"a": {"b": 3}}'),
        ("{{ '}}' }}{{ \"{{\" }}.", "}}{{."),
        ("{{ r'\\d' }} {{ '''a'b}}''' }}", "\\d a'b}}"),
        ('{{ """q"}}"r""" }}.', 'q"}}"r.'),
        ("{{ '\\'}}' }}.", "'}}."),
        ("{{ {'a': {'b': 1}}.a.b }}{{{'c':2}.c}}", "12"),
        ("{{ input.text // a comment with }}\n }}.", "printer on fire."),
        ("a }} b { c } d", "a }} b { c } d"),
        ("${{ input.count }}", "$3"),
    ],
)
def test_placeholders_of_a_text_are_replaced(source: str, expected: str) -> None:
    assert filled(source) == expected


@pytest.mark.parametrize("name", sorted(INPUT))
def test_a_text_of_one_placeholder_keeps_the_type_of_the_value(name: str) -> None:
    assert filled(f" \n{{{{ input.{name} }}}}\t") is INPUT[name]


def test_null_in_the_middle_of_a_text_is_an_error_that_names_the_expression() -> None:
    with pytest.raises(ExpressionFailed, match=r"`input\.nothing`.*null") as caught:
        filled("note: {{ input.nothing }}")
    assert "get(" in str(caught.value.hint)
    assert filled("note: {{ get(input, 'nothing', '-') }}") == "note: -"


def test_a_literal_text_keeps_its_braces() -> None:
    text = compile_text("{{ input.text }} {% if %} {{", literal=True)
    assert text(lambda _: pytest.fail("nothing is read")) == "{{ input.text }} {% if %} {{"
    assert text.reads == ()


def test_a_text_reads_the_names_of_its_placeholders() -> None:
    text = compile_text("{{ input.a.b }} {{ input.a }} {{ context.x + 1 }}")
    assert text.reads == (("context", "x"), ("input", "a"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
    max_leaves=10,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


@given(TEXT.filter(lambda text: "{{" not in text))
def test_a_text_without_placeholders_stays_unchanged(text: str) -> None:
    assert filled(text) == text


@given(st.lists(st.sampled_from(["{{", "}}", " input.text ", "input.x", "{%", "'", "\\", "a"])).map("".join))
def test_inserted_values_are_not_evaluated_again(text: str) -> None:
    assert filled("<{{ input.x }}|{{ input.x + '' }}>", {"x": text}) == f"<{text}|{text}>"


@given(JSON, TEXT)
def test_a_single_placeholder_returns_the_value_unchanged(value: Any, text: str) -> None:
    assert filled("{{ input.x }}", {"x": value}) is value
    assert filled("{{ input.x }}", {"x": text}) is text


@given(JSON.filter(lambda value: value is not None))
def test_a_value_in_a_text_is_its_json(value: Any) -> None:
    shown = filled("={{ input.x }}", {"x": value}).removeprefix("=")
    assert canonical.is_same(shown.encode(), canonical.encode(value))
    assert not re.search(r"\.0(?![0-9])", re.sub(r'"(\\.|[^"\\])*"', "", shown))


def test_a_whole_number_in_a_text_has_no_fraction() -> None:
    values = {"x": 3.0, "y": [1.0, 2.5, {"a.0": -4.0}], "z": "3.0"}
    text = "{{ input.x }} {{ input.y }} {{ input.z }}"
    assert filled(text, values) == '3 [1,2.5,{"a.0":-4}] 3.0'


# Where a placeholder ends ---------------------------------------------------------------------------------


@given(st.text("{}'\"`/r\\ \n%ab.", max_size=40))
def test_the_scanner_never_raises_and_loses_nothing(text: str) -> None:
    found = scan(text)
    assert all(text[piece.start :].startswith(piece.source) for piece in found.pieces)
    braces = 4 * sum(piece.code for piece in found.pieces)
    assert sum(len(piece.source) for piece in found.pieces) + braces <= len(text)
    assert found.problems or sum(len(piece.source) for piece in found.pieces) + braces == len(text)
    assert all(0 <= problem.start <= problem.end <= len(text) for problem in found.problems)
    with suppress(ExpressionSyntax, ExpressionFailed, KeyError):
        filled(text)


def test_a_megabyte_of_open_braces_is_scanned_in_linear_time() -> None:
    assert len(scan("{{ a " * 200_000).problems) == 1
    assert len(scan('{{ """' * 150_000).problems) == 1


# Findings about wrong braces -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "slug", "severity", "piece", "hint"),
    [
        ("Hello {{ input.text", "unclosed-braces", "error", "{{ input.text", 'write `{{ "{{" }}`'),
        ("Hello {{ input.text }\nnext", "unclosed-braces", "error", "{{ input.text }", "}}"),
        ("{{ input.text // hidden }}", "unclosed-braces", "error", "{{ input.text // hidden }}", "comments"),
        ("{{ '}} }} and so on", "expression-syntax", "error", "'", "close it"),
        ("a {{ }} b", "empty-expression", "error", "{{ }}", "between the braces"),
        ("total }} due", "stray-braces", "warning", "}}", "write `{{` before it"),
        ("{% for d in docs %}x{% endfor %}", "logic-in-text", "error", "{% for d in docs %}", ".map(item"),
        ("{%- if x -%}", "logic-in-text", "error", "{%- if x -%}", "conditional"),
        ("{{ input.text | upper }}", "expression-syntax", "error", "|", "input.text.upperAscii()"),
        ("{{ input.text | tojson }}", "expression-syntax", "error", "|", "automatically"),
        ("{{ input.text() }}", "unknown-function", "error", "text", "size"),
        ("{{ input() }}", "unknown-function", "error", "input", "remove the parentheses"),
        ("{{ input.text and input.count }}", "expression-syntax", "error", "and", "a && b"),
    ],
)
def test_wrong_braces_are_explained_at_their_place(
    source: str, slug: str, severity: str, piece: str, hint: str
) -> None:
    scope = {"properties": {"input": {"properties": {"text": {"type": "string"}}, "required": ["text"]}}}
    problem = check_text(source, scope).problems[0]
    assert (problem.slug, problem.severity) == (slug, severity)
    assert source[problem.start : problem.end] == piece or slug == "unknown-function"
    assert hint in str(problem.hint) or slug == "unknown-function"


@pytest.mark.parametrize(
    "source",
    [
        '{"a": {"b": 1}}',
        'Answer as {"label": {"is": {{ input.text }}}} or {"label": {}}.',
        "Use 100 %} or {% of it",
        "f(x) = {y | {z}}",
        "{{ '{% if %}' }}",
    ],
)
def test_braces_of_other_languages_are_accepted(source: str) -> None:
    scope = {"properties": {"input": {"properties": {"text": {"type": "string"}}, "required": ["text"]}}}
    assert check_text(source, scope).problems == ()


@pytest.mark.parametrize("source", ["a {{ b", "{{ }} x", "{{ a b }} c", "x {{ 1 + 'a' }}"])
def test_a_malformed_text_does_not_compile(source: str) -> None:
    with pytest.raises(ExpressionSyntax) as caught:
        compile_text(source)
    assert 0 <= caught.value.facts["start"] <= caught.value.facts["end"] <= len(source)
