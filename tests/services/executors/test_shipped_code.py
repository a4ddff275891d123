"""The modules of a project as they are sent to workers."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import ExecutorUnavailable
from flujo.services.executors import shipped_code
from flujo.services.executors.shipped_code import moved, packed, unpacked
from flujo.services.executors.wire import ProjectOnWorker

if TYPE_CHECKING:
    from pathlib import Path


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")


def test_modules_are_packed_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "project"
    modules = {"skills/__init__.py": "", "skills/crm.py": "A = 1", "app.py": "B = 2"}
    _write(root, modules)
    first = packed(root, "there")
    _write(
        root,
        {
            ".hidden/secret.py": "",
            "env/pyvenv.cfg": "",
            "env/lib/x.py": "",
            "node_modules/y.py": "",
            "skills/__pycache__/z.py": "",
            "flujo.toml": "",
            ".env": "KEY=1",
        },
    )
    assert packed(root, "there") == first
    _write(root, {"app.py": "B = 3"})
    assert packed(root, "there").digest != first.digest


def test_a_large_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, {"app.py": "A = 1"})
    monkeypatch.setattr(shipped_code, "MOST_BYTES", 10)
    with pytest.raises(ExecutorUnavailable, match="executor 'there' ships 10 B at most"):
        packed(tmp_path, "there")


def test_a_module_that_cannot_be_read_or_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, {"app.py": "A = 1"})
    code = packed(tmp_path, "there")
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    with pytest.raises(ExecutorUnavailable, match=r"ships: .*/gone\.py: No such file or directory$"):
        packed(tmp_path, "there")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "full"))
    with pytest.raises(ExecutorUnavailable, match=r"cannot be written on .*: No such file or directory$"):
        unpacked(code.data, "another digest")


def test_other_code_takes_the_place_of_the_code_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    values = []
    for number in (1, 2, 1):
        _write(tmp_path, {"unpacked_here/value.py": f"VALUE = {number}"})
        code = packed(tmp_path, "there")
        folder = unpacked(code.data, code.digest)
        assert unpacked(code.data, code.digest) == folder
        sys.path.insert(0, folder)
        values.append(importlib.import_module("unpacked_here.value").VALUE)
        sys.path.remove(folder)
    assert values == [1, 2, 1]
    for name in ("unpacked_here", "unpacked_here.value"):
        sys.modules.pop(name)


def test_files_of_a_project_stay_where_they_are() -> None:
    project = ProjectOnWorker(
        root="/home/me/project",
        state_providers={"docs": "file:documents", "share": "file:///mnt/share", "far": "s3://bucket"},
        max_result=1,
        flujo="1.0",
    )
    there = moved(project, "/tmp/code")
    assert there.root == "/tmp/code"
    assert there.state_providers == {
        "docs": "file:/home/me/project/documents",
        "share": "file:/mnt/share",
        "far": "s3://bucket",
    }
