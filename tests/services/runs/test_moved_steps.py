"""A run continues with renamed branches and states, and with steps that have moved into new composites."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from durability.later_versions import later_version
from durability.random_programs import CONTEXT, known, random_program, tree
from engine.talking import Panel
from flujo import Flujo
from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import (
    AwaitStep,
    BaseStep,
    CallableRef,
    ConditionalStep,
    DynamicParallelRouterStep,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    ParallelStep,
    Save,
    State,
    StateMachineStep,
    Text,
    Transition,
)
from flujo.exceptions import ChangesRefused, StateBackendUnavailable
from flujo.state.store import SqlStateStore
from flujo.testing import MemoryStateStore
from support import COUNTER_SCHEMA, StoppingStore, World, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flujo.domain.ports import StateStore

RUN = RunId("run")
AT_ONCE = 6
"""How many steps of a random program may be executed when its run breaks off."""
LOG = {"log": Save(Expr("output"), append=True)}


def machine(world: World, name: str, first: str, last: str) -> StateMachineStep:
    states = {
        first: State(
            call("count", world.add("count", lambda n: n + 1), input="{{ context.total }}", save=TOTAL),
            (Transition(last, Expr("context.total >= 3")), Transition(first)),
        ),
        last: State(call("close", world.add("close", lambda n: n * 10))),
    }
    return StateMachineStep(name=name, initial=first, states=states, final=(last,))


TOTAL = {"total": Save(Expr("output"))}


def forked(world: World, left: str) -> ParallelStep:
    return ParallelStep(
        name="both",
        branches={
            left: pipeline(call("one", world.add("one", lambda n: n + 1)), call("two", world.add("two"))),
            "right": pipeline(call("three", world.add("three", lambda n: n + 3), save=LOG)),
        },
    )


def picked(world: World, names: tuple[str, str, str]) -> DynamicParallelRouterStep:
    answer = CallableRef("moved:pick", lambda _: list(names[:2]))
    bodies = [pipeline(call("say", world.add(f"say {n}"), input=n)) for n in range(3)]
    return DynamicParallelRouterStep(
        name="pick", router=answer, branches=dict(zip(names, bodies, strict=True))
    )


def switched(world: World, name: str) -> ConditionalStep:
    answer = CallableRef("moved:switch", lambda _: name)
    body = pipeline(call("in_it", world.add("in_it"), input="in"))
    return ConditionalStep(name="switch", condition=answer, branches={name: body, "no": body})


def before(world: World) -> Pipeline:
    return pipeline(
        call("first", world.add("first", lambda n: n + 1), save=LOG),
        call("second", world.add("second", lambda n: n + 1)),
        forked(world, "left"),
        picked(world, ("yes", "no", "never")),
        switched(world, "old"),
        machine(world, "machine", "open", "closed"),
        call("last", world.add("last"), input="{{ previous }}"),
        context_schema=COUNTER_SCHEMA,
        output={
            "second": "{{ steps.second.output }}",
            "left": "{{ steps.both.output.left }}",
            "picked": "{{ steps.pick.output.yes + steps.pick.output.no }}",
            "last": "{{ previous }}",
            "context": "{{ context }}",
        },
    )


def after(world: World) -> Pipeline:
    moved = pipeline(
        machine(world, "device", "begun", "ended"),
        context_schema=COUNTER_SCHEMA,
        output=Text("{{ previous }}"),
    )
    return pipeline(
        ParallelStep(
            name="intro",
            output="{{ previous.at }}",
            branches={
                "at": pipeline(
                    call("begin", world.add("first", lambda n: n + 1), save=LOG),
                    call("second", world.add("second", lambda n: n + 1)),
                )
            },
        ),
        forked(world, "port"),
        picked(world, ("ja", "nein", "never")),
        switched(world, "new"),
        ConditionalStep(
            name="perhaps", condition="context.total == 0", then=ImportStep("sub", moved, context="inherit")
        ),
        call("last", world.add("last"), input="{{ previous }}"),
        context_schema=COUNTER_SCHEMA,
        migrations={
            "first": "intro:at/begin",
            "second": "intro:at/second",
            "both:left": "both:port",
            "pick:yes": "pick:ja",
            "pick:no": "pick:nein",
            "switch:old": "switch:new",
            "machine": "perhaps:then/sub/device",
            "machine:open": "perhaps:then/sub/device:begun",
            "machine:closed": "perhaps:then/sub/device:ended",
        },
        output={
            "second": "{{ steps.intro.output }}",
            "left": "{{ steps.both.output.port }}",
            "picked": "{{ steps.pick.output.ja + steps.pick.output.nein }}",
            "last": "{{ previous }}",
            "context": "{{ context }}",
        },
    )


EXPECTED = {"second": 3, "left": 4, "picked": 1, "last": 30, "context": {"total": 3, "log": [2, 6]}}


async def broken_off(tree: Pipeline, store: StateStore, writes: int) -> bool:
    """Start a run that ends after this many writes; return whether it was not complete by then."""
    stopping: Any = StoppingStore(store, writes)
    try:
        await start(tree, stopping, 1)
    except StateBackendUnavailable:
        return True
    return False


async def places(store: StateStore) -> list[tuple[str, str, int]]:
    return [(entry.path, entry.kind, entry.attempt) for entry in await store.entries(RUN)]


async def continued(tree: Pipeline, store: StateStore) -> Any:
    """Continue a run, also after it has broken off once more, and return its output."""
    first = await places(store)
    try:
        stopping: Any = StoppingStore(store, 2)
        result = await resume(tree, stopping)
    except StateBackendUnavailable:
        result = await resume(tree, store)
    found = await places(store)
    assert found[: len(first)] == first
    assert len(set(found)) == len(found), "nothing is recorded twice"
    assert result.error is None
    return result.output


async def test_a_run_continues_in_its_new_places_wherever_it_has_broken_off(tmp_path: Path) -> None:
    writes, made = 0, set[int]()
    while True:
        writes += 1
        store = SqlStateStore(f"sqlite:///{tmp_path}/{writes}.db")
        if not await broken_off(before(World()), store, writes):
            break
        assert await continued(after(World()), store) == EXPECTED
        made.add(len(await places(store)))
        await store.aclose()
    await store.aclose()
    assert writes > 12
    assert len(made) == 1, "each run has the same steps"


async def test_a_run_continues_in_its_new_places_on_each_store(store: StateStore) -> None:
    assert await broken_off(before(World()), store, 9)
    world = World()
    assert await continued(after(world), store) == EXPECTED
    assert not {"first", "second", "one"} & {*world.calls}


async def test_a_choice_keeps_its_meaning_before_its_branch_has_begun(tmp_path: Path) -> None:
    """A router has answered with the old names, and no branch has an entry."""
    store = SqlStateStore(f"sqlite:///{tmp_path}/a.db")
    assert await broken_off(pipeline(picked(World(), ("yes", "no", "never"))), store, 1)
    assert [place[0] for place in await places(store)] == ["pick"]
    gone = pipeline(picked(World(), ("ja", "nein", "never")), migrations={"pick:yes": "pick:ja"})
    result = await resume(gone, store)
    assert result.error is not None
    assert "at `pick` is recorded as `no`" in result.error.message
    renamed = {"pick:yes": "pick:ja", "pick:no": "pick:nein"}
    result = await resume(replace(gone, migrations=renamed), store, retry_failed=True)
    assert result.output == {"ja": 0, "nein": 1}
    await store.aclose()


async def test_a_state_that_is_gone_is_not_left_out(store: StateStore) -> None:
    def states(last: str, **more: Any) -> Pipeline:
        first = State(call("begin", World().add("begin")), (Transition(last),))
        asking = State(HumanInTheLoopStep("ask", message="?"))
        machine = StateMachineStep(
            name="m", initial="open", states={"open": first, last: asking}, final=(last,)
        )
        return pipeline(machine, **more)

    assert len((await start(states("closed"), store, 1)).pauses) == 1
    gone = await resume(states("ended"), store, answer="yes", pause_id="m:closed[0]/ask")
    assert gone.error is not None
    assert "is recorded as `closed`" in gone.error.message
    renamed = states("ended", migrations={"m:closed": "m:ended"})
    assert (await resume(renamed, store, retry_failed=True)).output == "yes"


def threaded(
    panel: Panel, names: str, wrap: Callable[[BaseStep], BaseStep] = lambda step: step, **more: Any
) -> Pipeline:
    one, two, three = (*names,)
    return pipeline(
        wrap(replace(panel.step("first", input="a"), name=one)),
        replace(panel.granular("second", input="b"), name=two),
        ParallelStep(
            "both",
            {
                "x": replace(panel.granular("third", input="c"), name=three),
                "y": panel.step("beside", thread=None),
            },
        ),
        panel.step("last", input="d"),
        **more,
    )


async def test_a_thread_knows_its_steps_by_their_new_names(tmp_path: Path) -> None:
    def wrapped(step: BaseStep) -> BaseStep:
        return ParallelStep("new", {"in": step})

    tree: dict[str, str] = {"a": "new:in/p", "b": "q", "both:x/c": "both:x/r"}
    whole, writes = Panel(), 0
    await start(threaded(whole, "pqr", wrapped), MemoryStateStore(), 1)
    while True:
        writes += 1
        store = SqlStateStore(f"sqlite:///{tmp_path}/{writes}.db")
        panel = Panel()
        if not await broken_off(threaded(panel, "abc"), store, writes):
            break
        panel.heard.clear()
        later = threaded(panel, "pqr", wrapped, migrations=tree)
        result = await resume(later, store)
        assert result.error is None
        assert {name: whole.heard[name] for name in panel.heard} == panel.heard
        await store.aclose()
    await store.aclose()
    assert writes > 5


async def test_a_move_into_another_context_is_refused_after_a_write(store: StateStore) -> None:
    def tree(step: BaseStep, **more: Any) -> Pipeline:
        wait = AwaitStep("wait", tasks=Text("{{ [] }}"))
        return pipeline(step, wait, context_schema=COUNTER_SCHEMA, **more)

    first = call("first", World().add("first"), save=LOG)
    assert await broken_off(tree(first), store, 1)
    inner = Pipeline(first, "inner", context_schema=COUNTER_SCHEMA)
    with pytest.raises(ChangesRefused, match="`sub/first`"):
        await resume(tree(ImportStep("sub", inner), migrations={"first": "sub/first"}), store)
    shared = ImportStep("sub", inner, context="inherit")
    result = await resume(tree(shared, migrations={"first": "sub/first"}), store)
    assert result.error is None
    assert result.context is not None
    assert result.context.model_dump()["log"] == [1]


@pytest.mark.parametrize("seed", [0, 4, 7, 8, 10, 13, 115, 207, 250, 254])
async def test_a_random_program_ends_the_same_in_a_later_version(seed: int, tmp_path: Path) -> None:
    """The run has broken off anywhere, and any steps, branches and states have other names or places."""
    chance = Random(seed)
    program = random_program(chance, also=())
    made: list[tuple[str, str]] = []

    async def act(name: str, data: Any, _key: str) -> None:
        made.append((name, str(data)))

    expected = known(program, 1)
    earlier = tree(program, act)
    later = later_version(earlier, chance, CONTEXT)
    store = SqlStateStore(f"sqlite:///{tmp_path}/a.db")
    if await broken_off(earlier, store, chance.randint(1, 12)):
        await continued(later, store)
    record = await store.run(RUN)
    assert canonical.decode(record.output or b"") == expected.output
    twice = sum((Counter(name for name, _ in made) - expected.effects).values())
    assert twice <= AT_ONCE, "only what was not recorded is executed again"
    async with Flujo[Any, Any, Any](later, store=store) as runner:
        await runner.replay_from_trace(RUN)
    await store.aclose()
