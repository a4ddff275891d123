"""The principal of a request: of a token, a session, a trusted proxy, or the user of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.access import Principal, Role
from flujo.domain.acts import Via
from flujo.exceptions import LoginRefused, LoginRequired, OriginRefused
from flujo.governance.logs import logger
from flujo.serve.security import cookies, peers
from flujo.serve.serving import serving
from flujo.services.access import sessions, tokens
from flujo.services.project.system import MAX_BY, actor

if TYPE_CHECKING:
    from starlette.requests import Request

    from flujo.settings_serve import ProxyTable, ServeTable

log = logger("flujo.serve")


def bearer_of(request: Request) -> str | None:
    """Return the secret of the API token that a request has."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


async def principal_of(request: Request) -> Principal:
    """Return who sent a request.

    Raises:
        TokenRefused: its token is not valid.
        LoginRequired: it has neither a token nor a session that is valid.
        LoginRefused: the proxy has logged in a person without a role.
        OriginRefused: it was sent to another host, or its headers cannot be used.
    """
    server = serving(request)
    if (secret := bearer_of(request)) is not None:
        return await tokens.principal_of(await server.workspace.store(), secret)
    if server.settings.is_local:
        peers.require_local(request)
        return Principal(actor(None, Via.WEB).by, Role.ADMIN, via=Via.WEB)
    peers.require_host(request)
    found = _of_proxy(request, server.settings) or await _of_session(request)
    if found is None:
        raise LoginRequired("this request does not say who sends it")
    return found


async def _of_session(request: Request) -> Principal | None:
    if (secret := cookies.session_of(request)) is None:
        return None
    server = serving(request)
    session = await sessions.find(await server.workspace.store(), secret)
    user = None if session is None else server.settings.users.get(session.name)
    if session is None or user is None or not sessions.is_current(session, user.password_hash):
        return None
    return Principal(session.name, user.role, user.reach, via=Via.WEB)


def _of_proxy(request: Request, settings: ServeTable) -> Principal | None:
    proxy = settings.proxy
    if proxy is None or proxy.user_header is None or proxy.user_header not in request.headers:
        return None
    if not peers.is_from_proxy(request):
        log.warning(
            "the header %s from %s is ignored: that is not a trusted proxy",
            proxy.user_header,
            peers.address_of(request),
        )
        return None
    name = _one(request, proxy.user_header)
    if not name.strip() or not name.isprintable() or len(name) > MAX_BY:
        raise OriginRefused(f"the proxy sends a name that cannot be used: {name[:MAX_BY]!r}")
    if (user := settings.users.get(name)) is not None:
        return Principal(name, user.role, user.reach, via=Via.WEB)
    role = _role(request, proxy)
    if role is None:
        raise LoginRefused(
            f"{name} has no role here",
            hint="an administrator can add [serve.users.NAME] or a group of [serve.proxy] to flujo.toml",
            user=name,
        )
    return Principal(name, role, via=Via.WEB)


def _role(request: Request, proxy: ProxyTable) -> Role | None:
    """Return the role with the most rights that the groups of a person have."""
    sent = "" if proxy.groups_header is None else ",".join(_all(request, proxy.groups_header))
    given = [proxy.roles[group] for group in map(str.strip, sent.split(",")) if group in proxy.roles]
    return max(given, key=list(Role).index, default=proxy.default_role)


def _one(request: Request, header: str) -> str:
    found = _all(request, header)
    if len(found) != 1:
        raise OriginRefused(f"the request has {len(found)} headers {header}")
    return found[0]


def _all(request: Request, header: str) -> list[str]:
    """Return the values of a header. Starlette reads bytes as Latin-1, and proxies send UTF-8."""
    return [each.encode("latin-1").decode("utf-8", "replace") for each in request.headers.getlist(header)]
