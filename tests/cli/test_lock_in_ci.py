"""The pre-commit hook and the GitHub Action that the docs show, run in a repository of git."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import warm

if TYPE_CHECKING:
    from cli.conftest import Project

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/lock-blueprints-for-production.md"
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))}
ACTION, PRE_COMMIT = (
    yaml.safe_load(block) for block in re.findall(r"```yml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
)
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "FLUJO_"))},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{
        f"GIT_{who}_{what}": "ada@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}


def sh(folder: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env={**ENVIRONMENT, "PATH": f"{warm.on_path()}{os.pathsep}{ENVIRONMENT['PATH']}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def repository(project: Project) -> Path:
    """A project under git whose first commit, on `main`, is locked."""
    done = sh(project.root, "git init -q -b main && flujo lock && git add . && git commit -qm first")
    assert done.returncode == 0, done.stderr
    return project.root


def edit(repository: Path) -> None:
    file = repository / "blueprints/ask.yaml"
    file.write_text(file.read_text("utf-8").replace("Send this", "Mail this"), "utf-8")


def test_the_hooks_that_the_page_names_are_there() -> None:
    [repo] = PRE_COMMIT["repos"]
    assert {hook["id"] for hook in repo["hooks"]} == set(HOOKS)


def test_the_hooks_look_at_whatever_a_lock_holds() -> None:
    pattern = re.compile(HOOKS["flujo-lock"]["files"])
    for path in ("blueprints/a.yaml", "prompts/a.md", "skills/a.py", "flujo.toml", "flujo.lock", "a.json"):
        assert pattern.search(path), path
    assert not pattern.search("image.png")


def test_a_commit_is_refused_until_it_is_locked(repository: Path) -> None:
    hook = repository / ".git/hooks/pre-commit"
    entries = " && ".join(each["entry"] for each in HOOKS.values())
    hook.write_text(f"#!/bin/sh\n{entries}\n")
    hook.chmod(0o755)
    edit(repository)
    refused = sh(repository, "git commit -qam changed")
    assert refused.returncode != 0
    assert "step 'approve' of blueprints/ask.yaml: `message` was" in refused.stdout + refused.stderr
    locked = sh(repository, "flujo lock && git commit -qam changed && git status --porcelain")
    assert (locked.returncode, locked.stdout) == (0, "")


def steps(**said: str) -> list[str]:
    """Return the commands of the action that are ours, for an event."""
    found: list[dict[str, Any]] = ACTION["jobs"]["blueprints"]["steps"]
    event = said.get("event", "push")
    ours = [step for step in found if step.get("run", "").startswith("flujo ")]
    assert len(ours) == 3
    return [step["run"] for step in ours if "if" not in step or event in step["if"]]


def test_the_action_passes_locked_files_and_fails_on_changed_ones(repository: Path) -> None:
    assert [sh(repository, command).returncode for command in steps()] == [0, 0]
    edit(repository)
    assert [sh(repository, command).returncode for command in steps()] == [0, 7]


def test_the_action_tells_a_pull_request_what_it_means(repository: Path, tmp_path: Path) -> None:
    """As a runner has it: a clone of the branch, with `main` as the remote's."""
    sh(repository, "git checkout -qb work")
    edit(repository)
    sh(repository, "flujo lock && git commit -qam changed")
    clone, summary = tmp_path / "clone", tmp_path / "summary.md"
    sh(tmp_path, f"git clone -q {repository} {clone}")
    environment = {"GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": str(summary)}
    done = [sh(clone, command, **environment) for command in steps(event="pull_request")]
    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    assert "  [-Send-]{+Mail+} this? {{ steps.greet.output }}" in summary.read_text("utf-8")
