"""The blueprint from outside, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def flujo(*words: str, state: Path) -> str:
    """Return what a command writes to stdout; the run is kept in a database of the test's own."""
    done = subprocess.run(
        [sys.executable, "-m", "flujo", "-C", str(PROJECT), *words],
        env={**os.environ, "FLUJO_STATE_URI": f"sqlite:///{state}/state.db"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_blueprints_are_valid(tmp_path: Path) -> None:
    assert flujo("validate", state=tmp_path) == ""


def test_hello_greets_by_name(tmp_path: Path) -> None:
    assert flujo("run", "hello", "--input", "Ada", state=tmp_path) == "Hello, Ada! Your name has 3 letters."
