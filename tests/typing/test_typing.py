"""Both type checkers report every deliberate error, and the manual's code passes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ERRORS = Path(__file__).with_name("deliberate_errors.py")
CONFIG = Path(__file__).with_name("mypy.ini")
CACHE = ROOT / ".mypy_cache" / "deliberate_errors"
"""Not that of `make check`, whose settings are others."""
BLOCKS = ROOT / "tests" / "manual" / "blocks"


def check(*argv: str | Path) -> str:
    """Return the output of a type checker."""
    pytest.importorskip(str(argv[0]), reason="a tool of the `dev` extra")
    command = [sys.executable, "-m", *map(str, argv)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def deliberate() -> set[int]:
    """Return the lines with deliberate errors."""
    lines = ERRORS.read_text("utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}


@pytest.mark.timeout(600)
def test_mypy_refuses_each_deliberate_error_and_nothing_else() -> None:
    said = check("mypy", "--config-file", CONFIG, "--no-pretty", "--cache-dir", CACHE, ERRORS)
    assert {int(line) for line in re.findall(rf"{ERRORS.name}:(\d+): error", said)} == deliberate(), said


@pytest.mark.timeout(600)
def test_basedpyright_refuses_each_deliberate_error_and_takes_the_manual_as_printed() -> None:
    said = check("basedpyright", "--pythonpath", sys.executable, "--outputjson", ERRORS, BLOCKS)
    found = [one for one in json.loads(said)["generalDiagnostics"] if one["severity"] == "error"]
    lines = {one["range"]["start"]["line"] + 1 for one in found if one["file"] == str(ERRORS)}
    assert lines == deliberate()
    assert [one for one in found if one["file"] != str(ERRORS)] == []
