"""From a value to a form and back, and the messages at the fields of a form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.serve.forms.shapes import Kind
from flujo.serve.forms.values import (
    ABSENT,
    MAX_ROWS,
    ROOT,
    fill,
    form_for,
    key_of,
    read,
    rows_of,
    same,
    with_row,
    without_row,
)

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(str.strip)
names = st.text(st.sampled_from("ab/~#.[ é"), min_size=1, max_size=3)
Case = tuple[Any, Any]
"""A schema, and a value that fits it."""


def scalars() -> st.SearchStrategy[Case]:
    listed = st.lists(st.one_of(texts, st.integers(-3, 3), st.booleans()), min_size=1, max_size=3)
    return st.one_of(
        texts.map(lambda text: ({"type": "string"}, text)),
        texts.map(lambda text: ({"type": "string", "maxLength": 9}, text)),
        st.integers().map(lambda number: ({"type": "integer"}, number)),
        st.floats(allow_nan=False, allow_infinity=False).map(lambda number: ({"type": "number"}, number)),
        st.booleans().map(lambda value: ({"type": "boolean"}, value)),
        listed.map(lambda values: ({"enum": values}, values[-1])),
        texts.map(lambda value: ({"const": value}, value)),
        texts.map(lambda text: ({"type": ["string", "null"]}, text)),
        texts.map(lambda value: (True, {value: [1, None]})),
    )


def objects(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    def made(members: dict[str, Case], left_out: list[str]) -> Case:
        schema = {
            "type": "object",
            "properties": {name: part for name, (part, _) in members.items()},
            "required": [name for name in members if name not in left_out],
        }
        return schema, {name: value for name, (_, value) in members.items()}

    return st.dictionaries(names, inner, min_size=1, max_size=3).flatmap(
        lambda members: st.lists(st.sampled_from(list(members)), unique=True).map(
            lambda left_out: made(members, left_out)
        )
    )


def compound(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    return st.one_of(
        objects(inner),
        inner.flatmap(lambda case: st.integers(1, 3).map(lambda n: ({"items": case[0]}, [case[1]] * n))),
        st.tuples(inner, inner).map(lambda pair: ({"anyOf": [pair[0][0], pair[1][0]]}, pair[1][1])),
        inner.map(lambda case: ({"anyOf": [case[0], {"type": "null"}]}, case[1])),
    )


@settings(max_examples=120, deadline=None)
@given(st.recursive(scalars(), compound, max_leaves=6))
def test_a_value_is_the_same_after_it_was_a_form(case: Case) -> None:
    schema, value = case
    shape, data = form_for(schema, value)
    reading = read(shape, data)
    assert reading.problems == {}
    assert same(reading.value, value)
    with_lines = {name: text.replace("\n", "\r\n") for name, text in data.items()}
    assert same(read(shape, with_lines).value, value), "a browser sends line ends so"


ORDER = {
    "type": "object",
    "required": ["ok", "lines"],
    "properties": {
        "ok": {"type": "boolean"},
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["sku"],
                "properties": {"sku": {"type": "string"}, "qty": {"type": "integer", "default": 1}},
            },
        },
        "note": {"type": ["string", "null"]},
        "until": {"anyOf": [{"type": "object", "properties": {"day": {"type": "string"}}}, {"type": "null"}]},
    },
}


def test_defaults_are_filled_in_and_what_is_left_blank_is_left_out() -> None:
    shape, data = form_for(ORDER)
    assert data == {"v/lines#rows": "0"}
    reading = read(shape, data)
    assert reading.problems == {"v/ok": ["is required"]}
    assert reading.value == {"lines": []}
    row = {
        **data,
        "v/ok": "0",
        "v/lines#rows": "3",
        "v/lines/1/sku": " x ",
        "v/note": "",
        "v/until#null": "on",
    }
    assert read(shape, row).value == {"ok": True, "lines": [{"sku": " x "}], "until": None}
    assert form_for({"type": "integer", "default": 7})[1] == {ROOT: "7"}


@pytest.mark.parametrize(
    ("schema", "text", "problem"),
    [
        ({"type": "integer"}, "1.5", "is not a whole number, such as 12"),
        ({"type": "integer"}, "\u0661", "is not a whole number, such as 12"),
        ({"type": "number"}, "1,5", "is not a number, such as 12.5"),
        ({"type": "number"}, "1e999", "is not a number, such as 12.5"),
        ({"enum": ["a"]}, "1", "choose one of the values"),
        ({}, "{", "is not JSON: Expecting property name enclosed in double quotes, in line 1, column 2"),
        ({}, "NaN", "is not JSON: NaN is not JSON"),
        ({}, "[" * 100_000, "is not JSON: "),
        ({"type": "string"}, "", "is required"),
    ],
)
def test_a_text_that_makes_no_value_is_refused_at_its_field(schema: Any, text: str, problem: str) -> None:
    shape, _ = form_for(schema)
    reading = read(shape, {ROOT: text})
    assert reading.value is ABSENT
    assert reading.problems[ROOT][0].startswith(problem)


def test_a_violation_stands_at_the_field_or_at_the_closest_one_around_it() -> None:
    shape, _ = form_for(ORDER)
    data = {"v/ok": "0", "v/lines#rows": "3", "v/lines/2/sku": "x"}
    reading = read(shape, data)
    reading.place(
        (
            "`lines[0].sku` has fewer than 3 characters: 'x'",
            "`lines[0].odd.deep` is not allowed",
            "the value lacks `who`",
        )
    )
    assert reading.problems == {
        "v/lines/2/sku": ["has fewer than 3 characters: 'x'"],
        "v/lines/2": ["`lines[0].odd.deep` is not allowed"],
        ROOT: ["lacks `who`"],
    }


def test_a_value_that_the_fields_cannot_hold_is_edited_as_json() -> None:
    for schema, value in (
        (ORDER, {"ok": True, "lines": [], "unnamed": 1}),
        ({"type": "array", "items": {"type": "string"}}, ["a", ""]),
        ({"type": "boolean"}, 1),
    ):
        shape, data = form_for(schema, value)
        assert shape.kind is Kind.JSON
        assert same(read(shape, data).value, value)


def test_rows_are_added_and_removed_without_a_script() -> None:
    data = fill(form_for({"items": {"items": {"type": "string"}}})[0], [["a"], ["b", "c"], ["d"]])
    fewer = without_row(data, ROOT, 1)
    assert fewer == fill(form_for({"items": {"items": {"type": "string"}}})[0], [["a"], ["d"]])
    assert without_row(data, ROOT, 9) == data
    more = with_row(fewer, key_of(ROOT, 1))
    assert rows_of(more, "v/1") == 2
    assert rows_of(with_row({"v#rows": str(MAX_ROWS)}, ROOT), ROOT) == MAX_ROWS
    assert rows_of({"v#rows": "999999999"}, ROOT) == 0
