"""A pydantic-ai model that makes one request at a time, within the budget, and leaves answers unparsed.

Each request is sent once: Flujo turns off the retries of the providers' clients, because a retry needs room
in the budget too. A request costs what its answer reports. Without a report that can be believed, it counts
at its worst case, as unconfirmed.
"""

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import AgentRunError, ModelConnectionError, ModelHTTPError, UserError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage
from pydantic_core import to_json

from flujo.agents.answer_tool import with_answer_tool
from flujo.agents.attachments import tokens_of, without_files
from flujo.agents.error_translation import cause_of
from flujo.agents.request_limits import RequestLimits, Slot
from flujo.agents.settings import StructuredOutput
from flujo.domain.agents import Meter, Reservation
from flujo.domain.prices import Price
from flujo.domain.usage import MICRO_USD, NOTHING, Usage
from flujo.domain.wording import short
from flujo.exceptions import (
    AnswerUnbounded,
    ControlSignal,
    FlujoError,
    ModelUnavailable,
    OutputRejected,
    OutputTruncated,
    PriceUnknown,
)
from flujo.governance.logs import logger
from flujo.governance.sink import GATE

log = logger("flujo.agents")

MOST_TOKENS = 1_000_000_000
"""The largest believable count of a provider for one request: a thousand times today's context windows."""

_SORTED = (AgentRunError, UserError, FlujoError, ControlSignal)
_AROUND = 256
"""Tokens that a provider may add to a request: roles, separators, a sentence about JSON."""
_NOT_SENT = ("pool", "connect")
"""The phases of a request before its first byte is sent."""
_MAY_HAVE_ACTED = (408, 409, 425, 499)
"""The 4xx statuses after which a provider may have worked: a time-out, a conflict, a closed connection."""
_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "incomplete"})
"""Reasons for the end of a cut answer, also of servers that copy another API's words."""
_NO_RAW_FINISH_REASON = ("snowflake", "xai")
"""Providers whose streams are complete without a finish reason of their own."""


class MeteredModel(WrapperModel):
    """A model for one `ask`.

    pydantic-ai would parse a structured answer itself and retry by its own rules. Here it sees an agent
    that answers text, while the request still contains the schema: in the provider's JSON mode where the
    model has one, in a tool, or otherwise in the instructions.

    Args:
        wrapped: the provider's model.
        schema: the schema of the answer, or None for text.
        mode: the way in which the request contains the schema.
        is_free: whether requests cost nothing (a local model).
        price: the price that the project sets; None for that of the provider's list.
        meter: reserves budget for each request before it is made.
        limits: what the provider allows; each request waits for it before its budget is reserved.
    """

    def __init__(
        self,
        wrapped: Model,
        *,
        schema: dict[str, Any] | None,
        mode: StructuredOutput,
        is_free: bool,
        price: Price | None = None,
        meter: Meter | None = None,
        limits: RequestLimits | None = None,
    ) -> None:
        super().__init__(wrapped)
        self.schema = schema
        self.mode = mode
        self.is_free = is_free and price is None
        self.price = price
        self.meter = meter
        self.limits = limits
        self.spent: Usage = NOTHING
        self.answered_by: str | None = None
        self.refused: ModelResponse | None = None
        """A response that was cut off or withheld."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Send a request, and count the usage of its response."""
        parameters = self._asking_for_json(model_request_parameters)
        async with self._reserved(messages, model_settings, parameters) as reserved:
            try:
                response = await self.wrapped.request(messages, self._sent_once(model_settings), parameters)
            except BaseException as error:
                self._count_failed(error, reserved)
                self._refuse_strange(error)
                raise
            self._count(response, reserved, model_settings)
            return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Send a request with streaming, and count the usage when the stream ends or breaks off.

        Raises:
            ModelUnavailable: the stream ended before its answer was complete.
        """
        parameters = self._asking_for_json(model_request_parameters)
        stream = None
        async with self._reserved(messages, model_settings, parameters) as reserved:
            try:
                async with self.wrapped.request_stream(
                    messages, self._sent_once(model_settings), parameters, run_context
                ) as stream:
                    yield stream
                self._refuse_partial(stream.get())
            except BaseException as error:
                if stream is None:
                    self._count_failed(error, reserved)
                else:
                    self._charge(self._known(stream.get()), reserved, is_all=False)
                self._refuse_strange(error)
                raise
            self._count(stream.get(), reserved, model_settings)

    def _sent_once(self, model_settings: ModelSettings | None) -> ModelSettings:
        """Return settings with which the provider's client sends a request once."""
        settings = ModelSettings(**(model_settings or {}))
        # pydantic-ai replaces the headers of a model by those of a request.
        headers = {
            **(self.wrapped.settings or {}).get("extra_headers", {}),
            **settings.get("extra_headers", {}),
        }
        if headers:
            settings["extra_headers"] = headers
        if "max_retries" not in self.wrapped.unsupported_settings:
            settings["max_retries"] = 0
        return settings

    def _asking_for_json(self, parameters: ModelRequestParameters) -> ModelRequestParameters:
        if self.schema is None:
            return parameters
        if self.mode == "tool" and self.wrapped.profile.get("supports_tools", True):
            return with_answer_tool(parameters, self.schema)
        native = self.mode == "openai_json" and self.wrapped.profile.get("supports_json_schema_output", False)
        return replace(
            parameters,
            output_mode="native" if native else "prompted",
            output_object=OutputObjectDefinition(json_schema=self.schema, name="answer"),
        )

    @asynccontextmanager
    async def _reserved(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> AsyncGenerator["_Reserved"]:
        """Reserve the largest possible usage of a request, first at its provider and then in the budget.

        Raises:
            BudgetError: the budget has no room for it, or the largest usage is unknown.
        """
        if self.meter is None and self.limits is None:
            yield _Reserved()
            return
        settings = {**(self.wrapped.settings or {}), **(model_settings or {})}
        worst = self._worst_case(messages, settings, parameters)
        turn: AbstractAsyncContextManager[Slot | None] = (
            nullcontext()
            if self.limits is None
            else self.limits.slot(worst.input_tokens + worst.output_tokens)
        )
        async with turn as slot:
            try:
                reservation = await self._reserve(worst)
            except BaseException:
                _Reserved(slot).settle(NOTHING)  # the request will not be sent
                raise
            yield _Reserved(slot, reservation)

    def _worst_case(
        self, messages: list[ModelMessage], settings: dict[str, Any], parameters: ModelRequestParameters
    ) -> RequestUsage:
        """Return the largest possible usage of a request: one token per byte, and the longest answer.

        The tokens of images, PDF files and audio are estimated.

        Raises:
            AnswerUnbounded: the budget needs the length of the longest answer, which has no limit.
        """
        longest = settings.get("max_tokens")
        if not isinstance(longest, int) or longest <= 0:
            longest = None  # the provider will refuse it
        if longest is None and self.meter is not None and self.meter.bounds_answers:
            raise AnswerUnbounded(
                "the budget limits cost or tokens, and the length of the answer of "
                f"{self.model_name!r} is not limited",
                model=self.model_name,
            )
        sent = len(to_json(without_files(messages))) + tokens_of(messages, self.model_name)
        sent += len(to_json(parameters, serialize_unknown=True)) + _AROUND
        return RequestUsage(
            input_tokens=sent,
            output_tokens=longest or 0,
            # writing to a provider's cache costs more than reading from it
            cache_write_tokens=sent if any("cache" in key for key in settings) else 0,
        )

    async def _reserve(self, used: RequestUsage) -> Reservation | None:
        """Reserve the largest possible usage of a request in the budget."""
        if self.meter is None:
            return None
        price = self._price(used, math.ceil)
        if price is None and self.meter.refuses_unpriced:
            raise PriceUnknown(
                f"the budget limits cost, and the price of model {self.model_name!r} is unknown",
                model=self.model_name,
            )
        return await self.meter.reserve(_usage(used, price))

    def _count(
        self, response: ModelResponse, reserved: "_Reserved", model_settings: ModelSettings | None
    ) -> None:
        """Count the usage of a response.

        Raises:
            OutputTruncated: it was cut off at a limit of its length.
            OutputRejected: the provider withheld it.
        """
        is_believable = _is_believable(response)
        if not is_believable:
            log.warning(
                "model %r reported no usage that can be believed: the request counts at its worst case",
                self.model_name,
            )
        self._charge(self._known(response), reserved, is_all=is_believable)
        self.refused = response
        self._refuse_unfinished(response, model_settings)
        self.refused = None

    def _count_failed(self, error: BaseException, reserved: "_Reserved") -> None:
        """Count a request without a response."""
        if _is_unsent(error):
            self._charge(NOTHING, reserved, is_all=True)
        else:
            self._charge(Usage(requests=1), reserved, is_all=_is_refused(error))

    def _charge(self, known: Usage, reserved: "_Reserved", *, is_all: bool) -> None:
        """Count what is known of a request's usage; if that is not all, the rest stays at its worst case."""
        if not is_all and not self.is_free:
            known = replace(known, unpriced_requests=1)
        self.spent += known
        (reserved.settle if is_all else reserved.lose)(known)

    def _known(self, response: ModelResponse) -> Usage:
        """Return the believable part of a response's usage."""
        self.answered_by = response.model_name or self.answered_by
        counts = response.usage
        price = self._price(counts, round) if self.is_free or self.price else _cost(response, round)
        if price is None:  # a provider may answer with a model name that has no known price
            price = self._price(counts, round)
        return _usage(counts, price)

    def _price(self, used: RequestUsage, rounded: Callable[[Decimal], int]) -> int | None:
        """Return the price of `used` for the requested model."""
        if self.is_free:
            return 0
        if self.price is not None:
            return _own_cost(self.price, used, rounded)
        asked = ModelResponse(
            parts=[],
            usage=used,
            model_name=self.wrapped.model_name,
            provider_name=self.wrapped.system,
            provider_url=self.wrapped.base_url,
        )
        return _cost(asked, rounded)

    def _refuse_unfinished(self, response: ModelResponse, model_settings: ModelSettings | None) -> None:
        """Raise when the provider's reason for the end is not that the answer is complete."""
        details = response.provider_details or {}
        said = str(details.get("finish_reason") or "")
        if response.finish_reason == "length" or said.casefold() in _CUT:
            limit = {**(self.wrapped.settings or {}), **(model_settings or {})}.get("max_tokens")
            at = (
                f"the limit of {limit:,} tokens"
                if isinstance(limit, int)
                else "the provider's limit of its length"
            )
            raise OutputTruncated(
                f"the answer of model {self.model_name!r} was cut off at {at}",
                hint="raise `max_tokens` in the agent's `model_settings`, or request a shorter answer",
                reason=f"it was cut off at {at}, so it must be shorter",
                max_tokens=limit if isinstance(limit, int) else None,
                retryable=True,
            )
        words = details.get("refusal") or details.get("block_reason_message")
        if words or response.finish_reason == "content_filter":
            what = f"refused to answer: {short(str(words), 300)}" if words else "refused to answer"
            raise OutputRejected(
                GATE.text(f"model {self.model_name!r} {what} (its content filter withheld the answer)"),
                hint="check the prompt, or use another model",
                retryable=False,
            )
        if response.finish_reason == "error":
            raise OutputRejected(
                f"model {self.model_name!r} ended its answer with an error: {said or 'unknown'}",
                hint="give the step `config: {max_retries: 3}`, or use another model",
                retryable=True,
            )

    def _refuse_partial(self, response: ModelResponse) -> None:
        """Raise when a stream ended without saying that its answer is complete."""
        reason = (response.provider_details or {}).get("finish_reason")
        # pydantic-ai fills in `stop` when there was none.
        is_said = reason or response.finish_reason not in (None, "stop")
        if response.state != "incomplete" and (is_said or self.wrapped.system in _NO_RAW_FINISH_REASON):
            return
        raise self._unavailable(
            "ended its stream before its answer was complete",
            hint="the provider or a proxy cut it off: try again, or give the step `config: {max_retries: 3}`",
        )

    def _refuse_strange(self, error: BaseException) -> None:
        """Raise Flujo's error for an exception that the provider's client does not translate."""
        if not isinstance(error, Exception) or isinstance(error, _SORTED):
            return
        detail = GATE.text(f"{type(error).__name__}: {error}")
        raise self._unavailable(
            f"gave a response that its client cannot read: {detail}",
            hint="check that the provider's base URL speaks the provider's protocol",
        ) from cause_of(error)

    def _unavailable(self, what: str, *, hint: str) -> ModelUnavailable:
        """Return the error of a response without a usable answer."""
        return ModelUnavailable(
            f"model {self.model_name!r} {what}",
            hint=hint,
            status=None,
            provider=self.wrapped.system,
            retryable=True,
        )


@dataclass(frozen=True, slots=True)
class _Reserved:
    """The port `Reservation` for one request, at its provider and in the budget."""

    slot: Slot | None = None
    in_budget: Reservation | None = None

    def settle(self, used: Usage) -> None:
        """Replace the reservations by the actual usage."""
        if self.slot is not None:
            self.slot.settle(used)
        if self.in_budget is not None:
            self.in_budget.settle(used)

    def lose(self, known: Usage) -> None:
        """Keep the reservation at the provider, and in the budget that of the unknown rest."""
        if self.in_budget is not None:
            self.in_budget.lose(known)


def _is_unsent(error: BaseException) -> bool:
    """Return whether a request failed before it was sent."""
    return isinstance(error, UserError) or (
        isinstance(error, ModelConnectionError) and error.phase in _NOT_SENT
    )


def _is_refused(error: BaseException) -> bool:
    """Return whether the provider refused a request before it worked, so that the request cost nothing."""
    return (
        isinstance(error, ModelHTTPError)
        and not error.in_stream
        and 400 <= error.status_code < 500
        and error.status_code not in _MAY_HAVE_ACTED
    )


def _is_count(reported: Any) -> bool:
    return isinstance(reported, int) and 0 <= reported <= MOST_TOKENS


def _is_believable(response: ModelResponse) -> bool:
    """Return whether a response reports its usage, with numbers that can be true.

    Every request has input. An answer has output; numbers that pydantic-ai could not read are 0.
    """
    used = response.usage
    counts = (used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens)
    return (
        not used.unmeasured_requests
        and all(map(_is_count, counts))
        and used.input_tokens > 0
        and (used.output_tokens > 0 or not response.parts)
        and used.cache_read_tokens + used.cache_write_tokens <= used.input_tokens
    )


def _cost(response: ModelResponse, rounded: Callable[[Decimal], int]) -> int | None:
    """Return the cost in millionths of a dollar, or None when the price is unknown."""
    try:
        price = rounded(response.cost().total_price * MICRO_USD)
    except (LookupError, ValueError, AssertionError, ArithmeticError):
        return None
    return price if 0 <= price <= MOST_TOKENS * MICRO_USD else None


def _own_cost(price: Price, used: RequestUsage, rounded: Callable[[Decimal], int]) -> int | None:
    """Return the cost at a price of the project in millionths of a dollar; None without credible counts."""
    counts = (used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens)
    if not all(map(_is_count, counts)):
        return None
    read, answered, cached, written = counts
    cost = price.cost_usd(input_tokens=read, output_tokens=answered, cached=cached, written=written)
    return rounded(cost * MICRO_USD)


def _usage(used: RequestUsage, price: int | None) -> Usage:
    return Usage(
        input_tokens=used.input_tokens if _is_count(used.input_tokens) else 0,
        output_tokens=used.output_tokens if _is_count(used.output_tokens) else 0,
        requests=1,
        cost_micro_usd=price or 0,
        unpriced_requests=int(price is None),
    )
