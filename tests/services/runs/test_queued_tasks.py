"""Background steps with a queue: where a task is put, and who executes it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.queues import ClaimOrder, QueueLimits, task_id
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.steps import AwaitStep, ImportStep, Step, StepConfig, Text
from flujo.exceptions import QueueUnknown
from support import World, pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.store import StateStore

RUN = RunId("run")
TASK = task_id(RUN, StepPath("report"), 1)
MAIL = StepConfig(execution_mode="background", queue="mail", priority=7)
TOML = """
[queues.mail]
[queues.keyed]
per_key = "input.customer"
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flujo.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)


async def worked_off(runner: Flujo[Any, Any, Any], store: StateStore, queue: str) -> int:
    """Execute what is in a queue, as a worker does; return how many runs."""
    order = ClaimOrder(queues=((queue, QueueLimits()),), limit=10)
    claimed = await store.claim_next(order)
    assert runner._services is not None
    for record in claimed:
        await (await runner._services.of_run(record)).execute(record, max_recoveries=0)
    return len(claimed)


async def test_a_task_in_a_queue_waits_for_a_worker_and_its_run_takes_the_result(store: StateStore) -> None:
    world = World()
    tree = pipeline(
        Step("report", world.add("report", lambda data: data + 1), config=MAIL),
        Step("after", world.add("after")),
        AwaitStep("result", task="report"),
    )
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        result = await runner.run_result_async(1, run_id=RUN)
        assert (result.status, world.calls) == (RunStatus.WAITING, ["after"])
        task = await store.run(TASK)
        assert (task.status, task.owner, task.fence) == (RunStatus.ACCEPTED, None, 0)
        assert task.queued is not None
        assert (task.queued.queue, task.queued.priority, task.queued.key) == ("mail", 7, None)
        assert (await store.due()).runs == (), "only workers of the queue take it"
        assert await worked_off(runner, store, "default") == 0
        assert await worked_off(runner, store, "mail") == 1
        assert (await runner.resume_async(RUN)).output == 2


@pytest.mark.parametrize(
    ("step", "key"),
    [
        (Step("report", lambda data: data, arguments={"customer": Text("{{ input }}")}), "ada"),
        (Step("report", lambda data: data, input={"customer": "bob"}), "bob"),
        (ImportStep("report", Pipeline((Step("a", lambda data: data),), name="child"), arguments={"customer": 3}), "3"),
    ],
)  # fmt: skip
async def test_the_key_of_a_task_is_that_of_the_input_of_its_step(
    store: StateStore, step: Any, key: str
) -> None:
    tree = pipeline(replace(step, config=StepConfig(execution_mode="background", queue="keyed")))
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        assert (await runner.run_result_async("ada", run_id=RUN)).success
    task = await store.run(TASK)
    assert task.queued is not None
    assert task.queued.key == key


async def test_an_input_without_the_key_of_the_queue_fails_the_launch(store: StateStore) -> None:
    config = StepConfig(execution_mode="background", queue="keyed")
    async with Flujo[Any, Any, Any](
        pipeline(Step("report", lambda data: data, config=config)), store=store, recovery=False
    ) as runner:
        result = await runner.run_result_async({"no": "customer"}, run_id=RUN)
    assert result.error is not None
    assert (result.error.path, "`per_key` of queue 'keyed' has no value" in result.error.message) == (
        "report",
        True,
    )
    assert await store.runs(RunQuery(parent=RUN)) == []


async def test_a_queue_that_there_is_not_is_refused_before_a_run_is_accepted(store: StateStore) -> None:
    config = StepConfig(execution_mode="background", queue="mial")
    tree = pipeline(Step("report", lambda data: data, config=config))
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        with pytest.raises(QueueUnknown, match="mial"):
            await runner.run_result_async(1, run_id=RUN)
    assert await store.runs(RunQuery()) == []


async def test_without_persistence_the_process_of_the_run_executes_the_task() -> None:
    tree = pipeline(
        Step("report", lambda data: data + 1, config=MAIL),
        Step("after", lambda data: 0),
        AwaitStep("result", task="report"),
    )
    async with Flujo[Any, Any, Any](tree, persist_state=False) as runner:
        assert (await runner.run_result_async(1)).output == 2
