"""`kill -9` of a process that erases a person: the next erasure finishes it, and its proof counts all of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import warm

EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0"))
"""Kill at each n-th point; 0 takes a sample, as `make test` does."""
SCRIPT = Path(__file__).with_name("crash_erasing.py")


@pytest.mark.timeout(3600)
def test_a_process_killed_at_any_point_of_an_erasure_is_finished_by_the_next(store_uri: str) -> None:
    every = EVERY or 41
    command = [sys.executable, str(SCRIPT), store_uri, "--every", str(every)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = warm.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == []
    assert report["kills"] >= report["points"] // every > 0
