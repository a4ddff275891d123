"""Pages on a database that exists already: migrating a new one costs more than most of these tests."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, migrated_file: Path) -> Path:
    """A folder with a project and its empty database."""
    (tmp_path / "flujo.toml").write_text('state_uri = "sqlite:///state.db"\n')
    shutil.copy(migrated_file, tmp_path / "state.db")
    return tmp_path
