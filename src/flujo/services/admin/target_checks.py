"""Checks the targets of messages, `[notify.NAME]`, without sending anything."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flujo.blueprint.sources.callables import load_callable
from flujo.exceptions import SettingsError
from flujo.services.project.imports import importable
from flujo.services.runs.webhooks import key_of

if TYPE_CHECKING:
    from flujo.services.project.project import Project

RESOLVING_S = 5.0
"""How long the name service may take."""


def check_target(project: Project, name: str) -> str:
    """Return what receives the messages to a target: the callable, or the host of the webhook.

    The callable is imported, and the host is looked up; no request is made.

    Raises:
        CallableError: the callable cannot be imported.
        SettingsError: a variable is not set, the secret is none, or the host has no address.
    """
    target = project.settings.notify[name].callable
    if target is not None:
        importable(project.root)
        load_callable(target, (target.partition(":")[0],))
        return f"`{target}`"
    url, secret = project.settings.webhook(name)
    key_of(secret, f"notify.{name}")
    host = urlsplit(url).hostname or ""
    if not _has_address(host):
        raise SettingsError(
            f"the host `{host}` of [notify.{name}] has no address",
            hint=f"correct its `url`, or check the name service of this machine: `getent hosts {host}`",
            target=name,
        )
    return f"the host `{host}`, whose requests are signed"


def _has_address(host: str) -> bool:
    """Return whether a host has an address; a name service that does not answer in time knows none."""
    found: list[object] = []

    def look() -> None:
        try:
            found.extend(socket.getaddrinfo(host, None))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=look, daemon=True)  # a look-up has no timeout of its own
    thread.start()
    thread.join(RESOLVING_S)
    return bool(found)
