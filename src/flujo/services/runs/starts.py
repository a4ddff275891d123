"""What programs say to start a run in a queue; they may say it twice."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.queues import DEFAULT_QUEUE
from flujo.domain.wording import repr_short
from flujo.exceptions import SettingsError
from flujo.services.given import text, text_or_none
from flujo.services.runs.run_request import context_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.models import Metadata

_MAX_KEY = 255
_PREFIX = "k-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A run to start, and its place in a queue."""

    blueprint: str
    """Its name or its path in the project."""
    input: Any = None
    context: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the context starts with."""
    metadata: Metadata | None = None
    run_id: str | None = None
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    delay_s: float = 0.0


def id_of_key(caller: str, key: Any) -> RunId:
    """Return the id of the run that a caller starts with a key of its own: the same for each repetition.

    Raises:
        SettingsError: the key is not a text of 1 to 255 printable characters.
    """
    given = text(key, "idempotency_key")
    if not 0 < len(given) <= _MAX_KEY or not given.isprintable():
        raise SettingsError(
            f"{repr_short(given)} cannot be an idempotency key",
            hint=f"use 1 to {_MAX_KEY} printable characters, such as those of a UUID",
        )
    digest = hashlib.sha256(canonical.encode([caller, given], what="key")).digest()
    return RunId(_PREFIX + base64.b32encode(digest).decode().lower()[:26])


def with_user(context: Any, user_id: Any) -> Mapping[str, Any]:
    """Return the fields that a context starts with, with the user of the run.

    Raises:
        InputRejected: the context is not a mapping.
        SettingsError: the user is not a text, or the context names another one.
    """
    fields, user = context_fields(context), text_or_none(user_id, "user_id")
    if user is None:
        return fields
    if fields.get("user_id", user) != user:
        raise SettingsError("`user_id` and the context name different users", hint="leave one of them out")
    return {**fields, "user_id": user}
