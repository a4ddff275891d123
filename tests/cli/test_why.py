"""`flujo why`: the decisions of a run as people read them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from inline_snapshot import snapshot

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

BLUEPRINT = """\
version: "1"
name: letter
input_schema: {type: string}
steps:
  - {name: draft, call: "skills.work:note", with: {text: "{{ input }}"}, output_schema: {type: string}}
  - {kind: hitl, name: ask, message: "Send {{ previous }}?", answer_schema: {type: object, required: [ok], properties: {ok: {type: boolean}}}}
  - kind: conditional
    name: sent
    if: steps.ask.output.ok && size(steps.draft.output) < 10
    then: [{name: send, call: "skills.work:needs_file", config: {max_retries: 1, retry: {backoff: none}}}]
    else: [{name: drop, call: "skills.work:note", with: {text: dropped}}]
"""


def test_a_run_shows_decisions_values_answers_retries_and_its_end(flujo: Flujo, project: Project) -> None:
    project.blueprint("letter", BLUEPRINT)
    assert flujo("run", "letter", "--input", "hello", "--run-id", "r").exit_code == 5
    assert (
        flujo("why", "r").stdout
        == "r  paused at `ask`\nno decisions: each step was executed once, in order\n"
    )
    assert flujo("tasks", "resume", "r", "--field", "ok=true", "--by", "ada").exit_code == 1
    result = flujo("why", "r")
    told = re.sub(r"\d+\.\ds", "0.0s", result.stdout.replace(str(project.root), "ROOT"))
    assert told == snapshot("""\
r  failed at `sent:then/send`: FileNotFoundError: [Errno 2] No such file or directory: 'ROOT/there.txt' [FLJ401]
sent  took `then`
  if: steps.ask.output.ok && size(steps.draft.output) < 10
    = true && size("hello") < 10
    = true
  steps.ask.output.ok: step `ask`  answered by ada
  steps.draft.output: step `draft`
sent:then/send  2 failed attempts  0.0s
  1: FileNotFoundError: [Errno 2] No such file or directory: 'ROOT/there.txt' [FLJ401]
  2: FileNotFoundError: [Errno 2] No such file or directory: 'ROOT/there.txt' [FLJ401]
""")
    assert result.stderr == "next: flujo trace r\n"
    assert "answered by ada" in flujo("why", "r", "ask").stdout
    assert flujo("why", "r", "draft").stdout.splitlines()[1:] == ['input: {"text": "hello"}', "output: hello"]


def test_json_has_the_same_as_data(flujo: Flujo, project: Project) -> None:
    project.blueprint("letter", BLUEPRINT)
    flujo("run", "letter", "--input", "a long letter", "--run-id", "r")
    flujo("tasks", "resume", "r", "--field", "ok=true", "--by", "ada")
    data = json.loads(flujo("why", "r", "--json").stdout)
    [decision] = data["decisions"]
    assert (decision["key"], decision["value"], decision["effect"]) == ("if", False, "took `else`")
    assert decision["substituted"] == 'true && size("a long letter") < 10'
    assert [(each["name"], each["by"]) for each in decision["read"]] == [
        ("steps.ask.output.ok", "ada"),
        ("steps.draft.output", None),
    ]
    assert data["end"] == "completed"


def test_the_pinned_blueprint_counts_and_not_the_file_of_today(flujo: Flujo, project: Project) -> None:
    project.blueprint("letter", BLUEPRINT)
    flujo("run", "letter", "--input", "hello", "--run-id", "r")
    flujo("tasks", "resume", "r", "--field", "ok=false")
    project.blueprint("letter", 'version: "1"\nname: letter\nsteps: []\n')
    assert "if: steps.ask.output.ok && size(steps.draft.output) < 10" in flujo("why", "r").stdout


def test_a_wrong_path_and_a_wrong_run_are_corrected(flujo: Flujo, project: Project) -> None:
    assert flujo("run", "flaky", "--input", "x", "--run-id", "r").exit_code == 1
    wrong = flujo("why", "r", "secnod")
    assert wrong.exit_code == 2
    assert "did you mean `second`?" in wrong.stderr
    assert flujo("why", "nothing").exit_code == 8
