"""Commands that look at runs create no file, inside a project and outside of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from flujo.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Flujo, Project

LOOKING = (
    "tasks list",
    "tasks list --json",
    "tasks list --watch",
    "tasks show @last",
    "tasks cancel @last",
    "tasks retry @last",
    "tasks resume @last --input yes",
    "tasks resolve @last --as done",
    "tasks cancel --select status=paused --yes",
    "runs list",
    "resume",
    "resume @last",
    "trace",
    "trace --json",
    "logs",
    "logs -f --json",
    "cache why greet",
    "purge --older-than 1d --dry-run",
    "purge --older-than 1d --yes",
    "doctor",
    "migrate --check",
)
LISTS = ("tasks list", "tasks list --json", "runs list", "resume")


def files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in str(path)
    )


@pytest.mark.parametrize("line", LOOKING)
def test_a_command_outside_a_project_reports_it_and_creates_nothing(
    project: Project, tmp_path: Path, line: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    result = CliRunner().invoke(app, ["-C", str(outside), *line.split()], prog_name="flujo")
    assert files(outside) == []
    if line.split()[0] not in ("doctor", "migrate"):
        assert (result.exit_code, '"FLJ514"' in result.stdout) == (8, "--json" in line)
        assert f"{outside} is not in a Flujo project" in result.stderr
        assert "[FLJ514]" in result.stderr
        assert "hint: `-C DIR` selects a project" in result.stderr


@pytest.mark.parametrize("line", [line for line in LOOKING if "--watch" not in line])
def test_a_command_in_a_project_without_runs_creates_nothing(
    project: Project, flujo: Flujo, line: str
) -> None:
    before = files(project.root)
    result = flujo(*line.split())
    assert files(project.root) == before
    if line in LISTS:
        assert result.exit_code == 0
        assert result.stdout in ("", "[]\n")
    elif line.split()[0] not in ("doctor", "migrate"):
        assert result.exit_code == 8
        assert "its database" in result.stderr
        assert "the first `flujo run` creates it" in result.stderr


def test_a_worker_outside_a_project_creates_nothing(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    result = CliRunner().invoke(app, ["-C", str(outside), "worker", "--once"], prog_name="flujo")
    assert (result.exit_code, files(outside)) == (8, [])
    assert "is not in a Flujo project" in result.stderr


def test_a_database_that_a_setting_names_or_that_is_there_is_used_without_a_project(
    project: Project, flujo: Flujo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flujo("run", "ask", "--run-id", "a1")
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.setenv("FLUJO_STATE_URI", f"sqlite:///{project.root}/.flujo/state.db")
    words = ["-C", str(outside), "tasks", "list", "--json"]
    found = json.loads(CliRunner().invoke(app, words, prog_name="flujo").stdout)
    assert [run["run_id"] for run in found] == ["a1"]
    assert files(outside) == []
