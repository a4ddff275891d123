"""The trace of a run needs no right to write: it is built from what a journal source gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, Panel, calls, talk
from flujo.domain.pipeline import Pipeline, StepConfig
from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import LoopStep, ParallelStep, State, StateMachineStep, Transition
from flujo.domain.steps.tools import AgentTool, BlueprintTool
from flujo.domain.tools import CallableTool
from flujo.exceptions import SettingsError
from flujo.services.inspection.task_client import TaskClient
from flujo.services.inspection.trace import trace
from flujo.testing import ScriptedAgent
from support import Expr, HumanInTheLoopStep, MapStep, Text, World, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flujo.domain.acts import Act
    from flujo.domain.journal import Entry, RunId
    from flujo.domain.ledger import Ledger
    from flujo.domain.paths import StepPath
    from flujo.domain.run import Intent, Pause, Progress
    from flujo.domain.store import JournalSource, StateStore
    from flujo.services.inspection.trace_tree import TraceNode


@dataclass(frozen=True)
class Recorded:
    """A run as it was read once: a journal source without a database, and without any method that writes."""

    journal: list[Entry]
    questions: list[Pause]
    account: Ledger
    calls: list[Intent]
    progressed: Progress
    history: list[Act]

    @classmethod
    async def of(cls, source: JournalSource, run_id: RunId) -> Recorded:
        return cls(
            await source.entries(run_id),
            await source.pauses(run_id),
            await source.ledger(run_id),
            await source.intents(run_id),
            await source.progress(run_id),
            await source.acts(run_id),
        )

    async def entries(
        self,
        run_id: RunId,
        *,
        parent: StepPath | None = None,
        paths: Collection[StepPath] | None = None,
        after: int = 0,
    ) -> list[Entry]:
        assert parent is paths is None
        assert after == 0
        return self.journal

    async def pauses(self, run_id: RunId) -> list[Pause]:
        return self.questions

    async def ledger(self, run_id: RunId) -> Ledger:
        return self.account

    async def intents(self, run_id: RunId) -> list[Intent]:
        return self.calls

    async def progress(self, run_id: RunId) -> Progress:
        return self.progressed

    async def acts(self, run_id: RunId) -> list[Act]:
        return self.history


def tree() -> Any:
    body = pipeline(call("w", World().add("w")))
    ask = HumanInTheLoopStep(name="ok", message=Text("Fine?"))
    return pipeline(MapStep(name="m", over=Expr("input"), body=body), ask)


async def test_a_recorded_run_has_the_trace_of_its_database(store: StateStore) -> None:
    await start(tree(), store, [1, 2])
    record = await store.find("run")
    source: JournalSource = await Recorded.of(store, record.run_id)
    found = await trace(source, record)
    assert found == await trace(store, record)
    assert [(node.path, node.status) for node in found.walk()] == [
        ("", "paused"),
        ("m", "completed"),
        ("m[0]", "completed"),
        ("m[0]/w", "completed"),
        ("m[1]", "completed"),
        ("m[1]/w", "completed"),
        ("ok", "paused"),
    ]


async def test_a_step_is_found_as_it_is_typed_and_a_wrong_one_is_corrected(store: StateStore) -> None:
    await start(tree(), store, [1, 2])
    root = await trace(store, await store.find("run"))
    assert root.at("m.1/w") is root.at("m[1]/w")
    with pytest.raises(SettingsError, match=r"run .* has no step") as caught:
        root.at("m.1/v")
    assert "did you mean `m[1]/w`?" in (caught.value.hint or "")


async def test_the_items_of_a_range_are_below_it(store: StateStore) -> None:
    def odd(data: int) -> int:
        if data % 2:
            raise ValueError(f"no {data}")
        return data

    step = MapStep("m", over=Expr("input"), body=pipeline(call("w", World().add("w", odd))), on_error="skip")
    await start(pipeline(step), store, list(range(5)), range_length=2)
    root = await trace(store, await store.find("run"))
    shown = root.at("m")
    assert [node.name for node in shown.children] == ["[0..1]", "[2..3]", "[4]"]
    first = shown.children[0]
    assert (first.items, first.status, first.detail["failed"]) == ((0, 1), "completed", 1)
    assert [node.path for node in first.children] == ["m[0]", "m[1]"]
    assert [(node.kind, node.status, node.output) for node in first.children] == [
        ("map", "completed", 0),
        ("", "failed", None),
    ]
    assert root.at("m.0..1") is first
    error = root.at("m[1]/w").error
    assert error is not None
    assert error.message == "ValueError: no 1"


async def test_turns_are_folded_and_tools_are_below_them(store: StateStore) -> None:
    script = [calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})), "no", {"n": 7}]
    await start(talk(script, output_schema={"type": "object"}), store, "go")
    root = await trace(store, await store.run(RUN))
    (research,) = root.children
    assert research.kind == "granular"
    assert research.decision is None
    assert research.agent is not None
    assert list(research.agent["tools"]) == ["add"]
    assert [turn.name for turn in research.children] == ["turn 0", "turn 1", "turn 2"]
    assert [(tool.name, tool.detail["tool"]) for tool in research.children[0].children] == [
        ("tool 0", "add"),
        ("tool 1", "add"),
    ]
    assert "again" in research.children[2].detail
    assert root.at("research/turn.0/tool.1").output == 7

    assert root.conversation(root) is research
    first = root.conversation(root.at("research/turn[1]"))
    assert [turn.name for turn in first.children] == ["turn 0", "turn 1"]
    of_a_tool = root.conversation(root.at("research/turn[0]/tool[0]"))
    assert [turn.name for turn in of_a_tool.children] == ["turn 0"]


async def test_a_call_in_doubt_names_its_tool_and_its_answer(store: StateStore) -> None:
    def pay(a: int, context: Any) -> int:
        if a == 1:
            raise ConnectionResetError
        return a

    tree = talk([calls(("pay", {"a": 1}), ("pay", {"a": 2})), "done"], tools=[pay], enforce_idempotency=True)
    await start(tree, store, "go")
    root = await trace(store, await store.run(RUN))
    assert root.at("research").status == "paused"
    tools = [root.at(f"research/turn[0]/tool[{number}]") for number in (0, 1)]
    assert [(each.name, each.status, each.input) for each in tools] == [
        ("tool 0", "paused", {"a": 1}),
        ("tool 1", "pending", {"a": 2}),
    ]
    assert [dict(each.detail) for each in tools] == [{"tool": "pay", "effect": "unsafe"}] * 2
    (doubt,) = tools[0].children
    assert (doubt.kind, doubt.status) == ("doubt", "paused")
    (sent,) = await store.intents(RUN)
    assert [each.call for each in tools] == [sent, None]

    await answer(store, doubt.path, {"resolution": "done", "result": 7})
    await resume(tree, store)
    root = await trace(store, await store.run(RUN))
    made = root.at("research/turn[0]/tool[0]")
    assert (made.status, made.output, made.detail["tool"], made.detail["resolved"]) == (
        "completed",
        7,
        "pay",
        "human",
    )
    (doubt,) = made.children
    assert (doubt.status, doubt.output) == ("completed", {"resolution": "done", "result": 7})


async def test_a_call_that_waits_for_an_approval_has_its_arguments_and_then_its_own_result(
    store: StateStore,
) -> None:
    def refund(amount: int) -> str:
        return f"refunded {amount}"

    tree = talk([calls(("refund", {"amount": 5})), "done"], tools=[CallableTool(refund, approve=True)])
    await start(tree, store, "go")

    async def shown() -> TraceNode:
        found = (await trace(store, await store.find(RUN))).children[0].children[0].children[0]
        assert (found.kind, found.detail["tool"], found.input) == ("tool", "refund", {"amount": 5})
        return found

    assert (await shown()).status == "paused"
    (question,) = await store.pauses(RUN)
    await answer(store, question.pause_id, {"approved": True, "digest": question.digest})
    answered = await shown()
    assert (answered.status, answered.output, answered.detail["approval"]["approved"]) == (
        "pending",
        None,
        True,
    )
    await resume(tree, store)
    done = await shown()
    assert (done.status, done.output) == ("completed", "refunded 5")


async def test_a_call_that_runs_is_shown_before_its_result(store: StateStore) -> None:
    seen: list[TraceNode] = []

    async def look(a: int) -> int:
        seen.append(await trace(store, await store.run(RUN)))
        return a

    await start(talk([calls(("look", {"a": 1})), "done"], tools=[look]), store, "go")
    running = seen[0].at("research/turn[0]/tool[0]")
    assert (running.name, running.status, running.input) == ("tool 0", "running", {"a": 1})


async def test_what_runs_below_a_call_is_below_it_also_while_the_call_waits(store: StateStore) -> None:
    given = {"type": "object", "properties": {"order": {"type": "string"}}}
    asks = pipeline(HumanInTheLoopStep("ok", message="Go on?"), name="order", input_schema=given)
    helper = ScriptedAgent([calls(("order", {"order": "x"})), "done"], tools=[BlueprintTool(asks, "Order")])
    script = [calls(("helper", {"prompt": "Order x."})), "end"]
    await start(talk(script, tools=[AgentTool(helper, "Help", "helper")]), store, "go")
    root = await trace(store, await store.run(RUN))
    [call] = root.at("research/turn[0]").children
    assert (call.kind, call.detail["tool"], call.input) == ("tool", "helper", {"prompt": "Order x."})
    order = root.at("research/turn[0]/tool[0]/turn[0]/tool[0]")
    assert (order.name, order.status, [each.name for each in order.children]) == ("tool 0", "paused", ["ok"])

    assert root.conversation(root).path == "research", "the outermost one"
    assert root.conversation(call) is call
    assert root.conversation(root.at("research/turn[0]/tool[0]/turn[0]")).path == call.path


async def test_a_run_without_a_conversation_has_no_messages(store: StateStore) -> None:
    await start(pipeline(), store, "go")
    root = await trace(store, await store.run(RUN))
    with pytest.raises(SettingsError, match="has no conversation with a model"):
        root.conversation(root)


def texts(messages: Sequence[Any]) -> list[list[str]]:
    return [[part["content"] for part in each["parts"]] for each in messages]


async def test_the_messages_of_a_step_on_a_thread_begin_with_the_thread(store: StateStore) -> None:
    panel = Panel()
    tree = pipeline(
        panel.step("writer", input="a"),
        panel.granular("critic", input="b"),
        panel.step("editor", input="c"),
    )
    await start(tree, store)
    root = await trace(store, await store.run(RUN))
    first = ["[user to writer]\na", "[writer]\nwriter(a)"]
    assert root.conversation(root.at("writer")).heard == []
    critic = root.conversation(root.at("critic/turn[1]"))
    assert texts(critic.heard) == [first]
    assert len(critic.children) == 2
    editor = root.conversation(root.at("editor"))
    assert texts(editor.heard) == [[*first, "[user to critic]\nb", "[critic]\ncritic(b)"]]
    with pytest.raises(SettingsError, match="name one conversation"):
        root.conversation(root)


async def test_an_agent_sees_its_own_messages_of_a_thread_as_its_own(store: StateStore) -> None:
    panel = Panel()
    body = Pipeline((panel.granular("ask", input="q"), panel.step("reply", input="r")))
    await start(pipeline(LoopStep("turns", body, until="loop.index == 1")), store)
    root = await trace(store, await store.run(RUN))
    second = root.conversation(root.at("turns[1]/ask"))
    assert texts(second.heard) == [["q"], ["ask(q)"], ["[user to reply]\nr", "[reply]\nreply(r)"]]


async def test_each_failed_attempt_is_kept_and_waits_are_not_work(store: StateStore) -> None:
    count = iter(range(3))

    def flaky(data: int) -> int:
        if (number := next(count)) < 2:
            raise KeyError(f"tota{number}")
        return data

    retries = StepConfig(max_retries=3, retry=RetryPolicy(initial_s=0.2, jitter=0.0))
    inner = pipeline(call("flaky", World().add("flaky", flaky), config=retries))
    await start(pipeline(MapStep(name="m", over=Expr("input"), body=inner)), store, [5])
    root = await trace(store, await store.find("run"))
    node = root.at("m[0]/flaky")
    assert [(each.number, each.error and each.error.message) for each in node.failures] == [
        (1, "KeyError: 'tota0'"),
        (2, "KeyError: 'tota1'"),
    ]
    assert node.error is None
    for each in (root.at("m"), node):
        assert each.seconds >= 0.2 + each.work_s
        assert each.work_s >= sum(failed.seconds for failed in node.failures)


async def test_the_states_of_a_machine_are_in_the_order_of_time(store: StateStore) -> None:
    world = World()
    one = pipeline(call("a", world.add("a", lambda n: n + 1)))
    two = pipeline(call("b", world.add("b")))
    ways = (Transition("two", Expr("steps.a.output >= 2")), Transition("one"))
    states = {"one": State(one, ways), "two": State(two, (Transition("end"),)), "end": State(pipeline())}
    machine = StateMachineStep(name="m", initial="one", states=states, final=("end",))
    await start(pipeline(machine), store, 0)
    root = await trace(store, await store.find("run"))
    assert [each.name for each in root.at("m").children] == [":one[0]", ":one[1]", ":two[0]", ":end[0]"]
    assert [each.output for each in root.at("m").children] == [1, 2, 2, 2]


async def test_a_wait_for_a_human_does_not_count_as_work(store: StateStore) -> None:
    tree = pipeline(HumanInTheLoopStep(name="ask", message="well?"))
    await start(tree, store)
    await answer(store, "ask", "yes")
    await resume(tree, store)
    asked = (await trace(store, await store.find("run"))).at("ask")
    assert asked.output == "yes"
    assert asked.seconds > 0
    assert asked.work_s == 0


async def test_a_question_of_a_cancelled_run_does_not_look_as_if_it_were_running(store: StateStore) -> None:
    ask = HumanInTheLoopStep(name="ask", message="well?")
    tree = pipeline(ParallelStep(name="both", branches={"left": pipeline(ask)}))
    await start(tree, store)
    await TaskClient(store).cancel_task("run")
    root = await trace(store, await store.find("run"))
    assert {node.path: str(node.status) for node in root.walk()} == {
        "": "cancelled",
        "both": "cancelled",
        "both:left": "cancelled",
        "both:left/ask": "cancelled",
    }
