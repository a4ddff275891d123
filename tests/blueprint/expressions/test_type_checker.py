"""Expressions before a run: unknown names, values that may be missing, and wrong types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.expressions.evaluators import Checked, Problem, check_expression, check_text

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
FLAG = {"type": "boolean"}


def record(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Return the schema of an object with only these fields."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


DOCUMENT = {
    "type": "object",
    "properties": {"title": TEXT, "note": TEXT, "pages": WHOLE, "by": {"type": ["string", "null"]}},
    "required": ["title", "pages", "by"],
}
INPUT = {
    "type": "object",
    "required": ["text", "count", "score", "docs", "owner", "kind", "two", "tags", "labels"],
    "properties": {
        "text": TEXT,
        "count": WHOLE,
        "score": {"type": "number"},
        "note": TEXT,
        "docs": {"type": "array", "items": {"$ref": "#/$defs/Document"}},
        "owner": {"anyOf": [{"$ref": "#/$defs/Owner"}, {"type": "null"}]},
        "kind": {"enum": ["refund", "bug"]},
        "two": {"anyOf": [TEXT, WHOLE]},
        "tags": {"type": "array", "items": TEXT},
        "labels": {"type": "object", "additionalProperties": TEXT},
        "node": {"$ref": "#/$defs/Node"},
    },
    "$defs": {
        "Document": DOCUMENT,
        "Owner": record({"name": TEXT}),
        "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "required": ["next"]},
        "Knot": {"$ref": "#/$defs/Knot"},
    },
}
SCOPE = {
    "type": "object",
    "properties": {
        "input": INPUT,
        "context": None,
        "previous": TEXT,
        "steps": {
            "type": "object",
            "properties": {
                "sort": record({"output": record({"label": {"const": "bug"}, "sure": FLAG, "score": WHOLE})}),
                "review": record({"output": True, "exhausted": FLAG}),
            },
            "additionalProperties": False,
        },
        "loop": record({"index": WHOLE, "reason": TEXT}),
        "run": record({"id": TEXT, "started_at": TEXT}),
    },
    "additionalProperties": False,
}


def check(source: str, expect: str | None = None) -> Checked:
    """Return the result of checking an expression in `SCOPE`."""
    return check_expression(source, SCOPE, expect=expect)


def only(source: str, expect: str | None = None) -> Problem:
    """Return the one problem of an expression in `SCOPE`."""
    (problem,) = check(source, expect).problems
    return problem


# Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "piece", "message", "hint"),
    [
        ("steps.sort.output.lable", "lable", "`steps.sort.output` has no `lable`", "`label`?"),
        ("1 > 0 && steps.sort.output.lable == 'x'", "lable", "has no `lable`", "`label`?"),
        ("'é😀' + input.txet", "txet", "`input` has no `txet`", "`text`?"),
        ("input\n  .docs\n  .map(d, d.titel)", "titel", "`d` has no `titel`", "`title`?"),
        ("input.docs[0].titel", "titel", "`input.docs[0]` has no `titel`", "`title`?"),
        ('input["txet"]', '"txet"', "`input` has no `txet`", "`text`?"),
        ("has(input.txet)", "txet", "`input` has no `txet`", "`text`?"),
        ('get(input, "txet", "")', '"txet"', "`input` has no `txet`", "`text`?"),
        ("input.owner.nmae == 'x'", "nmae", "`input.owner` has no `nmae`", "`name`?"),
        ("loop.idx", "idx", "`loop` has no `idx`", "`index`?"),
        ("run.now", "now", "`run` has no `now`", "`id`, `started_at`"),
        ("input.text.x", "x", "`input.text` is text, so it has no `x`", None),
        ("input.docs.title", "title", "`input.docs` is a list", "[0]"),
        ("steps.srt.output", "srt", "step `srt` is not in scope here", "`sort`?"),
        ("steps.sort.label", "label", "`steps.sort` has no `label`", "steps.sort.output.label"),
        ("sort.output.label", "sort", "`sort` is a step", "steps.sort.output.label"),
        ("sort.label", "sort", "`sort` is a step", "steps.sort.output.label"),
        ("steps.sort", "steps.sort", "name the step's output", "steps.sort.output"),
        ("size(steps) > 0", "steps", "name the step's output", "steps.NAME.output"),
        ("inputs.text", "inputs", "`inputs` is not in scope here", "`input`?"),
        ("item", "item", "`item` is not in scope here", None),
        ("input.count > 1 == True", "True", "`True` is not in scope here", "true"),
        ("None", "None", "`None` is not in scope here", "null"),
        ("context.__class__", "__class__", "not attributes of objects", None),
        ("input.__dict__", "__dict__", "not attributes of objects", None),
        ("len(input.text)", "len", "no function `len`", "`size`?"),
        ("input.text.upper()", "upper", "no function `upper`", "`upperAscii`?"),
        ("input.text.startswith('a')", "startswith", "no function `startswith`", "`startsWith`?"),
        ("frobnicate(1)", "frobnicate", "no function `frobnicate`", "module:function"),
        ("input()", "input", "`input` is a value, not a function", "parentheses"),
        ("input.text()", "text", "`text` is a value, not a function", "parentheses"),
        ("google.protobuf.Struct{}", None, "message type", None),
    ],
)
def test_an_unknown_name_is_reported_at_its_place(
    source: str, piece: str | None, message: str, hint: str | None
) -> None:
    problem = only(source)
    assert problem.severity == "error"
    assert message in problem.message
    assert hint is None or hint in str(problem.hint)
    assert piece is None or source[problem.start : problem.end] == piece


@pytest.mark.parametrize(
    ("source", "instead"),
    [
        ("env.API_KEY", "{secret: NAME}"),
        ("now()", "run.started_at"),
        ("random() > 0.5", "compute it in a step"),
        ("uuid()", "compute it in a step"),
        ("os.environ", "{secret: NAME}"),
        ("secrets.X", "{secret: NAME}"),
    ],
)
def test_environment_clock_and_randomness_are_not_available(source: str, instead: str) -> None:
    problem = only(source)
    assert problem.slug == "not-reproducible"
    assert "replay" in problem.message
    assert instead in str(problem.hint)


def test_all_unknown_names_are_reported_at_once() -> None:
    problems = check("nope.a && input.txet == now() || steps.srt.output").problems
    assert [problem.slug for problem in problems] == [
        "unknown-name",
        "unknown-name",
        "not-reproducible",
        "unknown-name",
    ]
    assert [problem.start for problem in problems] == sorted(problem.start for problem in problems)


@pytest.mark.parametrize(
    "source",
    [
        "context.anything.at.all == 3",
        "steps.review.output.x.y",
        "steps.review.exhausted",
        "input.two == 3 || input.two == 'x'",
        "input.docs.exists(input, input.title == 'a')",
        "input.docs.map(d, input.docs.map(e, e.title + d.title))",
        "input.docs[input.count].pages + 1",
        "input.labels.all(key, key != 'x')",
        "input.tags.map(t, t.upperAscii()).join(', ')",
        "strings.quote(input.text)",
        "type(input.two) == string",
        "input.kind == 'refund' ? 1 : 2",
        "input.score > 1 && input.score < 2.5",
        "loop.index + 1 < size(input.docs) // at the end",
        '{"loop": loop.reason}["loop"]',
        "timestamp(run.started_at).getHours() < 12",
        "get(input, 'note', '') + get(input.owner, 'name', '')",
        "get(context, 'x', get(context, 'y', 0)) == 1",
        "steps.sort.output.score in [1, 2]",
        "input == input && steps.sort.output == {}",
    ],
)
def test_a_valid_expression_has_no_findings(source: str) -> None:
    assert check(source).problems == ()


def test_with_an_unknown_scope_only_the_syntax_is_checked() -> None:
    assert check_expression("what.ever + x > 3", None).problems == ()
    assert check_expression("what.ever", {}).schema is None
    assert check_expression("len(x)", True).problems[0].slug == "unknown-function"


def test_a_recursive_schema_is_followed() -> None:
    assert check("input.node.next.next.next").problems[0].slug == "may-be-missing"
    knot = {"properties": {"k": {"$ref": "#/$defs/Knot"}}, "$defs": INPUT["$defs"]}
    assert check_expression("x.k.a", {"properties": {"x": knot}}).schema is None


# What may be missing or null ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "slug", "piece", "hint"),
    [
        ("input.note", "may-be-missing", "input.note", 'get(input, "note", …)'),
        ("input.note == 'x'", "may-be-missing", "input.note", "has(input.note) ?"),
        ("input.labels.size", "may-be-missing", "input.labels.size", "get(input.labels"),
        ("input.docs.map(d, d.note)", "may-be-missing", "d.note", 'get(d, "note", …)'),
        ("input.docs[0].note", "may-be-missing", "input.docs[0].note", "get(input.docs[0]"),
        ("input.owner.name", "may-be-null", "input.owner", "input.owner != null"),
        ("input.docs.map(d, d.by + '!')", "may-be-null", "d.by", 'get(d, "by", …)'),
        ("size(input.owner)", "may-be-null", "input.owner", 'get(input, "owner", …)'),
    ],
)
def test_a_value_that_may_be_missing_is_a_warning(source: str, slug: str, piece: str, hint: str) -> None:
    problem = only(source)
    assert (problem.severity, problem.slug) == ("warning", slug)
    assert source[problem.start : problem.end] == piece
    assert hint in str(problem.hint)


@pytest.mark.parametrize(
    "source",
    [
        "has(input.note) && input.note == 'x'",
        "has(input.note) ? input.note : 'none'",
        "!has(input.note) || size(input.note) > 3",
        "'note' in input && input.note == 'x'",
        "get(input, 'note', 'none') == 'x'",
        "input.docs.filter(d, has(d.note)).map(d, d.note)",
        "input.owner != null && input.owner.name == 'x'",
        "null == input.owner ? '' : input.owner.name",
        "input.owner == null",
        "input.owner in [null]",
        "input.owner",
        "[input.owner, null]",
        "input.docs.map(d, d.by)",
    ],
)
def test_a_value_that_is_checked_first_has_no_warning(source: str) -> None:
    assert check(source).problems == ()


def test_a_possible_null_in_a_condition_or_a_text_is_a_warning() -> None:
    scope = {"properties": {"input": record({"sure": {"type": ["boolean", "null"]}})}}
    assert [one.slug for one in check_expression("input.sure", scope, expect="bool").problems] == [
        "may-be-null"
    ]
    assert check_expression("input.sure == true", scope, expect="bool").problems == ()
    assert [one.slug for one in check_text("{{ input.sure }}!", scope).problems] == ["may-be-null"]
    assert check_text("{{ input.sure }}", scope).problems == ()


# Types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "piece", "message", "hint"),
    [
        ("input.text > 3", ">", "`>` does not take text and a whole number", "int(text)"),
        ("steps.sort.output.label == 3", "==", "`==` does not take text and a whole number", None),
        (
            "size(input.text) + 1.5",
            "+",
            "`+` does not take a whole number and a number with a fraction",
            "double(n)",
        ),
        ("'n: ' + input.count", "+", "`+` does not take text and a whole number", "string(n)"),
        ("input.text && true", "&&", "`&&` does not take text and a boolean", "booleans"),
        ("!input.text", "!", "`!` does not take text", "booleans"),
        ("input.text[0]", "[", "`[ ]` does not take text and a whole number", "charAt"),
        ("input.count ? 1 : 2", "?", "the condition of `? :` is a whole number", "compare"),
        (
            "input.text == '' ? 1 : 'x'",
            "?",
            "the two results of `? :` differ: a whole number and text",
            "dyn",
        ),
        ("input.count.map(c, c)", None, "take a list or a map, not a whole number", None),
        ("input.tags.map(t, t + 1)", "+", "`+` does not take text and a whole number", "string(n)"),
        (
            "'é' == '' ||\n  input.text == input.count",
            "==",
            "`==` does not take text and a whole number",
            None,
        ),
        ("size(input.text, 2)", None, "`size` does not take these arguments", "check their number"),
        ("get(input, 3, 'z')", None, "`get` does not take", "get(map"),
    ],
)
def test_incompatible_types_are_reported_at_their_place(
    source: str, piece: str | None, message: str, hint: str | None
) -> None:
    problem = only(source)
    assert (problem.severity, problem.slug) == ("error", "type-mismatch")
    assert message in problem.message
    assert hint is None or hint in str(problem.hint)
    assert piece is None or source[problem.start : problem.end] == piece


@pytest.mark.parametrize(
    ("source", "expect", "slug"),
    [
        ("input.text", "bool", "not-bool"),
        ("size(input.docs)", "bool", "not-bool"),
        ("input.docs", "bool", "not-bool"),
        ("input.text", "list", "not-list"),
        ("{'a': 1}", "list", "not-list"),
        ("input.count + 1", "string", "not-string"),
        ("timestamp(run.started_at)", None, "not-json"),
        ("type(input)", None, "not-json"),
        ("b'x'", "string", "not-json"),
    ],
)
def test_a_value_of_the_wrong_type_for_its_key_is_an_error(
    source: str, expect: str | None, slug: str
) -> None:
    problem = only(f" {source} ", expect)
    assert (problem.severity, problem.slug) == ("error", slug)
    assert (problem.start, problem.end) == (1, 1 + len(source))


@pytest.mark.parametrize(
    ("source", "expect"),
    [
        ("steps.sort.output.sure", "bool"),
        ("context.sure", "bool"),
        ("has(input.note)", "bool"),
        ("input.docs", "list"),
        ("input.text.split(' ')", "list"),
        ("steps.review.output.items", "list"),
        ("input.kind", "string"),
    ],
)
def test_a_value_that_fits_or_may_fit_its_key_passes(source: str, expect: str) -> None:
    assert check(source, expect).problems == ()


@pytest.mark.parametrize(
    ("source", "schema"),
    [
        ("input.text", TEXT),
        ("steps.sort.output.label", {"const": "bug"}),
        ("input.docs[0].pages", WHOLE),
        ("input.docs[0].by", {"type": ["string", "null"]}),
        ("input.docs.map(d, d.title)", {"type": "array", "items": TEXT}),
        ("input.text.split(' ')", {"type": "array", "items": TEXT}),
        ("input.count > 1", FLAG),
        ("has(input.note)", FLAG),
        ("input.count + 1", WHOLE),
        ("1.5 * 2.0", {"type": "number"}),
        ("null", {"type": "null"}),
        (
            "{'a': 1}",
            {"type": "object", "properties": {"a": WHOLE}, "required": ["a"], "additionalProperties": False},
        ),
        ("context.x", None),
        ("input.two", {"anyOf": [TEXT, WHOLE]}),
        ("get(input, 'note', '')", TEXT),
        ("get(input.owner, 'name', 'nobody')", TEXT),
        ("get(input, 'note', 3)", {"anyOf": [TEXT, WHOLE]}),
        ("get(input, 'count', context.x)", WHOLE),
        ("get(input, 'note', context.x)", None),
        ("'x'", TEXT),
        ("nope.x", None),
        ("{{ input.count }}", WHOLE),
    ],
)
def test_the_schema_of_a_value_follows_from_its_parts(source: str, schema: Any) -> None:
    assert check(source).schema == schema


def test_a_schema_keeps_its_definitions() -> None:
    schema = check("input.docs").schema
    assert schema["items"] == {"$ref": "#/$defs/Document"}
    assert schema["$defs"]["Document"] == DOCUMENT
    again = {"properties": {"previous": schema}}
    assert check_expression("previous[0].pages", again).schema == WHOLE
    owner = check("input.owner").schema
    assert owner == {"anyOf": [record({"name": TEXT}), {"type": "null"}]}


# Texts and places ----------------------------------------------------------------------------------------


def test_findings_in_a_text_have_their_offsets() -> None:
    source = "Hi {{ input.text }}, é {{ input.txet }} and\n{{ steps.srt.output > 'a' }}"
    checked = check_text(source, SCOPE)
    assert [source[one.start : one.end] for one in checked.problems] == ["txet", "srt"]
    assert checked.reads == (("input", "text"), ("input", "txet"), ("steps", "srt", "output"))


@pytest.mark.parametrize(
    ("source", "schema"),
    [("plain", TEXT), ("", TEXT), ("n: {{ input.count }}", TEXT), (" {{ input.count }} ", WHOLE)],
)
def test_a_text_has_type_text_unless_it_is_one_placeholder(source: str, schema: Any) -> None:
    assert check_text(source, SCOPE) == Checked(schema, (), check_text(source, SCOPE).reads)


def test_findings_in_a_wrapped_expression_have_their_offsets() -> None:
    source = "  {{ input.txet == 'x' }}"
    problem = only(source)
    assert source[problem.start : problem.end] == "txet"


@given(st.text(max_size=40))
def test_checking_never_raises(source: str) -> None:
    for checked in (check(source, "bool"), check_text(source, SCOPE)):
        for problem in checked.problems:
            assert 0 <= problem.start <= problem.end <= len(source)


WORDS = "input . docs text note [ ] 0 'a' ( ) + == && ? : , has get map x { } \"note\" null 1.5 ! in loop d steps sort"


@given(st.lists(st.sampled_from([*WORDS.split(), " ", "\n"]), max_size=14).map("".join))
def test_checking_any_sequence_of_tokens_never_raises(source: str) -> None:
    for checked in (check(source), check_text("{{" + source + "}}", SCOPE)):
        assert all(0 <= problem.start <= problem.end <= len(source) + 4 for problem in checked.problems)


# Numbers, which may be whole or not ----------------------------------------------------------------------


NUMBERS: Any = {
    "properties": {
        "input": {
            "type": "object",
            "properties": {
                "x": {"type": "number"},
                "n": {"type": "integer"},
                "text": TEXT,
                "all": {"type": "array", "items": {"type": "number"}},
                "maybe": {"type": ["number", "null"]},
            },
            "required": ["x", "n", "text", "all", "maybe"],
        }
    }
}
NUMBER = {"type": "number"}


@pytest.mark.parametrize(
    ("source", "schema"),
    [
        ("input.x * 2", NUMBER),
        ("input.n * 1.5", NUMBER),
        ("input.n > 1.5", FLAG),
        ("input.x * 1.5", NUMBER),
        ("input.x / double(input.n)", NUMBER),
        ("-input.x", NUMBER),
        ("size(input.all) * input.x", NUMBER),
        ("input.all.map(v, v * 2)", {"type": "array", "items": NUMBER}),
        ("[input.x, 2]", {"type": "array", "items": NUMBER}),
        ("input.n > 1 ? input.x : 1", NUMBER),
        ("get(input, 'x', 0)", NUMBER),
        ("int(input.x) % 2", WHOLE),
        ("input.x > 3", FLAG),
        ("input.x == 3", FLAG),
        ("input.x in [1, 2]", FLAG),
        ("string(input.x)", TEXT),
    ],
)
def test_a_number_goes_with_integers_and_floats(source: str, schema: Any) -> None:
    found = check_expression(source, NUMBERS)
    assert (found.schema, found.problems) == (schema, ())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("input.x % 2", "`%` does not take a number with a fraction"),
        ("(input.x * 2) % 2", "`%` does not take a number with a fraction"),
        ("[input.x * 2][0] % 2", "`%` does not take a number with a fraction"),
        ("{'a': input.x}.a % 2", "`%` does not take a number with a fraction"),
        ("(input.n > 1 ? input.x : 1) % 2", "`%` does not take a number with a fraction"),
        ("get(input, 'x', 0) % 2", "`%` does not take a number with a fraction"),
        ("input.all.map(v, v % 2)", "`%` does not take a number with a fraction"),
        ("input.x + input.text", "`+` does not take a number with a fraction and text"),
        ("input.x + null", "`+` does not take a number with a fraction and null"),
        ("input.all[input.x]", "`[ ]` does not take a list and a number with a fraction"),
        ("input.text.charAt(input.x)", "`charAt` does not take text and a number with a fraction"),
        ("size(input.x)", "`size` does not take a number with a fraction"),
        ("input.x.map(v, v)", "`map`, `filter`, `all` and `exists` take a list or a map"),
        ("!input.x", "`!` does not take a number with a fraction"),
        ("input.x ? 1 : 2", "the condition of `? :` is a number with a fraction"),
        ("1 in input.x", "`in` does not take"),
    ],
)
def test_an_operator_that_does_not_take_every_number_is_reported(source: str, message: str) -> None:
    (problem,) = check_expression(source, NUMBERS).problems
    assert problem.message.startswith(message)
    assert problem.severity == "error"


def test_an_operator_of_whole_numbers_suggests_an_integer() -> None:
    (problem,) = check_expression("input.x % 2", NUMBERS).problems
    assert problem.hint == "declare the number as `integer`, or write `int(n)`"


# Values of several types ---------------------------------------------------------------------------------


SEVERAL: Any = {
    "properties": {
        "input": record(
            {
                "yes": FLAG,
                "n": WHOLE,
                "x": NUMBER,
                "text": TEXT,
                "maybe": {"type": ["number", "null"]},
                "either": {"anyOf": [NUMBER, TEXT]},
                "counter": {"type": ["integer", "number"]},
                "rank": {"enum": [1, "top"]},
                "sizes": {"enum": [1, 2]},
                "gaps": {"type": "array", "items": {"type": ["number", "null"]}},
                "mixed": {"type": "array", "items": {"anyOf": [NUMBER, TEXT]}},
                "pair": {"type": "array", "prefixItems": [NUMBER, TEXT], "items": False},
                "by": {"anyOf": [record({"name": TEXT}), TEXT]},
                "note": {"allOf": [TEXT, {"minLength": 1}]},
                "labels": {"type": "object", "additionalProperties": WHOLE},
            },
            later=NUMBER,
        )
    }
}


def test_in_reports_two_results_of_different_types() -> None:
    (problem,) = check_expression("input.x in (input.yes ? input.x : input.text)", SEVERAL).problems
    assert problem.message.startswith("`in` does not take")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("input.either > 3", "`>` does not take text and a whole number"),
        ("input.either + input.either", "`+` does not take a number with a fraction and text"),
        ("input.counter % 2", "`%` does not take a number with a fraction and a whole number"),
        ("(input.yes ? input.x : input.text) + 1", "`+` does not take text and a whole number"),
        ("[input.x, 'a'].map(v, v * 2)", "`*` does not take text and a whole number"),
        ("[input.text, input.x].join(',')", "`join` does not take a list and text"),
        ("input.mixed[0] + 1", "`+` does not take text and a whole number"),
        ("input.mixed.map(v, v * 2)", "`*` does not take text and a whole number"),
        ("input.mixed.filter(v, v > 1)", "`>` does not take text and a whole number"),
        ("input.mixed.exists(v, v > 1)", "`>` does not take text and a whole number"),
        ("input.mixed.all(v, v > 1)", "`>` does not take text and a whole number"),
        ("input.gaps.map(v, v * 2)", "`v` may be null"),
        ("input.gaps[0] * 2", "`*` does not take null and a whole number"),
        ("input.rank + 1", "`+` does not take text and a whole number"),
        ("(input.yes ? input.mixed : input.x).map(v, v)", "`map`, `filter`, `all` and `exists` take a list"),
        ("input.by.name", "`input.by` may be text, which has no `name`"),
        ("get(input.by, 'name', '')", "`input.by` may be text, which has no `name`"),
        ("get(input, 'later', 'none') * 2", "`*` does not take text and a whole number"),
        ("input.later * 2", "`input.later` may be missing"),
        ("(input.maybe == null ? 1 : 2) + input.maybe + (input.yes ? input.mixed[0] : 1)", "`+` does not"),
        ("input.maybe in input.labels", "`in` does not take null and a map"),
        ("{input.either: 1}", "this key may be a number; a map needs keys of text"),
    ],
)
def test_an_operator_that_fails_for_some_types_is_a_warning(source: str, message: str) -> None:
    problem = check_expression(source, SEVERAL).problems[0]
    assert problem.message.startswith(message)
    assert problem.severity == "warning"
    assert problem.hint


@pytest.mark.parametrize(
    ("source", "piece", "message"),
    [
        ("1 > 0 || string(null) == ''", "(", "`string` does not take null"),
        ("int(null)", "(", "`int` does not take null"),
        ("size(null)", "(", "`size` does not take null"),
        ("timestamp(null) == null", "(", "`timestamp` does not take null"),
        ("null + null", "+", "`+` does not take null and null"),
        ("null < null", "<", "`<` does not take null and null"),
        ("null in input.labels", "in", "`in` does not take null and a map"),
        ("[null].join(',')", "(", "`join` does not take a list and text"),
        ("duration(input.n) == duration('1s')", "(", "`duration` does not take a whole number"),
        ("get(input.pair[0], 'a', 1)", "(", "`get` does not take a number with a fraction"),
        ("input.pair[1] * 2", "*", "`*` does not take text and a whole number"),
        ("input.note * 2", "*", "`*` does not take text and a whole number"),
        ("get(input, 'n', 0).trim()", "(", "`trim` does not take a whole number"),
        ("{null: 1}", "null", "this key is null; a map needs keys of text"),
        ("{input.x: 1}", "input.x", "this key is a number; a map needs keys of text"),
        ("[{1: 'low'}]", "1", "this key is a whole number; a map needs keys of text"),
        ("input.rank.map(v, v)", "(", "`map`, `filter`, `all` and `exists` take a list or a map"),
        ("input.x == 'a'", "==", "`==` does not take a number with a fraction and text"),
    ],
)
def test_an_operator_that_fails_for_every_type_is_an_error(source: str, piece: str, message: str) -> None:
    (problem,) = check_expression(source, SEVERAL).problems
    assert problem.message.startswith(message)
    assert (problem.severity, source[problem.start : problem.end]) == ("error", piece)


@pytest.mark.parametrize(
    "source",
    [
        "input.either == 3",
        "input.either in [1, 2]",
        "string(input.either)",
        "type(input.either) == string ? input.either.trim() : ''",
        "dyn(input.either) > 3",
        "input.counter * 2",
        "input.sizes % 2 == 0",
        "input.maybe == null || input.maybe > 3",
        "input.gaps.map(v, v != null ? v : 0).map(v, v * 2)",
        "input.gaps.filter(v, v != null).map(v, v * 2)",
        "input.gaps.exists(v, v == null)",
        "get(input, 'maybe', 0) * 2",
        "get(input, 'later', 0) * 2",
        "get(input, 'x', 'never') * 2",
        "input.pair[0] * 2",
        "input.pair[1].trim()",
        "size(input.mixed) + 1",
        "input.mixed + [1]",
        "[input.x, 'a', null]",
        "{1: 'low', 2: 'high'}[input.n]",
        "input.text in input.labels",
        "type(input.by) == map ? input.by.name : ''",
        "timestamp('2026-01-05T10:00:00Z') + duration('1h') > timestamp('2026-01-05T10:00:00Z')",
    ],
)
def test_an_operator_that_takes_every_type_has_no_findings(source: str) -> None:
    assert check_expression(source, SEVERAL).problems == ()


@pytest.mark.parametrize(
    ("source", "expect", "severity", "message"),
    [
        ("input.either", "list", "error", "this is a number; the key needs a list"),
        ("input.either", "string", "warning", "this may be a number; the key needs text"),
        ("[input.yes, null][0]", "bool", "warning", "this may be null; the key needs a boolean"),
    ],
)
def test_a_value_of_several_types_is_compared_with_its_key(
    source: str, expect: str, severity: str, message: str
) -> None:
    (problem,) = check_expression(source, SEVERAL, expect=expect).problems
    assert (problem.severity, problem.message) == (severity, message)


def test_a_possible_null_inside_a_text_is_a_warning() -> None:
    (problem,) = check_text("It is {{ input.gaps[0] }}.", SEVERAL).problems
    assert problem.message == "this may be null, which cannot be inserted into a text"
    assert check_text("{{ input.gaps[0] }}", SEVERAL).problems == ()
