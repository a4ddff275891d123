"""A run continues with steps that have been renamed: nothing is executed again, and nothing is lost."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

import doors
from flujo import UsageLimits
from flujo.domain.conversations import ToolCall
from flujo.domain.journal import RunId
from flujo.domain.pipeline import BaseStep, Pipeline
from flujo.domain.steps import CallableRef, Expr, GranularStep, ImportStep, Text
from flujo.domain.steps import HumanInTheLoopStep as Ask
from flujo.domain.usage import Usage
from flujo.exceptions import StateBackendUnavailable
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from support import (
    EXPECTED,
    TOGETHER,
    StoppingStore,
    World,
    call,
    everything,
    pipeline,
    resume,
    start,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flujo.domain.ports import StateStore

RUN = RunId("run")


def earlier(part: Any) -> Any:
    """Return an earlier version of a part of a tree, in which every step has another name."""
    match part:
        case Expr() | Text():
            return type(part)(re.sub(r"\bsteps\.(\w+)", r"steps.old_\1", part.source))
        case BaseStep() | Pipeline():
            said = {each.name: earlier(getattr(part, each.name)) for each in fields(part)}
            named = {"name": f"old_{part.name}"} if isinstance(part, BaseStep) else {}
            return replace(part, **{**said, **named})
        case _ if is_dataclass(part) and not isinstance(part, type):
            return replace(part, **{each.name: earlier(getattr(part, each.name)) for each in fields(part)})
        case tuple():
            return tuple(map(earlier, part))
        case dict():
            return {name: earlier(each) for name, each in part.items()}
        case _:
            return part


def both(tree: Pipeline) -> tuple[Pipeline, Pipeline]:
    """Return an earlier version of a pipeline, and the pipeline with the migrations from it."""
    before = earlier(tree)
    pairs = zip(before.walk(), tree.walk(), strict=True)
    return before, replace(tree, migrations={old: new for (old, _), (new, _) in pairs})


async def broken_off(tree: Pipeline, store: StateStore, value: Any, writes: int) -> bool:
    """Start a run that ends after this many writes; return whether it was not complete by then."""
    stopping: Any = StoppingStore(store, writes)
    try:
        await start(tree, stopping, value, range_length=2)
    except StateBackendUnavailable:
        return True
    return False


async def recorded(store: StateStore) -> list[tuple[str, str, int]]:
    return [(entry.path, entry.kind, entry.attempt) for entry in await store.entries(RUN)]


TREES: dict[str, tuple[Callable[[World], Pipeline], Any, Any]] = {
    "most kinds": (everything, 1, EXPECTED),
    "concurrent ones": (together, 1, TOGETHER),
}


@pytest.mark.parametrize(("make", "value", "expected"), TREES.values(), ids=TREES)
async def test_a_run_continues_wherever_it_has_broken_off(
    make: Callable[[World], Pipeline], value: Any, expected: Any, tmp_path: Path
) -> None:
    in_all, writes = 0, 1
    while True:
        writes += 2  # every other one is enough
        store = SqlStateStore(f"sqlite:///{tmp_path}/{writes}.db")
        before, after = both(make(World()))
        if not await broken_off(before, store, value, writes):
            break
        await _continued(after, store, expected)
        in_all = in_all or len(await recorded(store))
        assert len(await recorded(store)) == in_all, "nothing is recorded twice"
        await store.aclose()
    assert len(await recorded(store)) == in_all
    await store.aclose()
    assert writes > 9


async def test_a_run_continues_on_each_store(store: StateStore) -> None:
    before, after = both(everything(World()))
    assert await broken_off(before, store, 1, 3)
    await _continued(after, store, EXPECTED)


async def _continued(tree: Pipeline, store: StateStore, expected: Any) -> None:
    """Continue a run, also after it has broken off once more, to its end."""
    first = await recorded(store)
    try:
        stopping: Any = StoppingStore(store, 2)
        result = await resume(tree, stopping, range_length=2)
    except StateBackendUnavailable:
        result = await resume(tree, store, range_length=2)
    assert (result.output, result.error) == (expected, None)
    assert (await recorded(store))[: len(first)] == first


async def test_a_call_in_doubt_keeps_its_key(tmp_path: Path) -> None:
    store, keys = SqlStateStore(f"sqlite:///{tmp_path}/a.db"), list[str]()

    def pay(data: Any, idempotency_key: str) -> str:
        keys.append(idempotency_key)
        return "paid"

    def paying(name: str, **more: Any) -> Pipeline:
        target = CallableRef("x:pay", pay)
        return pipeline(
            call(name, target, effect="idempotent", enforce_idempotency=True, in_doubt="retry_same_key"),
            **more,
        )

    assert await broken_off(paying("pay"), store, 1, 1)
    result = await resume(paying("settle", migrations={"pay": "settle"}), store)
    assert (result.output, len(keys), len(set(keys))) == ("paid", 2, 1)
    assert [each.path for each in await store.intents(RUN)] == ["pay"]
    await store.aclose()


async def test_a_question_is_answered_by_its_recorded_name(store: StateStore) -> None:
    def asking(name: str, **more: Any) -> Pipeline:
        return pipeline(Ask(name=name, message="Which?"), Ask(name="last", message="Sure?"), **more)

    assert [each.pause_id for each in (await start(asking("ok"), store)).pauses] == ["ok"]
    after = asking("fine", migrations={"ok": "fine"})
    again = await resume(after, store)
    assert [each.pause_id for each in again.pauses] == ["ok"]
    result = await resume(after, store, answer="this", pause_id="ok")
    assert [each.pause_id for each in result.pauses] == ["last"]
    assert (await resume(after, store, answer="yes")).output == "yes"
    assert [pause.pause_id for pause in await store.pauses(RUN)] == ["ok", "last"]


async def test_a_failed_step_is_retried_under_its_new_name(store: StateStore) -> None:
    tries: list[int] = []

    def twice(data: int) -> int:
        tries.append(data)
        if len(tries) < 2:
            raise ValueError("not yet")
        return data + 1

    def failing(name: str, **more: Any) -> Pipeline:
        return pipeline(call(name, CallableRef("x:twice", twice)), **more)

    assert not (await start(failing("one"), store, 1)).success
    assert (await store.run(RUN)).error is not None
    result = await resume(failing("two", migrations={"one": "two"}), store, retry_failed=True)
    assert (result.output, tries) == (2, [1, 1])
    assert [(path, attempt) for path, _, attempt in await recorded(store)] == [("one", 1), ("one", 2)]


async def test_a_conversation_continues_under_its_new_name(tmp_path: Path) -> None:
    def talking(name: str, **more: Any) -> Pipeline:
        agent = ScriptedAgent([ToolCall("double", {"n": 3}), "six"], tools=(doors.double,))
        return pipeline(GranularStep(name, agent), **more)

    writes = 0
    while True:
        writes += 1
        store = SqlStateStore(f"sqlite:///{tmp_path}/{writes}.db")
        if not await broken_off(talking("buy"), store, "Buy.", writes):
            break
        after = talking("get", migrations={"buy": "get"})
        assert (await resume(after, store)).output == "six"
        found = await recorded(store)
        assert len(found) == len(set(found))
        await store.aclose()
    await store.aclose()
    assert writes > 2


async def test_the_money_of_a_renamed_step_counts(store: StateStore) -> None:
    def spending(name: str, **more: Any) -> Pipeline:
        agent: Any = ScriptedAgent(lambda ask: ask.data, usage=Usage(requests=1), worst=Usage(requests=1))
        asks = CallableRef("x:agent", agent)
        inner = pipeline(call("one", asks), call("two", asks), budget=UsageLimits(requests_limit=1))
        return pipeline(ImportStep(name=name, blueprint="x.yaml", pipeline=inner), **more)

    assert await broken_off(spending("old"), store, "x", 1), "the request is held, and has no entry"
    result = await resume(spending("new", migrations={"old": "new"}), store)
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ421", "new/one")
    assert [hold.path for hold in (await store.ledger(RUN)).holds] == ["old/one"]
