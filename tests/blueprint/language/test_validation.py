"""Errors of pydantic become findings at the exact key or value, with a suggestion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.diagnostics import Diagnostic
from flujo.blueprint.language.models import Blueprint
from flujo.blueprint.language.validation import check
from flujo.blueprint.reading.reader import read
from flujo.blueprint.reading.source_map import Document

HEAD = 'version: "1"\nname: x\n'
GOOD = HEAD + "steps:\n  - name: a\n    call: m:f\n"


def _check(text: str) -> tuple[Document, Blueprint | None, list[Diagnostic]]:
    document = read(text.encode(), "x.yaml")
    return (document, *check(document))


def _only(text: str) -> tuple[str, str, str | None]:
    """Return the underlined text, message and hint of the only finding."""
    document, blueprint, found = _check(text)
    assert blueprint is None
    (finding,) = found
    line = document.text.splitlines()[finding.span.line - 1]
    end = finding.span.end_column - 1 if finding.span.end_line == finding.span.line else len(line)
    return line[finding.span.column - 1 : end], finding.message, finding.hint


def test_a_good_document_becomes_a_blueprint() -> None:
    _, blueprint, found = _check(GOOD)
    assert found == []
    assert blueprint is not None
    assert blueprint.steps[0].name == "a"


def test_the_span_of_an_unknown_key_is_the_key() -> None:
    assert _only(GOOD + "    whn: x\n") == ("whn", "`whn` is not a key of a step", "did you mean `when`?")


def test_an_unknown_key_deep_inside_is_named_with_its_mapping() -> None:
    where, message, hint = _only(GOOD + "    config: {retry: {backof: none}}\n")
    assert (where, hint) == ("backof", "did you mean `backoff`?")
    assert message == "`backof` is not a key of `retry`"


def test_the_kind_decides_which_keys_are_wrong() -> None:
    text = GOOD + "  - kind: loop\n    name: l\n    untl: x\n    steps:\n      - {name: b, call: m:f}\n"
    assert _only(text) == ("untl", "`untl` is not a key of a step of kind `loop`", "did you mean `until`?")


def test_an_unknown_kind_lists_the_kinds_and_checks_nothing_else_of_the_step() -> None:
    where, message, hint = _only(HEAD + "steps: [{kind: lop, foo: 1}]\n")
    assert (where, message) == ("lop", "unknown kind of step `lop`")
    assert hint is not None
    assert hint.startswith("did you mean `loop`?")
    assert "`tree_search`" in hint


def test_a_missing_key_is_reported_at_its_mapping() -> None:
    where, message, _ = _only(HEAD + "steps:\n  - call: m:f\n    tags: [x]\n")
    assert where == "call: m:f"
    assert message == "a step needs `name`"


def test_a_wrong_type_names_the_found_and_the_required_type() -> None:
    assert _only(GOOD + "    tags: x\n") == (
        "x",
        "`tags` must be a list, not a text",
        "put it in a list: `- …`, or `[…]`",
    )


def test_all_errors_are_reported_at_once_in_order() -> None:
    text = GOOD + "    tags: x\n    foo: 1\n  - {kind: hitl}\nagents: {w: {modl: m}}\n"
    _, _, found = _check(text)
    assert [finding.span.line for finding in found] == [6, 7, 8, 8, 9]


def test_an_unreadable_line_has_no_second_finding() -> None:
    document, blueprint, found = _check(GOOD + "    when: *x\n    foo: 1\n")
    assert [finding.code for finding in document.diagnostics] == ["FLJ108"]
    assert [finding.code for finding in found] == ["FLJ120"]
    assert blueprint is None


def test_an_unreadable_document_has_no_more_findings() -> None:
    assert check(read(b"[", "x.yaml")) == (None, [])
    assert check(read(b"- a\n", "x.yaml")) == (None, [])


def test_a_warning_does_not_stop_a_blueprint() -> None:
    _, blueprint, found = _check(GOOD + "input_schema: {requird: [a]}\n")
    assert [str(finding.severity) for finding in found] == ["warning"]
    assert blueprint is not None


def test_a_problem_of_a_json_schema_has_its_span_inside_the_schema() -> None:
    text = GOOD + "input_schema:\n  type: object\n  properties:\n    a: {type: [string, strng]}\n"
    where, message, hint = _only(text)
    assert (where, hint) == ("[string, strng]", "did you mean `string`?")
    assert message == "`strng` is not a type of JSON Schema"


def test_an_unquoted_no_is_text_where_only_text_is_allowed_and_a_finding_elsewhere() -> None:
    document, blueprint, found = _check(GOOD + "description: no\n")
    assert (found, blueprint is not None) == ([], True)
    assert document.data["description"] == "no"
    where, message, hint = _only(GOOD + "output: {a: [1, no]}\n")
    assert where == "no"
    assert "`no`" in message
    assert hint is not None
    assert "`false`" in hint


@pytest.mark.parametrize("kind", ["loop", "conditional", "map", "step"])
def test_a_step_with_many_errors_still_names_each_wrong_key(kind: str) -> None:
    _, _, found = _check(HEAD + f"steps: [{{kind: {kind}, name: a, zzz: 1, config: {{qqq: 2}}}}]\n")
    said = " ".join(finding.message for finding in found)
    assert "`zzz`" in said
    assert "`qqq`" in said


_WORD = st.sampled_from(
    ["version", "name", "steps", "kind", "loop", "if", "then", "branches", "config", "agents", "save", "append",
     "input_schema", "type", "$ref", "#", "no", "012", "x", "1", "with", "cache", "step", "call", "m:f", "", "{}"]
)  # fmt: skip
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | _WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORD, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(_WORD, _VALUE, max_size=5))
def test_any_document_gives_a_blueprint_or_findings_without_pydantics_words(keys: dict[str, object]) -> None:
    import json

    document = read(json.dumps({"version": "1", "name": "x", **keys}).encode(), "x.yaml")
    blueprint, found = check(document)
    errors = [finding for finding in [*document.diagnostics, *found] if finding.is_error]
    assert (blueprint is None) == bool(errors)
    for finding in errors:
        assert "\0" not in finding.message
        assert "Input should" not in finding.message
        assert "pydantic" not in finding.message
