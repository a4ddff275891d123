"""An attempt that ends without a result and without a failure is paid for, and keeps its transcript."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, entries, talk
from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.run import RunStatus, Write
from flujo.domain.steps import (
    CallableRef,
    DynamicParallelRouterStep,
    GranularStep,
    ParallelStep,
    Step,
    StepConfig,
)
from flujo.domain.usage import NOTHING, Usage, UsageLimits
from flujo.exceptions import ModelUnavailable, PausedException, PipelineAbortSignal
from flujo.services.inspection.task_client import TaskClient
from flujo.testing import ScriptedAgent
from support import answer, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

ONE = Usage(input_tokens=100, output_tokens=10, requests=1, cost_micro_usd=7)
CALL = Usage(tool_calls=1)
LIMITS = UsageLimits(total_tokens_limit=1_000)


def ask_human() -> str:
    raise PausedException("which one?")


def stop() -> str:
    raise PipelineAbortSignal("enough")


def asking(*answers: Any, tools: Any = (ask_human, add), **more: Any) -> Pipeline:
    agent = ScriptedAgent(list(answers), tools=tools, usage=ONE)
    return pipeline(Step("ask", agent=agent), Step("say", agent=ScriptedAgent(["bye"], usage=ONE)), **more)


PAUSING = (calls(("add", {"a": 1, "b": 2})), calls(("ask_human", {})))


async def spent_of(store: StateStore, result: PipelineResult[Any, Any]) -> Usage:
    """Return the usage of a run, the same wherever it is shown."""
    task = await TaskClient(store).get_task(RUN)
    ledger = await store.ledger(RUN)
    assert task.trace.total() == task.task.usage == ledger.usage == result.usage
    assert (task.trace.unconfirmed, result.unconfirmed) == (ledger.unconfirmed, ledger.unconfirmed)
    return result.usage


def texts(transcript: Any) -> list[Any]:
    parts = [part for message in transcript["messages"] for part in message["parts"]]
    return [part.get("content", part.get("args")) for part in parts]


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("budget", [None, LIMITS], ids=["no limits", "limits"])
async def test_an_attempt_that_pauses_is_paid_for_before_and_after_the_answer(
    store: StateStore, budget: UsageLimits | None
) -> None:
    tree = asking(*PAUSING, budget=budget)
    paused = await start(tree, store, "go")
    assert paused.status is RunStatus.PAUSED
    two = ONE + ONE + CALL + CALL
    assert await spent_of(store, paused) == two
    assert [step.usage for step in paused.steps] == [two]
    assert (await store.ledger(RUN)).unconfirmed == NOTHING
    await answer(store, "ask", "that one")
    done = await resume(tree, store)
    assert (done.status, done.output) == (RunStatus.COMPLETED, "bye")
    assert await spent_of(store, done) == two + ONE
    assert (await store.ledger(RUN)).unconfirmed == NOTHING


@pytest.mark.guarantee("G20")
async def test_what_an_attempt_has_spent_before_its_pause_counts_in_the_budget(store: StateStore) -> None:
    tree = asking(*PAUSING, budget=UsageLimits(total_tokens_limit=300))
    await start(tree, store, "go")
    await answer(store, "ask", "that one")
    refused = await resume(tree, store)
    assert refused.error is not None
    assert refused.error.type == "UsageLimitExceeded"
    assert "used by `ask` 220" in refused.error.message


async def test_an_attempt_that_pauses_keeps_its_transcript(store: StateStore) -> None:
    tree = asking(*PAUSING)
    await start(tree, store, "go")
    node = (await TaskClient(store).get_task(RUN, transcripts=True)).trace.at("ask")
    (kept,) = node.transcripts
    assert (kept["attempt"], kept["status"], kept["error"]) == (1, "paused", None)
    assert texts(kept) == ["go", {"a": 1, "b": 2}, 3, {}]
    assert node.status == "paused"
    await answer(store, "ask", "that one")
    await resume(tree, store)
    node = (await TaskClient(store).get_task(RUN, transcripts=True)).trace.at("ask")
    assert (node.status, node.output, node.usage) == ("completed", "that one", ONE + ONE + CALL + CALL)
    assert len(node.transcripts) == 1


@pytest.mark.parametrize("used", [ONE, NOTHING], ids=["paid", "free"])
async def test_without_transcripts_the_usage_alone_is_recorded(
    store: StateStore, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, used: Usage
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flujo.toml").write_text("[journal]\ntranscripts = 'off'\n")
    agent = ScriptedAgent(PAUSING, usage=used, tools=[add, ask_human])
    paused = await start(pipeline(Step("ask", agent=agent)), store, "go")
    assert await spent_of(store, paused) == used + used + CALL + CALL
    node = (await TaskClient(store).get_task(RUN, transcripts=True)).trace.at("ask")
    assert node.transcripts == []


async def test_a_callable_that_asks_a_human_leaves_no_record(store: StateStore) -> None:
    await start(pipeline(Step("ask", CallableRef("x:ask", lambda _: ask_human()))), store, "go")
    assert await store.entries(RUN) == []


class Recording:
    """A store that keeps the writes."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.writes: list[Write] = []

    def write(self, write: Write) -> Any:
        self.writes.append(write)
        return self._store.write(write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.guarantee("G8", "G20")
async def test_the_question_and_the_record_are_one_commit(store: StateStore) -> None:
    recording: Any = Recording(store)
    await start(asking(*PAUSING, budget=LIMITS), recording, "go")
    (asked,) = [write for write in recording.writes if write.pauses]
    assert [entry.path for entry in asked.entries] == ["ask:unfinished"]
    assert [hold.state for hold in asked.holds] == ["settled"]
    assert len(asked.blobs) == 1


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("budget", [None, LIMITS], ids=["no limits", "limits"])
async def test_an_attempt_that_ends_the_run_is_paid_for(
    store: StateStore, budget: UsageLimits | None
) -> None:
    tree = asking(calls(("stop", {})), tools=[stop], budget=budget)
    result = await start(tree, store, "go")
    assert result.status is RunStatus.CANCELLED
    assert await spent_of(store, result) == ONE + CALL
    node = (await TaskClient(store).get_task(RUN, transcripts=True)).trace.at("ask")
    assert (node.status, texts(node.transcripts[0])) == ("aborted", ["go", {}])


@pytest.mark.guarantee("G20", "G10")
@pytest.mark.parametrize("kind", ["step", "granular"])
@pytest.mark.parametrize("budget", [None, LIMITS], ids=["no limits", "limits"])
async def test_an_attempt_that_is_stopped_is_paid_for_and_does_not_count_as_a_retry(
    store: StateStore, budget: UsageLimits | None, kind: str
) -> None:
    reached, is_first = asyncio.Event(), [True]

    async def wait() -> str:
        if is_first:
            reached.set()
            await asyncio.sleep(60)
        return "waited"

    def script() -> list[Any]:
        return [calls(("add", {"a": 1, "b": 2})), calls(("wait", {})), "done"]

    def tree() -> Pipeline:
        agent = ScriptedAgent(script(), tools=[add, wait], usage=ONE)
        step: Any = Step("ask", agent=agent) if kind == "step" else GranularStep("ask", agent)
        return pipeline(step, budget=budget)

    task = asyncio.create_task(start(tree(), store, "go"))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = (await store.run(RUN)).usage
    assert before == (await store.ledger(RUN)).usage
    assert (before.requests, before.total_tokens, before.cost_micro_usd) == (2, 220, 14)
    is_first.clear()
    done = await resume(tree(), store)
    assert (done.status, done.output) == (RunStatus.COMPLETED, "done")
    again = 3 if kind == "step" else 1
    assert done.usage.requests == 2 + again
    assert await spent_of(store, done) == done.usage


async def test_an_interrupted_request_stays_unconfirmed_beside_the_paid_ones(store: StateStore) -> None:
    reached = asyncio.Event()

    class Model(ScriptedAgent):
        """Its second request has no answer."""

        async def answer(self, ask: Any, number: int | None) -> Any:
            if number != 1:
                return await super().answer(ask, number)
            reserved = await ask.meter.reserve(Usage(input_tokens=100, output_tokens=90, requests=1))
            try:
                reached.set()
                await asyncio.sleep(60)
            finally:
                reserved.lose(Usage(requests=1))

    agent = Model([calls(("add", {"a": 1, "b": 2}))], tools=[add], usage=ONE)
    task = asyncio.create_task(start(pipeline(Step("ask", agent=agent), budget=LIMITS), store, "go"))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ledger = await store.ledger(RUN)
    assert ledger.usage == ONE + CALL + Usage(requests=1)
    assert ledger.unconfirmed == Usage(input_tokens=100, output_tokens=90)


@pytest.mark.parametrize("end", ["paused", "aborted"])
async def test_a_router_whose_agent_ends_without_an_answer_is_paid_for(store: StateStore, end: str) -> None:
    tool = ask_human if end == "paused" else stop
    agent: Any = ScriptedAgent([calls((tool.__name__, {}))], tools=[tool], usage=ONE)
    branches = {"left": asking("5"), "right": asking("6")}
    route = DynamicParallelRouterStep("route", router=CallableRef("x:agent", agent), branches=branches)
    result = await start(pipeline(route, budget=LIMITS), store, "go")
    assert await spent_of(store, result) == ONE + CALL
    node = (await TaskClient(store).get_task(RUN, transcripts=True)).trace.at("route")
    assert [each["status"] for each in node.transcripts] == [end]
    assert (await store.ledger(RUN)).unconfirmed == NOTHING


@pytest.mark.parametrize("kind", ["step", "granular"])
@pytest.mark.parametrize("budget", [None, LIMITS], ids=["no limits", "limits"])
async def test_what_a_validator_has_spent_before_it_failed_counts_once(
    store: StateStore, budget: UsageLimits | None, kind: str
) -> None:
    judge: Any = ScriptedAgent(
        [calls(("add", {"a": 1, "b": 2})), ModelUnavailable("down")], tools=[add], usage=ONE
    )
    agent, judges = ScriptedAgent(["words"], tools=[add], usage=ONE), [CallableRef("x:judge", judge)]
    step: Any = Step if kind == "step" else GranularStep
    failed = await start(pipeline(step("ask", agent=agent, validators=judges), budget=budget), store, "go")
    assert failed.status is RunStatus.FAILED
    assert await spent_of(store, failed) == ONE + ONE + CALL


async def test_a_tool_call_that_pauses_counts_once(store: StateStore) -> None:
    tree = talk([calls(("ask_human", {})), "done"], tools=[ask_human], usage=ONE)
    paused = await start(tree, store, "go")
    assert await spent_of(store, paused) == ONE + CALL
    await answer(store, "research/turn[0]/tool[0]", "well")
    done = await resume(tree, store)
    assert await spent_of(store, done) == ONE + ONE + CALL


async def test_a_repeated_attempt_that_pauses_again_has_a_record_of_its_own(store: StateStore) -> None:
    """A composite that fails voids the question, and its next attempt repeats the step."""
    failures = [1]

    def flaky(data: Any) -> Any:
        if failures:
            failures.pop()
            raise OSError("down")
        return data

    agent = ScriptedAgent(lambda ask: calls(("ask_human", {})), tools=[ask_human], usage=ONE)
    both = ParallelStep(
        "both",
        branches={
            "left": pipeline(Step("ask", agent=agent)),
            "right": pipeline(Step("work", CallableRef("x:flaky", flaky))),
        },
        config=StepConfig(max_retries=1),
    )
    paused = await start(pipeline(both), store, "go")
    assert paused.status is RunStatus.PAUSED
    assert await spent_of(store, paused) == ONE + ONE + CALL + CALL
    records = [each for each in await store.entries(RUN) if each.path.endswith(":unfinished")]
    assert len(records) == 2
    assert {canonical.decode(each.output or b"") for each in records} == {"paused"}
    assert {each.kind for each in records} == {EntryKind.DECISION}
    assert "both:left/ask" not in await entries(store)
