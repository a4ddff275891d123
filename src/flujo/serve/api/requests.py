"""Reads the parameters and the JSON body of a request by the model that also describes them."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import JSONResponse

from flujo.domain.wording import repr_short, suggest
from flujo.exceptions import InputRejected, MediaTypeRefused, RequestRefused
from flujo.governance.sink import GATE
from flujo.services.project.inputs import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response


class Asked(BaseModel):
    """The parameters or the body of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


M = TypeVar("M", bound=Asked)


def answered(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return JSON data as an answer, with secrets and personal data masked."""
    return JSONResponse(GATE.data(data), status, headers)


def parameters(request: Request, model: type[M]) -> M:
    """Return the parameters in the query of a request.

    Raises:
        RequestRefused: one is unknown, comes twice, or has a value that cannot be used.
    """
    given: dict[str, Any] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        several = name in model.model_fields and _takes_several(model.model_fields[name].annotation)
        if len(values) > 1 and not several:
            raise RequestRefused(f"the parameter {repr_short(name)} comes {len(values)} times", where=name)
        given[name] = values if several else values[0]
    return _checked(model, given, "the parameter ", "", is_json=False)


async def body(request: Request, model: type[M]) -> M:
    """Return the JSON body of a request; a body that is empty is `{}`.

    Raises:
        MediaTypeRefused: it is not `application/json`.
        BodyTooLarge: it is larger than its endpoint takes.
        RequestRefused: it is not a JSON object, or a field is unknown or cannot be used.
    """
    data = await content(request, "application/json")
    return _checked(model, json_object(data) if data else {}, "the field ", "body.")


def json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is.

    Raises:
        RequestRefused: it is something else.
    """
    try:
        found = read_json(data.decode(), option="the body")
    except UnicodeDecodeError as error:
        raise RequestRefused(f"the body is not UTF-8: byte {error.start} is not", where="body") from None
    except InputRejected as error:
        raise RequestRefused(error.message, hint="send a JSON object", where="body") from None
    if not isinstance(found, dict):
        raise RequestRefused(f"the body is {repr_short(found)}, not a JSON object", where="body")
    return found


async def content(request: Request, media_type: str) -> bytes:
    """Return the body of a request as it is.

    Args:
        request: the request.
        media_type: the type that a body must have, also an empty one.

    Raises:
        MediaTypeRefused: the body is of another type.
        BodyTooLarge: it is larger than its endpoint takes; the rest is not read.
    """
    data = await request.body()
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Also of an empty body: a page of another origin cannot send this type without asking the server.
    if said != media_type:
        raise MediaTypeRefused(
            f"the body is {repr_short(said) if said else 'of no type'}, and this takes {media_type}",
            hint=f"send the header `Content-Type: {media_type}`",
            where="content-type",
        )
    return data


def _checked(model: type[M], given: dict[str, Any], what: str, prefix: str, *, is_json: bool = True) -> M:
    try:
        return model.model_validate(given, strict=is_json)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(map(str, first["loc"])) if is_json else str(first["loc"][0])
    if first["type"] == "missing":
        raise RequestRefused(f"{what}{repr_short(path)} is missing", where=prefix + path)
    if first["type"] == "extra_forbidden":
        known = suggest(path, model.model_fields, what="there are") or "leave it out"
        raise RequestRefused(f"{what}{repr_short(path)} is unknown", hint=known, where=prefix + path)
    raise RequestRefused(
        f"{what}{repr_short(path)} cannot be used: {first['msg'][:1].lower()}{first['msg'][1:]}",
        where=prefix + path,
    )


def _takes_several(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list or any(map(_takes_several, typing.get_args(annotation)))
