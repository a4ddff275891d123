"""`kill -9` of a process that moves a run to a blueprint with other names and places: all of the move or none."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import warm

EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0"))
"""Kill at each n-th point; 0 takes a sample, as `make test` does."""
SCRIPT = Path(__file__).with_name("crash_accepting.py")


@pytest.mark.timeout(3600)
def test_a_process_killed_at_any_point_moves_the_run_or_leaves_it(store_uri: str, tmp_path: Path) -> None:
    every = EVERY or 83
    words = [str(SCRIPT), store_uri, str(tmp_path / "project"), "--every", str(every), "--first", "29"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = warm.run([sys.executable, *words], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == []
    assert report["kills"] >= report["points"] // every > 0
