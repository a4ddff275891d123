"""A server in this process, on a project with a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from flujo.serve.application import application
from flujo.serve.serving import Serving
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.settings_serve import ServeTable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a project, whose database does not exist yet."""
    (tmp_path / "flujo.toml").write_text('state_uri = "sqlite:///state.db"\n')
    return tmp_path


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace(find_project(root))


@pytest.fixture
def browser(workspace: Workspace) -> Iterator[TestClient]:
    """A client of a server that listens on this machine only; it closes the workspace."""
    with TestClient(application(Serving(workspace, ServeTable())), raise_server_exceptions=False) as client:
        assert client.portal is not None
        yield client
        client.portal.call(workspace.aclose)
