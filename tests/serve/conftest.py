"""A server in this process, on a project with a database."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from flujo.serve.application import application
from flujo.serve.serving import Serving
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.settings_serve import ServeTable
from serve.served import empty_database, with_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a project, whose database has no runs yet."""
    (tmp_path / "flujo.toml").write_text('state_uri = "sqlite:///state.db"\n')
    (tmp_path / "state.db").write_bytes(empty_database())
    return tmp_path


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace(find_project(root))


@pytest.fixture
def browser(workspace: Workspace) -> Iterator[TestClient]:
    """A client of a server that listens on this machine only, with the token of its forms; it closes the workspace."""
    with _client(workspace, ServeTable()) as client:
        with_token(client)
        client.follow_redirects = True
        yield client


@pytest.fixture
def serve(workspace: Workspace) -> Iterator[Callable[..., TestClient]]:
    """Start a server with settings, for one client from an address; a test starts one."""
    with ExitStack() as clients:
        yield lambda settings, **options: clients.enter_context(_client(workspace, settings, **options))


@contextmanager
def _client(
    workspace: Workspace, settings: ServeTable, *, address: str = "127.0.0.1"
) -> Iterator[TestClient]:
    public = settings.public_url or "http://127.0.0.1:8400"
    with TestClient(
        application(Serving(workspace, settings)),
        base_url=f"{public}/",
        client=(address, 50_000),
        raise_server_exceptions=False,
        follow_redirects=False,
    ) as client:
        assert client.portal is not None
        yield client
        client.portal.call(workspace.aclose)
