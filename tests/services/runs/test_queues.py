"""Queues of a project: `Flujo.submit`, the key of a run, and bad arguments."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, TaskClient
from flujo.domain.journal import RunId
from flujo.domain.queues import WorkerRecord
from flujo.domain.run import RunStatus
from flujo.domain.steps import HumanInTheLoopStep, Text
from flujo.exceptions import InputRejected, QueueUnknown, RunConflict, SettingsError
from support import World, call, pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.store import StateStore

TOML = """
[queues.mail]
per_key = "input.customer"
[queues.broken]
per_key = "input."
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flujo.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def runner(store: StateStore) -> Any:
    async with Flujo[Any, Any, Any](
        pipeline(call("work", World().add("work"))), store=store, recovery=False
    ) as made:
        yield made


async def test_a_submitted_run_waits_in_its_queue(
    runner: Flujo[Any, Any, Any], store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flujo.runs"):
        run_id = await runner.submit({"customer": "ada"}, queue="mail", priority=2, metadata={"team": "a"})
    assert "no worker of queue `mail` is alive; `flujo worker --queue mail` starts one" in caplog.text
    record = await store.run(run_id)
    assert (record.status, record.owner) == (RunStatus.ACCEPTED, None)
    assert record.queued is not None
    assert (record.queued.queue, record.queued.key, record.queued.priority) == ("mail", "ada", 2)
    client = TaskClient(store)
    [task] = await client.list_tasks(queue="mail")
    assert (task.run_id, task.queue) == (run_id, "mail")
    assert await client.list_tasks(queue="default") == []
    [state] = await client.queues()
    assert (state.queue, state.depth) == ("mail", 1)


async def test_nothing_is_reported_while_a_worker_of_the_queue_is_alive(
    runner: Flujo[Any, Any, Any], store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    worker = WorkerRecord(owner="", host="h", pid=1, version="1", queues=("default",), concurrency=1)
    await store.report_worker(worker)
    with caplog.at_level(logging.WARNING, "flujo.runs"):
        await runner.submit(1)
    assert caplog.text == ""
    [listed] = await TaskClient(store).workers()
    assert listed.pid == 1


async def test_submitting_again_with_an_id_changes_nothing(
    runner: Flujo[Any, Any, Any], store: StateStore
) -> None:
    assert await runner.submit(1, run_id="r") == await runner.submit(1, run_id="r") == "r"
    with pytest.raises(RunConflict):
        await runner.submit(2, run_id="r")
    assert len(await TaskClient(store).list_tasks()) == 1


async def test_a_delay_is_counted_from_the_acceptance(
    runner: Flujo[Any, Any, Any], store: StateStore
) -> None:
    run_id = await runner.submit(1, delay_s=600)
    record = await store.run(run_id)
    assert record.queued is not None
    assert record.queued.available_at == record.created_at + 600


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queue": "mial"}, QueueUnknown),
        ({"queue": 3}, SettingsError),
        ({"queue": "mail"}, InputRejected),
        ({"queue": "broken"}, SettingsError),
        ({"priority": 1.5}, SettingsError),
        ({"priority": 10**7}, SettingsError),
        ({"delay_s": -1}, SettingsError),
        ({"delay_s": float("inf")}, SettingsError),
        ({"run_id": "a b"}, SettingsError),
    ],
)
async def test_bad_arguments_are_refused_and_nothing_is_recorded(
    runner: Flujo[Any, Any, Any], store: StateStore, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as found:
        await runner.submit({"no": "customer"}, **options)
    assert getattr(found.value, "hint", None)
    assert await TaskClient(store).list_tasks() == []


async def test_a_run_without_persistence_is_not_submitted() -> None:
    async with Flujo[Any, Any, Any](pipeline(call("a", World().add("a"))), persist_state=False) as runner:
        with pytest.raises(SettingsError, match="without persistence"):
            await runner.submit(1)


async def test_an_attached_caller_leaves_the_run_to_a_worker(
    runner: Flujo[Any, Any, Any], store: StateStore
) -> None:
    await runner.submit(1, run_id="r")
    waiting = asyncio.ensure_future(runner.run_result_async(1, run_id="r"))
    await asyncio.sleep(0.05)
    assert (await store.run(RunId("r"))).status is RunStatus.ACCEPTED
    assert (await runner.resume_async("r")).success  # a user may execute it here all the same
    assert (await waiting).success


async def test_an_answered_run_goes_back_to_its_queue(store: StateStore) -> None:
    asks = HumanInTheLoopStep(name="ask", message=Text("go?"))
    async with Flujo[Any, Any, Any](pipeline(asks), store=store, recovery=False) as runner:
        await runner.submit(1, run_id="r")
        assert (await runner.resume_async("r")).status is RunStatus.PAUSED
        result = await TaskClient(store, runners=[runner]).resume_task("r", "yes")
        assert result.status is RunStatus.PAUSED
        assert "a worker of queue `default` resumes the run" in result.note
        assert await store.next_available(["default"]) == 0
