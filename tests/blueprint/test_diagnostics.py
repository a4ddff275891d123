"""A rendered finding shows its exact place on any line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from flujo.blueprint.diagnostics import (
    RULES,
    Diagnostic,
    Fix,
    Severity,
    Span,
    did_you_mean,
    nearest,
    one_of,
    render,
    rule,
    suggest,
    to_json,
)
from flujo.blueprint.reading import syntax_rules
from flujo.governance.screen import visible_line


def _at(
    line: int, column: int, end_column: int, *, end_line: int | None = None, file: str = "a.yaml"
) -> Span:
    return Span(file, line, column, end_line or line, end_column)


def _finding(span: Span, **rest: object) -> Diagnostic:
    return Diagnostic("FLJ111", Severity.ERROR, "the key stands twice", span, **rest)  # type: ignore[arg-type]  # a test


def test_a_finding_is_shown_with_its_line_and_carets_under_the_span() -> None:
    shown = render(_finding(_at(2, 3, 7), hint="keep one"), {"a.yaml": "a: 1\n  name: x\n"})
    assert shown == snapshot("""\
error[FLJ111]: the key stands twice
 --> a.yaml:2:3
  |
2 |   name: x
  |   ^^^^
  = hint: keep one""")


def test_related_places_have_their_own_label() -> None:
    finding = _finding(
        _at(12, 1, 5), related=((_at(1, 1, 5), "first here"), (_at(3, 1, 2, file="b.yaml"), "lost"))
    )
    assert render(finding, {"a.yaml": "name: x\n" * 12}) == snapshot("""\
error[FLJ111]: the key stands twice
  --> a.yaml:12:1
   |
12 | name: x
   | ^^^^
  ::: a.yaml:1:1
   |
 1 | name: x
   | ---- first here
  ::: b.yaml:3:1
   = lost\
""")


def test_carets_are_aligned_under_wide_characters_and_after_tabs() -> None:
    line = "\tname: 票务 x"
    shown = render(_finding(_at(1, 8, 10)), {"a.yaml": line}).splitlines()
    assert shown[3:] == ["1 |     name: 票务 x", "  |           ^^^^"]


def test_a_combining_accent_takes_no_cell() -> None:
    shown = render(_finding(_at(1, 4, 5)), {"a.yaml": "e\u0301: x"}).splitlines()
    assert shown[-1] == "  |   ^"


def test_a_span_over_several_lines_is_marked_to_the_end_of_its_first() -> None:
    shown = render(_finding(_at(1, 3, 2, end_line=2)), {"a.yaml": "- name: x\n  call: y\n"}).splitlines()
    assert shown[3:] == ["1 | - name: x", "  |   ^^^^^^^"]


def test_a_long_line_is_shortened_around_the_span() -> None:
    text = "a" * 500 + "HERE" + "b" * 500
    source, marks = render(_finding(_at(1, 501, 505)), {"a.yaml": text}).splitlines()[3:]
    assert len(source) < 140
    assert source[marks.index("^") : marks.rindex("^") + 1] == "HERE"


def test_an_empty_span_has_a_caret() -> None:
    assert render(_finding(_at(1, 6, 6)), {"a.yaml": "when:"}).splitlines()[-1] == "  |      ^"


def test_a_file_without_text_is_shown_without_an_excerpt() -> None:
    assert render(_finding(_at(7, 1, 2)), {}) == "error[FLJ111]: the key stands twice\n --> a.yaml:7:1"


def test_control_characters_are_written_as_escapes() -> None:
    finding = _finding(_at(1, 1, 2), hint="\x1b[2J")
    shown = render(finding, {"a.yaml": "a\u202eb\x1b[31m"})
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\u202e" in shown


@given(st.text(), st.integers(1, 60), st.integers(0, 60))
def test_rendering_supports_any_line_and_any_span(line: str, column: int, length: int) -> None:
    shown = render(_finding(_at(1, column, column + length)), {"a.yaml": line})
    assert shown == visible_line(shown.replace("\n", "")) or all(
        visible_line(part) == part for part in shown.split("\n")
    )
    assert shown.splitlines()[-1].rstrip().endswith("^")


def test_a_finding_as_json_has_its_rule_span_and_fix() -> None:
    finding = _finding(_at(1, 1, 2), fix=Fix(_at(1, 1, 2), "'x'"), related=((_at(2, 1, 2), "first"),))
    data = json.loads(json.dumps(to_json(finding)))
    assert data["rule"] == "duplicate-key"
    assert data["span"] == {"file": "a.yaml", "line": 1, "column": 1, "end_line": 1, "end_column": 2}
    assert data["fix"]["text"] == "'x'"
    assert data["related"][0]["label"] == "first"


def test_every_rule_has_an_explanation() -> None:
    assert vars(syntax_rules)["EMPTY"] is RULES["FLJ101"]
    for code, known in RULES.items():
        assert known.code == code
        parts = [f"## {part}" in known.explanation for part in ("What it finds", "Why it matters", "Example")]
        assert all(parts), code
    assert len({known.slug for known in RULES.values()}) == len(RULES)


def test_a_code_or_slug_is_registered_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        rule("FLJ101", "another", "t", finds="f", why="w", example="e", instead="i")
    with pytest.raises(ValueError, match="already registered"):
        rule("FLJ1", "empty", "t", finds="f", why="w", example="e", instead="i")


def test_the_nearest_word_is_suggested_if_it_is_close() -> None:
    assert did_you_mean("agnet", ["agent", "call"]) == "did you mean `agent`?"
    assert nearest("Agent", ["agent"]) == "agent"
    assert nearest("colour", ["agent", "call"]) is None
    assert suggest("colour", ["agent", "call"], what="keys") == "keys: `agent` and `call`"
    assert suggest("colour", []) == ""


def test_a_long_list_of_words_is_shortened() -> None:
    assert one_of(["a", "b", "c"]) == "`a`, `b` or `c`"
    assert one_of(["a"]) == "`a`"
    assert one_of([str(n) for n in range(20)], most=2) == "`0`, `1` or 18 more"
