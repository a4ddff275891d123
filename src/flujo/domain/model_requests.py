"""One request to a model, as telemetry shows it."""

from __future__ import annotations

from dataclasses import dataclass

from flujo.domain.usage import NOTHING, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """A request that a model has answered, or that has failed."""

    provider: str
    """The provider by pydantic-ai's name, for instance `openai`."""
    model: str
    """The requested model."""
    started_at: float
    """Seconds since the epoch."""
    ended_at: float
    usage: Usage = NOTHING
    answered_by: str | None = None
    """The model id that the provider reports."""
    response_id: str | None = None
    finish_reason: str | None = None
    error: str | None = None
    """The class of the exception, if the request has failed."""
