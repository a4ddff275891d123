"""An expression chooses the agent of a step: a decision that is recorded, and compared on resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, Panel, exchange
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.journal import EntryKind
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import RunStatus
from flujo.domain.steps import Expr, GranularStep, LoopStep, Step, StepConfig
from flujo.exceptions import (
    AgentNotListed,
    JournalConflict,
    ModelUnavailable,
    PipelineError,
    StateBackendUnavailable,
)
from flujo.services.inspection.trace import trace
from flujo.testing import ScriptedAgent
from support import StoppingStore, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.ports import StateStore


def choice(panel: Panel, by: str, *, tools: bool = False) -> OneOf:
    return OneOf({name: panel.agent(name, tools=tools) for name in ("writer", "critic")}, by=by)


def asked(panel: Panel) -> list[str]:
    return [name for name, heard in panel.heard.items() for _ in heard]


@pytest.mark.parametrize("kind", [Step, GranularStep])
async def test_the_named_agent_answers_and_the_choice_is_recorded(store: StateStore, kind: Any) -> None:
    panel = Panel()
    agent = choice(panel, "input", tools=kind is GranularStep)
    tree = pipeline(kind("say", agent=agent, input="x"))
    assert (await start(tree, store, "critic")).output == "critic(x)"
    assert asked(panel) == ["critic"]
    recorded = {(str(entry.path), entry.kind): entry for entry in await store.entries(RUN)}
    assert canonical.decode(recorded["say:agent", EntryKind.DECISION].output or b"") == "critic"
    root = await trace(store, await store.run(RUN))
    (say,) = root.children
    assert say.chosen == "critic"
    assert [child.name for child in say.children if child.kind != "turn"] == []


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("critc", "did you mean `critic`?"),
        ("", "its agents: `writer` and `critic`"),
        (["critic"], "did you mean `critic`?"),
    ],
)
async def test_an_agent_that_is_not_listed_is_an_error_and_is_not_recorded(
    store: StateStore, value: Any, hint: str
) -> None:
    panel = Panel()
    result = await start(pipeline(Step("say", agent=choice(panel, "input"))), store, value)
    assert result.error is not None
    assert (result.error.code, result.error.path) == (AgentNotListed.code, "say")
    assert repr(value) in result.error.message
    assert result.error.hint == hint
    assert panel.heard == {}
    assert [entry.path for entry in await store.entries(RUN)] == []


async def test_a_step_that_is_skipped_chooses_no_agent(store: StateStore) -> None:
    panel = Panel()
    await start(pipeline(Step("say", agent=choice(panel, "'nobody'"), when="false")), store)
    assert [entry.path for entry in await store.entries(RUN)] == ["say", "say"]


async def test_a_retry_asks_the_same_agent_and_a_loop_chooses_each_time(store: StateStore) -> None:
    panel = Panel()
    flaky = ScriptedAgent([ModelUnavailable("down", retryable=True), "at last"])
    agents = OneOf(
        {"flaky": flaky, "critic": panel.agent("critic")}, by="loop.index == 0 ? 'flaky' : 'critic'"
    )
    say = Step("say", agent=agents, input="x", config=StepConfig(max_retries=1))
    tree = pipeline(LoopStep("turns", Pipeline((say,)), until="loop.index == 1"))
    assert (await start(tree, store)).output == "critic(x)"
    assert (flaky.count, asked(panel)) == (2, ["critic"])


@pytest.mark.parametrize("stop_at", range(1, 8))
async def test_a_resumed_run_asks_the_chosen_agent(store: StateStore, stop_at: int) -> None:
    panel = Panel()
    tree = pipeline(
        panel.step("plan", None, input="p"),
        GranularStep(
            "say", choice(panel, "previous == 'plan(p)' ? 'writer' : 'critic'", tools=True), input="x"
        ),
        Step("more", agent=choice(panel, "'critic'"), input="y"),
    )
    try:
        await start(tree, StoppingStore(store, stop_at))
    except StateBackendUnavailable:
        assert (await resume(tree, store)).status is RunStatus.COMPLETED
    assert set(asked(panel)) == {"plan", "writer", "critic"}


async def test_a_resumed_run_that_would_choose_another_agent_fails(store: StateStore) -> None:
    panel = Panel()

    def tree(by: str) -> Pipeline:
        agents = OneOf({"writer": ScriptedAgent([]), "critic": panel.agent("critic")}, by=by)
        return pipeline(Step("say", agent=agents, input="x"))

    assert (await start(tree("'writer'"), store)).status is RunStatus.FAILED
    result = await resume(tree("'critic'"), store, retry_failed=True, accept_changes=True)
    assert result.error is not None
    assert (result.error.code, result.error.path) == (JournalConflict.code, "say:agent")
    assert panel.heard == {}


async def test_a_callable_may_choose(store: StateStore) -> None:
    panel = Panel()

    def pick(data: Any) -> str:
        return "writer" if data == 1 else "critic"

    agents = OneOf({name: panel.agent(name) for name in ("writer", "critic")}, by=pick)
    assert (await start(pipeline(Step("say", agent=agents)), store, 1)).output == "writer(1)"


async def test_the_chosen_agent_of_a_thread_sees_the_thread(store: StateStore) -> None:
    panel = Panel()
    tree = pipeline(
        panel.step("first", input="f"),
        Step("say", agent=choice(panel, "'writer'"), input="x", thread="panel"),
    )
    await start(tree, store)
    assert panel.heard["writer"] == [(exchange("first", "f"),)]


def test_a_choice_needs_two_agents_of_two_names() -> None:
    one, same = AgentSpec("writer", "test:a"), AgentSpec("writer", "test:b")
    assert list(OneOf([one, AgentSpec("critic", "test:a")], by="input").one_of) == ["writer", "critic"]
    with pytest.raises(PipelineError, match="two agents named 'writer'"):
        OneOf([one, same], by="input")
    with pytest.raises(PipelineError, match="a choice needs 2"):
        OneOf([one], by="input")
    assert OneOf([one, AgentSpec("critic", "test:a")], by="input").by == Expr("input")


def test_a_choice_shows_its_agents() -> None:
    agents = OneOf([AgentSpec("writer", "test:a"), AgentSpec("critic", "test:b")], by="input.next")
    step = Step("say", agent=agents, thread="panel")
    assert step.summary() == "asks writer or critic (by input.next) on the thread panel"
    assert [each.name for each in step.names() if isinstance(each, AgentSpec)] == ["writer", "critic"]
