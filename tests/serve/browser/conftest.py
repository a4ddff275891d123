"""A real Chromium for all tests of a process, and a server in this process for those of a module.

Both live in the event loop of the session: Playwright keeps the one in which it was started.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, Page, async_playwright

from flujo.serve.application import application
from flujo.serve.serving import Serving
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from flujo.settings_serve import ServeTable
from serve.served import empty_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from flujo.domain.ports import StateStore


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The Chromium of the system."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no `chromium` on PATH: `apt-get install chromium`")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@dataclass
class Site:
    """A server at work."""

    url: str
    store: StateStore
    workspace: Workspace


@asynccontextmanager
async def site_of(root: Path, settings: ServeTable | None = None) -> AsyncIterator[Site]:
    """Serve the project in a folder, which gets a database, on a free port of this machine."""
    (root / "flujo.toml").write_text('state_uri = "sqlite:///state.db"\n')
    (root / "state.db").write_bytes(empty_database())
    workspace = Workspace(find_project(root))
    server = uvicorn.Server(
        uvicorn.Config(
            application(Serving(workspace, settings or ServeTable())),
            lifespan="off",
            log_config=None,
            access_log=False,
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with aclosing(workspace):
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", await workspace.store(), workspace)
            server.should_exit = server.force_exit = True
            await serving


@dataclass
class Watched:
    """A page, and what it has done that it must not do."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note scripts that failed or ran without leave, and requests that leave the origin."""
        self.page.on("dialog", self._dismiss)
        self.page.on("pageerror", lambda error: self.faults.append(f"error of a script: {error}"))
        self.page.on("console", self._console)
        self.page.on("request", self._request)

    async def _dismiss(self, dialog: Any) -> None:
        self.faults.append(f"a script ran on {self.page.url}: {dialog.message}")
        await dialog.dismiss()

    def _console(self, message: Any) -> None:
        # The status of a page is the matter of its test; what a page loads must be there.
        if message.type == "error" and message.location["url"] != self.page.url:
            self.faults.append(f"on {self.page.url}: {message.text} {message.location['url']}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((f"{self.origin}/", "data:")):
            self.faults.append(f"{self.page.url} asks {request.url}")


async def tab_to(page: Page, wanted: str) -> None:
    """Press Tab until the focus is on one of the wanted elements."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


@asynccontextmanager
async def opened(chromium: Browser, origin: str, **options: Any) -> AsyncIterator[Watched]:
    """Open an empty page in a context of its own; at the end it must have no faults."""
    context = await chromium.new_context(base_url=origin, **options)
    context.set_default_timeout(20_000)
    watched = Watched(await context.new_page(), origin)
    watched.watch()
    yield watched
    await context.close()
    assert watched.faults == []
