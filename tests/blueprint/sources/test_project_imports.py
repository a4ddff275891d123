"""Which project modules a module imports, found without an import."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.blueprint.sources.project_imports import imported_files
from flujo.blueprint.sources.source_files import FileSource

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "main.py": "import lib.rates\nimport json\n",
    "lib/__init__.py": "raise SystemExit('imported')\n",
    "lib/rates.py": "from . import tables\nfrom .deep import far\n",
    "lib/tables.py": "def read():\n    import late\n",
    "lib/deep/__init__.py": "",
    "lib/deep/far.py": "from .. import tables\nfrom ..unused_name import x\nimport main\n",
    "late.py": "VALUE = 1\n",
    "apart.py": "VALUE = 2\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return tmp_path


def test_imports_are_followed_through_packages_functions_and_circles(project: Path) -> None:
    assert list(imported_files("main", FileSource(project))) == sorted(FILES.keys() - {"apart.py"})
    assert list(imported_files("apart", FileSource(project))) == ["apart.py"]


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"apart.py"}))
def test_a_change_of_any_imported_file_shows(project: Path, name: str) -> None:
    before = imported_files("main", FileSource(project))
    (project / name).write_text(FILES[name] + "\n# changed\n", "utf-8")
    after = imported_files("main", FileSource(project))
    assert [path for path in before if before[path] != after[path]] == [name]
    crlf = (FILES[name] + "\n# changed\n").replace("\n", "\r\n")
    (project / name).write_bytes(crlf.encode())
    assert imported_files("main", FileSource(project)) == after


def test_a_module_that_cannot_be_read_or_parsed_is_skipped(project: Path) -> None:
    assert imported_files("missing", FileSource(project)) == {}
    (project / "late.py").write_text("def (", "utf-8")
    assert "late.py" in imported_files("main", FileSource(project))
    (project / "late.py").unlink()
    (project / "late.py").mkdir()
    assert "late.py" not in imported_files("main", FileSource(project))
