"""Webhooks of other services: signed messages, which become events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from flujo.domain.access import Principal, Role
from flujo.domain.acts import Via
from flujo.exceptions import WebhookNotSigned, WebhookUnknown
from flujo.serve.api.requests import answered, content, json_object
from flujo.serve.endpoints import API_PREFIX, Endpoint, Operation
from flujo.serve.security.peers import address_of
from flujo.serve.serving import serving
from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs.incoming_webhooks import Incoming, event_id, key_in, require_signed

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_MESSAGE = 256 * 1024
"""The size of the largest message, in bytes."""
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


class Message(BaseModel):
    """Any JSON object; the payload of the event is all of it."""

    model_config = ConfigDict(extra="allow")


class AcceptedData(TypedDict):
    """The event that a message has become."""

    event_id: str
    """The same for each try of a message."""


async def take_message(request: Request) -> Response:
    """Send a signed message on as an event, once for each `webhook-id`, and answer with its id."""
    server, name = serving(request), request.path_params["name"]
    # Before the body is read, and by address: who sends is not known yet.
    sender, clock = f"the address {address_of(request)}", server.workspace.clock
    server.limits.count_change(server.settings, sender, clock.monotonic())
    table, key = server.settings.hooks.get(name), server.hook_keys.get(name)
    if table is None or key is None:
        raise WebhookUnknown("there is no webhook of this name")
    message = Incoming(
        _header(request, ID),
        _header(request, TIMESTAMP),
        _header(request, SIGNATURE),
        await content(request, "application/json"),
    )
    require_signed(message, key, clock.now())
    body = json_object(message.body)
    who = Principal(f"webhook {name}", Role.OPERATOR, via=Via.API)
    delivery = await TaskClient(server.workspace, principal=who).send_event(
        table.event, body, key=key_in(body, table.key), event_id=event_id(name, message)
    )
    return answered({"event_id": delivery.event_id}, 202)


def _header(request: Request, name: str) -> str:
    given = request.headers.getlist(name)
    if len(given) != 1:
        raise WebhookNotSigned("this request is not signed as its webhook demands")
    return given[0]


ENDPOINTS = (
    Endpoint(
        "POST",
        f"{API_PREFIX}/hooks/{{name}}",
        take_message,
        None,
        Operation(
            "Take a webhook",
            Message,
            status=202,
            shape=AcceptedData,
            headers={
                ID: "The id of the message, the same for each try.",
                TIMESTAMP: "Seconds since the epoch, at most 300 from now.",
                SIGNATURE: "`v1,` and the base64 of the HMAC-SHA256 of `ID.TIMESTAMP.BODY`.",
            },
        ),
        body_limit=MAX_MESSAGE,
    ),
)
