"""Expressions at run time: the names that they read, their values, and their errors."""

from __future__ import annotations

import operator
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.expressions.evaluators import MAX_SOURCE, compile_expression
from flujo.exceptions import BlueprintError, ExpressionFailed, ExpressionSyntax

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.ports import Chain, Lookup

VALUES = {
    "input": {
        "text": "printer on fire",
        "count": 3,
        "score": 2.5,
        "nothing": None,
        "docs": [{"title": "one"}, {"title": "two", "note": "new"}],
        "odd-key": {"x": 1},
    },
    "loop": {"index": 2, "reason": "short"},
    "steps": {"sort": {"output": {"label": "refund", "score": 0.9}}},
    "previous": "the last answer",
}


def looking_up(values: dict[str, Any]) -> Lookup:
    """Return a lookup in nested dicts, as a frame offers it."""

    def lookup(chain: Chain) -> Any:
        here: Any = values
        for name in chain:
            if not isinstance(here, dict):
                raise KeyError(name)
            here = here[name]
        return here

    return lookup


LOOKUP = looking_up(VALUES)


def value(source: str) -> Any:
    """Return the value of an expression on `VALUES`."""
    return compile_expression(source)(LOOKUP)


def failure(source: str) -> ExpressionFailed:
    """Return the error of an expression that has no value on `VALUES`."""
    with pytest.raises(ExpressionFailed) as caught:
        value(source)
    return caught.value


# What an expression reads --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("steps.sort.output.label", [("steps", "sort", "output", "label")]),
        (" steps . sort\n.output ", [("steps", "sort", "output")]),
        ("input.a.b + input.a", [("input", "a")]),
        ("input.a && input.ab", [("input", "a"), ("input", "ab")]),
        ("has(input.note)", [("input", "note")]),
        ('get(input, "note", previous)', [("input", "note"), ("previous",)]),
        ('get(get(input, "a", {}), "b", 1)', [("input", "a")]),
        ('input["odd-key"].x', [("input", "odd-key", "x")]),
        ("input.`odd-key`.x", [("input", "odd-key", "x")]),
        ("input.docs[0].title", [("input", "docs")]),
        ("input.docs[loop.index].title", [("input", "docs"), ("loop", "index")]),
        ("input.docs.map(d, d.title + previous)", [("input", "docs"), ("previous",)]),
        ("input.docs.exists(input, input.title == previous)", [("input", "docs"), ("previous",)]),
        ("input.docs.map(d, d.parts.filter(p, p.n > d.n))", [("input", "docs")]),
        ("type(input) == map", [("input",)]),
        ("strings.quote(input.text)", [("input", "text")]),
        ('{"input": context.a, "b": [context.b]}', [("context", "a"), ("context", "b")]),
        ('"loop.index" + loop.reason', [("loop", "reason")]),
        ("1 + 2", []),
    ],
)
def test_an_expression_reads_only_its_longest_name_chains(source: str, reads: list[Chain]) -> None:
    assert list(compile_expression(source).reads) == reads


def test_only_the_names_of_an_expression_are_looked_up() -> None:
    asked: list[Chain] = []

    def lookup(chain: Chain) -> Any:
        asked.append(chain)
        return LOOKUP(chain)

    assert compile_expression('input.text == "x" || has(input.note) || loop.index > 5')(lookup) is False
    assert asked == [("input", "note"), ("input", "text"), ("loop", "index")]


def test_the_same_source_is_compiled_once() -> None:
    assert compile_expression("input.count > 1") is compile_expression("input.count > 1")


def test_a_bare_path_returns_the_same_object() -> None:
    assert value("input.docs") is VALUES["input"]["docs"]  # type: ignore[index]  # a dict of many shapes


# What an expression gives ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("input.count", 3),
        ("input.count + 1", 4),
        ("input.count == 3.0", True),
        ("input.score > 2", True),
        ("input.score", 2.5),
        ("2.0", 2.0),
        ("input.nothing", None),
        ("input.nothing == null", True),
        ("has(input.note)", False),
        ("has(input.nothing)", True),
        ("has(steps.other.output)", False),
        ("has(input.note) && input.note == 'x'", False),
        ("has(input.text) ? input.text : ''", "printer on fire"),
        ('get(input, "note", "none")', "none"),
        ('get(input, "nothing", "none")', "none"),
        ('get(input, "nothing", null)', None),
        ('get(input, "text", "none")', "printer on fire"),
        ('get(input, "docs", [])[1].note', "new"),
        ('input.docs.map(d, get(d, "note", "old"))', ["old", "new"]),
        ('get(get(input, "missing", {}), "b", 1.5)', 1.5),
        ('get(input.nothing, "b", true)', True),
        ('input.docs.map(d, "- " + d.title).join("\\n")', "- one\n- two"),
        ('input.docs.filter(d, has(d.note)).map(d, d["title"])', ["two"]),
        ('"%s: %d".format([input.text, input.count])', "printer on fire: 3"),
        ("loop.index + 1", 3),
        ('"loop" + string(loop.index) // loop', "loop2"),
        ("[1, 2].map(x, [x, 2.0])", [[1, 2.0], [2, 2.0]]),
        ('{"a": input.count, "b": {"c": null}}', {"a": 3, "b": {"c": None}}),
        ("{{ input.count > 2 }}", True),
        ("  {{input.text}}\n", "printer on fire"),
        ('{{ {"a": {"b": 1}} }}', {"a": {"b": 1}}),
        ('timestamp("2026-01-05T10:00:00Z").getFullYear()', 2026),
        ("size(input.text)", 15),
    ],
)
def test_an_expression_returns_plain_json(source: str, expected: Any) -> None:
    given_value = value(source)
    assert given_value == expected
    assert type(given_value) is type(expected)


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_stay_unchanged(number: int) -> None:
    lookup = looking_up({"input": {"n": number}})
    assert compile_expression("input.n")(lookup) == number
    assert compile_expression("[input.n][0]")(lookup) == number


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_text_stays_unchanged(text: str) -> None:
    assert compile_expression("[input.t][0]")(looking_up({"input": {"t": text}})) == text


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
Twin = tuple[str, Any]
NUMBERS: st.SearchStrategy[Twin] = st.recursive(
    st.integers(0, 1000).map(lambda n: (str(n), n)),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda parts: (
            f"({parts[0][0]} {parts[1]} {parts[2][0]})",
            OPERATORS[parts[1]](parts[0][1], parts[2][1]),
        )
    ),
    max_leaves=5,
)
BOOLEANS: st.SearchStrategy[Twin] = st.recursive(
    st.tuples(NUMBERS, st.sampled_from(["<", "<=", "==", "!="]), NUMBERS).map(
        lambda parts: (
            f"({parts[0][0]} {parts[1]} {parts[2][0]})",
            OPERATORS[parts[1]](parts[0][1], parts[2][1]),
        )
    ),
    lambda inner: st.one_of(
        inner.map(lambda one: (f"!{one[0]}", not one[1])),
        st.tuples(inner, inner).map(lambda two: (f"({two[0][0]} && {two[1][0]})", two[0][1] and two[1][1])),
        st.tuples(inner, inner).map(lambda two: (f"({two[0][0]} || {two[1][0]})", two[0][1] or two[1][1])),
    ),
    max_leaves=4,
)


@given(st.one_of(NUMBERS, BOOLEANS))
def test_arithmetic_and_logic_agree_with_python(twin: Twin) -> None:
    source, expected = twin
    assert compile_expression(source)(LOOKUP) == expected


def test_threads_may_share_an_expression() -> None:
    shared = compile_expression('input.docs.map(d, get(d, "n", 0) + input.n).size() == 2 && input.n > 5')
    wrong: list[int] = []

    def work(offset: int) -> None:
        for n in range(offset, offset + 300):
            if shared(looking_up({"input": {"n": n % 11, "docs": [{"n": 1}, {}]}})) != (n % 11 > 5):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(index * 7,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# What an expression says when it has no value -------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason", "hint"),
    [
        (
            "steps.sort.output.lable",
            "`steps.sort.output` has no `lable`; it has `label`, `score`",
            "`label`?",
        ),
        ("steps.sort.output.lable == 'x'", "`steps.sort.output` has no `lable`", "`label`?"),
        ("steps.draft.output.text", "step `draft` has no output here", "branch was not taken"),
        ("input.zzz", "`input` has no `zzz`", 'get(input, "zzz", "")'),
        ("input.nothing.x", "`input.nothing` is null", None),
        ("input.text.x", "`input.text` is text, not a map", None),
        ("item.title", "`item.title` does not exist", None),
        ("input.docs.map(d, d.note)", "has no key `note`", "has("),
        ("input.docs[7]", "2 items, so [7] does not exist", "size("),
        ("input.score % 2", "`%` does not take a number with a fraction and a whole number", "int(n)"),
        ("input.count + ' items'", "`+` does not take a whole number and text", "string(n)"),
        ("input.nothing > 1", "`>` does not take null", "get(map"),
        ("input.count ? 1 : 2", "a condition is not a boolean", "compare"),
        ("!input.text", "`!` does not take this kind of value", "booleans"),
        ("input.count / 0", "divides by zero", None),
        ("input.count % 0", "divides by zero", None),
        ("9223372036854775807 + input.count", "64 bits", "double(n)"),
        ("int(input.text)", "text cannot be read as a whole number", None),
        ("int(1e300)", "a number with a fraction cannot be read as a whole number of 64 bits", "check"),
        ("uint(-1)", "a whole number cannot be read as an unsigned whole number", "check"),
        ("bool(input.text)", "text cannot be read as a boolean", "check"),
        ("string(timestamp(input.text))", "text cannot be read as a timestamp", "check"),
        ("input.text.substring(99)", "a position is outside the text", "size("),
        ("input.text.charAt(-1)", "a position is outside the text", "size("),
        ("input.text.indexOf('a', 99)", "a position is outside the text", "size("),
        ("'%s %s'.format([1])", "`format` has more placeholders than values", "for each `%`"),
        ("'%q'.format([1])", "`format` does not have the placeholder `%q`", None),
        ("'%d'.format(['a'])", "`format` does not support this value", "%s"),
        ("dyn(input.text)[0]", "`[ ]` does not take this value", "charAt"),
        ("dyn(input.docs)['a']", "an index of a list is not a whole number", "int(n)"),
        ("dyn(input.count).reverse()", "`reverse` does not take a whole number", None),
        ("dyn(input.count).map(c, c)", "take a list or a map", None),
        ("dyn(input.count) < input.text", "`<` does not take a whole number and text", "int(text)"),
        ("{dyn(null): 1}", "a key of a map is not text", "string("),
        ("timestamp(0).getFullYear('Nowhere')", "the time zone does not exist", "Europe/Berlin"),
        ("input.text.matches(input.text + '(')", "not a regular expression", None),
        ('get(input.docs, "a", 1) + get([1], "a", 1)', "the first argument of `get` is not a map", "get(map"),
        ("b'x'", "bytes, which is not JSON", "an expression returns JSON"),
        ("[timestamp('2026-01-05T10:00:00Z')]", "a timestamp, which is not JSON", "JSON"),
        ("{'a': duration('1s')}", "a duration, which is not JSON", "JSON"),
        ("type(1)", "a type, which is not JSON", "JSON"),
        ("{1: 2}", "a key that is not text", "JSON"),
        ("1.0 / 0.0", "not a finite number", "JSON"),
        ("[1.0 / 0.0]", "not a finite number", "JSON"),
    ],
)
def test_a_failure_has_a_reason_and_a_hint(source: str, reason: str, hint: str | None) -> None:
    error = failure(source)
    assert reason in error.message
    assert f"`{source}`" in error.message
    assert hint is None or hint in str(error.hint)
    assert error.facts["expression"] == source


def test_a_failure_never_shows_values() -> None:
    lookup = looking_up({"input": {"token": "sk-hush", "n": 1}})
    for source in [
        "input.token.x",
        "input.token + 1",
        "int(input.token)",
        "input.tokn",
        "'%f'.format([input.token])",
    ]:
        with pytest.raises(ExpressionFailed) as caught:
            compile_expression(source)(lookup)
        assert "hush" not in caught.value.message + str(caught.value.hint)


def test_a_name_that_is_not_evaluated_may_be_missing() -> None:
    assert value("true || input.zzz") is True
    assert value("has(input.zzz) ? input.zzz : input.count") == 3


def test_nested_loops_over_lists_are_bounded() -> None:
    thirty = f"[{', '.join(str(n) for n in range(30))}]"
    source = f"size({thirty}.map(a, {thirty}.map(b, {thirty}.map(c, {thirty}.map(d, a + b + c + d)))))"
    assert "more than 10,000 iterations" in failure(source).message


def test_a_value_over_one_mebibyte_is_refused() -> None:
    pages = looking_up({"input": {"page": "x" * 300_000}})
    assert compile_expression("input.page + input.page")(pages)
    for source in ["[input.page, input.page, input.page, input.page]", "input.page.replace('x', 'four')"]:
        with pytest.raises(ExpressionFailed, match="larger than 1 MiB"):
            compile_expression(source)(pages)


def test_the_value_of_a_bare_path_has_no_size_limit() -> None:
    page = "x" * 3_000_000
    assert compile_expression("input.page")(looking_up({"input": {"page": page}})) is page


def test_a_value_that_cel_cannot_hold_is_a_typed_error() -> None:
    with pytest.raises(ExpressionFailed):
        compile_expression("input.n + 1")(looking_up({"input": {"n": 2**70}}))
    with pytest.raises(ExpressionFailed):
        compile_expression("input.n == 'x'")(looking_up({"input": {"n": "\ud800"}}))


# Syntax errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason", "hint", "piece"),
    [
        ("a b", "`b` is not expected here", None, "b"),
        ("a and b", "`and` is not expected here", "a && b", "and"),
        ("not a", "`a` is not expected here", "!a", "a"),
        ("a = 1", "`=` is not expected here", "==", "="),
        ("a & b", "`&` is not expected here", "&&", "&"),
        ("input.text | upper", "`|` is not expected here", "input.text.upperAscii()", "|"),
        ("(1", "unexpected end", "close all brackets", ""),
        ("1)", "`)` is not expected here", None, ")"),
        ("'abc", "a quote is never closed", "close it", "'"),
        ("a ?? b", "`?` is not expected here", "get(map", "?"),
        ("a?.b", "unexpected end", "has(a.b)", ""),
        ("while.x", "`while` is a reserved word", "another name", "while"),
        ("has(a)", "`has()` takes a field", "has(input.note)", "a"),
        ("[1].map(1, 2)", "first argument of `map()` is a variable name", "items.map(item", "1"),
        ("99999999999999999999", "64 bits", None, "99999999999999999999"),
        ("1 + 'a'", "`+` does not take a whole number and text", "string(n)", "+"),
        ("'é😀' + 1", "`+` does not take text and a whole number", "string(n)", "+"),
        ("'é' ==\n 1", "`==` does not take", None, "=="),
        ("nope(1)", "no function `nope`", None, None),
        ("size(1, 2)", "`size` does not take these arguments", "check their number", None),
        ("", "empty", None, ""),
        ("  ", "empty", None, None),
        ("{{ }}", "empty", None, None),
        ("{{ a }} && {{ b }}", "takes one expression", "all of it in one", None),
        ("{{ a", "never closed", "}}", None),
        ("a == {{ b }}", "", "takes one expression", None),
        ("{{ a and b }}", "`and` is not expected here", "a && b", "and"),
        ("true ? 1 : 'a'", "the two results of `? :` differ", "dyn(", None),
    ],
)
def test_a_syntax_error_is_explained_at_its_place(
    source: str, reason: str, hint: str | None, piece: str | None
) -> None:
    with pytest.raises(ExpressionSyntax) as caught:
        compile_expression(source)
    error = caught.value
    assert reason in error.message
    assert hint is None or hint in str(error.hint)
    assert 0 <= error.facts["start"] <= error.facts["end"] <= len(source)
    assert piece is None or source[error.facts["start"] : error.facts["end"]] == piece


@pytest.mark.parametrize(
    "source",
    ["(" * 200 + "1" + ")" * 200, "[" * 500 + "]" * 500, "+".join(["1"] * 300), "a" + ".b" * 300 + "+1"],
    ids=["parentheses", "lists", "sum", "path"],
)
def test_deep_nesting_is_a_typed_error(source: str) -> None:
    with pytest.raises(ExpressionSyntax, match="32 levels"):
        compile_expression(source)


def test_a_source_over_two_kilobytes_is_refused() -> None:
    compile_expression(f"'{'x' * (MAX_SOURCE - 2)}'")
    with pytest.raises(ExpressionSyntax, match="longer than 2048 bytes"):
        compile_expression(f"'{'x' * (MAX_SOURCE - 1)}'")
    with pytest.raises(ExpressionSyntax, match="longer than 2048 bytes"):
        compile_expression(f"'{'é' * (MAX_SOURCE // 2)}'")


def test_a_syntax_error_is_a_blueprint_error() -> None:
    with pytest.raises(BlueprintError):
        compile_expression("a b")


def compiles_or_says_why(source: str) -> None:
    """Compile and evaluate any source; only typed errors are allowed."""
    with suppress(ExpressionSyntax, ExpressionFailed):
        compile_expression(source)(LOOKUP)


@given(st.text(max_size=60))
def test_any_source_compiles_or_is_a_typed_error(source: str) -> None:
    compiles_or_says_why(source)


WORDS = """input . docs [ ] 0 'a' ( ) + == && ? : , has get map x { } "b" null 1.5 ! in loop // `k` r' \'\'\' - {{ }}"""


@given(st.lists(st.sampled_from([*WORDS.split(), " ", "\n"]), max_size=14).map("".join))
def test_any_sequence_of_tokens_compiles_or_is_a_typed_error(source: str) -> None:
    compiles_or_says_why(source)
