"""A provider that a project names in flujo.toml, as it is written there: variables stay `${NAME}`."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from flujo.domain.commands import command
from flujo.domain.variables import VARIABLE, variables
from flujo.exceptions import ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILT_IN = (
    "openai", "openai-chat", "openai-responses", "anthropic", "google", "mistral", "groq", "deepseek",
    "openrouter", "cohere",
)  # fmt: skip
"""The providers whose address is known."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a provider allows; None is unlimited."""

    max_concurrency: int | None = None
    """Requests at the same time."""
    rpm: int | None = None
    """Requests in any 60 seconds, of all processes of a database."""
    tpm: int | None = None
    """Tokens in and out in any 60 seconds, of all processes of a database."""

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return (self.max_concurrency, self.rpm, self.tpm) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may be sent now."""

    ticket: int | None
    """Identifies the counted request; None when it has to wait."""
    wait_s: float = 0.0
    """After how many seconds to ask again."""


class RequestStore(Protocol):
    """Counts the requests of all processes of a database, for the limits that they share."""

    async def admit_request(
        self, provider: str, tokens: int, allowed: Allowed, *, span_s: float = 60.0
    ) -> Admission:
        """Count a request as sent if `rpm` and `tpm` allow it in the last `span_s` seconds.

        A request that is larger than `tpm` is admitted when no other one counts.

        Raises:
            StateError: the database cannot be written.
        """
        ...

    async def settle_request(self, provider: str, ticket: int, tokens: int | None) -> None:
        """Replace the tokens of a counted request by those that it used; None: it was not sent.

        Raises:
            StateError: the database cannot be written.
        """
        ...


SHARED_REQUESTS: ContextVar[RequestStore | None] = ContextVar("flujo_shared_requests", default=None)
"""The store of the run that is executed; None without one that other processes share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedProvider:
    """The table `[providers.NAME]`."""

    name: str
    kind: str
    """The provider whose API it speaks, by pydantic-ai's name: `openai-chat`, `anthropic`."""
    base_url: str | None = None
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float | None = None
    allowed: Allowed = field(default_factory=Allowed)
    places: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Setting → its file and line, for errors."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its answers, without secrets: its API, address, and the names of its headers."""
        return {
            "kind": self.kind,
            "base_url": self.base_url,
            "headers": sorted(name.lower() for name in self.headers),
        }

    @property
    def key_name(self) -> str | None:
        """The environment variable that holds its key."""
        return next(iter(variables(self.key or "")), None)

    def connection(self, environment: Mapping[str, str]) -> ConnectionSettings:
        """Return how to reach it, with all variables filled in.

        Raises:
            ProviderUnavailable: a variable is not set, or its value does not fit.
        """
        key = self._filled("key", self.key, environment)
        base_url = self._filled("base_url", self.base_url, environment)
        if base_url is not None and not is_address(base_url):
            raise self._unusable("base_url", "is not `http://…` or `https://…` without a password")
        headers = {}
        for name, value in self.headers.items():
            headers[name] = filled = self._filled(f"headers.{name}", value, environment) or ""
            if not is_header_value(filled):
                raise self._unusable(f"headers.{name}", "has characters that a header cannot have")
        named = (name for value in self.headers.values() for name in variables(value))
        hidden = [environment[name].strip() for name in named]
        return ConnectionSettings(key, base_url, headers, tuple(filter(None, (key, *hidden))))

    def _filled(self, setting: str, text: str | None, environment: Mapping[str, str]) -> str | None:
        if text is None:
            return None
        for name in variables(text):
            # Stripped: a key from a file often ends in a newline, which HTTP headers do not allow.
            if not environment.get(name, "").strip():
                raise ProviderUnavailable(
                    f"{self._place(setting)} uses ${{{name}}}, which is not set in the environment",
                    hint=f"set it: `{command('export', f'{name}=VALUE')}`",
                    provider=self.name,
                    variable=name,
                    retryable=False,
                )
        return VARIABLE.sub(lambda found: environment[found[1]].strip(), text)

    def _unusable(self, setting: str, why: str) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"{self._place(setting)} {why}",
            hint="check the value of its environment variable",
            provider=self.name,
            retryable=False,
        )

    def _place(self, setting: str) -> str:
        place = self.places.get(setting)
        return f"{place + ': ' if place else ''}`providers.{self.name}.{setting}`"


@dataclass(frozen=True, slots=True, repr=False)
class ConnectionSettings:
    """How to reach a provider, with its secrets."""

    key: str | None = None
    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


def is_address(text: str) -> bool:
    """Return whether a text is the URL of a server over HTTP, without a user, a password or a query."""
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - raises for a port that is not a number
    except ValueError:
        return False
    is_plain = not re.search(r"[\s\x00-\x1f\x7f]", text) and "@" not in url.netloc
    return (
        is_plain
        and url.scheme in ("http", "https")
        and bool(url.hostname)
        and not (url.query or url.fragment)
    )


def is_header_value(text: str) -> bool:
    """Return whether HTTP allows a text as the value of a header."""
    return text.isascii() and text.isprintable()
