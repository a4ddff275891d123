"""Where a request comes from, and which host it was sent to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flujo.exceptions import OriginRefused
from flujo.serve.serving import serving
from flujo.settings_serve import is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request

_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_PORTS = {"http": 80, "https": 443}


def is_from_proxy(request: Request) -> bool:
    """Return whether the other end of the connection is a trusted proxy, whose headers count."""
    peer = _address(request.client.host if request.client else "")
    return peer is not None and _is_trusted(request, peer)


def address_of(request: Request) -> str:
    """Return the address of the client: of the connection, or the one that a trusted proxy names.

    Each proxy appends the address that it has seen, so only the part behind trusted ones counts.
    """
    seen = request.client.host if request.client else "unknown"
    if not is_from_proxy(request):
        return seen
    for text in reversed(",".join(request.headers.getlist("x-forwarded-for")).split(",")):
        address = _address(text.strip())
        if address is None:
            break
        seen = str(address)
        if not _is_trusted(request, address):
            break
    return seen


def require_local(request: Request) -> None:
    """Return if a request comes from this machine, for a name of this machine, and through no proxy.

    A page of another site could have its own name point to 127.0.0.1, and call the server from a browser.

    Raises:
        OriginRefused: otherwise.
    """
    hint = "write [serve.users.NAME] or [serve.proxy] into flujo.toml, and `[serve] public_url`"
    if request.client is None or not is_loopback(request.client.host):
        raise OriginRefused("this server is for the machine that it runs on", hint=hint)
    if not is_loopback(_host(request)):
        raise OriginRefused(f"this server is not {_host(request)[:100]!r}", hint=hint)
    if any(name in request.headers for name in _OF_PROXIES):
        raise OriginRefused("this request came through a proxy, and this server has no login", hint=hint)


def require_host(request: Request) -> None:
    """Return if a request was sent to `public_url`, or if there is none.

    Raises:
        OriginRefused: it was sent to another host.
    """
    public = serving(request).settings.public
    if public is None:
        return
    hosts = request.headers.getlist("host")
    wanted = (public.hostname, public.port or _PORTS[public.scheme])
    if len(hosts) != 1 or _split(f"{public.scheme}://{hosts[0]}") != wanted:
        raise OriginRefused(
            f"this server is {public.geturl()}, and the request is for {', '.join(hosts)[:100]!r}",
            hint="let the proxy pass the header `Host` on, or change `[serve] public_url`",
        )


def require_same_site(request: Request) -> None:
    """Return if a browser does not say that a page of another site has sent a request.

    Raises:
        OriginRefused: another site has sent it.
    """
    sent_by = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    if sent_by not in ("same-origin", "none") or (origin is not None and not _is_own(request, origin)):
        raise OriginRefused("a page of another site has sent this", hint="open the page of this server")


def is_from_browser(request: Request) -> bool:
    """Return whether a page may have sent a change: browsers add one of these headers to it."""
    return any(name in request.headers for name in ("origin", "sec-fetch-site", "cookie"))


def _is_own(request: Request, origin: str) -> bool:
    public = serving(request).settings.public
    if public is not None:
        own = (public.scheme, public.hostname, public.port or _PORTS[public.scheme])
        return (origin.partition("://")[0], *_split(origin)) == own
    return origin.partition("://")[2] == request.headers.get("host")


def _host(request: Request) -> str:
    hosts = request.headers.getlist("host")
    return (_split(f"http://{hosts[0]}")[0] or "") if len(hosts) == 1 else ""


def _split(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None, None


def _is_trusted(request: Request, address: IPv4Address | IPv6Address) -> bool:
    proxy = serving(request).settings.proxy
    return proxy is not None and any(address in network for network in proxy.networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
