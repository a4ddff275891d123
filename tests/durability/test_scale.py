"""Long runs: the programs of `bench/scale.py`, with few items here and with a million in `make soak`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ITEMS = int(os.environ.get("FLUJO_SCALE", "3000"))
PROGRAM = Path(__file__).parents[2] / "bench" / "scale.py"
SIZES = {"map": ITEMS, "resume": ITEMS, "steps": ITEMS // 10, "paused": ITEMS // 10}
GROWTH_MB = 64
"""By how much the memory of a process may grow, whatever the number of items."""

pytestmark = pytest.mark.timeout(7200)


@pytest.mark.parametrize("part", SIZES)
def test_a_long_run_completes_and_resumes(part: str) -> None:
    command = [sys.executable, str(PROGRAM), part, str(SIZES[part])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("completed"), done.stdout
    if part in ("map", "resume"):
        start, *_, end = map(int, re.findall(r"(\d+) MB", done.stdout))
        assert end - start < GROWTH_MB, done.stdout
