"""A blueprint or an agent as a tool runs below its call, in the same journal, and a resume repeats none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, context_of, detail, entries, value
from flujo.domain import canonical
from flujo.domain.conversations import ToolCall
from flujo.domain.events import StepStarted
from flujo.domain.journal import EntryKind
from flujo.domain.run import IntentState, RunStatus
from flujo.domain.steps import Expr, GranularStep, HumanInTheLoopStep, MapStep, ParallelStep, Save, Text
from flujo.domain.steps.tools import AgentTool, BlueprintTool
from flujo.domain.usage import Usage, UsageLimits
from flujo.exceptions import PausedException, PipelineAbortSignal, StateBackendUnavailable
from flujo.testing import ScriptedAgent
from support import COUNTER_SCHEMA, LOG, StoppingStore, World, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.agents import Ask
    from flujo.domain.models import PipelineContext
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.steps import BaseStep

ORDER = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
CALL = "research/turn[0]/tool[0]"


def check(*steps: BaseStep, **more: Any) -> BlueprintTool:
    """Return the tool `check_order`, which runs the steps with an order as their input."""
    return BlueprintTool(pipeline(*steps, name="check-order", input_schema=ORDER, **more), "Look an order up")


def helper(agent: Any, **more: Any) -> AgentTool:
    return AgentTool(agent, "Does one task", name="helper", **more)


def research(agent: ScriptedAgent, *, budget: UsageLimits | None = None, **keys: Any) -> Pipeline:
    return pipeline(GranularStep("research", agent, **keys), context_schema=COUNTER_SCHEMA, budget=budget)


def asks(tool: Any, *each: tuple[str, dict[str, Any]], **keys: Any) -> ScriptedAgent:
    """Return an agent that makes the calls in its first turn, and answers with their results in its second."""

    def script(ask: Ask) -> Any:
        if len(ask.data) == 1:
            return calls(*each)
        return [part["content"] for part in ask.data[2]["parts"]]

    return ScriptedAgent(script, tools=tool if isinstance(tool, list) else [tool], **keys)


def one_order(tool: BlueprintTool, **keys: Any) -> ScriptedAgent:
    return asks(tool, ("check_order", {"order": "x1"}), **keys)


async def test_the_steps_of_a_blueprint_are_entries_below_the_call(store: StateStore) -> None:
    world = World()
    tool = check(
        call("look", world.add("look", lambda given: given["order"])),
        call("shout", world.add("shout", str.upper)),
        output={"found": Text("{{ previous }}"), "asked": Text("{{ input.order }}")},
    )
    result = await start(research(one_order(tool)), store, "go")
    assert result.output == [{"asked": "x1", "found": "X1"}]
    recorded = await entries(store)
    assert sorted(recorded) == [
        "research",
        "research/turn[0]",
        CALL,
        f"{CALL}/look",
        f"{CALL}/shout",
        "research/turn[1]",
    ]
    assert canonical.decode(recorded[CALL].input or b"") == {"order": "x1"}
    assert detail(recorded[CALL]) == {"outcome": "result", "tool": "check_order"}
    assert (await store.intents(RUN)) == []


async def test_a_blueprint_as_a_tool_has_a_context_of_its_own(store: StateStore) -> None:
    world = World()
    tool = check(
        call("look", world.add("look", lambda given: given["order"]), save=LOG),
        output=Text("{{ context.log }}"),
        context_schema=COUNTER_SCHEMA,
    )
    agent = asks(tool, *[("check_order", {"order": name}) for name in "ab"])
    result = await start(research(agent), store, "go")
    assert result.output == [["a"], ["b"]], "each call starts with the defaults"
    assert context_of(result)["log"] == []


async def test_an_agent_as_a_tool_has_a_conversation_of_its_own(store: StateStore) -> None:
    inner = ScriptedAgent([calls(("add", {"a": 1, "b": 2})), {"sum": 3}], tools=[add])
    result = await start(research(asks(helper(inner), ("helper", {"prompt": "add them"}))), store, "go")
    assert result.output == [{"sum": 3}]
    assert inner.asked[0].data[0]["parts"] == [{"part_kind": "user-prompt", "content": "add them"}]
    assert sorted(await entries(store)) == [
        "research",
        "research/turn[0]",
        CALL,
        f"{CALL}/turn[0]",
        f"{CALL}/turn[0]/tool[0]",
        f"{CALL}/turn[1]",
        "research/turn[1]",
    ]


async def test_a_watcher_sees_the_call_and_what_runs_below_it(store: StateStore) -> None:
    seen: list[Any] = []

    async def sink(event: Any) -> None:
        if isinstance(event, StepStarted):
            seen.append((event.path.removeprefix(CALL), event.kind, event.tool))

    await start(research(one_order(check(call("look", World().add("look"))))), store, "go", sink=sink)
    assert seen[2:4] == [("", "tool", "check_order"), ("/look", "step", None)]


@pytest.mark.parametrize("stop_at", range(1, 10))
async def test_a_run_that_stops_at_any_write_repeats_no_recorded_step(
    store: StateStore, stop_at: int
) -> None:
    world = World()
    orders = MapStep("each", over=Expr("[1, 2]"), body=pipeline(call("square", world.add("square"))))
    inner = ScriptedAgent([calls(("add", {"a": 1, "b": 2})), "three"], tools=[add])
    tools = [check(call("look", world.add("look")), orders), helper(inner)]
    agent = asks(tools, ("check_order", {"order": "x"}), ("helper", {"prompt": "add"}))
    tree = research(agent, max_tool_concurrency=1)
    try:
        await start(tree, StoppingStore(store, stop_at), "go")
    except StateBackendUnavailable:
        before = await entries(store)
        made, asked = list(world.calls), inner.count
        result = await resume(tree, store)
        assert (result.status, result.output) == (RunStatus.COMPLETED, [[1, 2], "three"])
        again = world.calls[len(made) :]
        assert not (f"{CALL}/look" in before and "look" in again)
        squares = [f"{CALL}/each[{n}]/square" for n in range(2)]
        assert again.count("square") <= sum(path not in before for path in squares)
        turns = [f"research/turn[0]/tool[1]/turn[{n}]" for n in range(2)]
        assert inner.count - asked == sum(path not in before for path in turns)
        counted = [
            entry for entry in await store.entries(RUN) if entry.path == CALL and entry.usage.tool_calls
        ]
        assert len(counted) == 1, "a call is counted once"
    else:
        pytest.fail("the store did not stop the run")


async def test_a_blueprint_as_a_tool_pauses_for_a_person_and_continues_after_the_answer(
    store: StateStore,
) -> None:
    world = World()
    tool = check(
        call("look", world.add("look")),
        HumanInTheLoopStep("confirm", message=Text("Refund {{ input.order }}?")),
        call("end", world.add("end")),
    )
    agent = asks(tool, *[("check_order", {"order": name}) for name in "ab"])
    tree = research(agent, budget=UsageLimits(tool_calls_limit=2))
    paused = await start(tree, store, "go")
    assert paused.status is RunStatus.PAUSED
    asked = sorted(await store.pauses(RUN), key=lambda each: each.pause_id)
    assert [(each.pause_id, each.message) for each in asked] == [
        (f"research/turn[0]/tool[{k}]/confirm", f"Refund {name}?") for k, name in enumerate("ab")
    ]
    await answer(store, f"{CALL}/confirm", "yes")
    assert (await resume(tree, store)).status is RunStatus.PAUSED
    await answer(store, "research/turn[0]/tool[1]/confirm", "no")
    result = await resume(tree, store)
    assert (result.status, result.output) == (RunStatus.COMPLETED, ["yes", "no"])
    assert sorted(world.calls) == ["end", "end", "look", "look"]
    assert result.usage.tool_calls == 2, "a call that pauses is counted once"


async def test_a_failure_inside_is_words_for_the_model_and_its_writes_are_dropped(store: StateStore) -> None:
    def broken(_: Any) -> Any:
        raise ValueError("no such order")

    def note(context: PipelineContext) -> str:
        context.log = ["lost"]  # type: ignore[attr-defined]  # of the schema
        return "noted"

    world = World()
    inner = ScriptedAgent([calls(("note", {})), ValueError("the model is gone")], tools=[note])
    tools = [check(call("look", world.add("look", broken))), helper(inner)]
    agent = asks(tools, ("check_order", {"order": "x"}), ("helper", {"prompt": "note"}))
    result = await start(research(agent), store, "go")
    assert result.output == [
        "the call failed: ValueError: no such order",
        "the call failed: ValueError: the model is gone",
    ]
    assert context_of(result)["log"] == []
    recorded = await entries(store)
    assert [detail(recorded[f"research/turn[0]/tool[{k}]"])["outcome"] for k in range(2)] == ["error"] * 2


async def test_a_failure_inside_closes_the_questions_beside_it(store: StateStore) -> None:
    def broken(_: Any) -> Any:
        raise ValueError("no")

    both = ParallelStep(
        "both",
        branches={
            "ask": pipeline(HumanInTheLoopStep("confirm", message="Go on?")),
            "fail": pipeline(call("look", World().add("look", broken))),
        },
    )
    result = await start(research(one_order(check(both))), store, "go")
    assert result.status is RunStatus.COMPLETED
    assert not any(pause.is_open for pause in await store.pauses(RUN))


async def test_an_agent_that_reaches_its_limit_of_turns_is_words_for_the_model(store: StateStore) -> None:
    inner = ScriptedAgent(lambda _: calls(("add", {"a": 1, "b": 2})), tools=[add])
    agent = asks(helper(inner, max_turns=2), ("helper", {"prompt": "go"}))
    result = await start(research(agent), store, "go")
    assert result.output == ["the call failed: step 'helper' used its 2 turns, and the agent gave no answer"]
    assert inner.count == 2


async def test_a_budget_that_is_used_up_inside_ends_the_step(store: StateStore) -> None:
    inner = ScriptedAgent(["never"], usage=Usage(requests=1))
    agent = asks(helper(inner), ("helper", {"prompt": "go"}), usage=Usage(requests=1))
    tree = research(agent, budget=UsageLimits(requests_limit=1))
    result = await start(tree, store, "go")
    assert (result.status, inner.count) == (RunStatus.FAILED, 0)
    assert result.error is not None
    assert result.error.code == "FLJ421"
    assert CALL not in await entries(store), "a retry continues the call"


async def test_a_limit_of_tool_calls_counts_a_call_before_it_begins(store: StateStore) -> None:
    world = World()
    agent = asks(check(call("look", world.add("look"))), *[("check_order", {"order": "x"})] * 2)
    tree = research(agent, budget=UsageLimits(tool_calls_limit=1), max_tool_concurrency=1)
    result = await start(tree, store, "go")
    assert (result.status, world.calls) == (RunStatus.FAILED, ["look"])


async def test_a_call_in_doubt_inside_asks_a_human_and_is_not_words(store: StateStore) -> None:
    sent: list[str] = []

    def pay(order: str) -> str:
        sent.append(order)
        if len(sent) == 1:
            raise OSError("the connection broke")
        return "paid"

    inner = ScriptedAgent([calls(("pay", {"order": "x"})), "done"], tools=[pay])
    tree = research(asks(helper(inner), ("helper", {"prompt": "pay"})), enforce_idempotency=True)
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    [intent] = await store.intents(RUN)
    assert (intent.path, intent.state) == (f"{CALL}/turn[0]/tool[0]", IntentState.IN_DOUBT)
    [pause] = await store.pauses(RUN)
    await answer(store, pause.pause_id, {"resolution": "done", "result": "paid"})
    result = await resume(tree, store)
    assert (result.output, sent) == (["done"], ["x"])


async def test_a_call_inside_that_fails_in_doubt_ends_the_step(store: StateStore) -> None:
    def pay(order: str) -> str:
        raise OSError("the connection broke")

    inner = ScriptedAgent([calls(("pay", {"order": "x"})), "done"], tools=[pay])
    agent = asks(helper(inner), ("helper", {"prompt": "pay"}))
    result = await start(research(agent, enforce_idempotency=True, in_doubt="fail"), store, "go")
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.code == "FLJ441"


async def test_a_wish_to_abort_inside_ends_the_run(store: StateStore) -> None:
    def stop(_: Any) -> Any:
        raise PipelineAbortSignal("enough")

    result = await start(research(one_order(check(call("look", World().add("look", stop))))), store, "go")
    assert result.status is RunStatus.CANCELLED


async def test_the_writes_of_an_agents_tools_to_the_context_survive_a_resume(store: StateStore) -> None:
    def note(text: str, context: PipelineContext) -> str:
        context.log = [*context.log, text]  # type: ignore[attr-defined]  # of the schema
        return "noted"

    def ask_human() -> str:
        raise PausedException("how?")

    inner = ScriptedAgent([calls(("note", {"text": "inner"})), "done"], tools=[note])
    script = [
        calls(("helper", {"prompt": "note"}), ("note", {"text": "outer"})),
        calls(("ask_human", {})),
        "end",
    ]
    tree = research(ScriptedAgent(script, tools=[helper(inner), note, ask_human]))
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    await answer(store, "research/turn[1]/tool[0]", "well")
    assert context_of(await resume(tree, store))["log"] == ["inner", "outer"]


async def test_a_changed_agent_below_a_call_does_not_continue_its_conversation(store: StateStore) -> None:
    def ask_human() -> str:
        raise PausedException("how?")

    def tree(model: str) -> Pipeline:
        inner = ScriptedAgent([calls(("ask_human", {})), "done"], tools=[ask_human], model=model)
        return research(asks(helper(inner), ("helper", {"prompt": "go"})))

    assert (await start(tree("first"), store, "go")).status is RunStatus.PAUSED
    await answer(store, f"{CALL}/turn[0]/tool[0]", "well")
    changed = await resume(tree("second"), store)
    assert changed.error is not None
    assert changed.error.code == "FLJ419"
    assert CALL not in await entries(store), "the model got no words about it"


async def test_arguments_that_do_not_fit_the_input_schema_start_no_step(store: StateStore) -> None:
    world = World()
    tool = check(call("look", world.add("look")))
    agent = asks(tool, ("check_order", {"order": 1}), ("check_order", {}))
    result = await start(research(agent), store, "go")
    assert all("the call was not made" in words for words in result.output)
    assert world.calls == []


async def test_a_tool_below_a_tool_runs_below_it(store: StateStore) -> None:
    world = World()
    deep = check(call("look", world.add("look", lambda given: given["order"])))
    middle = ScriptedAgent([ToolCall("check_order", {"order": "x"}), "middle"], tools=[deep])
    result = await start(research(asks(helper(middle), ("helper", {"prompt": "go"}))), store, "go")
    assert result.output == ["middle"]
    assert f"{CALL}/turn[0]/tool[0]/look" in await entries(store)
    decisions = [e for e in await store.entries(RUN) if e.kind is EntryKind.DECISION and e.attempt == 0]
    assert [entry.path for entry in decisions] == [CALL, f"{CALL}/turn[0]/tool[0]"]


async def test_what_a_blueprint_saves_does_not_reach_the_caller(store: StateStore) -> None:
    save = {"total": Save(Expr("1"))}
    tool = check(call("look", World().add("look"), save=save), context_schema=COUNTER_SCHEMA)
    result = await start(research(one_order(tool)), store, "go")
    assert context_of(result)["total"] == 0
    assert value((await entries(store))[CALL]) == {"order": "x1"}
