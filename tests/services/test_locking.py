"""A lock is asked before a run, about the blueprint that is run and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import LockMismatch, SettingsError
from flujo.services.checking import compiled
from flujo.services.locking import require_match, verify, write
from flujo.services.project import Project, find_project
from flujo.services.scaffold import scaffold

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.blueprint.closure import Closure

OTHER = 'version: "1"\nname: other\nsteps: [{name: a, call: "skills.greet:greet", with: {name: x}}]\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    scaffold(tmp_path, "demo")
    (tmp_path / "blueprints/other.yaml").write_text(OTHER, "utf-8")
    return find_project(tmp_path)


def closure(project: Project, name: str) -> Closure:
    return compiled(project, f"blueprints/{name}.yaml").closure


def test_a_lock_that_was_just_written_matches(project: Project) -> None:
    written = write(project)
    assert (written.blueprints, written.changed) == (2, True)
    assert not write(project).changed
    assert verify(project, strict=True) == []
    require_match(project, closure(project, "hello"))


def test_without_a_lock_nothing_matches(project: Project) -> None:
    with pytest.raises(LockMismatch, match=r"there is no flujo.lock"):
        require_match(project, closure(project, "hello"))


def test_a_change_refuses_its_own_blueprint_only(project: Project) -> None:
    write(project)
    (project.root / "blueprints/other.yaml").write_text(OTHER + "# changed\n", "utf-8")
    require_match(project, closure(project, "hello"))
    with pytest.raises(LockMismatch, match=r"other.yaml has changed") as caught:
        require_match(project, closure(project, "other"))
    assert all("hello" not in line for line in caught.value.facts["differences"])


def test_a_new_blueprint_is_not_locked(project: Project) -> None:
    write(project)
    (project.root / "blueprints/new.yaml").write_text(OTHER.replace("other", "new"), "utf-8")
    with pytest.raises(LockMismatch, match=r"new.yaml is not in flujo.lock"):
        require_match(project, closure(project, "new"))
    assert verify(project) == []
    assert verify(project, strict=True) == ["blueprint blueprints/new.yaml is not in the lock"]


def test_a_file_that_is_no_lock_is_refused(project: Project) -> None:
    (project.root / "flujo.lock").write_text("not a lock", "utf-8")
    with pytest.raises(SettingsError, match="is not TOML"):
        verify(project)


def test_a_project_without_blueprints_has_nothing_to_lock(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no blueprints to lock"):
        write(find_project(tmp_path))
