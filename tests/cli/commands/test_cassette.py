"""`flujo cassette save`: the file of a run, and the runs of which there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flujo.services.replay.cassette import Cassette

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


def test_a_completed_run_is_saved_below_the_tests(flujo: Flujo, project: Project) -> None:
    assert flujo("run", "hello", "--input", "Ada", "--run-id", "one").exit_code == 0
    saved = flujo("cassette", "save", "one")
    assert saved.exit_code == 0, saved.output
    assert "wrote tests/cassettes/hello-one.yaml (2 calls)" in saved.stderr
    cassette = Cassette.open(project.root / "tests/cassettes/hello-one.yaml")
    assert (cassette.blueprint, cassette.input, cassette.run_id) == ("blueprints/hello.yaml", "Ada", "one")
    facts = json.loads(flujo("cassette", "save", "@last", "-o", "x/one.yaml", "--json").stdout)
    assert facts == {
        "run_id": "one",
        "file": "x/one.yaml",
        "exchanges": 0,
        "tools": 0,
        "calls": 2,
        "answers": 0,
        "untried": [],
    }


def test_a_run_that_has_not_completed_is_refused(flujo: Flujo, project: Project) -> None:
    assert flujo("run", "ask", "--run-id", "asks").exit_code == 5
    refused = flujo("cassette", "save", "asks")
    assert (refused.exit_code, "FLJ565" in refused.stderr) == (8, True)
    assert not (project.root / "tests/cassettes").exists()
    assert flujo("cassette", "save", "none").exit_code == 8


ODD = """\
version: "1"
name: odd
steps:
  - {name: look, call: "skills.odd:look", processors: {output: ["skills.odd:numbered"]}}
"""
COUNTS = """\
from itertools import count

NUMBERS = count()


def look(data: object) -> int:
    return 1


def numbered(data: int) -> int:
    return next(NUMBERS)
"""


def test_a_run_whose_cassette_would_end_otherwise_is_refused_and_nothing_is_written(
    flujo: Flujo, project: Project
) -> None:
    project.blueprint("odd", ODD)
    (project.root / "skills/odd.py").write_text(COUNTS, "utf-8")
    assert flujo("run", "odd", "--run-id", "odd").exit_code == 0
    refused = flujo("cassette", "save", "odd")
    assert (refused.exit_code, "FLJ565" in refused.stderr) == (8, True), refused.output
    assert "it ends otherwise:\nthe output differs" in refused.stderr
    assert not (project.root / "tests/cassettes").exists()


def test_a_run_with_failed_calls_is_saved(flujo: Flujo, project: Project) -> None:
    (project.root / "skills/odd.py").write_text("def look(n: int) -> int:\n    return 6 // n\n", "utf-8")
    project.blueprint(
        "halves",
        """\
version: "1"
name: halves
steps:
  - kind: map
    name: each
    over: "[3, 0]"
    on_error: skip
    steps: [{name: look, call: "skills.odd:look", with: {n: "{{ item }}"}}]
""",
    )
    assert flujo("run", "halves", "--run-id", "halves").stdout == "[2]\n"
    saved = flujo("cassette", "save", "halves")
    assert "wrote tests/cassettes/halves-halves.yaml (2 calls)" in saved.stderr
    cassette = Cassette.open(project.root / "tests/cassettes/halves-halves.yaml")
    ended = {each.at: each.error and each.error.type for each in cassette.calls}
    assert ended == {"each[0]/look": None, "each[1]/look": "ZeroDivisionError"}
