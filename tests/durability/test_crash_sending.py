"""`kill -9` of `flujo tasks send` at every point: the repeated command sends its event once."""

from __future__ import annotations

import json
import os
import sys
from itertools import product
from pathlib import Path

import pytest

import warm

EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0"))
"""Kill at each n-th point; 0 takes a sample, as `make test` does."""
SCRIPT = Path(__file__).with_name("crash_sending.py")
RUNS = (
    [*product(["sqlite", "postgres"], ["run", "key"])] if EVERY else [("sqlite", "key"), ("postgres", "run")]
)


@pytest.mark.guarantee("G4")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("store_uri", "address"), RUNS, indirect=["store_uri"])
def test_a_killed_command_that_is_repeated_sends_its_event_once(
    address: str, store_uri: str, tmp_path: Path
) -> None:
    every = EVERY or 13
    command = [sys.executable, str(SCRIPT), address, store_uri, str(tmp_path)]
    command += ["--every", str(every), "--first", str(1 + len(address) % every)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = warm.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == []
    assert report["kills"] >= report["points"] // every > 0
