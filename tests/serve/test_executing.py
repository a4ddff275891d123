"""Runs that the server executes for a request: they outlive it, and stop with the server."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NoReturn

from flujo import Flujo, Pipeline, Step, TaskClient
from flujo.exceptions import ResumeConflict
from flujo.serve.executing import Executing

if TYPE_CHECKING:
    import pytest

    from flujo.services.workspace import Workspace


async def test_a_run_outlives_its_request_and_is_free_when_the_server_stops(
    workspace: Workspace,
) -> None:
    began = asyncio.Event()

    async def endless(data: Any) -> NoReturn:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError(data)

    executing = Executing()
    async with workspace:
        tree = Pipeline(Step("endless", endless), name="tree")
        async with Flujo(tree, store=await workspace.store(), recovery=False) as runner:
            assert await executing.begin(runner.run_result_async("x", run_id="e1"), 0) is None
            await began.wait()
            await executing.aclose()
        assert (await TaskClient(workspace).list_tasks())[0].display_status == "orphaned"


async def test_an_error_after_the_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    may_fail = asyncio.Event()

    async def work() -> NoReturn:
        await may_fail.wait()
        raise ResumeConflict("another process executes it")

    executing = Executing()
    with caplog.at_level(logging.ERROR, "flujo.serve"):
        assert await executing.begin(work(), 0) is None
        may_fail.set()
        for _ in range(3):  # the task wakes, ends, and is reported
            await asyncio.sleep(0)
    assert caplog.messages == [
        "a run that was begun by a request could not be executed: another process executes it"
    ]
