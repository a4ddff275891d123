"""`kill -9` at every point where a process could die: no acknowledged step is lost or repeated."""

from __future__ import annotations

import json
import os
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import warm
from durability.crash_effects import MODES, POLICIES
from durability.crash_programs import SHAPES

if TYPE_CHECKING:
    from durability.conftest import Evidence
    from durability.world import World

HERE = Path(__file__).parent
EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0"))
"""Kill at each n-th point; 0 takes a sample, as `make test` does."""
TWICE = os.environ.get("FLUJO_CRASH_TWICE") == "1"

SAMPLE = [
    *product(["sqlite"], POLICIES, ["answer"]),
    *product(["postgres"], POLICIES, ["drop"]),
    *product(["sqlite"], ["pause"], MODES[1:]),
]
ON_POSTGRES = [*list(SHAPES)[::3], "background_lent", "granular_transactional", "continue_as_new"]
RUNS = [
    *product(
        ["sqlite"], [shape for shape in SHAPES if EVERY or shape == "linear" or shape not in ON_POSTGRES]
    ),
    *product(["postgres"], SHAPES if EVERY else ON_POSTGRES),
]
"""The database and the shape of the run.

A shape meets the same crash points on both databases. `make test` runs `linear`, which meets the most kinds of statements
between two of them, on both, and each other shape on one; `make soak` runs all on both.
"""
CALLS = [*product(["sqlite", "postgres"], POLICIES, MODES)] if EVERY else SAMPLE
"""The database, the `in_doubt` of the steps, and the reply of the world to a call."""

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.guarantee("G1", "G2", "G8")
@pytest.mark.parametrize(("store_uri", "shape"), RUNS, indirect=["store_uri"])
def test_a_run_killed_at_any_point_resumes_to_the_same_result(
    shape: str, store_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    postgres = store_uri.startswith("postgres")
    # `linear` meets the most kinds of statements between two crash points, and some mutants show there alone.
    sample = (67, 43) if shape == "linear" else (193, 127)
    every = EVERY or sample[not postgres]
    first = 1 + list(SHAPES).index(shape) % every
    words = [shape, store_uri, str(tmp_path), *(["--twice"] if TWICE else [])]
    _enumerated("crash_programs.py", words, every, first, evidence)
    assert outside.effects(), "the programs had effects"


@pytest.mark.guarantee("G1", "G2", "G8", "G9")
@pytest.mark.parametrize("shape", ["linear", "loop"])
def test_a_run_killed_while_its_event_loop_commits_resumes_to_the_same_result(
    shape: str, store_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    every = EVERY or 31
    words = [shape, store_uri, str(tmp_path), "--lone", *(["--twice"] if TWICE else [])]
    _enumerated("crash_programs.py", words, every, 1 + len(shape) % every, evidence)
    assert outside.effects(), "the programs had effects"


@pytest.mark.guarantee("G1", "G2", "G8")
@pytest.mark.parametrize("store_uri", ["sqlite", "postgres"] if EVERY else ["sqlite"], indirect=True)
def test_a_run_killed_at_any_point_of_an_encrypted_database_resumes_to_the_same_result(
    store_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    every = EVERY or 139
    words = ["linear", store_uri, str(tmp_path), "--encrypted", *(["--twice"] if TWICE else [])]
    _enumerated("crash_programs.py", words, every, 1 + 17 % every, evidence)
    assert outside.effects(), "the programs had effects"


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(("store_uri", "policy", "mode"), CALLS, indirect=["store_uri"])
def test_a_call_is_made_at_most_once_per_key_and_its_outcome_is_never_guessed(
    policy: str, mode: str, store_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    every = EVERY or 131
    first = 1 + 5 * (POLICIES.index(policy) + len(POLICIES) * MODES.index(mode)) % every
    _enumerated("crash_effects.py", [policy, mode, store_uri, str(tmp_path)], every, first, evidence)
    assert outside.effects(), "at least one payment was made"


def _enumerated(script: str, words: list[str], every: int, first: int, evidence: Evidence) -> None:
    """Let a script kill at every point, and check its report."""
    command = [sys.executable, str(HERE / script), *words, "--every", str(every), "--first", str(first)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = warm.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    evidence.add(faults=report["kills"], violations=report["violations"])
    assert report["violations"] == [], "\n".join(report["violations"])
    assert report["kills"] >= report["points"] // every, (
        "every point was killed once, and each kill was observed"
    )
