"""Where state machines are: what a dashboard shows of a run that is under way, waits, failed or has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.steps import CallableRef
from flujo.services.inspection.task_client import TaskClient
from support import (
    Expr,
    HumanInTheLoopStep,
    ParallelStep,
    State,
    StateMachineStep,
    Text,
    Transition,
    World,
    answer,
    call,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.ports import StateStore


def review(name: str, work: CallableRef) -> StateMachineStep:
    """Return a machine that drafts and asks until the answer is yes."""
    return StateMachineStep(
        name=name,
        initial="draft",
        states={
            "draft": State(pipeline(call(f"{name}_text", work)), (Transition("approval"),)),
            "approval": State(
                pipeline(HumanInTheLoopStep(name=f"{name}_ask", message=Text("Send this?"))),
                (Transition("sent", Expr("previous == 'yes'")), Transition("draft")),
            ),
            "sent": State(pipeline()),
        },
        final=("sent",),
    )


async def states(store: StateStore) -> Mapping[str, str]:
    return (await TaskClient(store).get_task("run")).states


async def test_each_machine_is_where_its_last_visit_is(store: StateStore) -> None:
    world = World()
    tree = pipeline(
        ParallelStep(
            name="both",
            branches={each: pipeline(review(each, world.add(each))) for each in ("letter", "invoice")},
        )
    )
    letter, invoice = "both:letter/letter", "both:invoice/invoice"
    await start(tree, store)
    assert await states(store) == {letter: "approval", invoice: "approval"}
    await answer(store, f"{letter}:approval[0]/letter_ask", "yes")
    await resume(tree, store)
    assert await states(store) == {letter: "sent", invoice: "approval"}
    await answer(store, f"{invoice}:approval[0]/invoice_ask", "no")
    await resume(tree, store)
    assert await states(store) == {letter: "sent", invoice: "approval"}
    shown = await TaskClient(store).get_task("run")
    machine = shown.trace.at(invoice)
    assert (machine.kind, machine.state, machine.status) == ("state_machine", "approval", "paused")
    assert shown.trace.at(f"{invoice}:draft[1]").status == "completed"


async def test_a_machine_that_is_under_way_is_where_it_works(store: StateStore) -> None:
    seen: list[Mapping[str, str]] = []

    async def look(data: Any) -> Any:
        seen.append(await states(store))
        return data

    work = StateMachineStep(
        name="m",
        initial="one",
        states={
            "one": State(pipeline(call("a", World().add("a"))), (Transition("two"),)),
            "two": State(pipeline(call("b", World().add("b")), call("look", CallableRef("x:look", look)))),
        },
        final=("two",),
    )
    await start(pipeline(work), store)
    assert seen == [{"m": "two"}]


async def test_a_machine_stays_where_it_failed(store: StateStore) -> None:
    def fail(data: Any) -> Any:
        raise ValueError(data)

    await start(pipeline(review("m", CallableRef("x:fail", fail))), store)
    assert await states(store) == {"m": "draft"}


@pytest.mark.parametrize("steps", [(), (call("a", World().add("a")),)], ids=["empty", "plain"])
async def test_without_machines_there_are_no_states(store: StateStore, steps: Any) -> None:
    await start(pipeline(*steps), store)
    assert await states(store) == {}
