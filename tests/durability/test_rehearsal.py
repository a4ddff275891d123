"""`crash_test` detects different results after a kill, without model requests."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

import warm

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

BLUEPRINT = """
version: "1"
name: said
input_schema: {type: string}
output: "{{ steps.note.output }}"
agents: {writer: {model: "openai:gpt-5-mini", instructions: Write.}}
steps:
  - {name: note, call: "skills.notes:note", with: {text: "{{ input }}"}}
  - {name: write, agent: writer, input: "{{ previous }}"}
  - {kind: hitl, name: approve, message: "Send {{ previous }}?"}
"""
SKILLS = """
import os
def note(text: str) -> str:
    return TEXT
"""
PROGRAM = """
from flujo.testing import crash_test
report = crash_test("said", "x", every=9, SCRIPT)
print(report.kills, sorted({wrong.partition("): ")[2].partition(" ")[0] for wrong in report.violations}))
"""
WHOLE = 'agents={"writer": "w"}, answers={"approve": "yes"}'


def prove(folder: Path, text: str, script: str) -> subprocess.CompletedProcess[str]:
    """Return the result of the crash test of a blueprint whose callable returns `text`."""
    for name, content in {
        "blueprints/said.yaml": BLUEPRINT,
        "skills/notes.py": SKILLS.replace("TEXT", text),
        "prove.py": PROGRAM.replace("SCRIPT", script),
        "flujo.toml": '[blueprints]\nallow_callables = ["skills.notes"]\n',
    }.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content, "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return warm.run(
        [sys.executable, "prove.py"], cwd=folder, env=environment, capture_output=True, check=False
    )


@pytest.mark.guarantee("G1", "G2")
def test_a_blueprint_reaches_the_same_result_wherever_it_is_killed(tmp_path: Path) -> None:
    done = prove(tmp_path, "text", WHOLE)
    assert done.returncode == 0, done.stderr
    kills, found = done.stdout.split(maxsplit=1)
    assert int(kills) > 5
    assert found == "[]\n"


def test_a_callable_whose_result_depends_on_the_process_is_detected(tmp_path: Path) -> None:
    done = prove(tmp_path, "str(os.getpid())", WHOLE)
    assert done.returncode == 0, done.stderr
    assert "['`output`']" in done.stdout


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('answers={"approve": "yes"}', "asks agent 'writer', and the script has no answer"),
        ('agents={"writer": "w"}', "asks a human at 'approve', and `answers` has no answer"),
    ],
)
def test_answers_missing_from_the_script_are_named(tmp_path: Path, script: str, says: str) -> None:
    done = prove(tmp_path, "text", script)
    assert done.returncode == 1
    assert says in done.stderr
