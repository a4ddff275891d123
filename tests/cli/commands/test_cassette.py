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
