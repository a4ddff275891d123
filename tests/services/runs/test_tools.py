"""What a callable declares of itself, and where nothing could be enforced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import flujo
from flujo import Flujo, Step
from flujo.domain.run import RunStatus
from flujo.domain.steps import CacheStep, CallableRef, GranularStep
from flujo.exceptions import CallableError, PipelineError, ResumeConflict, SettingsError
from flujo.services.inspection.task_client import TaskClient
from flujo.testing import ScriptedAgent
from support import World, call, pipeline, start

if TYPE_CHECKING:
    from flujo.domain.ports import StateStore


@flujo.tool(effect="transactional", enforce_idempotency=True)
async def book(data: Any) -> Any:
    return data


BOOK = CallableRef.of(book)


@pytest.mark.parametrize("effect", ["transactional", "unsafe"])
async def test_a_step_may_be_as_strict_as_its_callable_or_stricter(store: StateStore, effect: Any) -> None:
    step = Step(name="book", call=BOOK, effect=effect, enforce_idempotency=True)
    assert (await start(pipeline(step), store, 7)).output == 7


async def test_a_step_that_claims_less_than_its_callable_is_refused(store: StateStore) -> None:
    with pytest.raises(CallableError, match="declares 'transactional'"):
        await start(pipeline(Step(name="book", call=BOOK, effect="read", enforce_idempotency=True)), store)
    with pytest.raises(PipelineError, match="enforce_idempotency"):
        await start(pipeline(Step(name="book", call=BOOK)), store)


def test_nothing_is_enforced_where_nothing_is_kept() -> None:
    book = Step(name="book", call=BOOK, enforce_idempotency=True)
    talk = GranularStep("talk", ScriptedAgent([]), enforce_idempotency=True)
    for step, path in ((book, "book"), (CacheStep("known", book), "known/book"), (talk, "talk")):
        with pytest.raises(SettingsError, match=f"`{path}`"):
            Flujo(pipeline(step), persist_state=False)


async def test_a_step_may_cancel_its_own_run(store: StateStore) -> None:
    client = TaskClient(store)

    async def cancel(data: Any) -> Any:
        return await client.cancel_task("run")

    world = World()
    tree = pipeline(call("cancel", CallableRef("world:cancel", cancel)), call("after", world.add("after")))
    assert (await start(tree, store)).status is RunStatus.CANCELLED
    assert world.calls == []
    with pytest.raises(ResumeConflict):
        await client.cancel_task("run")
    assert (await client.get_task("run")).task.status is RunStatus.CANCELLED
