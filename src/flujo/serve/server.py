"""The process: a socket, uvicorn, and the workspace that is open meanwhile."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import uvicorn

from flujo.exceptions import LoginMissing, SettingsError
from flujo.governance.logs import logger
from flujo.serve.application import application
from flujo.serve.serving import Serving
from flujo.serve.working import NO_WORK, Work, Working
from flujo.services.runs.incoming_webhooks import hook_keys
from flujo.services.workspace import Workspace
from flujo.settings_serve import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.services.project.project import Project
    from flujo.settings_serve import ServeTable

log = logger("flujo.serve")

_GRACE_S = 5
"""How long open requests may take after SIGTERM, in seconds."""


class _Server(uvicorn.Server):
    """A server that ends its streams when it stops; they would keep it open for as long as a run takes."""

    serving: Serving
    working: Working | None = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, wait for the requests, and then for the runs that are executed here.

        The signal has its usual effect behind this: it ends the process.
        """
        self.serving.ending.set()
        await super().shutdown(sockets)
        if self.working is not None:
            await self.working.finish(lambda: self.force_exit)
        await self.serving.executing.aclose()


async def run(
    project: Project, settings: ServeTable, on_start: Callable[[str], None], work: Work = NO_WORK
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        project: the project whose runs are served.
        settings: `[serve]`, with the options of the command.
        on_start: called with the address once connections are accepted.
        work: the runs of queues that it executes as well.

    Raises:
        LoginMissing: others could reach the server, and it has no login.
        SettingsError: the server cannot listen on the address, or the secret of a webhook is not there.
        DatabaseMissing: the folder is not in a project, and no setting names a database.
    """
    if project.is_outside:
        project.require_database()
    async with Workspace(project) as workspace:
        await _require_login(workspace, settings)
        serving = Serving(workspace, settings, hook_keys=hook_keys(project.settings))
        with _socket(settings) as listening:
            server = _Server(
                uvicorn.Config(
                    application(serving),
                    log_config=None,
                    access_log=False,
                    timeout_graceful_shutdown=_GRACE_S,
                    proxy_headers=False,
                    server_header=False,
                )
            )
            server.serving = serving
            server.working = Working(workspace, work) if work.at_once else None
            host, port = listening.getsockname()[:2]
            on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
            await server.serve(sockets=[listening])


async def _require_login(workspace: Workspace, settings: ServeTable) -> None:
    """Return if the server is for this machine alone, or if those who reach it can log in."""
    if settings.is_local:
        return
    if not settings.has_login:
        now = workspace.clock.now()
        if not any(token.is_valid(now) for token in await (await workspace.store()).tokens()):
            raise LoginMissing(f"others could reach {settings.host}:{settings.port}, and there is no login")
        log.warning(
            "there are tokens and no login: programs can use the API, and people cannot open pages; "
            "write [serve.users.NAME] or [serve.proxy] into flujo.toml"
        )
    is_public = settings.public is not None or not is_loopback(settings.host)
    if settings.has_passwords and is_public and not (settings.public_url or "").startswith("https:"):
        log.warning(
            "passwords cross the network readable: put a proxy with TLS before the server, and "
            "set `[serve] public_url` to its https address"
        )


def _socket(settings: ServeTable) -> socket.socket:
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        # `socket` adds the address once more, except where a name has no address.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {reason}",
            hint="choose another one: `--port 8500`, or `--port 0` for a free one",
        ) from error
    listening.setblocking(False)
    return listening
