"""A server in this process for all tests of a module, because a new database for each test is slow."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from starlette.testclient import TestClient

from flujo.serve.application import application
from flujo.serve.security import csrf
from flujo.serve.serving import Serving
from flujo.services.project.project import find_project
from flujo.services.runs.incoming_webhooks import hook_keys
from flujo.services.workspace import Workspace
from flujo.settings_serve import ServeTable
from flujo.state.sql.migrations import migrate
from support import start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from flujo.domain.pipeline import Pipeline


VISITOR = "v" * 43
"""The cookie of a browser that has opened a page before."""


class Served(TestClient):
    """A browser, and the project behind its server."""

    workspace: Workspace

    def here(self, work: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        """Return what a coroutine function returns in the event loop of the server."""
        assert self.portal is not None
        return self.portal.call(partial(work, *args, **options))

    def run(self, tree: Pipeline, value: Any = None, **options: Any) -> Any:
        """Run a pipeline on the database of the server."""
        return self.here(start, tree, self.here(self.workspace.store), value, **options)


@cache
def empty_database() -> bytes:
    """Return a database without runs: to copy it is cheaper than to create one."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


def with_token(client: TestClient) -> None:
    """Let a client send changes, as a browser that has opened a page before."""
    client.cookies.set("flujo_visitor", VISITOR)
    client.headers[csrf.HEADER] = csrf.token_of(VISITOR)


@contextmanager
def served(root: Path, settings: ServeTable | None = None) -> Iterator[Served]:
    """Serve the project in a folder, which gets a database."""
    file = root / "flujo.toml"
    tables = file.read_text() if file.exists() else ""
    file.write_text(f'state_uri = "sqlite:///state.db"\n{tables}')
    (root / "state.db").write_bytes(empty_database())
    workspace = Workspace(find_project(root))
    keys = hook_keys(workspace.project.settings)
    app = application(Serving(workspace, settings or ServeTable(), hook_keys=keys))
    with Served(app, base_url="http://127.0.0.1:8400/", client=("127.0.0.1", 50_000)) as client:
        with_token(client)
        client.workspace = workspace
        yield client
        client.here(workspace.aclose)
