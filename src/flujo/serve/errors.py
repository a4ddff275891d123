"""Errors as answers: problem details (RFC 9457) for programs, a page for people."""

from __future__ import annotations

from http import HTTPStatus
from math import isfinite
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from flujo import exceptions as ex
from flujo.governance.sink import GATE
from flujo.serve.endpoints import API_PREFIX
from flujo.serve.pages.rendering import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

_STATUSES: tuple[tuple[type[ex.FlujoError], int], ...] = (
    (ex.TokenRefused, 401),
    (ex.LoginRequired, 401),
    (ex.LoginRefused, 401),
    (ex.OriginRefused, 403),
    (ex.TooManyRequests, 429),
    (ex.AccessDenied, 403),
    (ex.RunNotFound, 404),
    (ex.BodyTooLarge, 413),
    (ex.MediaTypeRefused, 415),
    (ex.MessageNotFound, 404),
    (ex.WebhookNotSigned, 401),
    (ex.WebhookUnknown, 404),
    (ex.InputRejected, 422),
    (ex.EventRefused, 409),
    (ex.AmbiguousPause, 409),
    (ex.WrongPauseKind, 409),
    (ex.ForkRefused, 409),
    (ex.WaitTimedOut, 409),
    (ex.ForkPointMissing, 400),
    (ex.QueueUnknown, 400),
    (ex.ProviderNotGiven, 400),
    (ex.ReferenceMissing, 404),
    (ex.ProviderFailed, 503),
    (ex.SecretInValue, 422),
    (ex.NotJournalable, 422),
    (ex.DatabaseMissing, 503),
    (ex.ResumeConflict, 409),
    (ex.RunConflict, 409),
    (ex.EventConflict, 409),
    (ex.StateBackendUnavailable, 503),
    (ex.StateBackendFull, 503),
    (ex.SchemaOutdated, 503),
    (ex.SchemaTooNew, 503),
    (ex.SettingsError, 400),
    (ex.BlueprintError, 422),
)
"""The first matching class decides; other errors are faults of the server."""


async def shown(request: Request, error: Exception) -> Response:
    """Answer with an error of Flujo."""
    assert isinstance(error, ex.FlujoError)  # noqa: S101 - registered for this class alone
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    facts = {name: value for name, value in error.facts.items() if _is_json(value)}
    # A webhook is signed: a token would not help its sender.
    takes_token = status == HTTPStatus.UNAUTHORIZED and not isinstance(error, ex.WebhookNotSigned)
    headers = {"WWW-Authenticate": "Bearer"} if takes_token else {}
    if isinstance(error, ex.TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_s)
    return _answer(
        request, status, error.message, code=error.code, hint=error.hint, facts=facts or None, headers=headers
    )


async def refused(request: Request, error: Exception) -> Response:
    """Answer with an error of HTTP, such as an unknown path."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    return _answer(request, error.status_code, error.detail, headers=error.headers)


def broken(request: Request, reference: str) -> Response:
    """Answer that the server failed. What happened is in its log, under the reference."""
    return _answer(request, 500, "this server failed", hint=f"its log has the reason under [{reference}]")


def _answer(
    request: Request,
    status: int,
    detail: str,
    *,
    code: str | None = None,
    hint: str | None = None,
    facts: Mapping[str, Any] | None = None,
    headers: Any = None,
) -> Response:
    problem = GATE.data({"title": detail, "status": status, "code": code, "hint": hint, "facts": facts})
    if request.url.path.startswith(f"{request.scope.get('root_path', '')}{API_PREFIX}"):
        problem = {name: value for name, value in problem.items() if value is not None}
        return JSONResponse(problem, status, headers, media_type="application/problem+json")
    return page(request, "error.html", status=status, headers=headers, problem=problem)


def _is_json(value: Any) -> bool:
    """Return whether a fact of an error is plain data, such as the id of a run, and not an object."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return (
        value is None or isinstance(value, str | int | bool) or (isinstance(value, float) and isfinite(value))
    )
