"""The principal of a request: an API token, or the user of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.access import Principal, Role
from flujo.domain.acts import Via
from flujo.exceptions import TokenRefused
from flujo.serve.serving import serving
from flujo.services.access import tokens
from flujo.services.project.system import actor

if TYPE_CHECKING:
    from starlette.requests import Request


async def principal_of(request: Request) -> Principal:
    """Return who sent a request.

    Raises:
        TokenRefused: it has no valid token.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    server = serving(request)
    if scheme.lower() == "bearer":
        return await tokens.principal_of(await server.workspace.store(), secret.strip())
    if server.settings.is_local:
        return Principal(actor(None, Via.WEB).by, Role.ADMIN, via=Via.WEB)
    raise TokenRefused("this request has no token", hint="send `Authorization: Bearer TOKEN`")
