"""An endpoint: a method and a path, the right that it needs, and the function that answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from pydantic import BaseModel

    from flujo.domain.access import Right

Handler = Callable[[Request], Awaitable[Response]]

API_PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Operation:
    """What an endpoint of the API takes and answers: its requests are checked by it, and described by it."""

    summary: str
    """What it does, as one line."""
    takes: type[BaseModel] | None = None
    """The parameters of a `GET`, the JSON body of others; None for neither."""
    status: int = 200
    """The status of its answer."""
    answers: str = "application/json"
    """The media type of its answer."""
    shape: Any = None
    """The type of a JSON answer; None for any object, and for other media types."""
    later: Any = None
    """The type of the answer 202, for a run that takes longer than its request waits; None without one."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The headers that it reads, with what they say."""
    body: str = "application/json"
    """The media type of its body."""


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
    operation: Operation | None = None
    """Of an endpoint of the API."""
    body_limit: int = 1_000_000
    """The number of bytes that the body of a request may have, without files."""
    files: int = 0
    """For how many files of the largest size, `[serve] max_upload_mib`, there is room beside."""
    is_entry: bool = False
    """Whether it logs people in or out, so that it works on a server that is read-only."""

    @property
    def is_api(self) -> bool:
        """Whether programs call it: its errors are JSON, and it asks for a token instead of a login."""
        return self.path.startswith(API_PREFIX)

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"
