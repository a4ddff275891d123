"""A model reserves the worst case of each request first, and makes it only within the budget."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Fault, Provider, Response, provider_server
from flujo.agents.chat import ChatAgent, build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.prices import Price
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import AnswerUnbounded, ModelUnavailable, PriceUnknown, UsageLimitExceeded
from support import listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USED = Usage(input_tokens=1000, output_tokens=100, requests=1, cost_micro_usd=210)


@dataclass
class Meter:
    """A budget of requests and tool calls that records every reservation and settlement."""

    requests: int = 9
    tool_calls: int = 9
    bounds_answers: bool = True
    refuses_unpriced: bool = True
    told: list[tuple[str, Usage]] = field(default_factory=list)

    async def reserve(self, worst: Usage) -> Meter:
        self.told.append(("reserve", worst))
        if self.requests <= 0:
            raise UsageLimitExceeded("no room")
        self.requests -= 1
        return self

    async def call_tools(self, count: int) -> None:
        self.told.append(("tools", Usage(tool_calls=count)))
        if count > self.tool_calls:
            raise UsageLimitExceeded("no tools")

    def settle(self, used: Usage) -> None:
        self.told.append(("settle", used))

    def lose(self, known: Usage) -> None:
        self.told.append(("lose", known))

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.told]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


@pytest.fixture
def build(provider: Provider, tmp_path: Path) -> Callable[..., ChatAgent]:
    def make(
        *, model: str = "openai-chat:gpt-4o-mini", tools: Any = (), prices: Any = (), **spec: Any
    ) -> ChatAgent:
        settings = AgentSettings(environment=provider.environment, cache_dir=tmp_path, prices=dict(prices))
        spec = {"model_settings": {"max_tokens": 500}, **spec}
        return build_agent(AgentSpec(name="sorter", model=model, **spec), tools=tools, settings=settings)

    return make


async def test_a_request_reserves_its_worst_case_and_settles_its_actual_usage(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer("Good day.")
    meter = Meter()
    prompt = "Grüße mich. " * 100
    reply = await build().ask(Ask(data=prompt, instructions="Be brief.", meter=meter))
    assert meter.words == ["reserve", "settle"]
    worst, used = meter.told[0][1], meter.told[1][1]
    assert worst.input_tokens >= len(prompt.encode()), "a token has at least one byte"
    assert (worst.output_tokens, worst.requests, worst.unpriced_requests) == (500, 1, 0)
    assert worst.cost_micro_usd >= worst.input_tokens * 0.15 + 500 * 0.6
    assert used == reply.usage == USED


async def test_a_tool_loop_reserves_each_request_and_its_calls_before_they_happen(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    called: list[str] = []

    def lookup(name: str) -> str:
        """Look a customer up."""
        called.append(name)
        return "a VIP"

    asked = Response(tool_call=("lookup", {"name": "Ada"}))
    provider.will_answer(asked, "Ada is a VIP.")
    meter = Meter()
    reply = await build(tools=[lookup]).ask(Ask(data="Who is Ada?", meter=meter))
    assert meter.words == ["reserve", "settle", "tools", "reserve", "settle"]
    assert (reply.usage.requests, reply.usage.tool_calls, called) == (2, 1, ["Ada"])
    second, first = meter.told[3][1], meter.told[0][1]
    assert second.input_tokens > first.input_tokens, "the conversation grows"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_that_must_not_be_called_is_not_called(
    provider: Provider, build: Callable[..., ChatAgent], streamed: bool
) -> None:
    called: list[str] = []

    def lookup(name: str) -> str:
        """Look a customer up."""
        called.append(name)
        return "a VIP"

    provider.will_answer(Response(tool_call=("lookup", {"name": "Ada"})), "Ada is a VIP.")
    ask = Ask(data="x", meter=Meter(tool_calls=0), on_text=listener([]) if streamed else None)
    with pytest.raises(UsageLimitExceeded, match="no tools") as caught:
        await build(tools=[lookup]).ask(ask)
    assert not called
    assert caught.value.usage.tool_calls == 0  # type: ignore[attr-defined]  # what every failed ask carries
    assert len(provider.requests) == 1


async def test_a_request_without_room_is_not_made(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer("never")
    with pytest.raises(UsageLimitExceeded) as caught:
        await build().ask(Ask(data="x", meter=Meter(requests=0)))
    assert provider.requests == []
    assert caught.value.usage == NOTHING  # type: ignore[attr-defined]  # what every failed ask carries


async def test_a_second_request_for_a_fitting_answer_is_reserved_too(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer('{"label": "wrong"}', '{"label": "bug"}')
    schema = {"type": "object", "required": ["label"], "properties": {"label": {"enum": ["bug"]}}}
    with pytest.raises(UsageLimitExceeded) as caught:
        await build(output_schema=schema).ask(Ask(data="x", meter=Meter(requests=1)))
    assert len(provider.requests) == 1
    assert caught.value.usage == USED  # type: ignore[attr-defined]  # what every failed ask carries


async def test_an_unlimited_answer_length_is_refused_when_the_meter_needs_a_bound(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer("hi")
    agent = build(model_settings={})
    with pytest.raises(AnswerUnbounded, match="gpt-4o-mini"):
        await agent.ask(Ask(data="x", meter=Meter()))
    assert provider.requests == []
    await agent.ask(Ask(data="x", meter=Meter(bounds_answers=False)))
    assert len(provider.requests) == 1


async def test_an_unknown_price_is_refused_or_allowed_by_the_settings(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer(Response("hi", model="in-house-7"))
    agent = build(model="openai-chat:in-house-7")
    with pytest.raises(PriceUnknown, match="in-house-7"):
        await agent.ask(Ask(data="x", meter=Meter()))
    assert provider.requests == []
    reply = await agent.ask(Ask(data="x", meter=Meter(refuses_unpriced=False)))
    assert reply.usage.cost_usd is None, "unknown, and never zero"


async def test_an_answer_with_an_unknown_model_name_has_the_price_of_the_requested_model(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer(Response("hi", model="a-name-of-todays-deployment"))
    assert (await build().ask(Ask(data="x", meter=Meter()))).usage == USED


async def test_a_price_of_the_project_comes_before_that_of_the_list_and_counts_cached_tokens(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    price = Price(input_mtok=10, cached_input_mtok=1, output_mtok=100)
    provider.will_answer(Response("hi", model="in-house-7", cached=800))
    meter = Meter()
    agent = build(model="openai-chat:in-house-7", prices={"openai-chat:in-house-*": price})
    reply = await agent.ask(Ask(data="x", meter=meter))
    assert reply.usage.cost_micro_usd == 200 * 10 + 800 * 1 + 100 * 100
    worst = meter.told[0][1]
    assert worst.cost_micro_usd == worst.input_tokens * 10 + 500 * 100


async def test_an_interrupted_request_stays_charged(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer(Response("too late", delay_s=0.5))
    meter = Meter()
    asking = asyncio.create_task(build().ask(Ask(data="x", meter=meter)))
    while not provider.requests:  # noqa: ASYNC110 - a thread of the server fills the list
        await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert meter.words[-1] == "lose"


@pytest.mark.guarantee("G20")
async def test_an_interrupted_stream_stays_charged(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer(Fault.CUT_IN_EVENT)
    meter = Meter()
    try:
        await build().ask(Ask(data="x", on_text=listener([]), meter=meter))
    except Exception:  # noqa: BLE001 - another test checks the error
        pass
    assert meter.words == ["reserve", "lose"]


@pytest.mark.guarantee("G20")
async def test_a_request_that_the_provider_refuses_counts_and_costs_nothing(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer(Response(status=429, error={"message": "slow down"}))
    meter = Meter()
    with pytest.raises(Exception, match="rate limited"):
        await build().ask(Ask(data="x", meter=meter))
    assert meter.told[-1] == ("settle", Usage(requests=1))


MODELS = (
    "openai-chat:gpt-4o-mini",
    "openai-responses:gpt-4o-mini",
    "anthropic:claude-haiku-4-5-20251001",
    "google:gemini-2.5-flash",
)


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("status", [408, 409, 429, 500, 529])
@pytest.mark.parametrize("model", MODELS)
async def test_a_request_that_fails_is_sent_once(
    provider: Provider, build: Callable[..., ChatAgent], model: str, status: int
) -> None:
    provider.will_answer(Response(status=status, headers={"retry-after-ms": "1"}))
    with pytest.raises(ModelUnavailable) as caught:
        await build(model=model).ask(Ask(data="x"))
    assert len(provider.requests) == 1
    assert caught.value.usage.requests == 1  # type: ignore[attr-defined]  # what every failed ask carries


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize(
    "fault", [Fault.MALFORMED_JSON, Fault.EMPTY_CHOICES, Fault.RESET, Fault.SERVER_ERROR]
)
async def test_a_request_without_a_readable_answer_stays_charged(
    provider: Provider, build: Callable[..., ChatAgent], fault: Fault
) -> None:
    provider.will_answer(fault)
    meter = Meter()
    with pytest.raises(ModelUnavailable):
        await build().ask(Ask(data="x", meter=meter))
    assert meter.words == ["reserve", "lose"]
    assert meter.told[-1][1] == Usage(requests=1, unpriced_requests=1)


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("tokens", [(10**30, 100), (1000, 10**30), (1000, -5), (0, 0)])
@pytest.mark.parametrize("model", MODELS[1:3])
@pytest.mark.filterwarnings("ignore::pydantic_ai.exceptions.UsageExtractionFailedWarning")
async def test_a_request_whose_reported_usage_cannot_be_true_stays_charged(
    provider: Provider, build: Callable[..., ChatAgent], model: str, tokens: Any
) -> None:
    provider.will_answer(Response("Foxes.", tokens=tokens))
    meter = Meter()
    reply = await build(model=model).ask(Ask(data="x", meter=meter))
    assert reply.output == "Foxes."
    assert meter.words == ["reserve", "lose"]
    assert (reply.usage.cost_usd, reply.usage.requests) == (None, 1)
    assert reply.usage.total_tokens <= 1100


async def test_a_maximum_length_that_is_not_a_positive_integer_does_not_count(
    provider: Provider, build: Callable[..., ChatAgent]
) -> None:
    provider.will_answer("never")
    for longest in ("500", -1, 0, 1.5):
        with pytest.raises(AnswerUnbounded):
            await build(model_settings={"max_tokens": longest}).ask(Ask(data="x", meter=Meter()))
    assert provider.requests == []
