"""A process imports the modules of one project at a time, and never another project's in their place."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import SettingsError
from flujo.services.project.imports import importable

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return two projects, each with a module `skl_same` and one of its own."""
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "skl_same").mkdir(parents=True)
        (folder / "skl_same/which.py").write_text(f"NAME = {name!r}\n", "utf-8")
        (folder / f"skl_{name}.py").write_text("", "utf-8")
    importlib.invalidate_caches()
    return tmp_path / "one", tmp_path / "two"


def test_modules_of_the_project_before_are_no_longer_found(projects: tuple[Path, Path]) -> None:
    one, two = projects
    importable(one)
    importlib.import_module("skl_one")
    importable(two)
    importlib.import_module("skl_two")
    assert [entry for entry in sys.path if entry in map(str, projects)] == [str(two)]
    assert importlib.import_module("skl_same.which").NAME == "two"


def test_a_loaded_module_of_another_project_with_the_same_name_is_refused(
    projects: tuple[Path, Path],
) -> None:
    one, two = projects
    importable(one)
    assert importlib.import_module("skl_same.which").NAME == "one"
    with pytest.raises(SettingsError, match=r"module `skl_same` of project .*two") as caught:
        importable(two)
    assert "one process per project" in (caught.value.hint or "")
    importable(one)  # the process stays in its project
    assert str(one) in sys.path
    assert str(two) not in sys.path
