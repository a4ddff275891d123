"""In a fork, the recorded result replaces the same call with an effect; a human decides about any other call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import add, calls, context_of, talk
from flujo.domain import canonical
from flujo.domain.conversations import ToolCall
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.run_forks import STUBBED
from flujo.domain.steps import (
    Expr,
    GranularStep,
    Save,
    Text,
)
from flujo.domain.steps.tools import AgentTool, BlueprintTool
from flujo.domain.tools import CallableTool
from flujo.exceptions import (
    InputRejected,
)
from flujo.testing import ScriptedAgent
from support import COUNTER_SCHEMA, World, call, fork, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")


def buying(said: list[Any], buy: Any, **keys: Any) -> Pipeline:
    tool = CallableTool(buy, effect="unsafe")
    return talk(
        lambda ask: said[(len(ask.data) - 1) // 2], tools=(tool, CallableTool(add, effect="read")), **keys
    )


async def test_a_conversation_is_forked_at_a_turn_and_at_a_tool_call(store: StateStore) -> None:
    bought: list[str] = []

    def buy(what: str) -> str:
        bought.append(what)
        return f"bought {what}"

    said = [
        calls(("add", {"a": 1, "b": 2}), ("buy", {"what": "tea"})),
        calls(("add", {"a": 3, "b": 4})),
        "done",
    ]
    parent = await start(buying(said, buy), store, "go")
    assert (parent.output, bought) == ("done", ["tea"])
    for at in ("research/turn[0]", "research/turn[0]/tool[1]", "research/turn.1", "research/turn[1]/tool[0]"):
        forked = await fork(buying(said, buy), store, at)
        assert (forked.output, bought) == ("done", ["tea"]), at
    entries = await store.entries(RunId((await fork(buying(said, buy), store, "research/turn[1]")).run_id))
    assert sorted(entry.path for entry in entries[:4] if entry.kind is EntryKind.WORK) == [
        "research/turn[0]",
        "research/turn[0]/tool[0]",
        "research/turn[0]/tool[1]",
    ]
    said[0] = calls(("buy", {"what": "a car"}))
    asked = await fork(buying(said, buy), store, "research/turn[0]")
    [pause] = asked.pauses
    assert (pause.pause_id, pause.kind) == ("research/turn[0]/tool[0]!stub", PauseKind.STUB)
    assert "a car" in pause.message
    done = await resume(buying(said, buy), store, run_id=asked.run_id, answer={"result": "a toy car"})
    assert (done.output, bought) == ("done", ["tea"])
    again = await fork(buying(said, buy), store, "research")
    made = await resume(buying(said, buy), store, run_id=again.run_id, answer={"call": True})
    assert (made.output, bought) == ("done", ["tea", "a car"])


async def test_an_enforced_call_of_a_tool_is_stubbed_without_an_announcement(store: StateStore) -> None:
    paid: list[str] = []

    def buy(what: str, idempotency_key: str) -> str:
        paid.append(idempotency_key)
        return "paid"

    said = [calls(("buy", {"what": "tea"})), "done"]
    await start(buying(said, buy, enforce_idempotency=True), store, "go")
    forked = await fork(buying(said, buy, enforce_idempotency=True), store, "research")
    assert (forked.output, len(paid)) == ("done", 1)
    assert await store.intents(RunId(forked.run_id)) == []
    live = await fork(buying(said, buy, enforce_idempotency=True), store, "research", live_effects=True)
    assert (live.output, len(set(paid))) == ("done", 2)


async def test_an_agent_and_a_blueprint_as_tools_are_forked_inside(store: StateStore) -> None:
    world = World()
    look = BlueprintTool(
        pipeline(
            call("look", world.add("look", lambda given: given["order"])),
            call("shout", world.add("shout", str.upper)),
            name="check-order",
            input_schema={
                "type": "object",
                "properties": {"order": {"type": "string"}},
                "required": ["order"],
            },
        ),
        "Look an order up",
    )
    inner = ScriptedAgent(
        lambda ask: calls(("add", {"a": 1, "b": 2})) if len(ask.data) == 1 else "three", tools=(add,)
    )
    helper = AgentTool(inner, "Does one task", name="helper")

    def script(ask: Any) -> Any:
        if len(ask.data) == 1:
            return [ToolCall("check_order", {"order": "x1"}), ToolCall("helper", {"prompt": "add"})]
        return [part["content"] for part in ask.data[2]["parts"]]

    whole = pipeline(GranularStep("research", ScriptedAgent(script, tools=[look, helper])))
    parent = await start(whole, store, "go")
    assert parent.output == ["X1", "three"]
    for at in (
        "research/turn[0]/tool[0]/shout",
        "research/turn[0]/tool[0]/look",
        "research/turn[0]/tool[1]/turn[1]",
        "research/turn[0]/tool[1]/turn[0]/tool[0]",
    ):
        world.calls.clear()
        forked = await fork(whole, store, at)
        assert (forked.output, world.calls) == (parent.output, []), at
    await fork(whole, store, "research/turn[0]/tool[0]/shout", live_effects=True)
    assert world.calls == ["shout"]


async def test_another_input_is_read_after_the_point_and_a_call_that_differs_asks(store: StateStore) -> None:
    world = World()
    whole = pipeline(
        call("first", world.add("first", lambda n: n + 1)),
        call(
            "send",
            world.add("send", lambda n: n),
            input=Text("{{ input }}"),
            save={"total": Save(Expr("output"))},
        ),
        context_schema=COUNTER_SCHEMA,
    )
    await start(whole, store, 1)
    same = await fork(whole, store, "send")
    assert (same.output, context_of(same)["total"]) == (1, 1)
    world.calls.clear()
    asked = await fork(whole, store, "send", initial_input=7)
    [pause] = asked.pauses
    assert (pause.pause_id, pause.kind, asked.status) == ("send!stub", PauseKind.STUB, RunStatus.PAUSED)
    done = await resume(whole, store, run_id=asked.run_id, answer={"result": 70})
    assert (done.output, context_of(done)["total"], world.calls) == (70, 70, [])
    [entry] = [each for each in await store.entries(RunId(asked.run_id)) if each.path == "send"]
    assert canonical.decode(entry.detail or b"{}")[STUBBED] == "answer"
    asked = await fork(whole, store, "send", initial_input=7)
    done = await resume(whole, store, run_id=asked.run_id, answer={"call": True})
    assert (done.output, world.calls) == (7, ["send"])
    again = await fork(whole, store, "send", initial_input=8)
    with pytest.raises(InputRejected):
        await resume(whole, store, run_id=again.run_id, answer={"result": 1, "call": True})
