"""`[serve]` of flujo.toml: the pages and the API, and who may enter."""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from flujo.domain.access import Role  # noqa: TC001 - pydantic reads it
from flujo.domain.files import MEDIA_TYPES
from flujo.domain.reach import Reach
from flujo.domain.sent_events import is_event_name
from flujo.domain.variables import is_variable
from flujo.settings_tables import Duration, Section

_MAX_NAME = 200
_HOOK_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""The form of the name of an incoming webhook: it stands in a path, and in the ids of its events."""


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: an address of its loopback network, or `localhost`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(text: str) -> bool:
    try:
        url = urlsplit(text)
        is_complete = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
    return is_complete and "@" not in url.netloc and not url.query and not url.fragment


class UserTable(Section):
    """A person who may enter `flujo serve`, and what they may do."""

    role: Role
    """`viewer`, `answerer`, `operator` or `admin`; each has the rights of those before it."""
    password_hash: str | None = None
    """What `flujo tokens hash-password` prints. Without it, the person enters through the proxy alone."""
    blueprints: tuple[str, ...] = ()
    """The blueprints whose runs the person is limited to; none for all."""
    queues: tuple[str, ...] = ()
    """The queues whose runs the person is limited to; none for all."""
    metadata: Mapping[str, str] = Field(default_factory=dict)
    """The values that the metadata of their runs must have."""

    @field_validator("password_hash")
    @classmethod
    def _is_argon2(cls, given: str | None) -> str | None:
        # The text is not in the message: it may be the password itself.
        if given is not None and not given.startswith("$argon2id$"):
            raise ValueError(
                "`password_hash` is not a hash of argon2id: `flujo tokens hash-password` prints one"
            )
        return given

    @property
    def reach(self) -> Reach:
        """The runs that the person may see."""
        return Reach(self.blueprints, self.queues, dict(self.metadata))


class ProxyTable(Section):
    """`[serve.proxy]`: a proxy before the server. Its headers count from the addresses in `trusted` alone."""

    trusted: tuple[str, ...] = Field(min_length=1)
    """The addresses and networks of the proxy, such as `10.0.0.5` or `10.0.0.0/8`."""
    user_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]+$")
    """The header with the name of the person; none when the proxy does not log people in."""
    groups_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]+$")
    """The header with the groups of the person, with commas between them."""
    roles: Mapping[str, Role] = Field(default_factory=dict)
    """Group → role. A person in several groups has the role with the most rights."""
    default_role: Role | None = None
    """The role of others whom the proxy has logged in; without it they are refused."""

    @field_validator("trusted")
    @classmethod
    def _are_networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            try:
                network = ip_network(each)
            except ValueError:
                raise ValueError(
                    f"`trusted` has {each!r}, which is neither an address nor a network"
                ) from None
            if not network.prefixlen:
                raise ValueError(f"`trusted` has {each!r}: any client could write the headers of the proxy")
        return given

    @model_validator(mode="after")
    def _has_what_groups_need(self) -> ProxyTable:
        if self.groups_header is not None and self.user_header is None:
            raise ValueError("`groups_header` needs `user_header`")
        if self.roles and self.groups_header is None:
            raise ValueError("`roles` needs `groups_header`")
        return self

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The addresses that are trusted."""
        return tuple(ip_network(each) for each in self.trusted)


class HookTable(Section):
    """An incoming webhook: signed messages to `/api/v1/hooks/NAME` of `flujo serve`, each sent as an event.

    `${NAME}` in `secret` is filled in when the server is started, so other commands do not need it.
    """

    event: str
    """The name of the event that a message becomes."""
    key: str = Field(min_length=1)
    """Where a message has the key of the wait: names of members with dots between, such as `data.order`."""
    secret: str
    """The variable with the secret that the sender signs with: `${NAME}`, with a value `whsec_…`."""

    @field_validator("event")
    @classmethod
    def _is_event(cls, given: str) -> str:
        if not is_event_name(given):
            raise ValueError(
                f"`event` is {given[:_MAX_NAME]!r}, not the name of an event such as `order.paid`"
            )
        return given

    @field_validator("secret")
    @classmethod
    def _is_elsewhere(cls, given: str) -> str:
        # The text is not in the message: it may be the secret itself.
        if not is_variable(given):
            raise ValueError(
                "`secret` names the variable that holds it, `${NAME}`, so that it is not in this file"
            )
        return given


class ServeTable(Section):
    """`[serve]`: where `flujo serve` listens, who may enter, and what it lets people do."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address that it listens on."""
    port: int = Field(default=8400, ge=0, le=65535)
    """The port; 0 for a free one."""
    read_only: bool = False
    """Whether nothing can be changed through the server."""
    public_url: str | None = None
    """The address in people's browsers, such as `https://flujo.example.com/flujo`, when a proxy stands before
    the server. Requests for other hosts are refused; a path is the prefix of all pages."""
    session: Duration = 12 * 3600.0
    """How long a login is valid, written as `12h` or `30d`."""
    login_attempts: int = Field(default=5, ge=1, le=1000)
    """How many wrong passwords in a row are allowed for a name or an address before each one costs a wait."""
    changes_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    """How many answers and other changes a person or a token may send in a minute."""
    max_upload_mib: int = Field(default=64, ge=1, le=2048)
    """The size of the largest file that can be uploaded, in MiB."""
    upload_types: tuple[str, ...] = ()
    """The types of files that can be uploaded, by their content, such as `application/pdf` or `image/*`; none
    for any file."""
    upload_provider: str | None = None
    """The state provider that stores files that people upload; needed when there are several."""
    users: Mapping[str, UserTable] = Field(default_factory=dict)
    """`[serve.users.NAME]`: the people who may enter; see below."""
    proxy: ProxyTable | None = None
    """`[serve.proxy]`: a proxy that is trusted by its address; see below."""
    hooks: Mapping[str, HookTable] = Field(default_factory=dict)
    """`[serve.hooks.NAME]`: webhooks that become events; see below."""

    @field_validator("public_url")
    @classmethod
    def _is_public(cls, given: str | None) -> str | None:
        # The text is not in the message: it may have a password.
        if given is not None and not _is_address(given):
            raise ValueError(
                "`public_url` is not an address such as 'https://flujo.example.com/flujo', without a user, "
                "a query and a fragment"
            )
        return None if given is None else given.rstrip("/")

    @field_validator("upload_types")
    @classmethod
    def _are_types(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            if not any(fnmatchcase(known, each) for known in MEDIA_TYPES):
                raise ValueError(
                    f"`upload_types` has {each[:_MAX_NAME]!r}; those that are known by their content are "
                    f"{', '.join(MEDIA_TYPES)}"
                )
        return given

    @field_validator("users")
    @classmethod
    def _are_names(cls, users: Mapping[str, UserTable]) -> Mapping[str, UserTable]:
        for name in users:
            if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
                raise ValueError(f"{name[:_MAX_NAME]!r} cannot be the name of a user")
        return users

    @field_validator("hooks")
    @classmethod
    def _are_parts_of_a_path(cls, hooks: Mapping[str, HookTable]) -> Mapping[str, HookTable]:
        for name in hooks:
            if not _HOOK_NAME.fullmatch(name):
                raise ValueError(
                    f"{name[:_MAX_NAME]!r} cannot be the name of a webhook: "
                    "use 1 to 64 letters, digits, `_` and `-`"
                )
        return hooks

    @property
    def max_upload(self) -> int:
        """The size of the largest file that can be uploaded, in bytes."""
        return self.max_upload_mib * 2**20

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it and no login is set, so that its user needs none.

        A server with a public address is behind a proxy, which may let others reach the loopback address.
        """
        return is_loopback(self.host) and not (self.users or self.proxy or self.public_url)

    @property
    def has_login(self) -> bool:
        """Whether people can enter: with a password, or through the proxy."""
        return self.has_passwords or (self.proxy is not None and self.proxy.user_header is not None)

    @property
    def has_passwords(self) -> bool:
        """Whether a user has a password."""
        return any(user.password_hash for user in self.users.values())

    @property
    def public(self) -> SplitResult | None:
        """The parts of `public_url`."""
        return None if self.public_url is None else urlsplit(self.public_url)

    @property
    def prefix(self) -> str:
        """The path under which the server is, such as `/flujo`; empty for the root of its host."""
        return "" if self.public is None else self.public.path
