"""An endpoint: a method and a path, the right that it needs, and the function that answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from flujo.domain.access import Right

Handler = Callable[[Request], Awaitable[Response]]

API_PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of the table in `routes.py`."""

    method: str
    """`GET`, `POST`, `PUT` or `DELETE`. A `GET` changes nothing."""
    path: str
    """With parameters as Starlette writes them, such as `/runs/{run_id}`."""
    answer: Handler
    right: Right | None
    """What the principal needs; None for a public endpoint. Which runs it may see or change
    is checked in `services`, by the client of the request."""

    @property
    def is_api(self) -> bool:
        """Whether programs call it: its errors are JSON, and a session cookie is not enough for a change."""
        return self.path.startswith(API_PREFIX)

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"
