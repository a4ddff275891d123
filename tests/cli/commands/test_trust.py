"""`flujo trust` records the project that a folder belongs to."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from cli.conftest import Flujo, Project


def test_the_command_in_the_error_makes_the_project_usable(
    project: Project, flujo: Flujo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project.root / "config"))
    if os.geteuid() == 0:
        os.chown(project.root / "flujo.toml", 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    refused = flujo("validate")
    assert refused.exit_code == 2
    assert "FLJ602" in refused.stderr
    (project.root / "skills/pool.py").write_text("raise SystemExit('imported')", "utf-8")
    assert f"flujo trust {project.root}" in refused.stderr.replace("\n", " ")
    trusted = flujo("trust", str(project.root / "blueprints"), "--json")
    assert json.loads(trusted.stdout)["project"] == str(project.root)
    assert flujo("validate").exit_code == 0


def test_a_folder_without_a_project_cannot_be_trusted(flujo: Flujo, tmp_path: object) -> None:
    result = flujo("trust", str(tmp_path))
    assert result.exit_code == 2
    assert "there is no flujo.toml" in result.stderr
    assert "skills.pool" not in sys.modules
