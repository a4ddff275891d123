"""The OpenAPI document, from the table of endpoints.

The models that check requests also describe them, and answers have the types of the functions that make them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter

from flujo import __version__
from flujo.domain.access import Right
from flujo.serve.api.requests import Asked, answered, parameters
from flujo.serve.endpoints import API_PREFIX, Endpoint, Operation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import BaseModel
    from starlette.requests import Request
    from starlette.responses import Response

_ABOUT = (
    "Runs, their questions and their events. `GET /healthz` and `GET /readyz` are not in this document: they "
    "are for what starts and watches the server, need no token, and answer with 200 while the process is "
    "alive, and while its database can be used."
)
_PROBLEM = {
    "type": "object",
    "description": "Why a request was refused (RFC 9457).",
    "required": ["title", "status"],
    "properties": {
        "title": {"type": "string", "description": "What is wrong, and where."},
        "status": {"type": "integer", "description": "The status of the answer."},
        "code": {
            "type": "string",
            "description": "The code of the error, for `flujo explain`.",
        },
        "hint": {"type": "string", "description": "What to do."},
        "facts": {"type": "object", "description": "What else is known, such as `won` of a late answer."},
    },
}


async def show_document(request: Request) -> Response:
    """Answer with the document."""
    parameters(request, Asked)
    return answered(document(request.app.state.endpoints, request.scope.get("root_path", "")))


def document(endpoints: Sequence[Endpoint], base: str = "") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of those endpoints that have an operation.

    Args:
        endpoints: the table of the server.
        base: the path under which the server is.
    """
    paths: dict[str, dict[str, Any]] = {}
    operations = [each.operation for each in endpoints if each.operation is not None]
    types = {shape: None for each in operations for shape in (each.shape, each.later) if shape is not None}
    schemas, named = _of_types(*types)
    for each in endpoints:
        if each.operation is not None:
            paths.setdefault(each.path, {})[each.method.lower()] = _described(each, each.operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flujo",
            "version": __version__,
            "description": _ABOUT,
        },
        "servers": [{"url": base or "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `flujo tokens create`. A local server needs none.",
                }
            },
            "schemas": {"Problem": _PROBLEM, **named},
        },
    }


@cache
def _of_types(*types: Any) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return the schema of each type, and the schemas that these name."""
    # The configuration of one type around all of them is that of each: a `TypedDict` takes none from outside.
    adapter = TypeAdapter(tuple[types], config=ConfigDict(use_attribute_docstrings=True))  # type: ignore[valid-type]
    found = _plain(adapter.json_schema(ref_template="#/components/schemas/{model}", mode="serialization"))
    return dict(zip(types, found["prefixItems"], strict=True)), found["$defs"]


def _described(endpoint: Endpoint, operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    schema = _schema(operation.takes)
    takes_body = endpoint.changes and (operation.takes is not None or operation.body != "application/json")
    text = {"schema": schemas.get(operation.shape, {"type": "object"})}
    described = {
        "operationId": endpoint.answer.__name__,
        "summary": operation.summary,
        "description": (endpoint.answer.__doc__ or "").strip(),
        "parameters": [
            *_in_path(endpoint.path),
            *([] if endpoint.changes else _in_query(schema)),
            *(
                {"name": name, "in": "header", "description": what, "schema": {"type": "string"}}
                for name, what in operation.headers.items()
            ),
        ],
        "responses": {
            str(operation.status): {
                "description": "Done.",
                "content": {operation.answers: text if operation.answers == "application/json" else {}},
            },
            **_later(operation, schemas),
            "default": {
                "description": "It was refused, and nothing was changed.",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
        "x-right": None if endpoint.right is None else str(endpoint.right),
    }
    if endpoint.right is None:
        described["security"] = []
    if takes_body:
        content = {operation.body: {"schema": schema if operation.takes is not None else {}}}
        described["requestBody"] = {"required": bool(schema.get("required")), "content": content}
    return described


def _later(operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the answer for a run that takes longer than its request waits."""
    if operation.later is None:
        return {}
    content = {"application/json": {"schema": schemas[operation.later]}}
    return {"202": {"description": "The run continues.", "content": content}}


def _schema(model: type[BaseModel] | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if model is None else _plain(model.model_json_schema())
    return found


def _plain(value: Any) -> Any:
    """Return a schema without titles that repeat names, and without defaults that say nothing."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if isinstance(properties := value.get("properties"), dict):
        value = {**value, "properties": {name: _plain(each) for name, each in properties.items()}}
        return {name: each for name, each in value.items() if name != "title"}
    kept = {
        name: each for name, each in value.items() if name != "title" and (name, each) != ("default", None)
    }
    return {name: each if name == "default" else _plain(each) for name, each in kept.items()}


def _in_path(path: str) -> Iterator[Mapping[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _in_query(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, each in schema.get("properties", {}).items():
        about = {key: each[key] for key in ("description",) if key in each}
        kind = {key: value for key, value in each.items() if key != "description"}
        some = [one for one in kind.get("anyOf", ()) if one != {"type": "null"}]
        kind = some[0] if len(some) == 1 else {"anyOf": some} if some else kind
        is_json = kind.get("type") == "object"
        said = {"content": {"application/json": {"schema": kind}}} if is_json else {"schema": kind}
        yield {"name": name, "in": "query", "required": name in schema.get("required", ()), **about, **said}


ENDPOINTS = (
    Endpoint(
        "GET",
        f"{API_PREFIX}/openapi.json",
        show_document,
        Right.READ,
        Operation("Describe the API", Asked),
    ),
)
