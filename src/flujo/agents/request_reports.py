"""Reports each request to a model to the telemetry of its step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from flujo.domain.current_step import ON_REQUEST
from flujo.domain.model_requests import ModelRequest
from flujo.domain.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pydantic_ai.messages import ModelResponse


class RequestReport:
    """Reports the request that its block makes, also when it fails; nothing when no telemetry listens.

    Args:
        provider: the provider by pydantic-ai's name.
        model: the requested model.
        spent: returns the usage so far, before and after the request.
    """

    def __init__(self, provider: str, model: str, spent: Callable[[], Usage]) -> None:
        self._provider = provider
        self._model = model
        self._spent = spent
        self._listener = ON_REQUEST.get()
        self._before = Usage()
        self._started_at = 0.0
        self.response: ModelResponse | None = None
        """Set in the block."""

    def __enter__(self) -> Self:
        self._before, self._started_at = self._spent(), time.time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._listener is None:
            return
        said = self.response
        self._listener(
            ModelRequest(
                provider=self._provider,
                model=self._model,
                started_at=self._started_at,
                ended_at=time.time(),
                usage=self._spent().beyond(self._before),
                answered_by=None if said is None else said.model_name,
                response_id=None if said is None else said.provider_response_id,
                finish_reason=None if said is None else said.finish_reason,
                error=None if kind is None else kind.__name__,
            )
        )
