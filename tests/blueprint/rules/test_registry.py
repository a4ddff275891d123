"""The rules: every bad case has one finding at its place; good cases have none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bad.composite_cases import COMPOSITE_CASES
from bad.flow_cases import FLOW_CASES, TOOLS, TYPED
from bad.meaning_cases import CASES, ENTRY, HEAD, SECRET_CASES, SKILLS, Case, importing, text
from bad.model_cases import MODEL_CASES
from flujo.blueprint.analysis.project_facts import ProjectFacts
from flujo.blueprint.compiler import Compiled, compile_blueprint
from flujo.blueprint.diagnostics import RULES, Diagnostic, Severity, render, to_json
from flujo.blueprint.sources.source_files import FileSource
from good.flow_cases import CHILDREN, GOOD_FLOW
from good.meaning_cases import GOOD
from good.model_cases import GOOD_MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ALLOW = ["skills.*", "far.*"]
MERGER = "def fold(*, fork, branches): ...\n"


SERVERS = {"kb": ["kb_search"]}


def compiled(root: Path, files: Mapping[str, str], *, strict: bool = False) -> Compiled:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return compile_blueprint(
        ENTRY,
        FileSource(root),
        allow_callables=ALLOW,
        strict=strict,
        project=ProjectFacts(
            servers=SERVERS,
            targets=["ops"],
            evaluators=["polite"],
            queues=["slow"],
            executors={"cores": "processes", "wide": "threads"},
            providers=["a", "b", "c"],
            is_priced=lambda model: "tuned" not in model,
            allows_tool=lambda name, target: "forbidden" not in target,
            secret_problem=lambda name: f"{name} is not set" if name == "LOST_KEY" else None,
        ),
    )


def shown(diagnostic: Diagnostic, files: Mapping[str, str]) -> str:
    """Return the text of a finding's span."""
    span = diagnostic.span
    lines = files[span.file].split("\n")
    assert span.line == span.end_line
    return lines[span.line - 1][span.column - 1 : span.end_column - 1]


@pytest.mark.parametrize(
    "case", [*CASES, *COMPOSITE_CASES, *FLOW_CASES, *MODEL_CASES], ids=lambda case: case.name
)
def test_a_bad_blueprint_gets_its_finding_at_its_place(case: Case, tmp_path: Path) -> None:
    files = case.all_files()
    found = compiled(tmp_path, files)
    matching = [one for one in found.diagnostics if one.code == case.code and one.span.line == case.line]
    assert matching, "\n".join(render(one, found.sources) for one in found.diagnostics)
    one = matching[0]
    assert one.span.file == case.file
    assert one.severity == case.severity
    assert case.words in f"{one.message} {one.hint}"
    assert case.under is None or shown(one, files) == case.under
    assert (found.pipeline is None) is (case.severity == "error")


@pytest.mark.parametrize(
    "case", [*CASES, *COMPOSITE_CASES, *FLOW_CASES, *MODEL_CASES], ids=lambda case: case.name
)
def test_one_cause_gives_one_finding(case: Case, tmp_path: Path) -> None:
    found = compiled(tmp_path, case.all_files())
    at_all = [
        one for one in found.diagnostics if one.severity is not Severity.INFO or case.severity == "info"
    ]
    assert [one.code for one in at_all] == [case.code], [str(one) for one in at_all]


@pytest.mark.parametrize("case", SECRET_CASES, ids=lambda case: case.name)
def test_a_secret_is_never_shown(case: Case, tmp_path: Path) -> None:
    found = compiled(tmp_path, case.all_files())
    assert case.under
    for one in found.diagnostics:
        assert case.under not in render(one, found.sources)
        assert case.under not in str(to_json(one))


@pytest.mark.parametrize("name", [*GOOD, *GOOD_FLOW, *GOOD_MODELS])
def test_a_look_alike_has_no_findings(name: str, tmp_path: Path) -> None:
    skills = {"skills/crm.py": SKILLS + MERGER, "skills/typed.py": TYPED, "skills/tools.py": TOOLS}
    found = compiled(tmp_path, {**skills, **CHILDREN, ENTRY: (GOOD | GOOD_FLOW | GOOD_MODELS)[name]})
    assert [render(one, found.sources) for one in found.diagnostics] == []
    assert found.pipeline is not None


def test_all_findings_are_reported_in_the_order_of_lines(tmp_path: Path) -> None:
    steps = (
        text('"{{ nope }} {{ input.txt }}"')
        + "  - {name: b, agent: nobody}\n  - {name: sort, agent: sorter}\n"
    )
    found = compiled(tmp_path, {ENTRY: HEAD + steps})
    assert [(one.code, one.span.line) for one in found.diagnostics] == [
        ("FLJ204", 11),
        ("FLJ204", 11),
        ("FLJ201", 12),
        ("FLJ210", 13),
    ]


def test_strict_turns_warnings_into_errors(tmp_path: Path) -> None:
    files = {ENTRY: HEAD + text('"{{ input.note }}"')}
    loose = compiled(tmp_path, files)
    assert loose.pipeline is not None
    assert [one.severity for one in loose.diagnostics] == ["warning"]
    strict = compiled(tmp_path, files, strict=True)
    assert strict.pipeline is None
    assert [one.severity for one in strict.diagnostics] == ["error"]


def test_a_branch_that_is_not_taken_passes_on_previous(tmp_path: Path) -> None:
    fork = (
        "  - {kind: conditional, name: way, if: steps.sort.output.score > 1, output: {other: 1},\n"
        "     then: [{name: x, agent: sorter}]}\n"
    )
    found = compiled(tmp_path, {ENTRY: HEAD + fork + text('"{{ steps.way.output.other }}"')})
    assert [(one.code, one.severity) for one in found.diagnostics] == [("FLJ207", "warning")]


def test_a_composite_with_output_returns_exactly_that(tmp_path: Path) -> None:
    again = (
        "  - {kind: loop, name: again, until: 'true', steps: [{name: x, agent: sorter}],\n"
        "     output: {last: '{{ steps.x.output.label }}', times: '{{ loop.index + 1 }}'}}\n"
    )
    found = compiled(tmp_path, {ENTRY: HEAD + again + text('"{{ steps.again.output.lst }}"')})
    assert [one.code for one in found.diagnostics] == ["FLJ204"]
    assert "did you mean `last`" in (found.diagnostics[0].hint or "")


def test_the_output_of_an_imported_blueprint_is_known_to_its_parent(tmp_path: Path) -> None:
    child = (
        'version: "1"\nname: child\noutput: {answer: "{{ steps.ask.output }}"}\n'
        "agents: {a: {model: b:c}}\nsteps: [{name: ask, agent: a}]\n"
    )
    steps = importing("./child.yaml") + text('"{{ steps.sub.output.anser }}"')
    found = compiled(tmp_path, {ENTRY: HEAD + steps, "blueprints/child.yaml": child})
    assert [(one.code, one.hint) for one in found.diagnostics] == [("FLJ204", "did you mean `answer`?")]


def test_a_finding_in_shared_instructions_is_reported_once(tmp_path: Path) -> None:
    entry = (
        'version: "1"\nname: x\nagents: {a: {model: b:c, instructions: "{{ inputt }}"}}\n'
        "steps: [{name: one, agent: a}, {name: two, agent: a}]\n"
    )
    assert [one.code for one in compiled(tmp_path, {ENTRY: entry}).diagnostics] == ["FLJ204"]


def test_instructions_have_the_scope_of_the_step(tmp_path: Path) -> None:
    entry = (
        'version: "1"\nname: x\nagents: {a: {model: b:c, trust: true, instructions: "About {{ steps.one.output }}"}}\n'
        "steps: [{name: one, agent: a}, {name: two, agent: a}]\n"
    )
    found = compiled(tmp_path, {ENTRY: entry}).diagnostics
    assert len(found) == 1
    assert "step `one` is not in scope" in found[0].message


@pytest.mark.parametrize(
    ("make", "words"), [("fifo", "pipe"), ("folder", "directory"), ("out", "symbolic link")]
)
def test_an_import_of_a_special_file_is_refused(make: str, words: str, tmp_path: Path) -> None:
    root = tmp_path / "proj"
    (root / "blueprints").mkdir(parents=True)
    odd = root / "blueprints" / "odd.yaml"
    if make == "fifo":
        os.mkfifo(odd)
    elif make == "folder":
        odd.mkdir()
    else:
        (tmp_path / "outside.yaml").write_text("version: '1'")
        odd.symlink_to(tmp_path / "outside.yaml")
    found = compiled(root, {ENTRY: HEAD + importing("./odd.yaml")}).diagnostics
    assert [one.code for one in found] == ["FLJ220"]
    assert words in found[0].message


def test_a_second_place_shows_the_input_schema_of_the_child(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "import-missing-input")
    found = compiled(tmp_path, case.all_files())
    words = render(found.diagnostics[0], found.sources)
    assert "blueprints/child.yaml:3:1" in words
    assert "its input schema" in words


def test_exponential_imports_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    head = 'version: "1"\nname: c\nsteps:\n'
    files = {
        f"blueprints/b{n}.yaml": head
        + "".join(f"  - {{kind: import, name: s{m}, blueprint: ./b{n + 1}.yaml}}\n" for m in range(10))
        for n in range(8)
    }
    files["blueprints/b8.yaml"] = head + "  - {name: a, call: 'skills.crm:plain'}\n"
    found = compiled(tmp_path, {"skills/crm.py": SKILLS, ENTRY: HEAD + importing("./b0.yaml"), **files})
    assert "FLJ223" in {one.code for one in found.diagnostics}
    assert found.pipeline is None


def test_more_files_than_a_closure_may_have_are_refused(tmp_path: Path) -> None:
    child = 'version: "1"\nname: c\nsteps: [{name: a, call: "skills.crm:plain"}]\n'
    files = {f"blueprints/b{n}.yaml": child for n in range(205)}
    steps = "".join(f"  - {{kind: import, name: s{n}, blueprint: ./b{n}.yaml}}\n" for n in range(205))
    found = compiled(tmp_path, {"skills/crm.py": SKILLS, ENTRY: HEAD + steps, **files})
    assert {one.code for one in found.diagnostics} == {"FLJ223"}
    assert "200 files" in found.diagnostics[0].message


def test_every_rule_is_explained() -> None:
    for code, rule in RULES.items():
        assert rule.title
        assert "## Write instead" in rule.explanation, code
