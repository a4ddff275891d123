"""Why a run took its way: each decision with its expression and the values that it has read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import calls, talk
from flujo.blueprint.expressions.evaluators import compile_expression
from flujo.domain.agents import OneOf
from flujo.domain.pipeline import Pipeline, StepConfig
from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import (
    CallableRef,
    Carry,
    ConditionalStep,
    DynamicParallelRouterStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Save,
    State,
    StateMachineStep,
    Step,
    Transition,
)
from flujo.domain.steps.tools import BlueprintTool
from flujo.domain.usage import Usage
from flujo.exceptions import SettingsError
from flujo.services.inspection.recorded_scope import Reading
from flujo.services.inspection.why import Account, Decision, substituted, why
from flujo.testing import ScriptedAgent
from support import (
    COUNTER_SCHEMA,
    Expr,
    HumanInTheLoopStep,
    Text,
    World,
    answer,
    call,
    everything,
    pipeline,
    resume,
    start,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.ports import StateStore

SAVED = {"total": Save(Expr("output"))}


class Records:
    """A run source that has only what an exported run has, and nothing that writes."""

    def __init__(self, store: StateStore) -> None:
        for name in ("run", "entries", "pauses", "progress", "ledger", "intents", "acts", "blobs"):
            setattr(self, name, getattr(store, name))


async def explained(store: StateStore, tree: Pipeline | None, path: str | None = None) -> Account:
    source: Any = Records(store)
    return await why(source, await store.find("run"), tree, path)


def effects(account: Account) -> list[tuple[str, str]]:
    return [(each.path, each.effect) for each in account.decisions]


def only(account: Account, path: str, key: str) -> Decision:
    [found] = [each for each in account.decisions if (each.path, each.key) == (path, key)]
    return found


def is_same(decision: Decision) -> bool:
    """Return whether the values that were found give the recorded value again."""
    known = {tuple(each.name.split(".")): each.value for each in decision.readings}
    value = compile_expression(decision.expression or "")(lambda chain: known[chain])
    return bool((len(value) if isinstance(value, list) else value) == decision.value)


def inc(name: str, **more: Any) -> Step:
    return call(name, World().add(name, lambda n: n + 1), **more)


async def test_a_branch_shows_its_expression_with_values_and_their_origins(store: StateStore) -> None:
    way = ConditionalStep(
        "way",
        condition=Expr('steps.first.output > 3 && input != "steps.first.output" && context.total == 6'),
        branches={"then": pipeline(inc("big")), "else": pipeline(inc("small"))},
    )
    tree = pipeline(inc("first", save=SAVED), way, context_schema=COUNTER_SCHEMA)
    await start(tree, store, 5)
    decision = only(await explained(store, tree), "way", "if")
    assert (decision.value, decision.effect) == (True, "took `then`")
    assert decision.substituted == '6 > 3 && 5 != "steps.first.output" && 6 == 6'
    assert [(each.name, each.value, each.origin, each.path) for each in decision.readings] == [
        ("context.total", 6, "step `first`", "first"),
        ("input", 5, "the input of the run", None),
        ("steps.first.output", 6, "step `first`", "first"),
    ]


async def test_each_iteration_of_a_loop_says_why_it_continued_and_the_last_why_it_ended(
    store: StateStore,
) -> None:
    loop = LoopStep(
        "grow",
        body=pipeline(inc("tick")),
        until=Expr("steps.tick.output >= 3 && previous == steps.tick.output"),
        carry={"sum": Carry(0, Expr("loop.sum + loop.index + steps.tick.output"))},
    )
    await start(pipeline(loop), store, 0)
    account = await explained(store, pipeline(loop))
    assert effects(account) == [
        ("grow[0]", "continued after 1 iteration"),
        ("grow[0]", "`loop.sum` became 1"),
        ("grow[1]", "continued after 2 iterations"),
        ("grow[1]", "`loop.sum` became 4"),
        ("grow[2]", "ended after 3 iterations"),
    ]
    carried = [each for each in account.decisions if each.key == "carry.sum"]
    assert carried[1].substituted == "1 + 1 + 2"
    initial = {each.name: (each.value, each.origin) for each in carried[0].readings}
    assert initial["loop.sum"] == (0, "the initial value of `loop.sum`")
    assert effects(await explained(store, pipeline(loop), "grow.1")) == effects(account)[2:4]


async def test_the_transitions_of_a_machine_read_the_newest_visit(store: StateStore) -> None:
    up = pipeline(inc("n", input=Text("{{ context.total }}"), save=SAVED))
    ways = (Transition("end", Expr("steps.n.output >= 2 && context.total >= 2")), Transition("up"))
    end = pipeline(inc("closing", when=Expr("steps.n.output == 2 && previous == 2")))
    machine = StateMachineStep(
        "m", initial="up", states={"up": State(up, ways), "end": State(end)}, final=("end",)
    )
    tree = pipeline(machine, context_schema=COUNTER_SCHEMA)
    await start(tree, store, 0)
    account = await explained(store, tree)
    assert effects(account) == [
        ("m:up[0]", "not to `end`"),
        ("m:up[1]", "went to `end`"),
        ("m:end[0]/closing", "executed"),
    ]
    assert [each.substituted for each in account.decisions] == [
        "1 >= 2 && 1 >= 2",
        "2 >= 2 && 2 >= 2",
        "2 == 2 && 2 == 2",
    ]


@pytest.mark.parametrize("tree", [everything, together])
async def test_the_values_that_are_found_give_every_recorded_decision_again(
    store: StateStore, tree: Callable[[World], Pipeline]
) -> None:
    made = tree(World())
    await start(made, store, 1)
    account = await explained(store, made)
    whole = [each for each in account.decisions if each.expression and all(r.is_known for r in each.readings)]
    assert len(whole) >= 4
    assert [each for each in whole if not is_same(each)] == []


async def test_a_router_a_choice_of_agents_and_a_callable_say_what_they_chose(store: StateStore) -> None:
    router = DynamicParallelRouterStep(
        "r",
        router=CallableRef("x:pick", lambda data: ["b", "a"]),
        branches={"a": pipeline(inc("x")), "b": pipeline(inc("y"))},
    )
    way = ConditionalStep(
        "way", condition=CallableRef("x:no", lambda _: False), branches={"then": pipeline(inc("z"))}
    )
    agents = {"short": ScriptedAgent(["hi"]), "long": ScriptedAgent(["hello"])}
    asked = Step("asked", agent=OneOf(agents, by=Expr("'long'")))
    tree = pipeline(router, way, asked)
    await start(tree, store, 1)
    account = await explained(store, tree)
    assert effects(account) == [
        ("r", "chose `a` and `b`"),
        ("way", "took no branch"),
        ("asked:agent", "asked `long`"),
    ]
    assert [each.callable for each in account.decisions] == ["x:pick", "x:no", None]


async def test_a_value_names_the_prompt_and_the_human_that_it_came_from(store: StateStore) -> None:
    agent = ScriptedAgent(["refund"], usage=Usage(input_tokens=3, requests=1))
    tree = pipeline(
        Step("sort", agent=agent, input=Text("Sort this: {{ input }}")),
        HumanInTheLoopStep("ask", message="Send?"),
        ConditionalStep(
            "way",
            condition=Expr('steps.sort.output == "refund" && steps.ask.output'),
            branches={"then": pipeline(call("send", World().add("send")))},
        ),
    )
    await start(tree, store, "my money")
    paused = await explained(store, tree)
    assert paused.end == "paused at `ask`"
    await answer(store, "ask", value=True)
    await resume(tree, store)
    asked, sorted_ = only(await explained(store, tree), "way", "if").readings
    assert (sorted_.path, sorted_.input) == ("sort", "Sort this: my money")
    assert (asked.path, asked.by) == ("ask", None)
    account = await explained(store, tree, "ask")
    assert account.answer is not None
    assert account.step.output is True


async def test_retries_say_what_they_cost_and_the_end_names_the_reason(store: StateStore) -> None:
    tries = iter([False, True])

    def flaky(data: int) -> int:
        if next(tries):
            return data
        raise ValueError("not now")

    def wrong(data: int) -> int:
        raise KeyError("tota")

    retried = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    tree = pipeline(Step("flaky", flaky, config=retried), Step("wrong", wrong))
    await start(tree, store, 1)
    account = await explained(store, tree)
    assert [(each.path, each.failed, each.reasons) for each in account.retried] == [
        ("flaky", 1, ("ValueError: not now [FLJ401]",)),
        ("wrong", 1, ("KeyError: 'tota' [FLJ401]",)),
    ]
    assert account.end == "failed at `wrong`: KeyError: 'tota' [FLJ401]"
    assert (await explained(store, tree, "flaky")).end == "completed"


async def test_values_that_no_entry_has_are_computed_again(store: StateStore) -> None:
    child = Pipeline(
        (inc("x", input=Text("{{ input.n }}"), when=Expr("input.n > 0 && previous.n == 1")),),
        name="c",
        input_schema={"type": "object", "properties": {"n": {"type": "integer"}}},
    )
    inside = ImportStep("child", blueprint="c.yaml", pipeline=child, arguments={"n": Text("{{ previous }}")})
    each = MapStep(
        "each",
        over=Expr("[steps.first.output, 5]"),
        item_name="one",
        body=pipeline(inc("y", when=Expr("item > 1 || one == 1 || index == 0 || previous == 7"))),
    )
    rounds = LoopStep(
        "rounds",
        body=pipeline(inc("z", input=Text("{{ loop.top }}"), when=Expr("loop.top > 0"))),
        until=Expr("loop.top > 5"),
        carry={"top": Carry(Text("{{ steps.first.output + 1 }}"), Expr("loop.top * 3"))},
    )
    tree = pipeline(inc("first"), inside, each, rounds)
    await start(tree, store, 0)
    account = await explained(store, tree)
    assert [read for each in account.decisions for read in each.readings if not read.is_known] == []
    assert all(is_same(each) for each in account.decisions)

    def origins(path: str, key: str) -> dict[str, tuple[Any, str, str | None]]:
        found = only(account, path, key).readings
        return {each.name: (each.value, each.origin, each.path) for each in found}

    assert origins("child/x", "when") == {
        "input.n": (1, "the input of import `child`, from step `first`", "first"),
        "previous.n": (1, "the input of import `child`, from step `first`", "first"),
    }
    assert origins("each[0]/y", "when") == {
        "index": (0, "the number of the item", None),
        "item": (1, "item 0 of `each`, from step `first`", "first"),
        "one": (1, "item 0 of `each`, from step `first`", "first"),
        "previous": (1, "item 0 of `each`, from step `first`", "first"),
    }
    assert origins("each[1]/y", "when")["one"] == (5, "item 1 of `each`, from step `first`", "first")
    assert origins("rounds[0]/z", "when") == {
        "loop.top": (2, "the initial value of `loop.top`, from step `first`", "first")
    }
    assert origins("rounds[1]/z", "when") == {"loop.top": (6, "iteration 1 of `rounds`", "rounds[1]")}


async def test_items_of_a_callable_are_those_that_are_recorded(store: StateStore) -> None:
    async def stream() -> Any:
        for number in (4, 5):
            yield number

    body = pipeline(inc("y", when=Expr("item > 4")))
    tree = pipeline(
        MapStep("listed", over=CallableRef("w:listed", lambda: [4, 5]), body=body),
        MapStep("streamed", over=CallableRef("w:stream", stream), body=body),
    )
    await start(tree, store, 0)
    account = await explained(store, tree)
    for name, target in (("listed", "w:listed"), ("streamed", "w:stream")):
        [read] = only(account, f"{name}[1]/y", "when").readings
        assert (read.value, read.origin) == (5, f"item 1 of `{name}`, from `{target}`")


async def test_the_input_of_a_blueprint_as_a_tool_is_the_arguments_of_its_call(store: StateStore) -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    step = inc("x", input=Text("{{ input.n }}"), when=Expr("input.n > 1"))
    desk = BlueprintTool(Pipeline((step,), "desk", input_schema=schema), "Look")
    tree = talk([calls(("desk", {"n": 2})), "done"], tools=[desk])
    await start(tree, store, "go")
    account = await explained(store, tree)
    [read] = only(account, "research/turn[0]/tool[0]/x", "when").readings
    assert (read.name, read.value, read.path) == ("input.n", 2, "research/turn[0]")
    assert read.origin == "the arguments of `research/turn[0]/tool[0]`"


async def test_values_that_cannot_be_known_are_not_invented(store: StateStore) -> None:
    child = Pipeline((inc("x", when=Expr("context.total > 5")),), name="c", context_schema=COUNTER_SCHEMA)
    tree = pipeline(ImportStep("child", blueprint="c.yaml", pipeline=child))
    await start(tree, store, 0)
    [read] = only(await explained(store, tree), "child/x", "when").readings
    assert (read.name, read.is_known) == ("context.total", False)


async def test_a_sibling_branch_is_not_read(store: StateStore) -> None:
    log = {"log": Save(Expr("output"), append=True)}
    left = pipeline(inc("a", save=log), inc("b", when=Expr("size(context.log) == 1")))
    tree = pipeline(
        ParallelStep("p", branches={"left": left, "right": pipeline(inc("c", save=log))}),
        inc("d", when=Expr("size(context.log) == 2")),
        context_schema=COUNTER_SCHEMA,
    )
    await start(tree, store, 0)
    account = await explained(store, tree)
    assert [len(each.readings[0].value) for each in account.decisions] == [1, 2]


async def test_without_the_pipeline_decisions_have_their_values_alone(store: StateStore) -> None:
    await start(pipeline(inc("a", when=Expr("input == 1"))), store, 1)
    account = await explained(store, None)
    [decision] = account.decisions
    assert (decision.effect, decision.value, decision.expression, decision.readings) == (
        "executed",
        True,
        None,
        (),
    )


async def test_a_step_that_does_not_exist_is_corrected(store: StateStore) -> None:
    await start(pipeline(inc("first")), store, 1)
    with pytest.raises(SettingsError, match="has no step 'firts'") as caught:
        await explained(store, None, "firts")
    assert "first" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.b + a.bc", "1 + a.bc"),
        ("x.a.b + a.b", "x.a.b + 1"),
        ("\"a.b\" + 'a.b' + a.b", "\"a.b\" + 'a.b' + 1"),
        ('"\\"" + a.b', '"\\"" + 1'),
    ],
)
def test_only_whole_names_outside_of_texts_are_replaced(source: str, expected: str) -> None:
    assert substituted(source, [Reading("a.b", 1)]) == expected
