"""The limits of a provider hold for all requests of a process, over real sockets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import warm
from agents.provider_server import Fault, Provider, Response, provider_server
from flujo.agents import request_limits
from flujo.agents.chat import ChatAgent, build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.providers import Allowed, NamedProvider
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import ParallelStep
from flujo.exceptions import ModelUnavailable
from flujo.services.runs.runner import Flujo
from support import Step, StepConfig, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flujo.domain.store import StateStore
    from flujo.domain.usage import Usage

WINDOW_S = 0.6
LONG_S = 60.0
"""The window of tests in which no request waits for its end, also on a busy machine."""
PROMPT = "Which animal jumps?"


@dataclass
class Traffic:
    """A server whose requests take some time, and when each of them arrived."""

    server: Provider
    seconds: float = 0.0
    until_at_once: int = 0
    """Requests are not answered before so many of them are there together, for ten seconds at most."""
    arrivals: list[float] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    is_reached: threading.Event = field(default_factory=threading.Event)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def began(self) -> None:
        """Wait for the first request."""
        await asyncio.to_thread(self.is_reached.wait, 60)

    def answer(self, request: dict[str, Any]) -> Response:
        with self.lock:
            self.arrivals.append(time.monotonic())
            self.prompts.append(request["messages"][-1]["content"])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.is_reached.set()
        latest = time.monotonic() + 60
        while self.most_at_once < self.until_at_once and time.monotonic() < latest:
            time.sleep(0.01)
        time.sleep(self.seconds)
        with self.lock:
            self.at_once -= 1
        return Response("Foxes.")


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    monkeypatch.setattr(request_limits, "WINDOW_S", WINDOW_S)
    with provider_server() as server:
        made = Traffic(server)
        server.will_answer(made.answer)
        yield made


@pytest.fixture
def build(traffic: Traffic, tmp_path: Path) -> Callable[..., ChatAgent]:
    def make(max_tokens: int = 200, name: str = "kennel", **allowed: int) -> ChatAgent:
        provider = NamedProvider(
            name=name,
            kind="openai-chat",
            base_url=f"{traffic.server.url}/v1",
            allowed=Allowed(**allowed),
        )
        settings = AgentSettings(environment={}, cache_dir=tmp_path, providers={name: provider})
        spec = AgentSpec(name="a", model=f"{name}:fox-1", model_settings={"max_tokens": max_tokens})
        return build_agent(spec, settings=settings)

    return make


async def together(agent: ChatAgent, count: int) -> None:
    await asyncio.gather(*(agent.ask(Ask(data=f"{number}")) for number in range(count)))


def densest(arrivals: list[float], seconds: float) -> int:
    """Return the largest number of arrivals within any span of so many seconds."""
    return max(sum(first <= each < first + seconds for each in arrivals) for first in arrivals)


async def test_no_more_requests_run_at_once_than_allowed(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    traffic.seconds = 0.05
    await together(build(max_concurrency=2), 8)
    assert (len(traffic.arrivals), traffic.most_at_once) == (8, 2)


def test_the_agents_of_two_loops_in_two_threads_share_the_limit_of_their_provider(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    traffic.seconds = 0.05
    threads = [
        threading.Thread(target=asyncio.run, args=(together(build(max_concurrency=2), 6),)) for _ in range(2)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(traffic.arrivals), traffic.most_at_once) == (12, 2)


async def test_providers_do_not_share_their_limits(traffic: Traffic, build: Callable[..., ChatAgent]) -> None:
    traffic.seconds = 0.1
    agents = [build(name=name, max_concurrency=1) for name in ("kennel", "den")]
    await asyncio.gather(*(together(agent, 2) for agent in agents))
    assert traffic.most_at_once == 2


async def test_requests_wait_in_the_order_of_their_arrival(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    traffic.seconds = 0.01
    await together(build(max_concurrency=1), 6)
    assert traffic.prompts == [str(number) for number in range(6)]


async def test_no_more_requests_are_sent_in_a_minute_than_allowed(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    await together(build(rpm=3), 8)
    # Requests arrive later than they are sent, on a busy machine by more.
    assert densest(traffic.arrivals, WINDOW_S / 2) <= 3
    assert traffic.arrivals[-1] - traffic.arrivals[0] >= 1.5 * WINDOW_S


async def test_a_cancelled_request_leaves_its_place_to_the_next_one(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    traffic.seconds = 0.2
    agent = build(max_concurrency=1)
    first, second, third = (asyncio.create_task(agent.ask(Ask(data=each))) for each in "abc")
    await traffic.began()
    second.cancel()
    await asyncio.gather(first, third)
    assert second.cancelled()
    assert traffic.prompts == ["a", "c"]
    assert (await agent.ask(Ask(data="d"))).output == "Foxes."


async def test_tokens_are_reserved_at_their_most_and_corrected_by_the_answer(
    traffic: Traffic, build: Callable[..., ChatAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limits, "WINDOW_S", LONG_S)
    # At most about 20,400 tokens per request, and 1,100 by its answer.
    agent = build(max_tokens=20_000, tpm=24_000)
    traffic.seconds = 0.1
    began = time.monotonic()
    await together(agent, 3)
    assert traffic.most_at_once == 1
    assert time.monotonic() - began < LONG_S


async def test_tokens_that_answers_report_are_counted_for_a_minute(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    await together(build(max_tokens=100, tpm=2_000), 3)
    assert densest(traffic.arrivals, WINDOW_S / 2) <= 2


async def test_a_request_that_is_larger_than_the_limit_is_sent_alone(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    await together(build(tpm=10), 2)
    assert traffic.arrivals[1] - traffic.arrivals[0] >= WINDOW_S / 2


async def test_a_small_request_does_not_overtake_a_large_one(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    small, large = (build(max_tokens=most, tpm=24_000) for most in (200, 23_000))
    await small.ask(Ask(data="first"))
    waiting = asyncio.create_task(large.ask(Ask(data="large")))
    await asyncio.sleep(0.1)
    await asyncio.gather(waiting, small.ask(Ask(data="small")))
    assert traffic.prompts == ["first", "large", "small"]


async def test_a_refused_request_gives_its_tokens_back(
    traffic: Traffic, build: Callable[..., ChatAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limits, "WINDOW_S", LONG_S)
    agent = build(max_tokens=5_000, tpm=6_000)
    traffic.server.answers[:] = [Fault.RATE_LIMITED, "Foxes."]
    began = time.monotonic()
    with pytest.raises(ModelUnavailable):
        await agent.ask(Ask(data="x"))
    assert (await agent.ask(Ask(data="x"))).usage.requests == 1
    assert time.monotonic() - began < LONG_S


async def test_a_request_without_room_in_the_budget_is_not_counted(
    traffic: Traffic, build: Callable[..., ChatAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limits, "WINDOW_S", LONG_S)

    class Broke:
        bounds_answers = refuses_unpriced = False

        async def reserve(self, worst: Usage) -> Any:
            raise InterruptedError

        async def call_tools(self, count: int) -> None:
            raise AssertionError

    agent = build(rpm=1, max_concurrency=1)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(InterruptedError):
            await agent.ask(Ask(data="x", meter=Broke()))
    await agent.ask(Ask(data="x"))
    assert time.monotonic() - began < LONG_S


def test_a_loop_that_stopped_with_a_waiting_request_holds_nothing_up(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    agent = build(rpm=1)
    with asyncio.Runner() as stopped:
        stopped.run(agent.ask(Ask(data="a")))
        stopped.get_loop().create_task(agent.ask(Ask(data="b")))
        stopped.run(asyncio.sleep(0.1))
        assert asyncio.run(agent.ask(Ask(data="c"))).output == "Foxes."
    assert traffic.prompts == ["a", "c"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_forked_child_counts_its_own_requests(
    traffic: Traffic, build: Callable[..., ChatAgent]
) -> None:
    traffic.until_at_once = 2
    running = asyncio.create_task(build(max_concurrency=1).ask(Ask(data="parent")))
    await traffic.began()
    child = os.fork()
    if not child:  # pragma: no cover - in the child
        try:
            asyncio._set_running_loop(None)
            asyncio.run(build(max_concurrency=1).ask(Ask(data="child")))
        finally:
            os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    await running
    assert (traffic.prompts, traffic.most_at_once) == (["parent", "child"], 2)


# Whole runs ------------------------------------------------------------------------------------------------


def table(traffic: Traffic, folder: Path, limits: str) -> None:
    text = f'[providers.kennel]\nbase_url = "{traffic.server.url}/v1"\n{limits}\n'
    (folder / "flujo.toml").write_text(text, "utf-8")


def asks(name: str, **config: Any) -> Step:
    return Step(name=name, agent=AgentSpec(name="a", model="kennel:fox-1"), config=StepConfig(**config))


async def test_the_timeout_of_a_step_does_not_count_the_wait_for_a_slot(
    traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(traffic, tmp_path, "max_concurrency = 1")
    traffic.seconds = 0.6
    branches = {name: pipeline(asks(name, timeout_s=1.5)) for name in "abcd"}
    async with Flujo[Any, Any, Any](pipeline(ParallelStep(name="all", branches=branches))) as runner:
        result = await runner.run_result_async(PROMPT)
    assert result.status is RunStatus.COMPLETED, result.error
    assert (traffic.most_at_once, len(traffic.arrivals)) == (1, 4)


async def test_a_retry_after_a_rate_limit_waits_for_the_provider_and_counts_as_a_request(
    traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(traffic, tmp_path, "rpm = 2")
    arrivals: list[float] = []

    def limited(_: dict[str, Any]) -> Response:
        arrivals.append(time.monotonic())
        if len(arrivals) < 3:
            return Response(status=429, headers={"retry-after-ms": "150"})
        return Response("Foxes.")

    traffic.server.answers[:] = [limited]
    step = asks("ask", max_retries=2, retry=RetryPolicy(backoff="none", max_s=5.0))
    async with Flujo[Any, Any, Any](pipeline(step)) as runner:
        result = await runner.run_result_async(PROMPT)
    assert (result.output, result.usage.requests) == ("Foxes.", 3)
    assert arrivals[1] - arrivals[0] >= 0.15
    assert arrivals[2] - arrivals[0] >= WINDOW_S / 2


KENNEL = """
[providers.kennel]
kind = "openai"
base_url = "{url}/v1"
rpm = 3
"""
ASKING = """\
version: "1"
name: asking
agents:
  fox: {model: "kennel:fox-1"}
steps:
  - kind: map
    name: each
    over: "[1, 2, 3, 4]"
    as: number
    steps:
      - {name: ask, agent: fox, input: "{{ string(number) }}"}
"""


def test_processes_share_the_limit_of_the_provider_in_their_database(
    traffic: Traffic, tmp_path: Path, store_uri: str
) -> None:
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints/asking.yaml").write_text(ASKING)
    settings = f'state_uri = "{store_uri}"\n' + KENNEL.replace("{url}", traffic.server.url)
    (tmp_path / "flujo.toml").write_text(settings)
    command = [sys.executable, "-m", "flujo", "run", "asking"]
    warm.run([sys.executable, "-m", "flujo", "migrate"], cwd=tmp_path, check=True, capture_output=True)
    both = [
        warm.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)
    ]
    try:
        end = time.monotonic() + 60
        while len(traffic.arrivals) < 3:
            assert all(each.poll() is None for each in both), [each.communicate() for each in both]
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(2)  # in which each of them alone would send more
        assert len(traffic.arrivals) == 3
    finally:
        for each in both:
            each.kill()
            each.communicate()


async def test_a_request_of_a_run_waits_for_those_of_other_processes(
    traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: StateStore
) -> None:
    monkeypatch.chdir(tmp_path)
    table(traffic, tmp_path, "rpm = 1")
    async with Flujo[Any, Any, Any](pipeline(asks("a")), store=store, recovery=False) as runner:
        began = time.monotonic()
        assert (await runner.run_result_async(PROMPT)).success
        for (_, address), limits in request_limits._LIMITS.items():
            if address is not None and address.startswith(traffic.server.url):
                limits.forget()  # as if another process had sent the first one
        assert (await runner.run_result_async(PROMPT)).success
    assert traffic.arrivals[1] - began >= WINDOW_S
