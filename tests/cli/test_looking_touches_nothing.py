"""Validating, locking, drawing and explaining never import or run what a blueprint names: the hook of CPython watches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
STRIDE = os.environ.get("FLUJO_CORPUS_STRIDE", "40")
"""How many of the bad cases without a number there are for each one that is looked at; `make soak` takes all."""


@pytest.mark.timeout(600)
def test_looking_at_the_corpora_imports_writes_connects_and_starts_nothing_in_little_memory(
    tmp_path: Path,
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLUJO_")}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("watched_program.py")), str(tmp_path), STRIDE],
        cwd=TESTS,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases, mebibytes = map(int, done.stdout.split())
    assert cases > 250
    assert mebibytes < 256
