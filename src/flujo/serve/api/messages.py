"""The messages about runs that webhooks and callables get: which were delivered, and to send them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from typing_extensions import TypedDict

from flujo.domain.access import Right
from flujo.domain.outbox import MessageState  # noqa: TC001 - pydantic reads it
from flujo.serve.api.requests import Asked, answered, body, parameters
from flujo.serve.endpoints import API_PREFIX, Endpoint, Operation
from flujo.serve.serving import tasks
from flujo.services.inspection.messages import require_one_choice
from flujo.services.inspection.view_shapes import MessageData  # noqa: TC001 - pydantic reads it
from flujo.services.inspection.views import message_data

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class MessageList(Asked):
    """Which messages are listed."""

    state: list[MessageState] | None = None
    """One of these; repeat it for several."""
    target: str | None = None
    """The name of a `[notify.NAME]`."""
    run_id: str | None = None
    """The run that they are about."""
    limit: int = Field(default=100, ge=1, le=1000)
    """The most messages of the answer."""


class Redelivery(Asked):
    """The messages to send again."""

    ids: list[Annotated[int, Field(gt=0, lt=2**63)]] = Field(default_factory=list, max_length=1000)
    """Their ids; or `given_up`."""
    given_up: bool = False
    """All messages that were given up."""
    target: str | None = None
    """With `given_up`: only those to this target."""


class MessagesData(TypedDict):
    """Messages, the newest first."""

    messages: list[MessageData]


class RedeliveredData(TypedDict):
    """What was made due again."""

    redelivered: int
    """How many messages."""


async def list_messages(request: Request) -> Response:
    """Answer with messages, the newest first."""
    asked = parameters(request, MessageList)
    found = await tasks(request).messages(
        asked.state or (), target=asked.target, run_id=asked.run_id, limit=asked.limit
    )
    return answered({"messages": [message_data(each) for each in found]})


async def redeliver_messages(request: Request) -> Response:
    """Make messages due again, which a worker or an open runner sends; answer with their number."""
    asked = await body(request, Redelivery)
    listing = f"`GET {API_PREFIX}/messages` lists them"
    require_one_choice(asked.ids, given_up=asked.given_up, target=asked.target, listing=listing)
    count = await tasks(request).redeliver(asked.ids, given_up=asked.given_up, target=asked.target)
    return answered({"redelivered": count})


ENDPOINTS = (
    Endpoint(
        "GET",
        f"{API_PREFIX}/messages",
        list_messages,
        Right.READ,
        Operation("List messages about runs", MessageList, shape=MessagesData),
    ),
    Endpoint(
        "POST",
        f"{API_PREFIX}/messages/redeliver",
        redeliver_messages,
        Right.OPERATE,
        Operation("Send messages again", Redelivery, shape=RedeliveredData),
    ),
)
