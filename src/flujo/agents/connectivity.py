"""Checks whether a provider's server answers, without a key and without a model request."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flujo.exceptions import ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 3.0

SERVERS: Mapping[str, tuple[str, str]] = {
    "openai": ("OPENAI_BASE_URL", "https://api.openai.com"),
    "anthropic": ("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
    "google": ("GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com"),
}
"""Provider → the variable that overrides its address, and its default address."""


def check_provider(provider: str, environment: Mapping[str, str]) -> str:
    """Return the host of a provider after it has answered; any HTTP status counts. Proxies are honoured.

    Raises:
        ProviderUnavailable: it does not answer within 3 seconds, or its address is malformed.
    """
    variable, usual = SERVERS[provider]
    return check_server(provider, environment.get(variable) or usual, set_by=variable, usual=usual)


def check_server(provider: str, url: str, *, set_by: str, usual: str = "http://localhost:8000/v1") -> str:
    """Return the host of the server of a provider after it has answered.

    Args:
        provider: its name.
        url: its address.
        set_by: the variable or setting of the address, for errors.
        usual: a usual address, for errors.

    Raises:
        ProviderUnavailable: as `check_provider`.
    """
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ProviderUnavailable(
            f"{set_by} is not the address of a server", hint=f"write it as {usual}", provider=provider
        )
    asked = urllib.request.Request(f"{address.scheme}://{address.netloc.rpartition('@')[2]}/", method="HEAD")  # noqa: S310 - http(s), see above
    try:
        urllib.request.urlopen(asked, timeout=TIMEOUT_S).close()  # noqa: S310 - as above
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ProviderUnavailable(
            f"{address.hostname} does not answer: {reason}",
            hint=f"check the network and the proxy; to use another server, set {set_by}",
            provider=provider,
        ) from error
    return address.hostname
