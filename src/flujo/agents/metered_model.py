"""A pydantic-ai model that reserves budget before each request, counts usage, and leaves answers unparsed."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import AgentRunError, ModelConnectionError, ModelRequestTimeout, UserError
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage
from pydantic_core import to_json

from flujo.agents.error_translation import cause_of
from flujo.domain.agents import Meter, Reservation
from flujo.domain.usage import MICRO_USD, NOTHING, Usage
from flujo.exceptions import AnswerUnbounded, ControlSignal, FlujoError, ModelUnavailable, PriceUnknown
from flujo.governance.sink import GATE

_SORTED = (AgentRunError, UserError, FlujoError, ControlSignal)
_AROUND = 256
"""Tokens that a provider may add to a request: roles, separators, a sentence about JSON."""


class MeteredModel(WrapperModel):
    """A model for one `ask`.

    pydantic-ai would parse a structured answer itself and retry by its own rules. Here it sees an agent
    that answers text, while the request still contains the schema: in the provider's JSON mode where the
    model has one, otherwise in the instructions.

    Args:
        wrapped: the provider's model.
        schema: the schema of the answer, or None for text.
        json_mode: whether to use the provider's JSON mode where there is one.
        is_free: whether requests cost nothing (a local model).
        meter: reserves budget for each request before it is made.
    """

    def __init__(
        self,
        wrapped: Model,
        *,
        schema: dict[str, Any] | None,
        json_mode: bool,
        is_free: bool,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(wrapped)
        self.schema = schema
        self.json_mode = json_mode
        self.is_free = is_free
        self.meter = meter
        self.spent: Usage = NOTHING
        self.answered_by: str | None = None

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Send a request, and count the usage of its response."""
        parameters = self._asking_for_json(model_request_parameters)
        reserved = await self._reserve(messages, model_settings, parameters)
        try:
            response = await self.wrapped.request(messages, model_settings, parameters)
        except BaseException as error:
            self._count_lost(error, reserved)
            self._refuse_strange(error)
            raise
        await self._count(response, reserved)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Send a request with streaming, and count the usage when the stream ends or breaks off."""
        parameters = self._asking_for_json(model_request_parameters)
        reserved = await self._reserve(messages, model_settings, parameters)
        stream = None
        try:
            async with self.wrapped.request_stream(
                messages, model_settings, parameters, run_context
            ) as stream:
                yield stream
        except BaseException as error:
            if stream is None:
                self._count_lost(error, reserved)
            else:
                self._count_cut_off(stream.get(), reserved)
            self._refuse_strange(error)
            raise
        await self._count(stream.get(), reserved)

    def _asking_for_json(self, parameters: ModelRequestParameters) -> ModelRequestParameters:
        if self.schema is None:
            return parameters
        native = self.json_mode and self.wrapped.profile.get("supports_json_schema_output", False)
        return replace(
            parameters,
            output_mode="native" if native else "prompted",
            output_object=OutputObjectDefinition(json_schema=self.schema, name="answer"),
        )

    async def _reserve(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> Reservation | None:
        """Reserve the largest possible usage of a request: one token per byte, and the longest answer.

        Raises:
            BudgetError: the budget has no room for it, or the largest usage is unknown.
        """
        if self.meter is None:
            return None
        settings = {**(self.wrapped.settings or {}), **(model_settings or {})}
        longest = settings.get("max_tokens")
        if longest is None and self.meter.bounds_answers:
            raise AnswerUnbounded(
                "the budget limits cost or tokens, and the length of the answer of "
                f"{self.model_name!r} is not limited",
                model=self.model_name,
            )
        sent = len(to_json(messages)) + len(to_json(parameters, serialize_unknown=True)) + _AROUND
        used = RequestUsage(
            input_tokens=sent,
            output_tokens=longest or 0,
            # writing to a provider's cache costs more than reading from it
            cache_write_tokens=sent if any("cache" in key for key in settings) else 0,
        )
        price = self._price(used, math.ceil)
        if price is None and self.meter.refuses_unpriced:
            raise PriceUnknown(
                f"the budget limits cost, and the price of model {self.model_name!r} is unknown",
                model=self.model_name,
            )
        return await self.meter.reserve(_usage(used, price))

    async def _count(self, response: ModelResponse, reserved: Reservation | None) -> None:
        """Count a response and its tool calls, before the first tool is called.

        Raises:
            UsageLimitExceeded: the budget does not allow the tool calls.
        """
        used = self._used(response)
        if reserved is not None and response.usage.unmeasured_requests:
            reserved.lose(used)  # the provider did not report the usage
        elif reserved is not None:
            reserved.settle(used)
        tool_calls = sum(isinstance(part, ToolCallPart) for part in response.parts)
        if tool_calls and self.meter is not None:
            await self.meter.call_tools(tool_calls)
        self.spent += Usage(tool_calls=tool_calls)

    def _count_cut_off(self, response: ModelResponse, reserved: Reservation | None) -> None:
        """Count an interrupted response, which may have cost more than it reports."""
        used = self._used(response)
        if reserved is not None:
            reserved.lose(used)

    def _used(self, response: ModelResponse) -> Usage:
        """Return the usage of a response, and add it to `spent`."""
        price = 0 if self.is_free else _cost(response, round)
        if price is None:  # a provider may answer with a model name that has no known price
            price = self._price(response.usage, round)
        used = _usage(response.usage, price)
        self.answered_by = response.model_name or self.answered_by
        self.spent += used
        return used

    def _count_lost(self, error: BaseException, reserved: Reservation | None) -> None:
        """Count a request without a response: it may have cost something, and the amount is unknown."""
        sent = isinstance(error, ModelRequestTimeout | asyncio.CancelledError) or (
            isinstance(error, ModelConnectionError) and error.phase not in ("pool", "connect")
        )
        if sent:
            known = Usage(requests=1, unpriced_requests=0 if self.is_free else 1)
            self.spent += known
            if reserved is not None:
                reserved.lose(known)
        elif reserved is not None:
            reserved.settle(NOTHING)

    def _price(self, used: RequestUsage, rounded: Callable[[Decimal], int]) -> int | None:
        """Return the price of `used` for the requested model."""
        if self.is_free:
            return 0
        asked = ModelResponse(
            parts=[],
            usage=used,
            model_name=self.wrapped.model_name,
            provider_name=self.wrapped.system,
            provider_url=self.wrapped.base_url,
        )
        return _cost(asked, rounded)

    def _refuse_strange(self, error: BaseException) -> None:
        """Raise Flujo's error for an exception that the provider's client does not translate."""
        if not isinstance(error, Exception) or isinstance(error, _SORTED):
            return
        detail = GATE.text(f"{type(error).__name__}: {error}")
        raise ModelUnavailable(
            f"model {self.wrapped.model_name!r} gave a response that its client cannot read: {detail}",
            hint="check that the provider's base URL speaks the provider's protocol",
            status=None,
            provider=self.wrapped.system,
            retryable=True,
        ) from cause_of(error)


def _cost(response: ModelResponse, rounded: Callable[[Decimal], int]) -> int | None:
    """Return the cost in millionths of a dollar, or None when the price is unknown."""
    try:
        price = response.cost().total_price
    except (LookupError, ValueError, AssertionError):
        return None
    return rounded(price * MICRO_USD)


def _usage(used: RequestUsage, price: int | None) -> Usage:
    return Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        requests=1,
        cost_micro_usd=price or 0,
        unpriced_requests=int(price is None),
    )
