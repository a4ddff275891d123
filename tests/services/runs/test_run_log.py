"""The log of a run: its start and its end, each step, each failure."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN
from flujo.domain.current_step import CURRENT_STEP, CurrentStep
from flujo.domain.executor import Unit
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, StepConfig
from flujo.services.executors.wire import output_of
from flujo.services.runs.run_log import observer_of
from flujo.state.memory_store import MemoryStateStore
from support import call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.ports import StateStore


@pytest.fixture
async def memory() -> AsyncIterator[StateStore]:
    async with aclosing(MemoryStateStore()) as opened:
        yield opened


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, CurrentStep]]:
    """Return the messages without their seconds, each with its step."""
    return [
        (record.getMessage().partition(" in ")[0], vars(record)["flujo_step"])
        for record in caplog.records
        if record.name == "flujo.runs"
    ]


async def test_each_step_and_each_failure_is_a_line(
    memory: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[Any] = [ValueError("boo"), 7]
    said: list[CurrentStep | None] = []

    def flaky(_: Any) -> Any:
        said.append(CURRENT_STEP.get())
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    patient = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    tree = pipeline(
        call("flaky", CallableRef("t:flaky", flaky), config=patient), HumanInTheLoopStep("ask", "?")
    )
    caplog.set_level(logging.INFO, "flujo.runs")
    await start(tree, memory)
    await resume(tree, memory, answer="yes")
    whole, step = CurrentStep(RUN, ROOT), StepPath("flaky")
    assert lines(caplog) == [
        ("test started", whole),
        ("failed: ValueError: boo [FLJ401]", CurrentStep(RUN, step, 1)),
        ("step completed", CurrentStep(RUN, step, 2)),
        ("paused", whole),
        ("test resumed", whole),
        ("hitl completed", CurrentStep(RUN, StepPath("ask"), 1)),
        ("completed", whole),
    ]
    assert said == [CurrentStep(RUN, step, 1), CurrentStep(RUN, step, 2)]


async def test_a_line_says_where_a_unit_was_executed(
    memory: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def remote(_: Any) -> Any:
        answer = b'{"lines":[],"output":4,"ran":["node-7",4711,0.25]}'
        return output_of(answer, Unit(target="t:remote", data=b"null"), "cores")

    caplog.set_level(logging.INFO, "flujo.runs")
    await start(pipeline(call("sum", CallableRef("t:remote", remote))), memory)
    said = "executed on cores, host node-7, process 4711,"
    assert (said, CurrentStep(RUN, StepPath("sum"), 1)) in lines(caplog)


async def test_a_run_is_not_observed_while_its_logger_is_off(memory: StateStore) -> None:
    await start(pipeline(), memory)
    assert observer_of(await memory.run(RUN), None) is None
