"""What a shell offers after a tab, asked the way a shell asks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import warm

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project


def _offered(project: Project, line: str) -> list[str]:
    words = line.split(" ")
    asked = warm.run(
        project.command()[:3],
        env={
            **os.environ,
            "_FLUJO_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        cwd=project.root,
        capture_output=True,
    )
    assert asked.stderr == ""
    return asked.stdout.split()


def test_blueprints_are_offered_by_name(project: Project) -> None:
    assert _offered(project, "flujo run fl") == ["flaky"]
    assert {"ask", "flaky", "slow"} <= set(_offered(project, "flujo graph "))


def test_codes_are_offered_to_explain(project: Project) -> None:
    offered = _offered(project, "flujo explain FLJ20")
    assert "FLJ204" in offered
    assert all(code.startswith("FLJ20") for code in offered)


def test_runs_and_their_steps_are_offered(project: Project, flujo: Flujo) -> None:
    assert _offered(project, "flujo trace ") == ["@last"], "no database is made for a tab"
    assert not (project.root / ".flujo").exists()
    flujo("run", "ask", "--run-id", "first")
    assert _offered(project, "flujo trace ") == ["@last", "first"]
    assert _offered(project, "flujo tasks resume f") == ["first"]
    assert _offered(project, "flujo trace first ") == ["greet", "approve"]


@pytest.mark.parametrize("command", ["run", "trace", "tasks show", "explain", "validate"])
def test_a_broken_project_offers_nothing_and_prints_nothing(project: Project, command: str) -> None:
    (project.root / "flujo.toml").write_text("state_uri = [", "utf-8")
    offered = _offered(project, f"flujo {command} x")
    assert offered == []


def test_a_trace_shows_one_step_alone(flujo: Flujo) -> None:
    flujo("run", "ask", "--run-id", "first")
    assert "approve" not in flujo("trace", "first", "greet").stdout.split("\n", 1)[1]
    missing = flujo("trace", "first", "greeet")
    assert missing.exit_code == 2
    assert "did you mean `greet`?" in missing.stderr
