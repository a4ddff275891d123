"""Signed webhooks by the Standard Webhooks rules: https://www.standardwebhooks.com."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import httpx2

from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from flujo.domain.outbox import Message

PREFIX = "whsec_"
ANSWER_S = 15.0
"""How long a receiver may take."""

GONE = 410
"""The receiver wants no more messages; the specification asks senders to stop."""


class NotDelivered(Exception):
    """A receiver did not take a message.

    Args:
        reason: why, without the address: its path may be a secret.
        is_final: whether another try is useless.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


def key_of(secret: str, table: str) -> bytes:
    """Return the bytes of a secret of a table of flujo.toml, such as `notify.ops`.

    Raises:
        SettingsError: it is not `whsec_` and the base64 of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if secret.startswith(PREFIX) and 24 <= len(key) <= 64:
        return key
    raise SettingsError(
        f"the secret of [{table}] is not `{PREFIX}` and the base64 of 24 to 64 bytes",
        hint=f"`openssl rand -base64 32` prints the part after `{PREFIX}` of a new one",
    )


def signature(key: bytes, message_key: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`."""
    signed = b"%b.%d.%b" % (message_key.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


class Webhooks:
    """Sends messages over HTTP. It follows no redirect: a message reaches only the configured host."""

    def __init__(self) -> None:
        self._client = httpx2.AsyncClient(timeout=ANSWER_S, follow_redirects=False)

    async def send(self, message: Message, url: str, key: bytes, timestamp: int) -> None:
        """Send a message once.

        Args:
            message: the message; its `key` and payload are the same for each try.
            url: the address of the receiver.
            key: the key of the signature.
            timestamp: seconds since the epoch; receivers refuse an old one.

        Raises:
            NotDelivered: the answer is not a 2xx, or none came.
        """
        headers = {
            "content-type": "application/json",
            "user-agent": "flujo",
            "webhook-id": message.key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(key, message.key, timestamp, message.payload),
        }
        try:
            # Only the status is read: a body of any length would be read into memory.
            async with self._client.stream("POST", url, content=message.payload, headers=headers) as answer:
                status = answer.status_code
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise NotDelivered(_words(error)) from error
        if not 200 <= status < 300:
            raise NotDelivered(f"the receiver answered {status}", is_final=status == GONE)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _words(error: Any) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer within {ANSWER_S:g} s"
    return f"the receiver cannot be reached: {type(error).__name__}"
