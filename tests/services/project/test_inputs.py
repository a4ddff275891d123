"""Words on a command line become a typed input, or are refused with what would have fitted."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.exceptions import InputRejected, SettingsError
from flujo.services.project.inputs import (
    Given,
    example,
    read_fields,
    read_input,
    read_metadata,
    read_overrides,
)

TEXT = {"type": "string"}
TICKET = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
ORDER = {
    "type": "object",
    "required": ["id", "count"],
    "properties": {
        "id": {"type": "string"},
        "count": {"type": "integer", "minimum": 1},
        "express": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}


def read(schema: Any, **given: Any) -> Any:
    return read_input(schema, Given(**given)).value


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_text_is_the_value_itself_with_a_string_schema_or_without_a_schema(text: str) -> None:
    assert read(TEXT, text=text) == text
    assert read(None, text=text) == text


def test_text_for_an_object_is_json() -> None:
    assert read(ORDER, text='{"id": "A1", "count": 2}') == {"id": "A1", "count": 2}


def test_text_that_is_not_json_fills_the_only_required_text_with_a_note() -> None:
    found = read_input(TICKET, Given(text="printer on fire"))
    assert found.value == {"text": "printer on fire"}
    assert found.note == "input text assigned to field `text`"


def test_text_that_is_not_json_is_refused_if_several_fields_are_required() -> None:
    with pytest.raises(InputRejected, match="is not JSON") as caught:
        read(ORDER, text="two of A1")
    assert (
        caught.value.hint
        == "pass JSON, or fields: `--field id=TEXT --field count=COUNT` (COUNT: a whole number)"
    )


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "integer"}, "7", 7),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "array"}, "[1]", [1]),
        ({"type": ["string", "null"]}, "null", "null"),
    ],
)
def test_text_is_typed_by_its_schema(schema: Any, text: str, value: Any) -> None:
    assert read(schema, text=text) == value


@pytest.mark.parametrize("text", ["seven", "NaN", "[" * 100_000])
def test_text_of_another_type_is_refused(text: str) -> None:
    with pytest.raises(InputRejected):
        read({"type": "integer"}, text=text)


def test_fields_are_typed_by_the_schema() -> None:
    value = read(ORDER, fields=["id=007", "count=2", "express=true", 'tags=["a"]'])
    assert value == {"id": "007", "count": 2, "express": True, "tags": ["a"]}


NULLABLE = {
    "type": "object",
    "$defs": {"level": {"enum": [1, 2]}},
    "properties": {
        "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "level": {"$ref": "#/$defs/level"},
        "share": {"type": ["number", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "size": {"const": 3},
    },
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count=3", {"count": 3}),
        ("count=null", {"count": None}),
        ("level=2", {"level": 2}),
        ("share=0.5", {"share": 0.5}),
        ("share=null", {"share": None}),
        ("tags=a", {"tags": ["a"]}),
        ("note=null", {"note": "null"}),
        ("note=7", {"note": "7"}),
        ("size=3", {"size": 3}),
    ],
)
def test_fields_are_typed_through_unions_references_and_listed_values(field: str, value: Any) -> None:
    assert read(NULLABLE, fields=[field]) == value


@pytest.mark.parametrize("field", ["count=many", "level=3", "share=half", "tags=a,b", "size=4"])
def test_a_field_without_a_certain_type_is_refused(field: str) -> None:
    with pytest.raises(InputRejected, match=field.partition("=")[0]):
        read(NULLABLE, fields=[field])


def test_wrong_types_in_json_are_corrected_with_a_note() -> None:
    found = read_input(ORDER, Given(text='{"id": 7, "count": "2", "express": "True"}'))
    assert found.value == {"id": "7", "count": 2, "express": True}
    assert found.note == 'read 7 as "7" at id; read "2" as 2 at count; read "True" as true at express'


def test_a_field_of_the_wrong_type_is_named() -> None:
    with pytest.raises(InputRejected, match="--field count: 'two' is not a whole number") as caught:
        read(ORDER, fields=["id=A1", "count=two"])
    assert caught.value.hint == "for instance `--field count=3`"


def test_a_field_without_an_equals_sign_is_refused() -> None:
    with pytest.raises(SettingsError, match="--field 'id' has no `=`"):
        read(ORDER, fields=["id"])


def test_a_field_that_comes_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="gives `id` twice"):
        read(ORDER, fields=["id=1", "id=2"])


def test_what_does_not_fit_is_refused_with_every_violation() -> None:
    with pytest.raises(InputRejected) as caught:
        read(ORDER, text='{"count": 0}')
    assert "id" in caught.value.message
    assert "count" in caught.value.message


@pytest.mark.parametrize(
    "text", ['{"text": "\\ud800"}', '{"text": "\\u0000"}', '{"n": 99999999999999999999}']
)
def test_json_that_the_journal_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(InputRejected, match="cannot be written"):
        read({"type": "object"}, text=text)


def test_missing_input_names_the_required_fields() -> None:
    with pytest.raises(InputRejected, match="the input is missing") as caught:
        read(TICKET)
    assert caught.value.hint == "pass `--field text=TEXT`"


def test_no_input_is_fine_where_none_is_needed() -> None:
    assert read(None) is None
    assert read({"type": "object", "properties": {"note": {"type": "string"}}}) == {}


def test_a_pipe_counts_only_when_nothing_else_is_given() -> None:
    assert read(TEXT, piped="from the pipe") == "from the pipe"
    assert read(TEXT, text="typed", piped="from the pipe") == "typed"


def test_two_ways_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="more than once"):
        read(TEXT, text="a", fields=["b=c"])


def test_a_file_goes_by_its_suffix(tmp_path: Path) -> None:
    for name, text in (("a.json", '{"text": "x"}'), ("a.yaml", "text: x\n"), ("a.txt", "x")):
        path = tmp_path / name
        path.write_text(text, "utf-8")
        assert read(TICKET, file=path) == {"text": "x"}


def test_a_json_file_may_hold_any_json(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.write_text("[1, 2]", "utf-8")
    assert read({"type": "array"}, file=path) == [1, 2]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("gone.txt", None, "cannot be read"),
        ("bad.txt", b"\xff\xfe", "bad.txt: byte 0xFF at offset 0 is not UTF-8 text"),
        ("wide.json", "[1, 2, 3]".encode("utf-16-le"), "wide.json: byte 0x00 at offset 1 is not UTF-8 text"),
        ("bad.json", b"{", "is not JSON"),
        ("bad.yaml", b"a: [", "bad.yaml"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str, data: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SettingsError, match=words):
        read(TICKET, file=path)


def test_metadata_keeps_text_as_text_and_numbers_as_numbers() -> None:
    pairs = ["ticket=0042", "n=42", "ok=true", "none=null", "list=[1]", 'quoted="x"', "empty="]
    assert read_metadata(pairs) == {
        "ticket": "0042",
        "n": 42,
        "ok": True,
        "none": None,
        "list": "[1]",
        "quoted": '"x"',
        "empty": "",
    }


def test_a_field_without_a_schema_stays_text_unless_it_is_a_structure() -> None:
    assert read_fields(["a=1", "b=[1]", "c={", "d=x=y"], option="--context") == {
        "a": "1",
        "b": [1],
        "c": "{",
        "d": "x=y",
    }


def test_overrides_stay_text() -> None:
    assert read_overrides(["agents.sorter.model=local:smollm2"]) == {"agents.sorter.model": "local:smollm2"}


@given(st.lists(st.text()))
def test_no_words_make_anything_but_a_typed_refusal(pairs: list[str]) -> None:
    for function in (
        read_metadata,
        read_overrides,
        lambda words: read_fields(words, ORDER, option="--field"),
    ):
        with contextlib.suppress(SettingsError):
            function(pairs)


@pytest.mark.parametrize(
    ("schema", "options", "values"),
    [
        ({"enum": ["approve", "amend"]}, ("--input", "VALUE"), "VALUE: approve or amend"),
        ({"type": "boolean"}, ("--input", "VALUE"), "VALUE: true or false"),
        ({"type": "string"}, ("--input", "TEXT"), ""),
        (
            {"properties": {"ok": {"type": "boolean"}, "why": {"type": "string"}}},
            ("--field", "ok=OK", "--field", "why=TEXT"),
            "OK: true or false",
        ),
        ({"properties": {"ok": {"enum": ["OK", "NO"]}}}, ("--field", "ok=OK_VALUE"), "OK_VALUE: OK or NO"),
        ({"properties": {"a; b": {"const": "x|y"}}}, ("--field", "a; b=VALUE"), 'VALUE: "x|y"'),
        (
            {"properties": {"n": {"type": ["integer", "null"]}}},
            ("--field", "n=N"),
            "N: a whole number or null",
        ),
    ],
)
def test_an_example_names_the_choices_beside_the_options(
    schema: object, options: tuple[str, ...], values: str
) -> None:
    found = example(schema)
    assert (found.options, found.values) == (options, values)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["approve", "amend"]},
        {"type": "boolean"},
        {"type": "integer"},
        {"type": "array"},
        {"const": "VALUE"},
        {"type": "object", "properties": {"ok": {"enum": ["OK", "NO"]}}},
    ],
)
def test_an_example_pasted_as_it_is_decides_nothing(schema: dict[str, object]) -> None:
    name, value = example(schema).options
    given = Given(text=value) if name == "--input" else Given(fields=[value])
    with pytest.raises(InputRejected):
        read_input(schema, given)


@pytest.mark.parametrize(
    ("name", "data"), [("n.json", b'{"n": 1}'), ("n.yaml", b"n: 1"), ("n.txt", b'{"n": 1}')]
)
def test_a_file_is_read_as_without_its_byte_order_mark(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + data)
    assert read({"type": "object"}, file=path) == {"n": 1}
