"""A SQLite file that may not be written: what can be shown is shown, the rest says why not and what to do."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import warm
from missing import MAY_EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Permissions bind root only when it gives away what lets it ignore them.
DISARMED = """
import ctypes, os, runpy, sys
libc, process, sets = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
if os.geteuid() == 0:
    assert libc.capget(process, sets) == 0
    for number in (0, 1):  # the effective and the permitted ones
        sets[number] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(process, sets) == 0
del sys.argv[0]
"""
ASK = 'version: "1"\nname: ask\nsteps: [{kind: hitl, name: ask, message: "Shall we?"}]\n'


def python(code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Execute Python code with file permissions in force, also when the tests run as root."""
    command = [sys.executable, "-c", DISARMED + code, "python", *words]
    return warm.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True)


def flujo(project: Path, *words: str) -> tuple[int, str, str]:
    done = python("runpy.run_module('flujo', run_name='__main__', alter_sys=True)", *words, cwd=project)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The folder of a state database with a paused run; permissions that a test removes are restored."""
    (tmp_path / "flujo.toml").touch()
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "ask.yaml").write_text(ASK)
    assert flujo(tmp_path, "run", "ask", "--run-id", "one")[0] == 5
    folder = tmp_path / ".flujo"
    folder.chmod(0o555)
    if python("open('.flujo/new', 'w')", cwd=tmp_path).returncode == 0:
        folder.chmod(0o755)
        pytest.skip(MAY_EVERYTHING)
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)


WRITING: list[tuple[str, ...]] = [("run", "ask"), ("tasks", "resume", "one", "--input", "yes")]
LOOKING: list[tuple[str, ...]] = [("tasks", "list"), ("trace", "one"), ("logs", "one")]


def refused(project: Path, words: tuple[str, ...]) -> None:
    """Call a command that cannot do what it should, and see that it teaches."""
    code, out, err = flujo(project, *words)
    assert (code, out) == (8, ""), (words, err)
    assert "FLJ501" in err
    assert str(project / ".flujo" / "state.db") in err
    assert "hint: make the file and its folder writable" in err
    assert "copy it into a folder of your own" in err


def test_a_file_that_may_not_be_written_is_shown_where_its_folder_may_be(state: Path) -> None:
    (state / "state.db").chmod(0o444)
    for words in LOOKING:
        code, out, err = flujo(state.parent, *words)
        assert (code, "ask" in out) == (0, True), err
    for words in WRITING:
        refused(state.parent, words)


def test_a_read_only_folder_is_refused_with_a_hint(state: Path) -> None:
    (state / "state.db").chmod(0o444)
    state.chmod(0o555)
    for words in (*WRITING, *LOOKING):
        refused(state.parent, words)
    code, out, _ = flujo(state.parent, "doctor")
    assert code == 8
    assert "make the file and its folder writable" in out


def test_a_copy_of_a_read_only_file_can_be_looked_at(state: Path, tmp_path: Path) -> None:
    state.chmod(0o555)
    copied = tmp_path / "copy.db"
    copied.write_bytes((state / "state.db").read_bytes())
    (tmp_path / "flujo.toml").write_text(f'state_uri = "sqlite:///{copied}"\n')
    code, out, err = flujo(state.parent, "trace", "one")
    assert (code, "Shall we?" in out) == (0, True), err


def test_a_database_that_cannot_be_created_is_reported(state: Path) -> None:
    (state / "state.db").unlink()
    state.chmod(0o555)
    code, _, err = flujo(state.parent, "run", "ask")
    assert code == 8
    assert "Permission denied" in err
    assert "make its folder writable, or set `state_uri`" in err
