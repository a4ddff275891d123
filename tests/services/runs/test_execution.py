"""Executions: what one leaves behind when it ends without the run."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import Fenced
from flujo.state.memory_store import MemoryStateStore
from support import call, pipeline, start


async def test_an_execution_that_lost_its_run_leaves_the_newer_claim_of_its_process_alone() -> None:
    now = [0.0]
    store = MemoryStateStore(lease_s=30.0, now=lambda: now[0])

    async def lose(data: Any) -> Any:
        now[0] += 31.0  # the process was frozen, and its recovery claims the run again
        await store.claim(RunId("run"), statuses=(RunStatus.RUNNING,), recovering=True)
        return data

    with pytest.raises(Fenced):
        await start(pipeline(call("a", CallableRef("x:lose", lose))), store, 1)
    record = await store.run(RunId("run"))
    assert (record.status, record.owner, record.fence) == (RunStatus.RUNNING, store.owner, 2)
