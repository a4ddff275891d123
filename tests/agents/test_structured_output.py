from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.answer_corpus import CorpusAnswer, corpus
from flujo.agents.structured_output import MAX_BYTES, MAX_DEPTH, OutputReader
from flujo.exceptions import AgentError, OutputRejected
from flujo.json_schema import strict_json

ANSWER = {
    "type": "object",
    "properties": {
        "label": {"enum": ["refund", "bug"]},
        "score": {"type": "number"},
        "count": {"type": "integer"},
        "urgent": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"type": ["string", "null"]},
    },
    "required": ["label"],
}
OBJECT = {"type": "object"}


def read(text: str, schema: Any = ANSWER, level: int = 2) -> Any:
    return OutputReader(schema, level=level).read(text)


@pytest.mark.parametrize(
    ("text", "value", "repairs"),
    [
        ('```json\n{"label": "bug"}\n```', {"label": "bug"}, ("extracted the JSON from a code fence",)),
        ('```\n{"label": "bug"}', {"label": "bug"}, ("extracted the JSON from a code fence",)),
        ('The label is {"label": "bug"}. Bye!', {"label": "bug"}, ("removed the text around the JSON",)),
        ('Like {"a": 1}, so {"label": "bug"}', {"label": "bug"}, ("removed the text around the JSON",)),
        ('{"label": "Bug "}', {"label": "bug"}, ('read "Bug " as "bug" at label',)),
        ('{"label": "bug", "count": "3"}', {"label": "bug", "count": 3}, ('read "3" as 3 at count',)),
        ('{"label": "bug", "score": "0.5"}', {"label": "bug", "score": 0.5}, ('read "0.5" as 0.5 at score',)),
        (
            '{"label": "bug", "urgent": "True"}',
            {"label": "bug", "urgent": True},
            ('read "True" as true at urgent',),
        ),
        ('{"label": "bug", "tags": "a"}', {"label": "bug", "tags": ["a"]}, ('read "a" as ["a"] at tags',)),
        ('{"label": "bug", "tags": [7]}', {"label": "bug", "tags": ["7"]}, ('read 7 as "7" at tags.0',)),
        ('{"label": "bug", "note": 7}', {"label": "bug", "note": "7"}, ('read 7 as "7" at note',)),
    ],
)
def test_level_1_strips_and_coerces_and_reports_both(text: str, value: Any, repairs: tuple[str, ...]) -> None:
    reading = read(text, level=1)
    assert (reading.value, reading.repairs) == (value, repairs)
    with pytest.raises(OutputRejected):
        read(text, level=0)


@pytest.mark.parametrize(
    "text",
    [
        "{label: 'bug'}",
        '{"label": "bug",}',
        '{"label": "bug" "count": 3}',
        '{"label": "bug", // why\n "count": 3}',
        'Here you are: {"label": "bug", "note": "it "crashes" often"}',
        '{"label": “bug”}',
    ],
)
def test_level_2_repairs_broken_json(text: str) -> None:
    reading = read(text)
    assert reading.value["label"] == "bug"
    assert reading.repairs[0] == "repaired broken JSON"
    with pytest.raises(OutputRejected):
        read(text, level=1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("I cannot say.", "it contains no JSON"),
        ('{"label": "praise"}', "`label` must be one of 'refund', 'bug', not 'praise'"),
        ('{"count": 1}', "the value lacks `label`"),
        ('{"label": "bug", "count": "three"}', "`count` must be `integer`, not a text: 'three'"),
        ('{"label": "bug", "score": 1e999}', ""),
        ("[" * (MAX_DEPTH + 1), "nested"),
        ("[" * 100_000, "nested"),
        ('"' + "[" * 100_000, "its JSON is complete"),
        ('{"label": "bug"', "it ends before its JSON is complete"),
        ('```json\n{"label": "bug", "note": "cut o', "it ends before its JSON is complete"),
        ('{"label": "bug", "tags": ["a", "b"', "it ends before its JSON is complete"),
        ('{"label": "bug", "note": "' + "x" * MAX_BYTES + '"}', "larger than 256 KiB"),
        ('{"label": "bug", "count": ' + "9" * 5000 + "}", "too large for a number"),
        ("9" * 5000, "JSON"),
    ],
)
def test_unreadable_text_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(OutputRejected) as caught:
        read(text)
    assert reason in caught.value.facts["reason"]
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "text", ["NaN", '{"label": "bug", "score": NaN}', '{"label": "bug", "score": -Infinity}']
)
def test_nan_and_infinity_are_never_returned(text: str) -> None:
    for level in (0, 1, 2):
        with pytest.raises(OutputRejected):
            read(text, level=level)


def test_a_schema_that_refers_to_the_network_or_to_itself_ends_in_a_typed_error() -> None:
    for schema in ({"$ref": "http://127.0.0.1:9/schema.json"}, {"$ref": "file:///etc/passwd"}, {"$ref": "#"}):
        with pytest.raises(OutputRejected, match=r"the schema cannot be applied|too deeply to be checked"):
            read("{}", schema)
    with pytest.raises(AgentError, match="not a JSON Schema"):
        OutputReader({"type": 7}, level=0)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(?=x)y"},
        {"properties": {"code": {"anyOf": [{"pattern": r"(a)\1"}, {"type": "null"}]}}},
        {"patternProperties": {"(?<!a)b": True}},
    ],
)
def test_a_schema_with_an_unusable_pattern_is_refused_before_the_first_request(schema: Any) -> None:
    with pytest.raises(AgentError, match="a pattern that is not supported"):
        OutputReader(schema, level=1)


def test_a_value_that_only_looks_like_a_pattern_is_not_one() -> None:
    schema = {"properties": {"pattern": {"const": {"pattern": "("}}}}
    assert OutputReader(schema, level=0).read('{"pattern": {"pattern": "("}}').value


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"enum": ["yes", "no"]}, "Yes", "yes"),
        ({"type": "integer"}, " 42 ", 42),
        ({"type": "integer"}, "The answer is 42", None),
        ({"type": "boolean"}, "true", True),
        ({"type": "array", "items": {"type": "integer"}}, "Sure: [1, 2]", [1, 2]),
        ({"type": "array", "items": {"type": "integer"}}, '{"value": [1]}', [1]),
        ({"type": "string"}, '{"value": "as it is"}', '{"value": "as it is"}'),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, '{"value": null}', None),
    ],
)
def test_values_other_than_objects_are_read_bare_or_wrapped(schema: Any, text: str, value: Any) -> None:
    if text.startswith("The answer"):
        with pytest.raises(OutputRejected):
            read(text, schema)
    else:
        assert read(text, schema).value == value


def test_definitions_stay_reachable_when_a_schema_is_wrapped() -> None:
    schema = {"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}}
    reader = OutputReader(schema, level=0)
    assert reader.asked_schema["$defs"] == schema["$defs"]
    assert reader.read('{"value": [1]}').value == [1]


def test_an_error_that_coercion_cannot_fix_leaves_other_values_unchanged() -> None:
    with pytest.raises(OutputRejected, match="`count` must be `integer`, not a text: '3'"):
        read('{"label": "praise", "count": "3"}')


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(
    value=st.dictionaries(TEXTS, JSON_VALUES, max_size=4),
    level=st.integers(0, 2),
    ascii_only=st.booleans(),
)
def test_valid_json_is_never_changed(value: Any, level: int, ascii_only: bool) -> None:
    reading = read(json.dumps(value, ensure_ascii=ascii_only), OBJECT, level)
    assert reading.value == value
    assert reading.repairs == ()


BROKEN = st.builds(
    lambda text, at, piece: text[:at] + piece + text[at:],
    st.sampled_from(['{"label": "bug", "tags": ["a"], "count": "3"}', '```json\n{"label":"Refund"}\n```']),
    st.integers(0, 50),
    st.sampled_from(
        ["", '"', "{", "}", "[", "]", ",", ":", "\\", "\n", "```", "'", "//", "\ud800", "\x00", "NaN"]
    ),
)


@given(text=BROKEN | st.text(max_size=80))
@example("{'label': 'bug', 'note': 'it''s'}")
@example('{"label": "bug"}{"label": "refund"}')
@example('{"label": "bug", "tags": ["a" "b"]}')
@example('{"key": "value" "label": "bug"')
@example('[{"label": "bug"}, {"label": "refund"}')
@example('{"label": "bug\\')
@example("{" * 64)
def test_reading_is_idempotent_and_raises_only_typed_errors(text: str) -> None:
    reader = OutputReader(ANSWER, level=2)
    try:
        first = reader.read(text)
    except OutputRejected:
        return
    again = reader.read(json.dumps(first.value))
    assert again.value == first.value
    assert again.repairs == ()


def test_a_repaired_answer_has_no_broken_characters() -> None:
    assert read('{"label": "bug", "note": "\\ud83d\\ude00",}').value == {"label": "bug", "note": "\U0001f600"}


# The corpus, and its properties ---------------------------------------------------------------------------

CORPUS = corpus()


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 300


@pytest.mark.parametrize("answer", CORPUS, ids=str)
def test_an_answer_is_read_as_its_value_or_refused(answer: CorpusAnswer) -> None:
    for level in (0, 1, 2):
        reader = OutputReader(answer.schema, level=level)
        if level >= answer.lowest:
            reading = reader.read(answer.text)
            assert strict_json.is_same(reading.value, answer.value)
            # At the lowest level without repairs, the text was the value itself.
            assert reading.repairs or answer.lowest == 0
        else:
            with pytest.raises(OutputRejected) as caught:
                reader.read(answer.text)
            if level == 2:
                assert answer.reason in (caught.value.reason or "")


PIECES = st.text(st.sampled_from("ab \"',:{}[]\\\n"), max_size=8)
TICKET = {
    "type": "object",
    "required": ["label"],
    "properties": {
        "label": {"enum": ["refund", "bug"]},
        "note": {"type": "string"},
        "n": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
    },
}
TICKETS = st.fixed_dictionaries(
    {"label": st.sampled_from(["refund", "bug"])},
    optional={
        "note": PIECES,
        "n": st.integers(-99, 99),
        "tags": st.lists(PIECES, max_size=3),
        "more": st.fixed_dictionaries({"label": st.sampled_from(["refund", "bug"])}),
    },
).flatmap(lambda value: st.permutations(list(value.items())).map(dict))
AROUND = st.sampled_from(
    [
        ("", ""),
        ("```json\n", "\n```"),
        ("Sure: ", " Bye."),
        ('<think>{"label": "bug"} or {"label": "refund"}</think>', ""),
        ('{"label": "bug"}\nCorrected: ', ""),
    ]
)


@st.composite
def damaged_tickets(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """Draw a value and its text, damaged so that it is not JSON any more."""
    value = draw(TICKETS)
    text = json.dumps(value)
    at = draw(st.integers(0, len(text) - 1))
    sign = draw(st.sampled_from('{}[],:"'))
    before, after = draw(AROUND)
    damaged = draw(
        st.sampled_from(
            [
                text[:at],
                text[at:],
                text[:at] + sign + text[at:],
                text[:at] + text[at + 1 :] if text[at] in '{}[],:"' else text[:at],
                text.replace('\\"', '"'),
                text.replace("}", ",}", 1),
                text.replace("]", ",]", 1),
                repr(value),
            ]
        )
    )
    try:
        json.loads(damaged)
    except ValueError:
        # A model that stops writing closes no fence.
        return value, before + damaged + ("" if text.startswith(damaged) else after)
    return value, before + text + after  # this damage cannot be seen


@given(damaged_tickets())
def test_a_damaged_answer_is_read_as_the_undamaged_value_or_refused(
    drawn: tuple[dict[str, Any], str],
) -> None:
    value, text = drawn
    try:
        reading = read(text, TICKET)
    except OutputRejected:
        return
    assert strict_json.is_same(reading.value, value)


@given(value=TICKETS, around=AROUND, level=st.integers(1, 2))
def test_a_valid_answer_is_found_in_its_surroundings_unchanged(
    value: dict[str, Any], around: tuple[str, str], level: int
) -> None:
    assert strict_json.is_same(read(json.dumps(value).join(around), TICKET, level).value, value)


@given(
    inner=TICKETS, at=st.integers(0, 200), kind=st.sampled_from(["{%s", "[%s", '{"a": %s', '"a": %s}', "%s]"])
)
def test_no_value_inside_a_broken_value_is_the_answer(inner: dict[str, Any], at: int, kind: str) -> None:
    outer = json.dumps({"ticket": inner, "state": "open"})
    for text in (kind % json.dumps(inner), outer[: min(at, len(outer) - 1)], outer[1:], outer[:-1]):
        with pytest.raises(OutputRejected):
            read(text, TICKET)
