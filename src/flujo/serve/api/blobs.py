"""Large values outside the database: stored for a `ContextReference`, and read again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.responses import Response
from typing_extensions import TypedDict

from flujo.domain.access import Right
from flujo.domain.context_references import ContextReference
from flujo.exceptions import RequestRefused
from flujo.serve.api.requests import Asked, answered, content, parameters
from flujo.serve.endpoints import API_PREFIX, Endpoint, Operation
from flujo.serve.serving import serving, tasks
from flujo.serve.uploads import admitted

if TYPE_CHECKING:
    from starlette.requests import Request

BYTES = "application/octet-stream"
BLOBS = f"{API_PREFIX}/blobs/{{provider}}"


class ReferenceData(TypedDict):
    """The reference to a stored value, for a context."""

    provider_id: str
    key: str
    sha256: str | None
    size: int | None
    """In bytes."""


async def upload(request: Request) -> Response:
    """Store the body with a state provider, and answer with the reference that stands for it in a context."""
    data = admitted(await content(request, BYTES), serving(request).settings)
    reference = await tasks(request).store_blob(data, request.path_params["provider"])
    return answered(reference.model_dump(), 201)


async def download(request: Request) -> Response:
    """Answer with a value that was stored under its SHA-256, which is checked."""
    parameters(request, Asked)
    digest = request.path_params["sha256"]
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise RequestRefused(
            "the path does not end with a SHA-256", hint="use `sha256` of a reference", where="sha256"
        )
    reference = ContextReference[bytes](
        provider_id=request.path_params["provider"], key=f"sha256/{digest}", sha256=digest
    )
    # The bytes may be a page of an attacker: a browser saves them and does not show them.
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
    return Response(await tasks(request).read_blob(reference), headers=headers, media_type=BYTES)


ENDPOINTS = (
    Endpoint(
        "POST",
        BLOBS,
        upload,
        Right.OPERATE,
        Operation("Store a value", status=201, body=BYTES, shape=ReferenceData),
        files=1,
    ),
    Endpoint(
        "GET", f"{BLOBS}/{{sha256}}", download, Right.READ, Operation("Read a value", Asked, answers=BYTES)
    ),
)
