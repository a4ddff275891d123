"""The GitHub Action that the docs show for files of cases, run in a clone of a repository of git."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cli.test_lock_in_ci import sh

if TYPE_CHECKING:
    from cli.conftest import Project

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/evaluate-a-prompt-change-in-ci.md"
[ACTION] = (
    yaml.safe_load(each) for each in re.findall(r"```yml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
)

SORT = """\
version: "1"
name: sort
input_schema: {type: string}
steps:
  - {name: sort, call: "skills.work:note", with: {text: "{{ input }}"}}
output: "{{ steps.sort.output }}"
"""


def step() -> str:
    """Return the command of the action that compares."""
    steps: list[dict[str, Any]] = ACTION["jobs"]["evals"]["steps"]
    [found] = (each["run"] for each in steps if each.get("name") == "Compare")
    return str(found)


@pytest.fixture
def clone(project: Project, tmp_path: Path) -> Path:
    """As a runner has it: a clone of a branch, with `main` as the remote's."""
    project.blueprint("sort", SORT)
    cases = [f"  - {{name: c{n}, input: t{n}, expected: t{n}}}\n" for n in range(20)]
    head = "blueprint: sort\nevaluators:\n  - {name: equal, expr: output == expected}\ncases:\n"
    folder = project.root / "evals"
    folder.mkdir()
    (folder / "sort.yaml").write_text(head + "".join(cases), "utf-8")
    sh(project.root, "git init -q -b main && git add . && git commit -qm first && git checkout -qb work")
    there = tmp_path / "clone"
    done = sh(tmp_path, f"git clone -q {project.root} {there}")
    assert done.returncode == 0, done.stderr
    return there


@pytest.mark.parametrize(
    ("output", "code", "printed"),
    [
        ("{{ steps.sort.output }}", 0, "::notice file=evals/sort.yaml,line=1,title=evaluation::better or equal"),
        ("{{ steps.sort.output }}?", 1, "::error file=evals/sort.yaml,line=1,title=evaluation::worse"),
        ("{{ steps.sort.output }}{{ '' }}", 0, "::warning file=evals/sort.yaml,line=1,title=evaluation::cannot tell"),
    ],
)  # fmt: skip
def test_a_worse_version_stops_the_action_and_an_undecided_one_warns(
    clone: Path, output: str, code: int, printed: str
) -> None:
    file = clone / "blueprints/sort.yaml"
    file.write_text(SORT.replace("{{ steps.sort.output }}", output), "utf-8")
    done = sh(clone, step(), GITHUB_BASE_REF="main")
    assert (done.returncode, printed in done.stdout) == (code, True), done.stdout + done.stderr
