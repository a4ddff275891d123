"""What every endpoint works with: the project, and a client with the rights of the request's principal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flujo.serve.executing import Executing
from flujo.serve.security.limits import Limits
from flujo.services.deployed import Deployed
from flujo.services.inspection.task_client import TaskClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from flujo.domain.access import Principal
    from flujo.services.workspace import Workspace
    from flujo.settings_serve import ServeTable


@dataclass(frozen=True, slots=True)
class Serving:
    """A server at work.

    Args:
        workspace: the project; the caller closes it.
        settings: `[serve]` of flujo.toml, with the options of the command.
        limits: how often its clients may try to log in and to change something.
    """

    workspace: Workspace
    settings: ServeTable
    limits: Limits = field(default_factory=Limits)
    executing: Executing = field(default_factory=Executing)
    """The runs that it executes; closed before the workspace."""
    hook_keys: Mapping[str, bytes] = field(default_factory=dict)
    """The keys of the incoming webhooks, `[serve.hooks.NAME]`, by name."""

    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server stops; streams end then."""

    def __post_init__(self) -> None:
        self.workspace.before_close(self.executing.aclose)


def serving(request: Request) -> Serving:
    """Return the server that a request came to."""
    found: Serving = request.app.state.serving
    return found


def principal(request: Request) -> Principal:
    """Return who sent a request to an endpoint that needs a right."""
    found: Principal = request.state.principal
    return found


def deployed(request: Request) -> Deployed:
    """Return what the project has deployed, with the rights of the request's principal."""
    return Deployed(serving(request).workspace, principal(request))


def tasks(request: Request) -> TaskClient:
    """Return a client that has the rights of the request's principal."""
    return TaskClient(serving(request).workspace, principal=principal(request))
