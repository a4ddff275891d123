"""`flujo init` writes a project in which everything works at once, and takes nothing away."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Flujo


def test_the_first_four_commands_of_a_new_project_work(flujo: Flujo, tmp_path: Path) -> None:
    made = flujo("init", str(tmp_path / "new"))
    assert made.exit_code == 0
    assert f"next: flujo -C {tmp_path / 'new'} run hello --input Ada" in made.stderr
    inside = ("-C", str(tmp_path / "new"))
    assert flujo(*inside, "validate").exit_code == 0
    assert flujo(*inside, "migrate").exit_code == 0
    assert flujo(*inside, "run").exit_code == 0
    assert flujo(*inside, "run", "hello", "--input", "Ada").stdout == "Hello, Ada! Your name has 3 letters.\n"


def test_the_new_projects_own_test_passes(flujo: Flujo, tmp_path: Path) -> None:
    root = tmp_path / "new"
    flujo("init", str(root))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", str(root)],
        cwd=root,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    )
    assert done.returncode == 0, done.stdout


def test_the_editor_finds_the_schema_that_the_blueprint_names(flujo: Flujo, tmp_path: Path) -> None:
    flujo("init", str(tmp_path / "new"))
    blueprint = tmp_path / "new/blueprints/hello.yaml"
    first = blueprint.read_text("utf-8").splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (blueprint.parent / named).read_text("utf-8") == flujo("schema").stdout


def test_what_is_there_is_never_overwritten(flujo: Flujo, tmp_path: Path) -> None:
    root = tmp_path / "new"
    (root / "blueprints").mkdir(parents=True)
    mine = root / "blueprints/hello.yaml"
    mine.write_text("mine", "utf-8")
    result = flujo("init", str(root))
    assert result.exit_code == 2
    assert "already contains blueprints/hello.yaml; nothing was written" in result.stderr
    assert mine.read_text("utf-8") == "mine"
    assert sorted(path.name for path in root.rglob("*")) == ["blueprints", "hello.yaml"]


def test_a_readme_and_a_gitignore_stay_as_they_are(flujo: Flujo, tmp_path: Path) -> None:
    root = tmp_path / "new"
    root.mkdir()
    (root / ".gitignore").write_text("mine\n", "utf-8")
    result = flujo("init", str(root))
    assert result.exit_code == 0
    assert (root / ".gitignore").read_text("utf-8") == "mine\n"
    assert "kept" in result.stderr


@pytest.mark.parametrize("name", ['with "quotes"', "back\\slash", "ünïcode"])
def test_any_name_gives_a_readable_flujo_toml(name: str, flujo: Flujo, tmp_path: Path) -> None:
    flujo("init", str(tmp_path / "new"), "--name", name)
    assert flujo("-C", str(tmp_path / "new"), "run").exit_code == 0
