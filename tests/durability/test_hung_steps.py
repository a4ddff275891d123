"""Steps that do not stop at their time limit: the run continues without them, and late results are dropped."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import EntryStatus, RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from support import StepConfig, World, call, pipeline, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flujo.domain.ports import StateStore


class Hung:
    """Callables that ignore cancellation until `let_go`."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self.late: list[str] = []

    def let_go(self) -> None:
        """Let them end."""
        self._released.set()

    def sleeps(self, data: Any) -> str:
        """Sleep in a thread."""
        while not self._released.is_set():
            time.sleep(0.01)
        return self._late("sleeps")

    def computes(self, data: Any) -> str:
        """Keep a processor busy, and never wait."""
        while not self._released.is_set():
            pass
        return self._late("computes")

    def _late(self, name: str) -> str:
        self.late.append(name)
        return name


@pytest.fixture
def hung() -> Iterator[Hung]:
    """Yield hung callables; they end with the test."""
    made = Hung()
    yield made
    made.let_go()


@pytest.mark.guarantee("G11")
@pytest.mark.parametrize("how", [Hung.sleeps, Hung.computes])
async def test_a_thread_that_does_not_stop_is_abandoned_and_its_result_dropped(
    store: StateStore, hung: Hung, how: Callable[[Hung, Any], str]
) -> None:
    work = CallableRef("hung:work", lambda data: how(hung, data))
    tree = pipeline(
        call("hangs", work, config=StepConfig(timeout_s=0.1)), call("after", World().add("after"))
    )
    result = await start(tree, store, 1)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.path == "hangs"
    before = await store.entries(RunId("run"))
    assert hung.late == []
    hung.let_go()
    while not hung.late:  # noqa: ASYNC110 - a thread cannot notify the loop
        await asyncio.sleep(0.01)
    assert await store.entries(RunId("run")) == before
    assert [entry.status for entry in before] == [EntryStatus.FAILED]
