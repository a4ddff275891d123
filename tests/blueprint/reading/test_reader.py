"""Reading any bytes gives data with exact spans, or findings, never an exception."""

import json
from math import isnan
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from flujo.blueprint.diagnostics import Span
from flujo.blueprint.reading.reader import MAX_FINDINGS, read
from flujo.blueprint.reading.source_map import Document

TRIAGE = """\
version: "1"
name: triage   # a comment
steps:
  - name: sort
    agent: sorter
    input: "Ticket: {{ input.text }}"
    config: {timeout_s: 30, max_retries: 2}
  - kind: hitl
    name: approve
    message: |
      Send this?
        {{ previous }}
    when: >-
      input.urgent &&
      !input.spam
"""

# Characters that a blueprint may hold as they are.
_ALLOWED = st.characters(
    exclude_categories=["Cs", "Cc"],
    exclude_characters="\u2028\u2029\ufeff\ufffe\uffff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
)
_TEXT = st.text(_ALLOWED, max_size=40)
_KEY = st.text(_ALLOWED, min_size=1, max_size=20).filter(
    lambda key: not key.startswith(("__proto__", "$flujo"))
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEY, inner, max_size=4),
    max_leaves=12,
)


def _triage() -> Document:
    return read(TRIAGE.encode(), "triage.yaml")


def _source(document: Document, span: Span) -> str:
    """Return the text of a span of one line."""
    assert span.line == span.end_line
    return document.text.splitlines()[span.line - 1][span.column - 1 : span.end_column - 1]


def test_the_data_is_plain() -> None:
    document = _triage()
    assert document.diagnostics == ()
    assert document.data == yaml.safe_load(TRIAGE)


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("version",), "version", '"1"'),
        (("name",), "name", "triage"),
        (("steps", 0, "agent"), "agent", "sorter"),
        (("steps", 0, "input"), "input", '"Ticket: {{ input.text }}"'),
        (("steps", 0, "config", "max_retries"), "max_retries", "2"),
        (("steps", 0, "config"), "config", "{timeout_s: 30, max_retries: 2}"),
        (("steps", 1, "kind"), "kind", "hitl"),
    ],
)
def test_every_key_and_value_has_its_span(path: tuple[str | int, ...], key: str, value: str) -> None:
    document = _triage()
    assert _source(document, document.span(path, key=True)) == key
    assert _source(document, document.span(path)) == value


def test_a_block_ends_at_the_end_of_its_last_value() -> None:
    span = _triage().span(("steps", 0))
    assert (span.line, span.column, span.end_line, span.end_column) == (4, 5, 7, 44)


def test_an_unknown_path_has_the_span_of_the_nearest_enclosing_value() -> None:
    document = _triage()
    assert document.span(("steps", 0, "tags", 3)) == document.span(("steps", 0))
    assert document.span(("steps", 9)) == document.span(("steps",))
    assert document.node(("steps", 9)) is None


@pytest.mark.parametrize(
    ("path", "words", "line", "column"),
    [
        (("steps", 0, "input"), "input.text", 6, 24),
        (("steps", 1, "message"), "previous", 12, 12),
        (("steps", 1, "when"), "input.spam", 15, 8),
        (("name",), "age", 2, 10),
    ],
)
def test_a_part_of_a_text_has_its_span(
    path: tuple[str | int, ...], words: str, line: int, column: int
) -> None:
    document = _triage()
    node = document.node(path)
    assert node is not None
    start = str(node.value).index(words)
    span = document.span_in(path, start, start + len(words))
    assert (span.line, span.column) == (line, column)
    assert _source(document, span) == words


@given(
    st.text(st.sampled_from("ab'\"\\ \n{}:!#é票\t"), min_size=1, max_size=40),
    st.sampled_from(["'", '"', "|", ">", ""]),
)
def test_every_character_of_a_text_has_its_span_in_every_style(text: str, style: str) -> None:
    source = yaml.dump({"k": text}, default_style=style, allow_unicode=True, width=20, explicit_end=False)
    document = read(source.encode(), "x.yaml")
    if document.diagnostics or not isinstance(document.data["k"], str):
        return  # Bare, this text is something else than a text.
    assert document.data == {"k": text}
    for offset, char in enumerate(text):
        if char not in " \t\n":
            found = _source(document, document.span_in(("k",), offset))
            assert found in (char, "\\"), (source, offset)


def test_an_offset_after_the_end_of_a_text_is_its_end() -> None:
    document = read(b"k: abc\n", "x.yaml")
    assert document.span_in(("k",), 3).column == 7
    assert document.span_in(("k",), 99).column == 7


def test_line_numbers_do_not_depend_on_the_kind_of_line_end() -> None:
    for end in ("\n", "\r\n", "\r"):
        document = read(f"a: 1{end}b: 2{end}b: 3{end}".encode(), "x.yaml")
        assert [finding.span.line for finding in document.diagnostics] == [3]


def test_columns_count_characters_after_astral_ones_and_a_byte_order_mark() -> None:
    document = read("\ufeff{a: '🎫🎫', b: x}".encode(), "x.yaml")
    assert document.data == {"a": "🎫🎫", "b": "x"}
    assert document.span(("b",)).column == 14


def test_several_errors_are_reported_at_once_in_order() -> None:
    document = read(b"a: 1\na: 2\nb: !x y\n1: z\nc: *d\n", "x.yaml")
    assert [(finding.code, finding.span.line) for finding in document.diagnostics] == [
        ("FLJ111", 2),
        ("FLJ109", 3),
        ("FLJ112", 4),
        ("FLJ108", 5),
    ]


def test_reading_stops_after_too_many_errors() -> None:
    document = read(b"- !a b\n" * 1_000, "x.yaml")
    assert len(document.diagnostics) == MAX_FINDINGS


def test_an_expression_that_needs_quotes_has_a_fix() -> None:
    text = "when: !a.b && c == 'd'\n"
    (finding,) = read(text.encode(), "x.yaml").diagnostics
    assert finding.fix is not None
    fixed = text[: finding.fix.span.column - 1] + finding.fix.text + text[finding.fix.span.end_column - 1 :]
    assert read(fixed.encode(), "x.yaml").data == {"when": "!a.b && c == 'd'"}


@given(_JSON)
def test_json_is_read_as_json(data: Any) -> None:
    document = read(json.dumps({"k": data}, ensure_ascii=False).encode(), "x.json")
    assert document.diagnostics == ()
    assert document.data == {"k": data}
    assert json.dumps(document.data) == json.dumps({"k": data})


@given(_JSON)
def test_yaml_of_another_writer_is_read_back(data: Any) -> None:
    source = yaml.safe_dump({"k": data}, allow_unicode=True)
    document = read(source.encode(), "x.yaml")
    if {finding.code for finding in document.diagnostics} & {"FLJ108", "FLJ112", "FLJ114"}:
        return  # PyYAML writes anchors, and leaves texts bare that YAML 1.2 reads as numbers (`0E0`).
    assert document.diagnostics == (), source
    assert _untyped(document.data) == _untyped({"k": data})


def _untyped(value: Any) -> Any:
    """Return data with texts that YAML 1.2 reads as numbers made numbers: PyYAML leaves `1e3` bare."""
    if isinstance(value, dict):
        return {key: _untyped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_untyped(inner) for inner in value]
    if isinstance(value, str):
        try:
            return value if isnan(number := float(value)) else number
        except ValueError:
            return value
    return value


_YAML_LIKE = st.text(st.sampled_from(list("ab1-:?&*!|>'\"%@`{}[],# \n\t~<=.\\0xé\u202e\x00")), max_size=60)


@given(st.binary(max_size=200) | _YAML_LIKE.map(str.encode))
@example(b"")
@example(b"\xef\xbb\xbf")
@example(b"{{ a }}: b")
@example(b"a: !")
@example(b"? ")
@example(b"%TAG ! x\n")
def test_reading_never_raises_and_is_deterministic(data: bytes) -> None:
    first, second = read(data, "x.yaml"), read(data, "x.yaml")
    assert first.diagnostics == second.diagnostics
    assert first.data == second.data
    if not first.diagnostics:
        assert isinstance(first.data, dict)
    for finding in first.diagnostics:
        assert finding.span.line >= 1
        assert finding.span.column >= 1


@given(_YAML_LIKE)
def test_data_without_findings_equals_the_data_of_libyaml(text: str) -> None:
    document = read(text.encode(), "x.yaml")
    if document.diagnostics:
        return
    nodes = yaml.compose(text, Loader=yaml.CSafeLoader)
    assert _shape(nodes) == _keys(document.data)


def _shape(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {key.value: _shape(value) for key, value in node.value}
    return [_shape(item) for item in node.value] if isinstance(node, yaml.SequenceNode) else None


def _keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _keys(value) for key, value in data.items()}
    return [_keys(item) for item in data] if isinstance(data, list) else None
