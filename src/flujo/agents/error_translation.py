"""Translates errors of pydantic-ai and providers into Flujo's errors, with status, hint and `retryable`."""

from collections.abc import Mapping
from typing import Any

from pydantic_ai import exceptions as theirs

from flujo.domain.wording import short
from flujo.exceptions import AgentError, ModelUnavailable, OutputRejected, ProviderUnavailable
from flujo.governance.sink import GATE

_FINAL = (theirs.ModelRequestRejectedError, theirs.ModelQuotaExceededError)
"""Errors that every attempt meets again. Any other error of a provider may be temporary."""


def translated(
    error: theirs.AgentRunError | theirs.UserError,
    *,
    agent: str,
    model: str,
    key_name: str | None,
    address: str | None,
) -> AgentError:
    """Return Flujo's error for `error`.

    Args:
        error: the exception of pydantic-ai.
        agent: the agent's name.
        model: its model, as `provider:model`.
        key_name: the environment variable that holds the provider's key.
        address: the base URL of its API, when it has one.
    """
    provider = model.partition(":")[0]
    subject = f"agent {agent!r}: model {model!r}"
    if isinstance(error, theirs.ModelAPIError):
        what, hint = _of_api_error(error, key_name, address)
        facts: dict[str, Any] = {
            "status": getattr(error, "status_code", None),
            "provider": provider,
            "retryable": not isinstance(error, _FINAL),
            "retry_after_s": error.retry_after,
        }
        return ModelUnavailable(GATE.text(f"{subject} {what}"), hint=hint, **facts)
    if isinstance(error, theirs.ContentFilterError):
        return OutputRejected(
            f"{subject} refused to answer: its content filter withheld the answer",
            hint="check the prompt, or use another model",
            retryable=False,
        )
    if isinstance(error, theirs.UnexpectedModelBehavior):
        return OutputRejected(
            GATE.text(f"{subject} gave an answer that cannot be used: {error.message}"),
            hint="make `instructions` more precise, or use a larger model",
            retryable=True,
        )
    return ProviderUnavailable(
        GATE.text(f"{subject} cannot be used: {error}"),
        hint="check the agent's `model`, `model_settings` and `tools`",
        provider=provider,
        retryable=False,
    )


def cause_of(error: Exception) -> Exception | None:
    """Return `error` as the cause to keep, or None when its text contains a secret (a traceback shows it)."""
    return error if GATE.text(str(error)) == str(error) else None


def _of_api_error(error: theirs.ModelAPIError, key_name: str | None, address: str | None) -> tuple[str, str]:
    """Return the problem and a hint."""
    detail = _provider_message(error.body)
    status = f" (HTTP {error.status_code})" if isinstance(error, theirs.ModelHTTPError) else ""
    match error:
        case theirs.ModelAuthenticationError():
            what = f"refused the key{status}{detail}"
            hint = f"check the key in {key_name}" if key_name else "check the provider's credentials"
        case theirs.ModelNotFoundError():
            what = f"is unknown to its provider{status}{detail}"
            like = getattr(error, "suggested_model_id", None)
            hint = f"did you mean {like!r}?" if like else "check the model's name in `model:`"
        case _ if _is_too_long(error):
            what = f"has too small a context window for this prompt{status}{detail}"
            hint = (
                "shorten the step's `input:` or the instructions, or use a model with a larger context window"
            )
        case theirs.ModelQuotaExceededError():
            what = f"is out of quota{status}{detail}"
            hint = "check the account's plan and billing"
        case theirs.ModelRateLimitError():
            what = f"is rate limited{status}{detail}"
            hint = "wait, or give the step `config: {max_retries: 3}`"
        case theirs.ModelTimeoutError() | theirs.ModelRequestTimeout():
            what = "did not answer in time"
            hint = "raise `model_settings: {timeout: …}`, or give the step `config: {max_retries: 3}`"
        case theirs.ModelConnectionError(phase="write" | "read"):
            what = "closed the connection before its answer was complete"
            hint = "the provider or a proxy failed: try again, or give the step `config: {max_retries: 3}`"
        case theirs.ModelConnectionError():
            what = f"cannot be reached at {address}" if address else "cannot be reached"
            hint = "check the network, and the provider's base URL if you have set one"
        case theirs.ModelRequestRejectedError():
            what = f"rejected the request{status}{detail}"
            hint = "check the agent's `model_settings`, `output_schema` and `tools`, and the step's `files`"
        case _:
            detail = detail or ("" if status else f": {short(error.message, 300)}")
            what = f"failed{status}{detail}"
            hint = "the provider has a problem: try again later, or give the step `config: {max_retries: 3}`"
    return what, hint


def _is_too_long(error: theirs.ModelAPIError) -> bool:
    # the error type of llama.cpp, which pydantic-ai does not classify
    return (
        isinstance(error, theirs.ModelContextWindowExceededError)
        or error.provider_error_type == "exceed_context_size_error"
    )


def _provider_message(body: object) -> str:
    """Return the provider's message, shortened, or the empty string."""
    found: object = body
    for key in ("error", "message"):
        if isinstance(found, Mapping) and key in found:
            found = found[key]
    if not isinstance(found, str) or not found.strip():
        return ""
    return f": {short(' '.join(found.split()), 300)}"
