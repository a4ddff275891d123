"""The files that steps may send: those inside the project and its folders, whatever their paths say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from flujo.domain.files import MOST_BYTES
from flujo.exceptions import FileRefused
from flujo.services.project.files import ProjectFiles

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside.txt").write_text("outside", "utf-8")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/terms.txt").write_text("terms", "utf-8")
    root = tmp_path / "project"
    (root / "scans").mkdir(parents=True)
    (root / "scans/a b.txt").write_text("inside", "utf-8")
    (root / ".env").write_text("KEY=secret", "utf-8")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    (root / "way").symlink_to(tmp_path)
    (root / "again.txt").symlink_to(root / "scans/a b.txt")
    (root / "secrets.txt").symlink_to(root / ".env")
    (root / "loop.txt").symlink_to(root / "loop.txt")
    os.mkfifo(root / "pipe.txt")
    with (root / "large.txt").open("wb") as large:
        large.truncate(MOST_BYTES + 1)
    return root


def test_a_file_of_the_project_is_read(root: Path) -> None:
    files = ProjectFiles(root)
    for path in ("scans/a b.txt", "./scans/../scans/a b.txt", str(root / "scans/a b.txt"), "again.txt"):
        assert files.read(path) == b"inside"


def test_a_file_of_a_named_folder_is_read(root: Path) -> None:
    files = ProjectFiles(root, (root.parent / "shared",))
    for path in ("../shared/terms.txt", str(root.parent / "shared/terms.txt")):
        assert files.read(path) == b"terms"
        with pytest.raises(FileRefused, match="outside the project"):
            ProjectFiles(root).read(path)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../outside.txt", "it is outside the project"),
        ("scans/../../outside.txt", "it is outside the project"),
        ("/etc/hostname", "it is outside the project"),
        ("/dev/zero", "it is outside the project"),
        ("link.txt", "a symbolic link in its path leads out of the project"),
        ("way/outside.txt", "a symbolic link in its path leads out of the project"),
        (".env", "it is hidden"),
        ("scans/.git/config", "it is hidden"),
        ("secrets.txt", "it is hidden"),
        (".", "it is a directory"),
        ("", "it is a directory"),
        ("missing.txt", "the file does not exist"),
        ("scans/a b.txt/x", "not"),
        ("SCANS/a b.txt", "does not exist"),
        ("scans", "it is a directory"),
        ("pipe.txt", "a directory, a pipe or a device"),
        ("loop.txt", "links"),
        ("large.txt", "it is larger than 20 MiB"),
        ("a\0b", "NUL"),
        ("x" * 5000, "too long"),
    ],
)
def test_any_other_file_is_refused(root: Path, path: str, why: str) -> None:
    with pytest.raises(FileRefused) as refused:
        ProjectFiles(root).read(path)
    assert why in refused.value.message
    assert refused.value.hint
    assert (refused.value.code, refused.value.file) == ("FLJ436", path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(root: Path) -> None:
    (root / "scans/a b.txt").chmod(0)
    with pytest.raises(FileRefused, match="no permission"):
        ProjectFiles(root).read("scans/a b.txt")
