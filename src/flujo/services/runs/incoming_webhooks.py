"""Checks messages of others that are signed as `webhooks` signs, before they become events."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain.sent_events import is_event_id
from flujo.exceptions import RequestRefused, WebhookNotSigned, WebhookTooOld
from flujo.services.runs.webhooks import key_of, signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.settings import Settings

TOLERANCE_S = 300
"""How far the timestamp of a message may be from now, so that a copy of it cannot be sent much later."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it arrived; nothing of it is believed yet."""

    message_id: str
    """The header `webhook-id`."""
    timestamp: str
    """The header `webhook-timestamp`: seconds since the epoch."""
    signatures: str
    """The header `webhook-signature`: several with spaces between, while the sender changes its secret."""
    body: bytes


def hook_keys(settings: Settings) -> Mapping[str, bytes]:
    """Return the keys of all incoming webhooks by their names.

    Raises:
        SettingsError: a variable is not set, or its value is not a secret.
    """
    return {name: key_of(settings.hook_secret(name), f"serve.hooks.{name}") for name in settings.serve.hooks}


def require_signed(message: Incoming, key: bytes, now: float) -> None:
    """Return if a message has a signature that was made with a key, about now.

    Args:
        message: the message.
        key: the key of its webhook.
        now: seconds since the epoch.

    Raises:
        WebhookNotSigned: no signature fits; the error is the same whichever part is wrong.
        WebhookTooOld: the timestamp is more than `TOLERANCE_S` away.
    """
    is_time = re.fullmatch("[0-9]{1,12}", message.timestamp) is not None
    timestamp = int(message.timestamp) if is_time else 0
    wanted = signature(key, message.message_id, timestamp, message.body).encode()
    # Each is compared, and each in the same time whatever its first wrong character is.
    fits = [hmac.compare_digest(wanted, given.encode()) for given in message.signatures.split(" ")]
    if not (is_time and message.message_id and any(fits)):
        raise WebhookNotSigned("this request is not signed as its webhook demands")
    if abs(now - timestamp) > TOLERANCE_S:
        raise WebhookTooOld(f"the timestamp of this request is more than {TOLERANCE_S} s away from now")


def event_id(name: str, message: Incoming) -> str:
    """Return the id of the event of a message: the same for each try, and another for each webhook.

    Raises:
        RequestRefused: the id of the message cannot be part of it.
    """
    made = f"{name}:{message.message_id}"
    if not is_event_id(made):
        raise RequestRefused(
            "the header `webhook-id` cannot be the id of an event",
            hint="use at most 100 letters, digits and `. _ : / + = -`",
            where="webhook-id",
        )
    return made


def key_in(body: Mapping[str, Any], path: str) -> str:
    """Return the key of the wait that a message is for.

    Args:
        body: the message.
        path: the `key` of its webhook: names of members with dots between them.

    Raises:
        RequestRefused: there is neither text nor a whole number.
    """
    found: Any = body
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if isinstance(found, str):
        return found
    raise RequestRefused(
        f"the body has no text and no whole number at `{path}`",
        hint="`key` of [serve.hooks.NAME] says where the key of the wait is",
        where=f"body.{path}",
    )
