"""A model gets its task and the newest turns within `history.max_tokens`; a resumed run sends the same messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, calls, detail, entries, value
from flujo.domain import canonical
from flujo.domain.conversations import estimated_tokens
from flujo.domain.journal import EntryStatus
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import GranularStep, History, StepConfig
from flujo.domain.usage import NOTHING, Usage, UsageLimits
from flujo.exceptions import ModelUnavailable, StateBackendUnavailable
from flujo.testing import ScriptedAgent
from support import StoppingStore, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.ports import StateStore

TASK = "Read everything."
LENGTH = 300
"""The bytes of a tool's result: a hundred tokens."""


def read(page: int) -> str:
    """Read a page."""
    return f"page {page} ".ljust(LENGTH, "x")


def reading(
    turns: int = 6, *, history: Any, usage: Usage = NOTHING, summary: Any = "what pages say", **keys: Any
) -> tuple[Pipeline, ScriptedAgent]:
    """Return a conversation that reads a page in each turn, and its agent."""
    script = [*(calls(("read", {"page": turn})) for turn in range(turns)), "done"]
    agent = ScriptedAgent(keys.pop("script", script), tools=[read], usage=usage, summary=summary)
    return pipeline(GranularStep("research", agent, history=history, input=TASK, **keys)), agent


def is_summary(messages: Sequence[Any]) -> bool:
    return "Summarise the conversation" in str(messages[-1])


def requests(agent: ScriptedAgent) -> list[list[Any]]:
    """Return the messages of each request but those for summaries."""
    return [ask.data for ask in agent.asked if not is_summary(ask.data)]


def summaries(agent: ScriptedAgent) -> list[list[Any]]:
    return [ask.data for ask in agent.asked if is_summary(ask.data)]


def size(messages: Sequence[Any]) -> int:
    return sum(map(estimated_tokens, messages))


def pages(messages: Sequence[Any]) -> list[int]:
    """Return the pages whose results are among the messages."""
    texts = [
        part["content"] for each in messages for part in each["parts"] if part["part_kind"] == "tool-return"
    ]
    return [int(text.split()[1]) for text in texts]


def require_whole(messages: Sequence[Any]) -> None:
    """Check that the task is there, requests and responses alternate, and each result follows its call."""
    assert messages[0]["parts"][0]["content"] == TASK
    assert [each["kind"] for each in messages] == ["request", "response"] * (len(messages) // 2) + ["request"]
    for response, results in zip(messages[1::2], messages[2::2], strict=True):
        called = [part["tool_call_id"] for part in response["parts"]]
        assert [part["tool_call_id"] for part in results["parts"]] == called


# The newest turns ----------------------------------------------------------------------------------------------


async def test_the_oldest_turns_are_left_out_with_their_results(store: StateStore) -> None:
    tree, agent = reading(history={"max_tokens": 350})
    assert (await start(tree, store)).output == "done"
    sent = requests(agent)
    for messages in sent:
        require_whole(messages)
        assert size(messages) <= 350
    assert [pages(messages) for messages in sent] == [
        [],
        [0],
        [0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [3, 4, 5],
    ]
    recorded = await entries(store)
    left_out = [detail(recorded[f"research/turn[{turn}]"]).get("left_out") for turn in range(7)]
    assert left_out == [None, None, None, None, 1, 2, 3]
    assert len([path for path in recorded if "/tool[" in path]) == 6, "the journal keeps every turn"


async def test_the_tokens_of_a_response_are_those_that_its_provider_counted(store: StateStore) -> None:
    counted = Usage(requests=1, input_tokens=10, output_tokens=60)
    tree, agent = reading(history=History(350), usage=counted)
    assert (await start(tree, store)).output == "done"
    assert [pages(messages) for messages in requests(agent)] == [
        [],
        [0],
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 4],
        [4, 5],
    ]


async def test_the_results_of_one_response_stay_together(store: StateStore) -> None:
    both = calls(("read", {"page": 0}), ("read", {"page": 1}))
    script = [both, calls(("read", {"page": 2})), calls(("read", {"page": 3})), "done"]
    tree, agent = reading(history=History(320), script=script)
    assert (await start(tree, store)).output == "done"
    for messages in requests(agent):
        require_whole(messages)
    assert [pages(messages) for messages in requests(agent)] == [[], [0, 1], [2], [2, 3]]


async def test_a_rejected_answer_and_its_reason_stay_together(store: StateStore) -> None:
    def is_final(text: str) -> str | None:
        return None if text == "done" else "it is not final"

    script = [calls(("read", {"page": 0})), calls(("read", {"page": 1})), "no", "done"]
    tree, agent = reading(history=History(150), script=script, validators=[is_final])
    assert (await start(tree, store)).output == "done"
    newest = requests(agent)[-1]
    assert pages(newest) in ([], [1])
    assert "it is not final" in str(newest[-1])
    assert newest[-2]["parts"][0]["content"] == "no"


@pytest.mark.parametrize("keep", ["last", "summary"])
@pytest.mark.parametrize("stop_at", range(1, 18, 2))
async def test_a_resumed_run_sends_the_same_bytes(store: StateStore, keep: Any, stop_at: int) -> None:
    counted = Usage(requests=1, input_tokens=10, output_tokens=17)
    whole, agent = reading(history=History(350, keep=keep), usage=counted)
    await start(whole, store, run_id="whole")
    known = {canonical.encode(messages[-1]): canonical.encode(messages) for messages in requests(agent)}
    asked = [canonical.encode(messages) for messages in summaries(agent)]
    assert len(known) == 7

    tree, first = reading(history=History(350, keep=keep), usage=counted)
    again = first.asked
    try:
        result = await start(tree, StoppingStore(store, stop_at))
    except StateBackendUnavailable:
        tree, second = reading(history=History(350, keep=keep), usage=counted)
        result = await resume(tree, store)
        again += second.asked
    assert result.output == "done"
    for messages in (ask.data for ask in again if not is_summary(ask.data)):
        assert canonical.encode(messages) == known[canonical.encode(messages[-1])]
    made = [canonical.encode(ask.data) for ask in again if is_summary(ask.data)]
    assert sorted(set(made)) == sorted(asked)
    assert len(made) <= len(asked) + 1, "only a summary that is not recorded is requested again"


# A limit without room ------------------------------------------------------------------------------------------


async def test_a_task_that_does_not_fit_fails_before_the_first_request(store: StateStore) -> None:
    tree, agent = reading(history=History(5))
    tree = pipeline(GranularStep("research", agent, history=History(5)))
    failed = await start(tree, store, TASK)
    assert failed.error is not None
    assert (failed.error.code, failed.error.path, agent.count) == ("FLJ430", "research", 0)
    assert failed.error.message == (
        "step 'research': its task has about 6 tokens, and `history.max_tokens` is 5"
    )


@pytest.mark.parametrize("keep", ["last", "summary"])
async def test_a_newest_turn_that_does_not_fit_fails_and_a_higher_limit_continues(
    store: StateStore, keep: Any
) -> None:
    tree, agent = reading(3, history=History(80, keep=keep))
    failed = await start(tree, store)
    assert failed.error is not None
    assert (failed.error.code, agent.count) == ("FLJ430", 1)
    assert failed.error.message.startswith("step 'research': its task and its newest turn have about 1"), (
        failed.error.message
    )
    more, other = reading(3, history=History(150, keep=keep))
    assert (await resume(more, store, retry_failed=True)).output == "done"
    assert len(requests(other)) == 3


# Summaries -----------------------------------------------------------------------------------------------------


async def test_a_summary_replaces_the_older_turns_and_is_an_entry_with_its_cost(store: StateStore) -> None:
    one = Usage(requests=1, input_tokens=7, cost_micro_usd=3)
    tree, agent = reading(history=History(350, keep="summary"), usage=one)
    result = await start(tree, store)
    assert result.output == "done"
    recorded = await entries(store)
    written = recorded["research/summary[0]"]
    assert (value(written), written.usage) == ("what pages say", one)
    assert (detail(written)["turns"], detail(written)["replaces"]) == (4, 3)
    before, after = requests(agent)[3:5]
    assert pages(before) == [0, 1, 2]
    assert pages(after) == [3]
    require_whole(after)
    assert [part["content"] for part in after[0]["parts"]] == [
        TASK,
        "Summary of the conversation so far:\nwhat pages say",
    ]
    assert pages(summaries(agent)[0]) == [0, 1, 2]
    assert result.usage.requests == len(agent.asked)
    assert detail(recorded["research/turn[4]"])["left_out"] == 3


async def test_a_further_summary_is_made_of_the_one_before(store: StateStore) -> None:
    texts = iter(["the first", "the second"])
    tree, agent = reading(7, history=History(350, keep="summary"), summary=lambda _: next(texts))
    assert (await start(tree, store)).output == "done"
    first, second = summaries(agent)
    assert "Summary of" not in str(first)
    assert "the first" in str(second[0])
    assert pages(first) == [0, 1, 2]
    assert pages(second) == [3, 4, 5]
    newest = requests(agent)[-1]
    assert "the second" in str(newest[0])
    assert "the first" not in str(newest)
    for messages in requests(agent):
        require_whole(messages)
        assert size(messages) <= 350


async def test_a_summary_that_fails_is_retried_and_the_conversation_continues(store: StateStore) -> None:
    outcomes: list[Any] = [ModelUnavailable("down", retryable=True), "short"]
    config = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    tree, agent = reading(
        history=History(350, keep="summary"), summary=lambda _: outcomes.pop(0), config=config
    )
    assert (await start(tree, store)).output == "done"
    attempts = [entry for entry in await store.entries(RUN) if entry.path == "research/summary[0]"]
    assert [entry.status for entry in attempts] == [EntryStatus.FAILED, EntryStatus.COMPLETED]
    assert len(requests(agent)) == 7


@pytest.mark.parametrize("bad", [calls(("read", {"page": 9})), ModelUnavailable("down")])
async def test_without_a_summary_the_step_fails_and_a_retry_continues(store: StateStore, bad: Any) -> None:
    tree, agent = reading(history=History(350, keep="summary"), summary=bad)
    failed = await start(tree, store)
    assert failed.error is not None
    assert failed.error.path == "research/summary[0]"
    more, other = reading(history=History(350, keep="summary"))
    assert (await resume(more, store, retry_failed=True)).output == "done"
    assert (len(requests(agent)), len(requests(other))) == (4, 3)


async def test_a_summary_that_is_too_long_fails_the_step(store: StateStore) -> None:
    tree, _ = reading(history=History(350, keep="summary"), summary="y" * 1200)
    failed = await start(tree, store)
    assert failed.error is not None
    assert failed.error.code == "FLJ430"
    assert "its task, the summary and its newest turn have about" in failed.error.message


async def test_a_summary_counts_in_the_budget(store: StateStore) -> None:
    tree, agent = reading(history=History(350, keep="summary"), usage=Usage(requests=1))
    limited = Pipeline(tree.steps, "test", budget=UsageLimits(requests_limit=4))
    failed = await start(limited, store)
    assert failed.error is not None
    assert failed.error.code == "FLJ421"
    assert (len(requests(agent)), len(summaries(agent))) == (4, 0)


async def test_an_agent_with_a_schema_writes_a_summary_as_text(store: StateStore) -> None:
    schema = {"type": "object", "required": ["n"]}
    script = [*(calls(("read", {"page": turn})) for turn in range(4)), {"n": 4}]
    tree, agent = reading(history=History(350, keep="summary"), script=script, output_schema=schema)
    assert (await start(tree, store)).output == {"n": 4}
    (asked,) = [ask for ask in agent.asked if is_summary(ask.data)]
    assert asked.output_schema == {"type": "string"}


async def test_the_history_may_change_between_two_executions(store: StateStore) -> None:
    tree, _ = reading(history=History(350, keep="summary"), summary=ModelUnavailable("down"))
    assert (await start(tree, store)).status is RunStatus.FAILED
    whole, agent = reading(history="full")
    assert (await resume(whole, store, retry_failed=True)).output == "done"
    assert pages(requests(agent)[-1]) == [0, 1, 2, 3, 4, 5]
