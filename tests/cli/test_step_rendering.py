"""`flujo trace RUN STEP`: everything that is recorded about one step."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from inline_snapshot import snapshot

from flujo.domain.steps import GranularStep, Step
from flujo.services.runs.runner import Flujo as Runner
from flujo.testing import ScriptedAgent, ToolCall
from support import pipeline

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

SUMS = '''\
"""Sums that fail at first."""

from pathlib import Path

TRIES = Path(__file__).parent / "tries"


def total(data: object) -> int:
    row = {"total": 3}
    tries = len(TRIES.read_text()) if TRIES.exists() else 0
    TRIES.write_text("x" * (tries + 1))
    return row["tota"] if tries < 2 else row["total"]


def wrong(data: object) -> int:
    return inner({"total": 1})


def inner(row: dict[str, int]) -> int:
    return row["tota"]
'''

BLUEPRINT = """\
version: "1"
name: sums
input_schema: {type: string}
context_schema: {type: object, properties: {sum: {type: integer, default: 0}, log: {type: array, default: []}}}
steps:
  - name: first
    call: skills.sums:total
    with: {data: "{{ input }}"}
    save: {sum: output, log: {append: output}}
    config: {max_retries: 2, retry: {backoff: none}}
  - {name: skip, call: "skills.sums:total", when: "false"}
  - {kind: map, name: all, over: "[1, 2]", on_error: skip, steps: [{name: bad, call: "skills.sums:wrong"}]}
  - {name: last, call: "skills.sums:wrong"}
"""


@pytest.fixture
def failed(flujo: Flujo, project: Project) -> Project:
    """A project with a run that has failed in its last step."""
    (project.root / "skills/sums.py").write_text(SUMS, "utf-8")
    project.blueprint("sums", BLUEPRINT)
    assert flujo("run", "sums", "--input", "hello").exit_code == 1
    return project


def shown(text: str) -> str:
    """Return the lines after the title, without what differs between runs."""
    moment = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, [\d.]+s", "MOMENT", text.split("\n", 1)[1])
    return re.sub(r"\d+\.\ds(  \d+\.\ds of work)?", "0.0s", moment)


def test_a_leaf_shows_input_attempts_places_context_and_output(flujo: Flujo, failed: Project) -> None:
    result = flujo("trace", "@last", "first")
    assert re.match(r"sums  [0-9a-f]+  first\n", result.stdout)
    assert shown(result.stdout) == snapshot("""\
✓ first  3 attempts  0.0s
   began   MOMENT after the run
   input   {"data": "hello"}
   attempt 1  failed  0.0s  KeyError: 'tota' [FLJ401]
           at skills/sums.py:12 in total: return row["tota"] if tries < 2 else row["total"]
   attempt 2  failed  0.0s  KeyError: 'tota' [FLJ401]
           at skills/sums.py:12 in total: return row["tota"] if tries < 2 else row["total"]
   attempt 3  completed  0.0s
   context sum = 3
   context log += [3]
   output  3
""")
    data = json.loads(flujo("trace", "@last", "first", "--json").stdout)
    assert [(made["attempt"], made["status"]) for made in data["attempts_made"]] == [
        (1, "failed"),
        (2, "failed"),
        (3, "completed"),
    ]
    assert data["failed_attempts"][0]["error"]["frame"] == {
        "file": "skills/sums.py",
        "line": 12,
        "function": "total",
        "source": 'return row["tota"] if tries < 2 else row["total"]',
    }
    assert data["changed"] == [["set", ["sum"], 3], ["append", ["log"], [3]]]


def test_a_skipped_step_has_neither_attempts_with_errors_nor_an_output(flujo: Flujo, failed: Project) -> None:
    assert shown(flujo("trace", "@last", "skip").stdout) == snapshot("""\
- skip  skipped  0.0s
   began   MOMENT after the run
   took    false
""")


def test_a_composite_shows_its_decision_and_its_steps(flujo: Flujo, failed: Project) -> None:
    result = flujo("trace", "@last", "all")
    lines = shown(result.stdout).splitlines()
    assert lines[:4] == [
        "✓ all  map  0.0s",
        "│  began   MOMENT after the run",
        "│  items   2",
        "│  output  []",
    ]
    assert lines[4].startswith("├─ ✗ [0]  failed")


def test_the_error_of_a_run_names_the_place_everywhere(flujo: Flujo, failed: Project) -> None:
    place = 'skills/sums.py:20 in inner: return row["tota"]'
    assert f"\n  at: {place}\n  hint: " in flujo("resume", "@last", "--retry-failed").stderr
    assert f"at:        {place}\n" in flujo("tasks", "show", "@last").stdout
    assert place in flujo("trace", "@last").stdout
    (run,) = json.loads(flujo("tasks", "list", "--json").stdout)
    assert run["error"]["frame"]["line"] == 20


def test_debug_shows_the_traceback_of_each_attempt(flujo: Flujo, failed: Project) -> None:
    result = flujo("--debug", "trace", "@last", "last")
    assert "Traceback" not in flujo("trace", "@last", "last").stdout
    assert result.stdout.count("Traceback (most recent call last):") == 1
    assert f'  File "{failed.root}/skills/sums.py", line 16, in wrong' in result.stdout
    assert result.stdout.endswith("KeyError: 'tota'\n")
    data = json.loads(flujo("--debug", "trace", "@last", "last", "--json").stdout)
    assert list(data["tracebacks"]) == [data["error"]["traceback"]]


def test_an_agent_shows_its_prompt_its_model_and_its_turns(flujo: Flujo, project: Project) -> None:
    def lookup(name: str) -> str:
        """Look a customer up."""
        return f"{name} is here"

    agent = ScriptedAgent(["It is Ada."], tools=[lookup])
    talking = ScriptedAgent([[ToolCall("lookup", {"name": "Ada"})], "done"], tools=[lookup])
    tree = pipeline(Step("ask", agent=agent), GranularStep("talk", talking))
    Runner[Any, Any, Any](tree).run("Who is it?")
    asked = flujo("trace", "@last", "ask").stdout
    assert "   input   Who is it?\n" in asked
    assert "   prompt  Who is it?\n" in asked
    assert "   output  It is Ada.\n" in asked
    turn = flujo("trace", "@last", "talk/turn.0/tool.0").stdout
    assert '   input   {"name": "Ada"}\n' in turn
    assert "   output  Ada is here\n" in turn
    assert "turn 1" in flujo("trace", "@last", "talk").stdout


def test_full_shows_long_values_whole(flujo: Flujo, project: Project) -> None:
    project.blueprint(
        "long",
        'version: "1"\nname: long\ninput_schema: {type: string}\n'
        'steps: [{name: one, call: "skills.work:note", with: {text: "{{ input }}"}}]\n',
    )
    text = "long " * 200
    assert flujo("run", "long", "--input", text).exit_code == 0
    assert text.strip() not in flujo("trace", "@last", "one").stdout
    assert text.strip() in flujo("trace", "@last", "one", "--full").stdout
