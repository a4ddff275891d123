"""Files of cases are read, refused with the line of a mistake, and extended."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flujo.blueprint.cases import new_file, read_cases, with_cases
from flujo.blueprint.language.cases import CasesFile, evaluator_name
from flujo.blueprint.language.editor_schema import CASES_FILE, cases_text

WHOLE = """\
blueprint: sort  # the one in production
evaluators:
  - polite
  - {name: equal, expr: "output == expected"}
thresholds:
  equal: {mean: 0.8, min: 0.5}
margin: 0.1
repeat: 2
cases:
  # from the incident of May
  - name: lamp
    input: {text: "it's broken"}
    expected: bug
    metadata: {customer: c1}
  - name: tea
    input: |
      two
      lines
    expected: other
    # the end of this case

# the end of the file
"""


def found(text: str, known: tuple[str, ...] = ("polite",)) -> list[str]:
    read = read_cases(text.encode(), "evals/sort.yaml", known)
    assert read.said is None
    return [f"{each.span.line}:{each.span.column} {each.code} {each.message}" for each in read.found]


def said(text: str) -> CasesFile:
    read = read_cases(text.encode(), "evals/sort.yaml", ("polite",))
    assert read.found == ()
    assert read.said is not None
    return read.said


def test_a_file_is_read_with_the_line_of_each_case() -> None:
    read = read_cases(WHOLE.encode(), "evals/sort.yaml", ("polite",))
    assert read.said is not None
    assert [each.name for each in read.said.cases] == ["lamp", "tea"]
    assert read.lines == (11, 15)
    assert [evaluator_name(each) for each in read.said.evaluators] == ["polite", "equal"]
    assert (read.said.margin, read.said.repeat, read.said.thresholds["equal"].mean) == (0.1, 2, 0.8)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    input: {", "    inptu: {", ["12:5 FLJ120 `inptu` is not a key of a case"]),
        ("name: tea", "name: lamp", ["15:11 FLJ480 case `lamp` is already in line 11"]),
        ("- polite", "- politeness", ["3:5 FLJ480 there is no evaluator `politeness`"]),
        ("- polite", "- equal", ["3:5 FLJ480 there is no evaluator `equal`", "4:5 FLJ480 evaluator `equal` is there twice"]),
        ("  equal: {m", "  equl: {m", ["6:3 FLJ480 a threshold for `equl`, which is not an evaluator of this file"]),
        ("mean: 0.8", "mean: 1.8", ["6:17 FLJ125 `mean` must be at most 1.0"]),
        ("{mean: 0.8, min: 0.5}", "{}", ["6:10 FLJ125 a threshold needs `mean` or `min`"]),
        ('expr: "output == expected"', "model: openai:m", ["4:6 FLJ125 evaluator `equal` needs one of `judge`, `call` and `expr`"]),
        ("repeat: 2", "repeat: 0", ["8:9 FLJ125 `repeat` must be at least 1"]),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_place(old: str, new: str, expected: list[str]) -> None:
    assert found(WHOLE.replace(old, new)) == expected


def test_a_misspelt_word_gets_a_suggestion() -> None:
    read = read_cases(WHOLE.replace("- polite", "- polit").encode(), "x.yaml", ("polite",))
    assert [each.hint for each in read.found] == ["did you mean `polite`?"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("evaluators: [polite]\ncases: []\n", "2:8 FLJ125 `cases` needs at least 1 entry"),
        ("- a\n", "1:1 FLJ480 a file of cases is a mapping"),
        ("blueprint: x\ncases: [{name: a}]\n", "1:1 FLJ121 a file of cases needs `evaluators`"),
    ],
)
def test_a_file_without_cases_or_evaluators_is_refused(text: str, expected: str) -> None:
    assert found(text) == [expected]


# pydantic-evals ------------------------------------------------------------------------------------------

DATASET = """\
# yaml-language-server: $schema=sort_schema.json
name: sort
cases:
- name: simple
  inputs: {text: lamp}
  metadata: {difficulty: easy}
  expected_output: bug
- inputs: {text: tea}
evaluators:
- EqualsExpected
- Contains: bug
- IsInstance: str
- LLMJudge: {rubric: Is it polite?, model: "openai:gpt-5-mini", include_input: true}
"""


def test_a_dataset_of_pydantic_evals_is_read() -> None:
    read = said(DATASET)
    assert [(each.name, each.input, each.expected) for each in read.cases] == [
        ("simple", {"text": "lamp"}, "bug"),
        ("case-2", {"text": "tea"}, None),
    ]
    assert [each if isinstance(each, str) else each.expr or each.judge for each in read.evaluators] == [
        "output == expected",
        'output.contains("bug")',
        "type(output) == string",
        "Is it polite?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("- EqualsExpected", "- MaxDuration: 2.0", "pydantic-evals' evaluator `MaxDuration` has no counterpart in Flujo"),
        ("IsInstance: str", "IsInstance: Answer", "Flujo's outputs are JSON data, which has no type `Answer`"),
        ("include_input: true", "score: false", "Flujo cannot express `score` of pydantic-evals' `LLMJudge`"),
        ("  expected_output: bug", "  evaluators: [Contains]", "Flujo has no evaluators of a single case"),
        ("{difficulty: easy}", "easy", "`metadata` of a case must be a mapping"),
    ],
)  # fmt: skip
def test_what_flujo_cannot_express_is_refused(old: str, new: str, expected: str) -> None:
    assert [each.partition(" FLJ480 ")[2] for each in found(DATASET.replace(old, new))] == [expected]


# Adding cases --------------------------------------------------------------------------------------------

NEW: list[dict[str, Any]] = [{"name": "new", "input": {"text": "a\n\nb\n"}, "expected": "no"}]


def test_added_cases_leave_everything_else_as_it_is() -> None:
    whole = with_cases(WHOLE, NEW)
    assert whole is not None
    assert [line for line in whole.splitlines() if line not in WHOLE.splitlines()] == [
        "  - name: new",
        "    input:",
        "      text: |",
        "        a",
        "        b",
        "    expected: 'no'",
    ]
    assert said(whole).cases[-1].input == {"text": "a\n\nb\n"}
    assert said(whole).cases[:-1] == said(WHOLE).cases


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_cases_are_added_at_the_end_of_a_file(end: str) -> None:
    text = "evaluators: [polite]\ncases:\n- name: a\n  input: 1" + end
    whole = with_cases(text, NEW)
    assert whole is not None
    assert [each.name for each in said(whole).cases] == ["a", "new"]


def test_a_list_in_one_line_is_not_extended() -> None:
    assert with_cases("evaluators: [polite]\ncases: [{name: a}]\n", NEW) is None


def test_a_new_file_has_an_evaluator() -> None:
    read = said(new_file("sort", [*NEW]))
    assert (read.blueprint, [evaluator_name(each) for each in read.evaluators]) == ("sort", ["equal"])


# The schema for editors ----------------------------------------------------------------------------------


def test_the_schema_for_editors_is_generated_and_accepts_a_whole_file() -> None:
    assert CASES_FILE.read_text("utf-8") == cases_text()
    schema = json.loads(cases_text())
    Draft202012Validator.check_schema(schema)
    data = said(WHOLE).model_dump(exclude_none=True, exclude_defaults=True)
    assert list(Draft202012Validator(schema).iter_errors(data)) == []
    assert list(Draft202012Validator(schema).iter_errors({**data, "caes": []}))
