"""`flujo run --step` waits after every step; a quit leaves a run that can be resumed."""

from __future__ import annotations

import os
import pty
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

TWO = """\
version: "1"
name: two
steps:
  - {name: first, call: "skills.work:note", with: {text: first}}
  - kind: loop
    name: draft
    max_iterations: 2
    on_limit: continue
    until: "false"
    steps:
      - {name: write, call: "skills.work:note", with: {text: "draft{{ loop.index }}"}}
  - {name: last, call: "skills.work:note", with: {text: last}}
"""
ASKS = b"q: quit"


def typed(project: Project, keys: list[str], *words: str) -> tuple[int, str]:
    """Run a command at a terminal and type a line at each question; return its exit code and its output."""
    pid, terminal = pty.fork()
    if pid == 0:
        command = project.command(*words)
        os.execv(command[0], command)
    shown, asked = b"", 0
    while select.select([terminal], [], [], 60)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # Linux raises this when the other end is closed
            break
        while asked < min(len(keys), shown.count(ASKS)):
            os.write(terminal, f"{keys[asked]}\n".encode())
            asked += 1
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_a_quit_leaves_a_run_that_continues_after_the_last_step(flujo: Flujo, project: Project) -> None:
    project.blueprint("two", TWO)
    code, shown = typed(project, ["", "", "q"], "--no-color", "run", "two", "--step", "--run-id", "r1")
    assert code == 130, shown
    assert "  output  draft1" in shown
    assert "next: flujo resume r1" in shown
    assert project.notes() == ["first", "draft0", "draft1"]
    assert flujo("resume", "r1").exit_code == 0
    assert project.notes() == ["first", "draft0", "draft1", "last"]


def test_without_a_terminal_or_with_json_it_is_refused_before_the_run(flujo: Flujo) -> None:
    alone = flujo("run", "flaky", "--input", "x", "--step")
    assert (alone.exit_code, "asks at a terminal" in alone.stderr) == (2, True)
    assert flujo("run", "flaky", "--input", "x", "--step", "--json").exit_code == 2
    assert flujo("tasks", "list").stdout == ""
