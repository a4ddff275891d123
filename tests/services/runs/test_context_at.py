"""In a fork, fields of the context have other values from its point on, and nothing before it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    CallableRef,
    Expr,
    ImportStep,
    LoopStep,
    Save,
    Step,
    Text,
)
from flujo.exceptions import (
    ForkRefused,
    InputRejected,
)
from flujo.state.memory_store import MemoryStateStore
from support import COUNTER_SCHEMA, World, call, fork, pipeline, start

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")


def writing(world: World) -> Pipeline:
    return pipeline(
        call("plan", world.add("plan", lambda n: n), save={"total": Save(Expr("output"))}),
        LoopStep(
            "loop",
            body=pipeline(
                Step(
                    "count",
                    CallableRef("w:count", lambda data: data),
                    effect="read",
                    input=Text("{{ context.total }}"),
                    save={"total": Save(Expr("output + 1"))},
                )
            ),
            until=Expr("loop.index == 2"),
        ),
        ImportStep(
            name="apart", pipeline=pipeline(call("inside", world.add("inside"), effect="read"), name="apart")
        ),
        Step(
            "say", CallableRef("w:say", lambda data: data), effect="read", input=Text("{{ context.total }}")
        ),
        context_schema=COUNTER_SCHEMA,
    )


@pytest.mark.parametrize(
    ("at", "output"), [("plan", 4), ("loop", 103), ("loop[0]/count", 103), ("loop[2]", 101), ("say", 100)]
)
async def test_a_field_of_the_context_has_another_value_from_the_point_on(at: str, output: int) -> None:
    world, store = World(), MemoryStateStore()
    assert (await start(writing(world), store, 1)).output == 4
    forked = await fork(writing(world), store, at, context={"total": 100})
    assert forked.output == output
    assert (await store.run(RUN)).status is RunStatus.COMPLETED


async def test_a_field_that_does_not_exist_does_not_fit_or_is_of_another_context_is_refused(
    store: StateStore,
) -> None:
    world = World()
    await start(writing(world), store, 1)
    with pytest.raises(InputRejected, match="totl"):
        await fork(writing(world), store, "say", context={"totl": 1})
    with pytest.raises(InputRejected):
        await fork(writing(world), store, "say", context={"total": "many"})
    with pytest.raises(ForkRefused, match="`apart`"):
        await fork(writing(world), store, "apart/inside", context={"total": 1})
