"""What people see of a blueprint without running it: `flujo graph` and `flujo ls`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from inline_snapshot import snapshot

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

REVIEW = """\
version: "1"
name: review
description: Draft until it is good, then ask
steps:
  - kind: loop
    name: draft
    max_iterations: 3
    until: steps.write.output == "good"
    steps:
      - name: write
        call: skills.work:note
        with: {text: good}
        output_schema: {type: string}
  - kind: conditional
    name: way
    if: steps.draft.output == "good"
    then:
      - {kind: hitl, name: approve, message: "Send {{ previous }}?"}
    else:
      - {name: drop, call: skills.work:note, with: {text: "no"}, when: "true"}
"""

CHAT = """\
version: "1"
name: chat
agents:
  clerk: {model: "openai:gpt-5-mini", tools: ["skills.work:note"]}
steps:
  - {kind: granular, name: talk, agent: clerk, max_turns: 4, fallback: {call: skills.work:note, with: {text: a}}}
"""


def test_a_blueprint_is_drawn_as_a_tree_on_the_terminal(flujo: Flujo, project: Project) -> None:
    project.blueprint("review", REVIEW)
    result = flujo("graph", "review")
    assert result.exit_code == 0
    assert result.stdout == snapshot("""\
review  Draft until it is good, then ask
├─ draft [loop]          until steps.write.output == "good", at most 3 times
│  └─ write              calls skills.work:note
└─ way [conditional]     if steps.draft.output == "good"
   ├─ then:
   │  └─ approve [hitl]  asks a human: Send {{ previous }}?
   └─ else:
      └─ drop            calls skills.work:note, when true
""")
    assert "next: flujo graph review --format mermaid" in result.stderr


def test_a_drawing_goes_to_stdout_or_into_a_file(flujo: Flujo, project: Project) -> None:
    project.blueprint("review", REVIEW)
    drawn = flujo("graph", "review", "--format", "mermaid")
    assert drawn.stdout.startswith("flowchart TD\n")
    written = flujo("graph", "review", "--format", "mermaid", "-o", "review.mmd")
    assert (written.stdout, written.stderr) == ("", "wrote review.mmd\n")
    assert (project.root / "review.mmd").read_text("utf-8") == drawn.stdout
    assert flujo("graph", "review", "--format", "dot").stdout.startswith('digraph "review" {')


def test_a_drawing_shows_the_tools_of_an_agent_and_its_limits(flujo: Flujo, project: Project) -> None:
    project.blueprint("chat", CHAT)
    assert flujo("graph", "chat").stdout == snapshot("""\
chat
└─ talk [granular]    asks clerk (openai:gpt-5-mini; tools: note) in turns
   │                  tool note: unsafe, not declared
   │                  at most 4 turns, then it fails
   │                  at most 10 tool calls at a time
   └─ when it fails:
      └─ fallback     calls skills.work:note
""")
    assert "tool note: unsafe, not declared<br/>at most 4 turns" in (
        flujo("graph", "chat", "--format", "mermaid").stdout
    )
    assert "\\ntool note: unsafe" in flujo("graph", "chat", "--format", "dot").stdout


def test_a_drawing_and_an_explanation_show_the_effect_of_an_entry(flujo: Flujo, project: Project) -> None:
    entry = '[{call: "skills.work:note", effect: idempotent, enforce_idempotency: true}]'
    project.blueprint("chat", CHAT.replace('["skills.work:note"]', entry))
    assert "tool note: idempotent, recorded before it is made" in flujo("graph", "chat").stdout
    told = flujo("explain", "chat").stdout
    assert "skills.work:note, which clerk may call; effect: idempotent, recorded before it is made" in told


def test_a_tree_goes_into_no_file(flujo: Flujo) -> None:
    result = flujo("graph", "ask", "-o", "x.txt")
    assert result.exit_code == 2
    assert "use --format mermaid" in result.stderr


def test_a_blueprint_that_is_not_valid_is_not_drawn(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", 'version: "1"\nname: wrong\nstepz: []\n')
    for command in ("graph", "ls"):
        result = flujo(command, "wrong")
        assert result.exit_code == 4
        assert "wrong.yaml:3:1" in result.stderr


def test_ls_lists_steps_agents_callables_and_imports(flujo: Flujo, project: Project) -> None:
    project.blueprint("review", REVIEW)
    assert flujo("ls", "review").stdout == snapshot("""\
WHAT      NAME              DOES
step      draft             loop: until steps.write.output == "good", at most 3 times
step      draft/write       calls skills.work:note
step      way               conditional: if steps.draft.output == "good"
step      way:then/approve  hitl: asks a human: Send {{ previous }}?
step      way:else/drop     calls skills.work:note
callable  skills.work:note
""")
    only = flujo("ls", "review", "--only", "callable", "--json")
    assert json.loads(only.stdout) == [
        {
            "blueprint": "blueprints/review.yaml",
            "what": "callable",
            "name": "skills.work:note",
            "detail": "",
        }
    ]


def test_ls_alone_lists_the_whole_project(flujo: Flujo) -> None:
    listed = json.loads(flujo("ls", "--json").stdout)
    assert {"blueprints/ask.yaml", "blueprints/flaky.yaml"} <= {item["blueprint"] for item in listed}
    assert any(line.startswith("BLUEPRINT") for line in flujo("ls").stdout.splitlines())


def test_seeing_imports_nothing_that_a_blueprint_names(flujo: Flujo) -> None:
    before = set(sys.modules)
    flujo("graph", "ask", "--format", "dot")
    flujo("ls")
    assert not [name for name in set(sys.modules) - before if name.split(".")[0] == "skills"]
