"""The fields of a form as a template shows them."""

from __future__ import annotations

from typing import Any

from flujo.serve.forms.fields import Field, form_fields
from flujo.serve.forms.values import form_for, key_of


def shown(schema: Any, data: dict[str, str] | None = None, **problems: list[str]) -> Field:
    shape, begun = form_for(schema)
    return form_fields(
        shape, begun | (data or {}), {f"v/{name}": each for name, each in problems.items()}, "run-1"
    )


def test_each_field_has_an_id_of_its_own_that_begins_with_the_run() -> None:
    found = shown(
        {"properties": {"a b": {"type": "string"}, "c": {"items": {"type": "integer"}}}}, {"v/c#rows": "2"}
    )
    ids = [found.id, *(each.id for each in found.fields), *(each.id for each in found.fields[1].fields)]
    assert len(set(ids)) == 5
    assert all(each.startswith("run-1-") for each in ids)
    assert found.fields[0].name == key_of("v", "a b")


def test_a_field_has_the_type_and_the_limits_of_its_schema() -> None:
    formats = {"date": "date", "email": "email", "uri": "url", "date-time": "text"}
    for name, kind in formats.items():
        assert shown({"type": "string", "format": name}).attributes["type"] == kind
    number = shown({"type": "integer", "minimum": 1, "maximum": 9})
    assert number.attributes == {
        "type": "number",
        "inputmode": "numeric",
        "step": "1",
        "min": "1",
        "max": "9",
    }
    assert shown({"type": "number", "multipleOf": 0.5}).attributes["step"] == "0.5"
    assert shown({"type": "string", "maxLength": 5}, {"v": "a\nb"}).control == "textarea", (
        "one line would lose a line"
    )


def test_problems_and_descriptions_are_named_by_the_field() -> None:
    [note] = shown(
        {"properties": {"note": {"type": "string", "description": "d"}}}, note=["is required"]
    ).fields
    assert note.described_by == f"{note.id}-wrong {note.id}-about"


def test_a_browser_demands_nothing_of_a_value_that_may_be_left_out() -> None:
    inner = {"properties": {"b": {"type": "string"}}, "required": ["b"]}
    whole = shown({"properties": {"needed": inner, "maybe": inner}, "required": ["needed"]})
    assert [each.fields[0].required for each in whole.fields] == [True, False]


def test_a_union_shows_the_fields_of_the_chosen_variant() -> None:
    schema = {"oneOf": [{"title": "Card", "properties": {"n": {"type": "string"}}}, {"type": "integer"}]}
    assert shown(schema).fields == ()
    chosen = shown(schema, {"v#which": "0"})
    assert [each.label for each in chosen.fields] == ["Card"]
    assert [each[2] for each in chosen.options] == [True, False]
    assert shown(schema, {"v#which": "7"}).fields == ()


def test_few_choices_are_radio_buttons_and_a_choice_that_may_be_left_out_is_a_list() -> None:
    assert shown({"type": "boolean"}).control == "radios"
    assert shown({"enum": list("abcde")}).control == "select"
    assert shown({"properties": {"a": {"type": "boolean"}}}).fields[0].control == "select"
    assert shown({}).control == "json"
    assert (shown({"const": 3}).control, shown({"const": 3}).value) == ("fixed", "3")
