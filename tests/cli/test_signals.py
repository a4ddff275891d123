"""A run that is stopped from outside: Ctrl-C, SIGTERM, a closed pipe, and what a terminal shows meanwhile."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import warm

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Flujo, Project


def wait_for(path: Path, process: warm.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped")]
)
def test_a_stopped_run_is_resumable_and_the_message_tells_how(
    number: signal.Signals, code: int, word: str, project: Project, flujo: Flujo
) -> None:
    process = project.start("run", "slow")
    wait_for(project.root / "waiting", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "")
    assert f"{word}; completed steps are kept" in err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("next: flujo resume ")

    (project.root / "go").touch()
    result = flujo("resume", "@last")
    assert (result.exit_code, result.stdout) == (0, "done\n")
    assert project.notes() == ["first", "last"]


def test_an_interrupted_run_is_listed_as_such(project: Project, flujo: Flujo) -> None:
    process = project.start("run", "slow")
    wait_for(project.root / "waiting", process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert "interrupted" in flujo("resume").stdout


def test_a_run_that_another_process_executes_cannot_be_resumed(project: Project, flujo: Flujo) -> None:
    process = project.start("run", "slow")
    wait_for(project.root / "waiting", process)
    try:
        assert flujo("resume", "@last").exit_code == 8
    finally:
        (project.root / "go").touch()
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "done\n")
    assert project.notes() == ["first", "last"]


MISBEHAVING = """\
version: "1"
name: misbehaving
input_schema: {type: string}
steps:
  - name: first
    call: skills.misbehaving:act
    with: {how: "{{ input }}"}
  - name: last
    call: skills.work:note
    with: {text: last}
"""
ACTS = """\
import asyncio, sys, time
from pathlib import Path

async def act(how: str) -> str:
    (Path(__file__).parent.parent / "waiting").touch()
    while True:
        try:
            if how == "exit":
                sys.exit(0)
            if how == "exit in a task":
                asyncio.get_running_loop().call_soon(sys.exit, 0)
            if how == "thread":
                await asyncio.to_thread(time.sleep, 600)
            await asyncio.gather(asyncio.create_task(endless()) if how == "task" else asyncio.sleep(600))
        except asyncio.CancelledError:
            if how == "swallows":
                return "swallowed"
            if how != "loops":
                raise

async def endless() -> None:
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
"""


@pytest.fixture
def misbehaving(project: Project) -> Project:
    (project.root / "skills/misbehaving.py").write_text(ACTS, "utf-8")
    project.blueprint("misbehaving", MISBEHAVING)
    return project


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(
    ("number", "code", "how"),
    [
        (signal.SIGINT, 130, "swallows"),
        (signal.SIGTERM, 143, "loops"),
        (signal.SIGINT, 130, "task"),
        (signal.SIGTERM, 143, "thread"),
    ],
)
def test_a_signal_ends_the_run_and_the_process_whatever_a_step_does(
    number: signal.Signals, code: int, how: str, misbehaving: Project, flujo: Flujo
) -> None:
    process = misbehaving.start("run", "misbehaving", "--input", how)
    wait_for(misbehaving.root / "waiting", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "completed steps are kept" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert misbehaving.notes() == []
    assert ("interrupted" in flujo("resume").stdout) is (number is signal.SIGINT)


@pytest.mark.guarantee("G10")
def test_an_exit_of_a_step_fails_the_run(misbehaving: Project, flujo: Flujo) -> None:
    result = flujo("run", "misbehaving", "--input", "exit", "--json")
    assert result.exit_code == 1
    assert '"status": "failed"' in result.stdout
    assert "SystemExit: 0" in result.stdout


@pytest.mark.guarantee("G10")
def test_an_exit_of_a_background_task_of_a_step_is_an_error(misbehaving: Project) -> None:
    process = misbehaving.start("run", "misbehaving", "--input", "exit in a task")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a background task of a step raised SystemExit(0)" in err


def test_a_closed_pipe_is_not_reported_as_an_error(project: Project) -> None:
    process = project.start("schema")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(timeout=30)
    process.stderr.close()


def test_a_terminal_shows_the_tree_and_a_pipe_gets_the_answer_alone(project: Project) -> None:
    ours, theirs = pty.openpty()
    process = warm.Popen(
        project.command("run", "hello", "--input", "Ada"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux raises this when the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    out, _ = process.communicate(timeout=30)
    assert out == "Hello, Ada! Your name has 3 letters.\n"
    text = shown.decode()
    assert "✓" in text
    assert "greet" in text
    assert "\x1b[" in text
    assert "\x1b[?25h" in text, "the cursor is given back"
    assert "next:" in text


def test_no_color_is_obeyed_on_a_terminal(project: Project) -> None:
    ours, theirs = pty.openpty()
    done = warm.Popen(
        project.command("run", "nothing"),
        stdin=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"},
    )
    done.wait(timeout=30)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "error: no blueprint is called 'nothing'" in shown
    assert "\x1b[" not in shown
