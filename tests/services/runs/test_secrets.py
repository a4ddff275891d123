"""A known secret never enters the journal, and never leaves in an error, a log line or an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.steps import HumanInTheLoopStep, Step, Text
from flujo.exceptions import SecretInValue
from flujo.governance.sink import GATE
from flujo.services.runs.runner import Flujo
from support import pipeline

if TYPE_CHECKING:
    from flujo.domain.events import Event
    from flujo.domain.ports import StateStore

KEY = "sk-canary-runs-0123456789"
RUN = RunId("run")


@pytest.fixture(autouse=True)
def _known() -> None:
    GATE.know([KEY], of="CANARY_API_KEY")


def reads_the_environment(_: Any) -> dict[str, str]:
    """Return a value that holds the key."""
    return {"configured": f"key={KEY}"}


def is_refused(_: Any) -> None:
    """Fail as a client does that repeats the key."""
    raise ConnectionError(f"401 for {KEY}")


def is_never_called(_: Any) -> None:
    """Stand behind an input that is refused."""
    raise AssertionError


def runner(step: Any, store: StateStore, events: list[Event] | None = None) -> Flujo[Any, Any, Any]:
    """Return a runner of one step whose events are collected."""

    async def collect(event: Event) -> None:
        if events is not None:
            events.append(event)

    return Flujo[Any, Any, Any](pipeline(step), store=store, hooks=[collect])


async def test_a_step_whose_output_holds_a_secret_fails_and_stores_nothing_of_it(store: StateStore) -> None:
    async with runner(Step("read", reads_the_environment), store) as flujo:
        result = await flujo.run_result_async(None, run_id=RUN)
        entries = await store.entries(RUN)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert (result.error.code, result.error.type) == (SecretInValue.code, "SecretInValue")
    assert result.error.message == "output of step 'read' contains the value of CANARY_API_KEY"
    assert KEY not in repr(entries)


async def test_an_input_that_holds_a_secret_starts_no_run(store: StateStore) -> None:
    async with runner(Step("read", is_never_called), store) as flujo:
        with pytest.raises(SecretInValue, match="input contains the value of CANARY_API_KEY"):
            await flujo.run_result_async({"key": KEY}, run_id=RUN)
        assert await store.runs(RunQuery()) == []


async def test_a_step_whose_input_holds_a_secret_is_not_executed(store: StateStore) -> None:
    half = len(KEY) // 2
    step = Step("read", is_never_called, input="{{ input.a }}{{ input.b }}")
    async with runner(step, store) as flujo:
        result = await flujo.run_result_async({"a": KEY[:half], "b": KEY[half:]}, run_id=RUN)
    assert result.error is not None
    assert result.error.message == "input of step 'read' contains the value of CANARY_API_KEY"


async def test_an_answer_that_holds_a_secret_leaves_the_question_open(store: StateStore) -> None:
    async with runner(HumanInTheLoopStep(name="ask", message=Text("Which key?")), store) as flujo:
        await flujo.run_result_async(None, run_id=RUN)
        with pytest.raises(SecretInValue, match="answer contains"):
            await flujo.resume_async(RUN, KEY)
        assert [pause.is_open for pause in await store.pauses(RUN)] == [True]


async def test_an_error_is_journaled_and_sent_without_secrets(store: StateStore) -> None:
    events: list[Event] = []
    async with runner(Step("call", is_refused), store, events) as flujo:
        result = await flujo.run_result_async(None, run_id=RUN)
        entries = await store.entries(RUN)
    assert result.error is not None
    assert result.error.message == "ConnectionError: 401 for ***"
    assert "401 for ***" in repr(entries)
    assert KEY not in repr((entries, [event for event in events if not hasattr(event, "outcome")]))
