"""A project that another user of this machine controls is not used before it is trusted."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import ProjectNotTrusted
from flujo.services.project.project import find_project
from flujo.services.project.trust import record_trust, trusted_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IS_ROOT = os.geteuid() == 0
STRANGER, ANOTHER = 54321, 54322

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give a file to another user")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder that every user can enter and write to, as the one for temporary files."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FLUJO_TRUSTED_PROJECTS", raising=False)
    monkeypatch.delenv("SUDO_UID", raising=False)
    with tempfile.TemporaryDirectory(prefix="flujo-trust-") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder).resolve()


def project(root: Path, owner: int | None = None) -> Path:
    """Make a project, which may belong to another user."""
    (root / "deep").mkdir(parents=True)
    (root / "flujo.toml").write_text("[project]\n", "utf-8")
    if owner is not None:
        for path in (root, root / "flujo.toml", root / "deep"):
            os.chown(path, owner, -1)
    return root


@pytest.fixture
def foreign(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of another user: by `chown` as root, otherwise by another identity of this process."""
    if not IS_ROOT:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    return project(shared / "theirs", STRANGER if IS_ROOT else None)


def as_user(uid: int, look: Callable[[], object]) -> str:
    """Do something in a process of a user; return the name of its error, or what it returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(uid)
            os.write(writing, str(look()).encode())
        except BaseException as error:  # noqa: BLE001 - it is reported through the pipe
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_the_project_of_another_user_is_refused_with_the_command_that_trusts_it(foreign: Path) -> None:
    with pytest.raises(ProjectNotTrusted, match="belongs to user") as caught:
        find_project(foreign / "deep")
    assert f"flujo trust {foreign}" in str(caught.value.hint)


def test_a_trusted_project_is_used_and_its_neighbour_is_not(foreign: Path) -> None:
    record_trust(foreign)
    record_trust(foreign)
    assert find_project(foreign / "deep").root == foreign
    assert trusted_file().read_text("utf-8") == f"{foreign}\n"
    trusted_file().write_text(f"{foreign}2\n{foreign.parent}\n", "utf-8")
    with pytest.raises(ProjectNotTrusted):
        find_project(foreign)


@pytest.mark.parametrize("named", ["{0}", "/elsewhere:{0}", "*"])
def test_a_container_trusts_projects_by_a_variable(
    foreign: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("FLUJO_TRUSTED_PROJECTS", named.format(foreign))
    assert find_project(foreign).root == foreign
    monkeypatch.setenv("FLUJO_TRUSTED_PROJECTS", f"{foreign}/deep:{foreign.parent}")
    with pytest.raises(ProjectNotTrusted):
        find_project(foreign)


def test_a_linked_folder_is_judged_by_its_target(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(foreign)
    with pytest.raises(ProjectNotTrusted):
        find_project(tmp_path / "link")


@needs_root
def test_sudo_uses_the_projects_of_its_caller(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(ANOTHER))
    with pytest.raises(ProjectNotTrusted):
        find_project(foreign)
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert find_project(foreign).root == foreign


@needs_root
def test_a_user_is_refused_what_another_user_controls(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(ANOTHER))  # which counts for root alone
    mine, theirs, of_root = (project(shared / str(uid), uid) for uid in (STRANGER, ANOTHER, 0))
    find_project(shared)  # imports everything before the process changes its user
    assert as_user(STRANGER, lambda: find_project(mine).root) == str(mine)
    assert as_user(STRANGER, lambda: find_project(of_root).root) == str(of_root)
    assert as_user(STRANGER, lambda: find_project(theirs)) == "ProjectNotTrusted"
    (mine / ".flujo").mkdir()
    os.chown(mine / ".flujo", ANOTHER, -1)
    assert as_user(STRANGER, lambda: find_project(mine)) == "ProjectNotTrusted"


@needs_root
def test_a_flujo_toml_in_a_shared_folder_is_refused_also_with_a_file_of_the_user(shared: Path) -> None:
    folder, own = shared / "work", project(shared / "own", STRANGER)
    folder.mkdir()
    os.chown(folder, STRANGER, -1)
    find_project(folder)
    for owner in (ANOTHER, STRANGER):  # a file of this user may be a hard link that a stranger made
        (shared / "flujo.toml").write_text("", "utf-8")
        os.chown(shared / "flujo.toml", owner, -1)
        assert as_user(STRANGER, lambda: find_project(folder)) == "ProjectNotTrusted"
    (shared / "flujo.toml").unlink()
    (shared / "flujo.toml").symlink_to(own / "flujo.toml")
    os.chown(shared / "flujo.toml", ANOTHER, -1, follow_symlinks=False)
    assert as_user(STRANGER, lambda: find_project(folder)) == "ProjectNotTrusted"
    assert as_user(0, lambda: find_project(folder)) == "ProjectNotTrusted"


@needs_root
def test_a_database_that_a_stranger_left_in_a_folder_without_a_project_is_refused(shared: Path) -> None:
    assert find_project(shared).config_file is None
    (shared / ".flujo").mkdir()
    os.chown(shared / ".flujo", STRANGER, -1)
    with pytest.raises(ProjectNotTrusted, match=r"\.flujo belongs to user"):
        find_project(shared)


@pytest.mark.parametrize("end", ["repository", "worktree", "home"])
def test_the_search_ends_at_a_repository_and_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    outer = project(tmp_path / "outer")
    inner = outer / "inner"
    (inner / "deep").mkdir(parents=True)
    assert find_project(inner / "deep").root == outer
    if end == "repository":
        (inner / ".git").mkdir()
    elif end == "worktree":
        (inner / ".git").write_text("gitdir: elsewhere\n", "utf-8")
    else:
        monkeypatch.setenv("HOME", str(inner))
    assert find_project(inner / "deep").config_file is None
    (inner / "flujo.toml").touch()
    assert find_project(inner / "deep").root == inner


def test_the_search_ends_where_a_file_system_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = project(tmp_path / "outer")
    real = Path.stat

    def mounted(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = real(path, follow_symlinks=follow_symlinks)
        if not path.is_relative_to(outer / "deep"):
            return found
        return os.stat_result([*found[:2], found.st_dev + 1, *found[3:10]])

    monkeypatch.setattr(Path, "stat", mounted)
    assert find_project(outer / "deep").config_file is None
    assert find_project(outer).root == outer
