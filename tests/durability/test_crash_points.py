"""`kill -9` at every place where a process could die: no acknowledged step is lost, and none happens twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from durability.crash_programs import SHAPES

if TYPE_CHECKING:
    from durability.conftest import Evidence
    from durability.world import World

HERE = Path(__file__).parent
EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0"))
"""Kill at each n-th place; 0 takes a sample, as `make test` does."""
TWICE = os.environ.get("FLUJO_CRASH_TWICE") == "1"

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.guarantee("G1", "G2", "G8")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_that_is_killed_anywhere_comes_to_the_same_end(
    shape: str, store_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    postgres = store_uri.startswith("postgres")
    every = EVERY or (11 if postgres else 6)
    words = [shape, store_uri, str(tmp_path), "--every", str(every)]
    words += ["--first", str(1 + list(SHAPES).index(shape) % every)] + (["--twice"] if TWICE else [])
    done = subprocess.run(
        [sys.executable, str(HERE / "crash_programs.py"), *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    evidence.add(faults=report["kills"], violations=report["violations"])
    assert report["violations"] == []
    assert report["kills"] >= report["points"] // every, "every place was fatal once, and each kill was seen"
    assert outside.effects(), "the programs did something"
