"""A pydantic-ai model that adds up what its responses used and cost, and asks for JSON without parsing it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import AgentRunError, ModelConnectionError, ModelRequestTimeout, UserError
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings

from flujo.agents.failures import cause_of
from flujo.domain.usage import MICRO_USD, NOTHING, Usage
from flujo.exceptions import ControlSignal, FlujoError, ModelUnavailable
from flujo.governance.redactor import Redactor

_SORTED = (AgentRunError, UserError, FlujoError, ControlSignal)


class MeteredModel(WrapperModel):
    """One ask's view of a model.

    pydantic-ai would parse a structured answer itself and ask again by its own rules. Here it sees an agent
    that answers text, while the request still carries the schema: the provider's JSON mode where the model
    has one, otherwise in the instructions.

    Args:
        wrapped: the provider's model.
        schema: what the answer is to fit, or None for text.
        json_mode: whether to use the provider's JSON mode where there is one.
        is_free: whether requests cost nothing (a model on this machine).
        redact: takes secrets out of what is said about errors.
    """

    def __init__(
        self,
        wrapped: Model,
        *,
        schema: dict[str, Any] | None,
        json_mode: bool,
        is_free: bool,
        redact: Redactor,
    ) -> None:
        super().__init__(wrapped)
        self.redact = redact
        self.schema = schema
        self.json_mode = json_mode
        self.is_free = is_free
        self.spent: Usage = NOTHING
        self.answered_by: str | None = None

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the model, and count its response."""
        parameters = self._asking_for_json(model_request_parameters)
        try:
            response = await self.wrapped.request(messages, model_settings, parameters)
        except BaseException as error:
            self._count_lost(error)
            self._refuse_strange(error)
            raise
        self._count(response)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Ask the model for a stream, and count its response when the stream ends, however it ends."""
        parameters = self._asking_for_json(model_request_parameters)
        stream = None
        try:
            async with self.wrapped.request_stream(
                messages, model_settings, parameters, run_context
            ) as stream:
                yield stream
        except BaseException as error:
            if stream is None:
                self._count_lost(error)
            self._refuse_strange(error)
            raise
        finally:
            if stream is not None:
                self._count(stream.get())

    def _asking_for_json(self, parameters: ModelRequestParameters) -> ModelRequestParameters:
        if self.schema is None:
            return parameters
        native = self.json_mode and self.wrapped.profile.get("supports_json_schema_output", False)
        return replace(
            parameters,
            output_mode="native" if native else "prompted",
            output_object=OutputObjectDefinition(json_schema=self.schema, name="answer"),
        )

    def _count(self, response: ModelResponse) -> None:
        cost = 0 if self.is_free else _cost(response)
        self.answered_by = response.model_name or self.answered_by
        self.spent += Usage(
            input_tokens=response.usage.input_tokens,
            output_tokens=response.usage.output_tokens,
            requests=1,
            tool_calls=sum(isinstance(part, ToolCallPart) for part in response.parts),
            cost_micro_usd=cost or 0,
            unpriced_requests=int(cost is None),
        )

    def _count_lost(self, error: BaseException) -> None:
        """Count a request that was sent and never answered: nobody told us what it cost, and it may have."""
        sent = isinstance(error, ModelRequestTimeout | asyncio.CancelledError) or (
            isinstance(error, ModelConnectionError) and error.phase not in ("pool", "connect")
        )
        if sent:
            self.spent += Usage(requests=1, unpriced_requests=0 if self.is_free else 1)

    def _refuse_strange(self, error: BaseException) -> None:
        """Raise our own error for one that the provider's client does not sort: it is foreign code."""
        if not isinstance(error, Exception) or isinstance(error, _SORTED):
            return
        said = self.redact(f"{type(error).__name__}: {error}")
        raise ModelUnavailable(
            f"model {self.wrapped.model_name!r} gave a response that its client cannot read: {said}",
            hint="check that the provider's base URL speaks the provider's protocol",
            status=None,
            provider=self.wrapped.system,
            retryable=True,
        ) from cause_of(error, self.redact)


def _cost(response: ModelResponse) -> int | None:
    """Return the cost in millionths of a dollar, or None when nobody knows it."""
    try:
        price = response.cost().total_price
    except (LookupError, ValueError, AssertionError):
        return None
    return round(price * MICRO_USD)
