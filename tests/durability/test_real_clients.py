"""Runs against the real clients of OpenAI, Anthropic and Google, and a server that misbehaves on command.

The server counts the requests that arrive. In every case Flujo counts the same requests, no limit is passed, the
largest possible bill is charged or shown as unconfirmed, and an error is one of Flujo's.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Fault, Provider, Response, provider_server
from flujo import UsageLimits
from flujo.domain.agents import AgentSpec
from flujo.domain.events import StepRetried
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.domain.usage import NOTHING
from flujo.exceptions import AgentError
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from support import Step, StepConfig, pipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from flujo.domain.ports import StateStore

pytestmark = pytest.mark.filterwarnings("ignore::pydantic_ai.exceptions.UsageExtractionFailedWarning")

MODELS = {
    "openai-chat": "openai-chat:gpt-4o-mini",
    "openai-responses": "openai-responses:gpt-4o-mini",
    "anthropic": "anthropic:claude-haiku-4-5-20251001",
    "google": "google:gemini-2.5-flash",
}
WAYS = list(product(MODELS, ["body", "stream"]))
PROMPT = "Which animal jumps? " * 60
"""Longer than the tokens that the server reports: a token has at least one byte."""
AT_ONCE = RetryPolicy(backoff="none", max_s=0.0)
UNBILLED = (Fault.RATE_LIMITED, Fault.BAD_REQUEST)
GOOD = (Fault.SLOW_HEADERS, Fault.CACHED_USAGE)
SILENT = (Fault.STALL, Fault.STALL_IN_BODY)
TYPED = {"FLJ302", "FLJ304", "FLJ307", "FLJ403", "FLJ421"}
"""No model, no usable answer, a cut one, a time-out, no room in the budget."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Provider]:
    monkeypatch.chdir(tmp_path)
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
async def sqlite(sqlite_uri: str) -> AsyncIterator[StateStore]:
    made = SqlStateStore(sqlite_uri)
    yield made
    await made.aclose()


def lookup(name: str) -> str:
    """Look an animal up."""
    return f"{name} jumps."


def asks(api: str, **config: Any) -> Step:
    agent = AgentSpec(
        name="zoologist",
        model=MODELS[api],
        model_settings={"max_tokens": 200},
        tools=[CallableRef(f"{__name__}:lookup", lookup)],
    )
    return Step(name="ask", agent=agent, config=StepConfig(**{"retry": AT_ONCE, **config}))


def runner_of(
    step: Step, store: StateStore, *, events: list[Any] | None = None, **limits: Any
) -> Flujo[Any, Any, Any]:
    """Return a runner. One that keeps events asks its models for streams."""

    kept: list[Any] = [] if events is None else events

    async def keep(event: Any) -> None:
        kept.append(event)

    hooks = () if events is None else (keep,)
    return Flujo[Any, Any, Any](pipeline(step), store=store, hooks=hooks, usage_limits=UsageLimits(**limits))


async def run(runner: Flujo[Any, Any, Any], way: str = "body") -> Any:
    if way == "body":
        return await runner.run_result_async(PROMPT)
    async with runner.run_stream(PROMPT) as stream:
        return [event async for event in stream][-1]


def check(server: Provider, result: Any, fault: Fault) -> None:
    """Check the promises that hold for every run, however its provider behaves."""
    sent, is_completed = len(server.requests), result.status is RunStatus.COMPLETED
    assert 1 <= sent <= 2, fault
    assert result.usage.requests == sent, fault
    assert bool(result.output) is is_completed, fault
    assert is_completed or result.error.code in TYPED, (fault, result.error)
    assert is_completed or fault not in GOOD, (fault, result.error)
    billed = 0 if fault in UNBILLED else 1100 * sent
    assert result.usage.total_tokens + result.unconfirmed.total_tokens >= billed, fault
    if fault in UNBILLED:
        assert (result.usage.cost_usd, result.unconfirmed) == (0, NOTHING), fault
    if fault is Fault.CACHED_USAGE:
        assert (result.usage.input_tokens, result.unconfirmed) == (1000, NOTHING)


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize(("api", "way"), WAYS)
async def test_every_request_that_arrives_is_counted_and_within_its_limits(
    server: Provider, sqlite: StateStore, api: str, way: str
) -> None:
    async with runner_of(asks(api, max_retries=5), sqlite, requests_limit=2) as runner:
        for fault in Fault:
            if fault not in SILENT:
                server.requests.clear()
                server.answers[:] = [fault]
                result = await run(runner, way)
                check(server, result, fault)


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("fault", SILENT)
@pytest.mark.parametrize(
    ("api", "way"), [("openai-chat", "stream"), ("anthropic", "body"), ("google", "body")]
)
async def test_a_request_without_an_answer_is_charged_when_its_step_runs_out_of_time(
    server: Provider, sqlite: StateStore, api: str, way: str, fault: Fault
) -> None:
    for timeout_s in (0.2, 2, 20):  # on a busy machine the time may be over before the request is sent
        server.answers[:] = [fault]
        async with runner_of(asks(api, timeout_s=timeout_s), sqlite, total_cost_usd_limit=1) as runner:
            result = await run(runner, way)
        if server.requests:
            break
    assert result.error.code == "FLJ403"
    assert len(server.requests) <= result.usage.requests == 1
    assert result.usage.cost_usd is None, "unknown, and never zero"
    assert result.unconfirmed.cost_micro_usd > 0
    assert result.unconfirmed.output_tokens == 200


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize(
    "fault", [Fault.MALFORMED_JSON, Fault.NOT_JSON, Fault.EMPTY_CHOICES, Fault.SERVER_ERROR]
)
async def test_paid_answers_that_cannot_be_read_do_not_pass_a_cost_limit(
    server: Provider, store: StateStore, fault: Fault
) -> None:
    server.will_answer(fault)
    async with runner_of(asks("openai-chat", max_retries=8), store, total_cost_usd_limit=0.0015) as runner:
        result = await run(runner)
        assert result.error.code == "FLJ421"
        assert 1 <= len(server.requests) < 9
        worst = result.unconfirmed.cost_micro_usd
        assert 1500 * (1 - 1 / len(server.requests)) < worst <= 1500
        again = await runner.resume_async(result.run_id, retry_failed=True)
    assert again.error is not None
    assert again.error.code == "FLJ421", "what is unconfirmed stays charged"
    assert again.unconfirmed == result.unconfirmed


UNBELIEVABLE: dict[str, Response] = {
    "10^30 in": Response("Foxes.", tokens=(10**30, 100)),
    "10^30 out": Response("Foxes.", tokens=(1000, 10**30)),
    "negative": Response("Foxes.", tokens=(1000, -5)),
    "both negative": Response("Foxes.", tokens=(-1000, -5)),
    "null": Response("Foxes.", tokens=(None, 100)),
    "text": Response("Foxes.", tokens=("many", 100)),
    "fraction": Response("Foxes.", tokens=(0.5, 100)),
    "infinity": Response("Foxes.", tokens=(float("inf"), 100)),
    "zero": Response("Foxes.", tokens=(0, 0)),
    "more cached than sent": Response("Foxes.", cached=5000),
    "missing": Response("Foxes.", usage=None),
    "empty": Response("Foxes.", usage={}),
    "a text": Response("Foxes.", usage="none"),
    "a list": Response("Foxes.", usage=[1000, 100]),
    "an empty answer": Response("", tokens=(10**30, 10**30)),
}


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize(("api", "way"), WAYS)
async def test_usage_that_cannot_be_true_is_unconfirmed_at_its_worst_case(
    server: Provider, sqlite: StateStore, api: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with runner_of(asks(api), sqlite, total_cost_usd_limit=1) as runner:
        for name, response in UNBELIEVABLE.items():
            server.requests.clear()
            server.answers[:] = [response]
            result = await run(runner, way)
            assert result.usage.requests == len(server.requests) >= 1, name
            assert result.usage.cost_usd is None, name
            assert result.usage.total_tokens <= 1100 * len(server.requests), name
            assert result.unconfirmed.cost_micro_usd > 0, name
            if result.status is RunStatus.COMPLETED:
                assert result.output == "Foxes.", name
            else:
                assert result.error.code in TYPED, (name, result.error)
    assert "no usage that can be believed" in caplog.text


async def test_usage_that_cannot_be_true_leaves_the_cost_unknown_in_a_run_without_limits(
    server: Provider, sqlite: StateStore
) -> None:
    server.will_answer(Response("Foxes.", tokens=(10**30, 100)))
    async with Flujo[Any, Any, Any](pipeline(asks("openai-chat")), store=sqlite) as runner:
        result = await run(runner)
    assert result.output == "Foxes."
    assert (result.usage.cost_usd, result.usage.input_tokens) == (None, 0)


@pytest.mark.parametrize("api", MODELS)
async def test_a_stream_that_ends_early_is_retried(server: Provider, sqlite: StateStore, api: str) -> None:
    server.will_answer(Fault.EARLY_END, "The quick brown fox.")
    events: list[Any] = []
    async with runner_of(asks(api, max_retries=1), sqlite, events=events, requests_limit=9) as runner:
        result = await run(runner)
    assert result.output == "The quick brown fox."
    [retried] = [event for event in events if isinstance(event, StepRetried)]
    assert "before its answer was complete" in retried.error.message
    assert result.unconfirmed.output_tokens > 0


@pytest.mark.parametrize("api", MODELS)
async def test_a_retry_waits_as_long_as_the_provider_asks(
    server: Provider, sqlite: StateStore, api: str
) -> None:
    server.will_answer(Response(status=429, headers={"retry-after-ms": "150"}), Fault.RATE_LIMITED, "Foxes.")
    step = asks(api, max_retries=2, retry=RetryPolicy(backoff="none", max_s=0.2))
    events: list[Any] = []
    async with runner_of(step, sqlite, events=events, requests_limit=3) as runner:
        result = await run(runner)
    assert [event.delay_s for event in events if isinstance(event, StepRetried)] == [0.15, 0.2]
    assert result.output == "Foxes."
    assert (result.usage.requests, result.usage.output_tokens, result.unconfirmed) == (3, 100, NOTHING)


async def test_an_agent_whose_client_would_retry_is_refused(server: Provider, sqlite: StateStore) -> None:
    server.will_answer(Fault.SERVER_ERROR)
    agent = AgentSpec(name="a", model=MODELS["openai-chat"], model_settings={"max_retries": 3})
    async with runner_of(Step(name="ask", agent=agent), sqlite, requests_limit=9) as runner:
        with pytest.raises(AgentError, match="only steps retry") as caught:
            await run(runner)
    assert "config: {max_retries: 3}" in str(caught.value.hint)
    assert server.requests == []
