"""The agents of a thread see each other's exchanges: those of completed steps, in order, in each branch its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.talking import RUN, Panel, add, calls, detail, entries, exchange
from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    DynamicParallelRouterStep,
    Expr,
    GranularStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Save,
    Step,
    StepConfig,
)
from flujo.domain.threads import Exchange
from flujo.exceptions import ModelUnavailable, StateBackendUnavailable, ThreadConflict
from flujo.testing import MemoryStateStore, ScriptedAgent
from support import COUNTER_SCHEMA, StoppingStore, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.ports import StateStore


async def test_an_agent_sees_the_exchanges_before_its_step_with_names(store: StateStore) -> None:
    panel = Panel()
    tree = pipeline(
        panel.step("writer", input="a"),
        panel.step("aside", thread=None, input="b"),
        panel.granular("critic", input="c"),
        panel.step("other", "elsewhere", input="d"),
        panel.step("judge", input={"e": 1}),
        panel.step("last", input="f"),
    )
    await start(tree, store, "go")
    first, second = exchange("writer", "a"), exchange("critic", "c")
    assert panel.heard == {
        "writer": [()],
        "aside": [()],
        "critic": [(first,)],
        "other": [()],
        "judge": [(first, second)],
        "last": [(first, second, Exchange("judge", '{"e":1}', 'judge({"e":1})'))],
    }


async def test_an_agent_sees_its_own_exchanges_of_earlier_iterations_as_its_own(store: StateStore) -> None:
    panel = Panel()
    body = Pipeline((panel.step("ask", input="{{ loop.index }}"), panel.granular("reply", input="r")))
    tree = pipeline(LoopStep("turns", body, until="loop.index == 1"), panel.step("end", input="x"))
    await start(tree, store)
    mine, theirs = exchange("ask", "0", own=True), exchange("reply", "r")
    assert panel.heard["ask"] == [(), (mine, theirs)]
    again = exchange("ask", "1")
    assert panel.heard["reply"][1] == (exchange("ask", "0"), exchange("reply", "r", own=True), again)
    assert panel.heard["end"] == [(exchange("ask", "0"), theirs, again, theirs)]


async def test_failed_attempts_are_not_in_the_thread_and_a_fallback_is(store: StateStore) -> None:
    panel, down = Panel(), ModelUnavailable("down", retryable=True)
    flaky, failing = ScriptedAgent([down, "at last"]), ScriptedAgent([down, down])
    failing_in_turns = ScriptedAgent([calls(("add", {"a": 1, "b": 2})), down], tools=(add,))
    spare = Step("any name", agent=panel.agent("fallback"))
    tree = pipeline(
        Step("flaky", agent=flaky, thread="panel", input="a", config=StepConfig(max_retries=1)),
        Step("plain", agent=failing, thread="panel", input="b", fallback=spare),
        GranularStep("turns", failing_in_turns, thread="panel", input="c", fallback=spare),
        Step("callable", agent=ScriptedAgent([down]), thread="panel", fallback=Step("f", lambda data: data)),
        panel.step("end", input="d"),
    )
    assert (await start(tree, store)).status is RunStatus.COMPLETED
    first = Exchange("flaky", "a", "at last")
    both = [exchange("fallback", "b"), exchange("fallback", "c")]
    assert panel.heard["fallback"] == [(first,), (first, replace(both[0], is_own=True))]
    assert panel.heard["end"] == [(first, *both)]


async def test_branches_see_the_thread_as_it_was_and_one_writer_joins(store: StateStore) -> None:
    panel = Panel()
    branches = {
        "one": Pipeline((panel.step("a", input="1"), panel.step("b", input="2"))),
        "two": Pipeline((panel.step("c", "other", input="3"),)),
    }
    tree = pipeline(
        panel.step("first", input="0"), ParallelStep("both", branches), panel.step("end", input="4")
    )
    await start(tree, store)
    before = exchange("first", "0")
    assert panel.heard["a"] == [(before,)]
    assert panel.heard["c"] == [()]
    assert panel.heard["end"] == [(before, exchange("a", "1"), exchange("b", "2"))]


@pytest.mark.parametrize(("merge", "heard"), [("no_merge", []), ("keep_first", ["a"]), ("overwrite", ["b"])])
async def test_a_strategy_that_decides_about_fields_decides_about_threads(
    store: StateStore, merge: str, heard: list[str]
) -> None:
    panel = Panel()
    branches = {name: Pipeline((panel.step(name, input="1"),)) for name in ("a", "b")}
    tree = pipeline(ParallelStep("both", branches, merge=merge), panel.step("end", input="2"))
    await start(tree, store)
    assert panel.heard["end"] == [tuple(exchange(name, "1") for name in heard)]


async def test_two_branches_that_both_add_to_a_thread_are_an_error(store: StateStore) -> None:
    panel = Panel()
    branches = {name: panel.step(name, input="1") for name in ("a", "b")}
    tree = pipeline(DynamicParallelRouterStep("both", branches, router=lambda _: ["a", "b"]))
    result = await start(tree, store)
    assert result.error is not None
    assert (result.error.code, result.error.path) == (ThreadConflict.code, "both")
    assert result.error.message == "branches 'a' and 'b' of step 'both' both added to the thread 'panel'"


async def test_the_items_of_a_map_have_threads_of_their_own(store: StateStore) -> None:
    panel = Panel()
    body = Pipeline((panel.step("draft", input="{{ item }}"), panel.step("check", input="c{{ item }}")))
    tree = pipeline(
        MapStep("each", body, over="[1, 2]", max_concurrency=1),
        panel.step("end", input="e"),
        panel.step("more", input="m"),
    )
    await start(tree, store)
    assert panel.heard["check"] == [(exchange("draft", "1"),), (exchange("draft", "2"),)]
    assert panel.heard["more"] == [(exchange("end", "e"),)]


async def test_an_import_has_threads_of_its_own_unless_it_inherits_the_context(store: StateStore) -> None:
    panel = Panel()
    apart = Pipeline((panel.step("inner", input="i"),), name="apart")
    inside = Pipeline((panel.step("within", input="w"),), name="inside")
    tree = pipeline(
        panel.step("first", input="f"),
        ImportStep("one", apart),
        ImportStep("two", inside, context="inherit"),
        panel.step("end", input="e"),
    )
    await start(tree, store)
    assert panel.heard["inner"] == [()]
    assert panel.heard["within"] == [(exchange("first", "f"),)]
    assert panel.heard["end"] == [(exchange("first", "f"), exchange("within", "w"))]


async def test_a_thread_is_not_a_part_of_the_context(store: StateStore) -> None:
    seen: list[Any] = []

    async def look(data: Any, context: Any) -> int:
        seen.append(context.model_dump())
        context.total = 7
        return 1

    panel = Panel()
    tree = pipeline(
        panel.step("a", input="1"),
        Step("look", look, save={"log": Save(Expr("output"), append=True)}),
        panel.step("b", input="{{ context.total }}"),
        panel.step("c", input="x", save={"total": "9"}),
        context_schema={**COUNTER_SCHEMA, "additionalProperties": False},
        output="{{ context }}",
    )
    result = await start(tree, store)
    assert [context["total"] for context in seen] == [0]
    assert "~threads" not in seen[0]
    assert result.output == {"total": 9, "log": [1]}
    assert result.context is not None
    assert "~threads" not in result.context.model_dump()
    assert panel.heard["c"] == [(exchange("a", "1"), exchange("b", "7"))]


async def test_a_message_is_stored_once_and_an_entry_names_what_it_saw(store: StateStore) -> None:
    panel, prompt = Panel(), "a prompt that stands only once in the journal"
    tree = pipeline(panel.step("a", input=prompt), panel.granular("b", input="2"), panel.step("c", input="3"))
    await start(tree, store)
    recorded = await store.entries(RUN)
    texts = [each for one in recorded for each in (one.input, one.output, one.patch, one.detail) if each]
    assert sum(prompt.encode() in each for each in texts) == 2  # its input, and the output that quotes it
    found = await entries(store)
    assert detail(found["a"])["thread"] == {"name": "panel", "after": None}
    assert detail(found["c"])["thread"] == {"name": "panel", "after": "b"}
    (agent,) = [each for each in recorded if each.kind is EntryKind.DECISION and each.path == "b"]
    assert canonical.decode(agent.output or b"")["thread"] == {"name": "panel", "after": "a"}


async def test_bytes_per_message_do_not_grow_with_the_thread() -> None:
    store, panel = MemoryStateStore(), Panel()
    body = Pipeline((panel.step("say", input="hello"),))
    await start(pipeline(LoopStep("turns", body, until="loop.index == 199", max_iterations=200)), store)
    sizes = [
        len(entry.patch or b"") + len(entry.detail or b"")
        for entry in await store.entries(RUN)
        if entry.path.endswith("/say")
    ]
    assert len(sizes) == 200
    assert max(sizes[100:]) <= max(sizes[2:9]) + 8  # longer numbers of iterations


# Crashes -------------------------------------------------------------------------------------------------


def everything(panel: Panel) -> Pipeline:
    body = Pipeline((panel.step("ask", input="{{ loop.index }}"), panel.granular("reply", input="r")))
    branch = Pipeline((panel.step("a", input="1"), panel.granular("b", input="2")))
    return pipeline(
        panel.step("first", input="0"),
        LoopStep("turns", body, until="loop.index == 1"),
        ParallelStep("both", {"one": branch, "two": panel.step("c", "other", input="3")}),
        panel.granular("late", "other", input="4"),
        panel.step("end", input="5"),
    )


@pytest.mark.parametrize("stop_at", range(1, 26))
async def test_a_resumed_run_hears_what_an_unbroken_one_hears(store: StateStore, stop_at: int) -> None:
    unbroken, broken = Panel(), Panel()
    await start(everything(unbroken), MemoryStateStore())
    stopping = StoppingStore(store, stop_at)
    try:
        await start(everything(broken), stopping)
    except StateBackendUnavailable:
        assert (await resume(everything(broken), store)).status is RunStatus.COMPLETED
    for name, heard in unbroken.heard.items():
        assert set(broken.heard[name]) == set(heard), name


def fold(recorded: Sequence[tuple[str, str, bool]], upto: int) -> list[tuple[str, str]]:
    return [(f"s{number}", prompt) for number, (_, prompt, fits) in enumerate(recorded[:upto]) if fits]


@given(
    st.lists(
        st.tuples(st.sampled_from(["step", "granular"]), st.text("ab\n\"'{é", max_size=4), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
async def test_an_agent_hears_the_fold_of_the_completed_entries_before_it(
    drawn: list[tuple[str, str, bool]],
) -> None:
    panel, store, steps = Panel(), MemoryStateStore(), list[Any]()
    for number, (kind, _, joins) in enumerate(drawn):
        make = panel.step if kind == "step" else panel.granular
        steps.append(make(f"s{number}", "panel" if joins else None, input=f"{{{{ input[{number}] }}}}"))
    await start(pipeline(*steps), store, [prompt for _, prompt, _ in drawn])
    for number, (_, _, joins) in enumerate(drawn):
        expected = fold(drawn, number) if joins else []
        (heard,) = panel.heard[f"s{number}"]
        assert [(each.author, each.prompt) for each in heard] == expected
        assert [each.answer for each in heard] == [f"{name}({prompt})" for name, prompt in expected]
