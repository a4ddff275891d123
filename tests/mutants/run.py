"""Tests the tests: makes one bug at a time and checks that the named test detects it.

    python tests/mutants/run.py [NAME …]

Each bug of `mutations/`, one file for each room of `src/flujo`, is made in a copy of this repository; the
repository itself is not changed. `old` occurs exactly once in `file`. A mutation is small and wrong, and the program
still starts with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
NEEDED = ("src", "tests", "docs", "alembic", "blueprints", "pyproject.toml", "flujo.toml", "flujo.lock")
PASSED, FAILED = 0, 1
"""Pytest's exit codes; any other means that no test ran."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A bug, as an edit of one file, and the test that must fail with it."""

    name: str
    bug: str
    file: str
    old: str
    new: str
    test: str
    guarantees: Sequence[str] = ()
    """Which promises of docs/reliability.md the bug breaks, such as `["G3"]`."""
    only: str = ""
    """The cases of the test, as for `pytest -k`; empty for all."""

    def occurrences(self) -> int:
        """Return how often the replaced text occurs in its file."""
        return (ROOT / self.file).read_text("utf-8").count(self.old)

    def make(self, copy: Path) -> None:
        """Make the bug in a copy of the repository."""
        if self.occurrences() != 1:
            sys.exit(f"{self.file} has changed: adapt `old` of {self.name}")
        file = copy / self.file
        file.write_text(file.read_text("utf-8").replace(self.old, self.new), "utf-8")


def mutations() -> list[Mutation]:
    """Return all mutations."""
    files = sorted((Path(__file__).parent / "mutations").glob("*.toml"))
    return [Mutation(**each) for file in files for each in tomllib.loads(file.read_text("utf-8"))["mutation"]]


def verdict(mutation: Mutation) -> str:
    """Return "" when the named test passes without the bug and fails with it, otherwise the problem."""
    with copied() as copy:
        without, output = run_tests(copy, [mutation.test], mutation.only, 600)
        if without != PASSED:
            return f"the test does not pass without the bug (exit code {without}):\n{output}"
        mutation.make(copy)
        with_it, output = run_tests(copy, [mutation.test], mutation.only, 600)
    if with_it == FAILED:
        return ""
    return "SURVIVED" if with_it == PASSED else f"no test ran (exit code {with_it}):\n{output}"


@contextmanager
def copied() -> Iterator[Path]:
    """Yield a temporary copy of the repository."""
    with tempfile.TemporaryDirectory(prefix="flujo-mutant-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder)
        for name in NEEDED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name)
            else:
                shutil.copy2(ROOT / name, copy / name)
        yield copy


def run_tests(copy: Path, tests: Sequence[str], only: str, timeout_s: float) -> tuple[int, str]:
    """Run tests in the copy; return pytest's exit code and the end of its output. A timeout counts as failed.

    A single test may take a third of the time.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider"]
    command += ["--timeout", str(timeout_s / 3), "--basetemp", str(copy / "pytest")]
    command += ["-m", "not model", *tests, *(["-k", only] if only else [])]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    environment.pop("FLUJO_EVIDENCE", None)  # runs of mutants are not evidence
    with subprocess.Popen(
        command,
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as pytest:
        try:
            output, _ = pytest.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(pytest.pid, signal.SIGKILL)
            return FAILED, f"no end after {timeout_s:g} s"
    return pytest.returncode, output[-2000:]


def main(names: list[str]) -> int:
    """Print whether each mutation was detected; return 1 when one was not."""
    known = {each.name: each for each in mutations()}
    if unknown := set(names) - set(known):
        sys.exit(f"unknown mutation {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    survived = False
    for name in names or known:
        wrong = verdict(known[name])
        survived = survived or bool(wrong)
        sys.stdout.write(f"{'killed' if not wrong else 'NOT KILLED':11}{name}: {wrong or known[name].bug}\n")
        sys.stdout.flush()
    return int(survived)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
