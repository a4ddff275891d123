"""A failed run on the command line: its message, its records, and its resume after the cause is fixed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

SKILLS = '''\
"""Steps that are wrong until there is a file `fixed`."""

import time
from pathlib import Path

HERE = Path(__file__).parent.parent
FIXED = HERE / "fixed"


def note() -> int:
    with (HERE / "notes.txt").open("a", encoding="utf-8") as notes:
        notes.write("first\\n")
    return 2


def raises() -> int:
    if not FIXED.exists():
        raise ValueError("the printer is on fire")
    return 3


def many() -> object:
    return 3 if FIXED.exists() else "many"


def ratio() -> object:
    return 3 if FIXED.exists() else {"ratio": float("nan")}


def slow() -> int:
    if not FIXED.exists():
        time.sleep(5)
    return 3


def wants(resources: object) -> int:
    return 3


def pick() -> object:
    return ["yes"] if FIXED.exists() else ["nonsense"]


def up(data: int) -> int:
    return data + 1
'''

START = """\
version: "1"
name: failing
context_schema: {type: object, properties: {total: {type: integer}}}
steps:
  - {name: first, call: "skills.bad:note"}
"""


@dataclass(frozen=True)
class Case:
    """Steps after `first` that go wrong.

    Args:
        steps: as they are while they are wrong.
        code: of the error.
        path: of the step that fails.
        says: a part of the message.
        output: what the run writes after the fix.
        fixed: the wrong text in `steps` and its replacement; without it, creating the file `fixed` is the fix.
    """

    steps: str
    code: str
    path: str
    says: str
    output: str = "3"
    fixed: tuple[str, str] | None = None


CASES = {
    "code that raises": Case(
        '- {name: bad, call: "skills.bad:raises"}', "FLJ401", "bad", "the printer is on fire"
    ),
    "an output that never validates": Case(
        '- {name: bad, call: "skills.bad:many", output_schema: {type: integer}}', "FLJ304", "bad", "integer"
    ),
    "what JSON cannot hold": Case('- {name: bad, call: "skills.bad:ratio"}', "FLJ405", "bad", "`ratio`"),
    "a step that takes too long": Case(
        '- {name: bad, call: "skills.bad:slow", config: {timeout_s: 1.5}}', "FLJ403", "bad", "`timeout_s`"
    ),
    "resources that were not given": Case(
        '- {name: bad, call: "skills.bad:wants"}',
        "FLJ306",
        "bad",
        "takes `resources`",
        fixed=("skills.bad:wants", "skills.bad:raises"),
    ),
    "a router that answers nonsense": Case(
        '- {kind: router, name: bad, router: "skills.bad:pick", '
        'branches: {"yes": [{name: a, call: "skills.bad:raises"}]}}',
        "FLJ414",
        "bad",
        "'nonsense'",
        output='{"yes": 3}',
    ),
    "a switch without a branch": Case(
        "- {kind: conditional, name: bad, switch: 'steps.first.output > 5', "
        'branches: {"true": [{name: a, call: "skills.bad:up"}]}}',
        "FLJ407",
        "bad",
        "the branches are true",
        fixed=("> 5", "> 1"),
    ),
    "a loop that cannot end": Case(
        "- {kind: loop, name: bad, max_iterations: 2, until: steps.up.output >= 5, "
        'steps: [{name: up, call: "skills.bad:up"}]}',
        "FLJ406",
        "bad",
        "ran 2 times",
        output="5",
        fixed=("max_iterations: 2", "max_iterations: 9"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_error_says_where_why_and_what_to_do_and_the_run_resumes_after_the_fix(
    case: Case, flujo: Flujo, project: Project
) -> None:
    (project.root / "skills/bad.py").write_text(SKILLS, "utf-8")
    project.blueprint("failing", f"{START}  {case.steps}\n")
    result = flujo("run", "failing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"error: step `{case.path}`" in result.stderr
    assert case.says in result.stderr
    assert case.code in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr
    assert "--retry-failed" in result.stderr.splitlines()[-1]

    shown = json.loads(flujo("trace", "@last", "--json").stdout)
    assert shown["status"] == "failed"
    assert [step["output"] for step in shown["children"] if step["path"] == "first"] == [2]

    words = ["--retry-failed"]
    (project.root / "fixed").touch()
    if case.fixed is not None:
        project.blueprint("failing", f"{START}  {case.steps.replace(*case.fixed)}\n")
        words.append("--accept-changes")
    again = flujo("resume", "@last", *words)
    assert (again.exit_code, again.stdout) == (0, f"{case.output}\n"), again.stderr
    assert project.notes() == ["first"]
