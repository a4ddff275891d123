"""Every tool call passes one gate, which decides about its answer, its announcement and its doubt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, context_of, detail, entries, talk, value
from flujo.domain import canonical
from flujo.domain.journal import EntryStatus
from flujo.domain.mcp import ListedTool
from flujo.domain.run import IntentState, RunStatus
from flujo.domain.steps import CallableRef, GranularStep
from flujo.domain.tools import CallableTool, McpTools, tool
from flujo.exceptions import PausedException, StateBackendUnavailable
from flujo.testing import ScriptedAgent
from support import StoppingStore, answer, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.models import PipelineContext
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore


async def test_what_a_tool_raises_goes_back_to_the_model(store: StateStore) -> None:
    def broken(x: int) -> int:
        raise ValueError(f"no {x}")

    script = [calls(("broken", {"x": 1}), ("missing", {}), ("add", {"a": "x"})), "done"]
    result = await start(talk(script, tools=[broken, add]), store, "go")
    assert result.output == "done"
    recorded = await entries(store)
    tools = [recorded[f"research/turn[0]/tool[{k}]"] for k in range(3)]
    assert [detail(each)["outcome"] for each in tools] == ["error", "refused", "refused"]
    assert value(tools[0]) == "ValueError: no 1"
    assert "there is no tool `missing`; the tools are `broken`, `add`" in value(tools[1])
    assert "`a`: Input should be a valid integer" in value(tools[2])
    assert all(each.status is EntryStatus.COMPLETED for each in tools)
    assert recorded["research/turn[0]/tool[0]"].usage.tool_calls == 1
    assert recorded["research/turn[0]/tool[1]"].usage.tool_calls == 0, "it was not called"


async def test_tool_calls_of_one_response_run_concurrently(store: StateStore) -> None:
    both = asyncio.Barrier(2)

    async def meet(name: str) -> str:
        await both.wait()
        return name

    script = [calls(("meet", {"name": "a"}), ("meet", {"name": "b"})), "met"]
    async with asyncio.timeout(60):
        assert (await start(talk(script, tools=[meet]), store, "go")).output == "met"


async def test_tools_that_take_the_context_run_one_after_another_and_their_writes_survive_a_resume(
    store: StateStore,
) -> None:
    def note(text: str, context: PipelineContext) -> str:
        context.log = [*context.log, text]  # type: ignore[attr-defined]  # of the schema
        return "noted"

    def fail(context: PipelineContext) -> str:
        context.log = ["lost"]  # type: ignore[attr-defined]  # of the schema
        raise ValueError("no")

    script = [
        calls(("note", {"text": "a"}), ("note", {"text": "b"}), ("fail", {})),
        calls(("note", {"text": "c"})),
        calls(("ask_human", {})),
        "end",
    ]

    def ask_human() -> str:
        raise PausedException("how?")

    tree = talk(script, tools=[note, fail, ask_human])
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    await answer(store, "research/turn[2]/tool[0]", "well")
    result = await resume(tree, store)
    assert result.output == "end"
    assert context_of(result) == {"total": 0, "log": ["a", "b", "c"]}
    last = (await entries(store))["research/turn[3]"]
    assert canonical.decode(last.input or b"")[0]["parts"][0]["content"] == "well"


class Bank:
    """A tool with an effect that can fail after it."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.fails: list[Exception] = []

    def tool(self) -> Callable[..., Any]:
        @tool(effect="unsafe")
        async def pay(amount: int, idempotency_key: str = "") -> str:
            self.paid.append(idempotency_key or str(amount))
            if self.fails:
                raise self.fails.pop(0)
            return f"paid {amount}"

        return pay


async def test_a_call_whose_result_is_unknown_asks_a_human_and_its_siblings_are_kept(
    store: StateStore,
) -> None:
    bank = Bank()
    bank.fails = [TimeoutError("no reply")]
    script = [calls(("pay", {"amount": 5}), ("add", {"a": 1, "b": 1})), "done"]
    tree = talk(script, tools=[bank.tool(), add], enforce_idempotency=True)
    paused = await start(tree, store, "go")
    assert paused.status is RunStatus.PAUSED
    (question,) = await store.pauses(RUN)
    assert question.pause_id == "research/turn[0]/tool[0]!doubt[0]"
    assert "step 'research' called" in question.message
    assert "research/turn[0]/tool[1]" in await entries(store)
    await answer(store, question.pause_id, {"resolution": "done", "result": "paid 5"})
    assert (await resume(tree, store)).output == "done"
    assert len(bank.paid) == 1
    sent = canonical.decode((await entries(store))["research/turn[1]"].input or b"")
    assert [part["content"] for part in sent[0]["parts"]] == ["paid 5", 2]


async def test_a_call_is_announced_before_it_is_made_and_keeps_its_key(store: StateStore) -> None:
    bank = Bank()
    bank.fails = [TimeoutError("no reply")]
    tree = talk([calls(("pay", {"amount": 5})), "done"], tools=[bank.tool()], enforce_idempotency=True)
    await start(tree, store, "go")
    (intent,) = await store.intents(RUN)
    assert (intent.state, intent.path) == (IntentState.IN_DOUBT, "research/turn[0]/tool[0]")
    await answer(store, "research/turn[0]/tool[0]!doubt[0]", {"resolution": "retry"})
    assert (await resume(tree, store)).output == "done"
    assert bank.paid == [intent.key, intent.key]


async def test_without_enforcement_a_failed_call_asks_no_human(store: StateStore) -> None:
    bank = Bank()
    bank.fails = [TimeoutError("no reply")]
    tree = talk([calls(("pay", {"amount": 5})), "done"], tools=[bank.tool()])
    assert (await start(tree, store, "go")).output == "done"
    assert await store.intents(RUN) == []


async def test_a_call_that_was_refused_by_the_other_side_is_not_in_doubt(store: StateStore) -> None:
    bank = Bank()
    bank.fails = [ConnectionRefusedError()]
    tree = talk([calls(("pay", {"amount": 5})), "done"], tools=[bank.tool()], enforce_idempotency=True)
    assert (await start(tree, store, "go")).output == "done"


class Teller:
    """A tool that pays; the database is lost in its first call, before the result is recorded."""

    def __init__(self, store: StateStore) -> None:
        self._store, self._stopping = store, StoppingStore(store, 99)
        self._keys: list[str] = []

    async def pay(self, amount: int, idempotency_key: str) -> str:
        self._keys.append(idempotency_key)
        if len(self._keys) == 1:
            self._stopping.allowed = 0
        return f"paid {amount}"

    async def is_resumed(self, tree: Pipeline, *, asks: bool) -> None:
        """Resume the run after the crash: it asks a human, or makes the call again with the same key."""
        with pytest.raises(StateBackendUnavailable):
            await start(tree, self._stopping, "go")
        result = await resume(tree, self._store)
        assert result.status is (RunStatus.PAUSED if asks else RunStatus.COMPLETED)
        assert len(self._keys) == (1 if asks else 2)
        assert len(set(self._keys)) == 1


AFTER_A_CRASH = pytest.mark.parametrize(
    ("effect", "asks"), [("read", False), ("idempotent", False), ("unsafe", True)]
)


@AFTER_A_CRASH
async def test_after_a_crash_only_an_effect_that_cannot_be_repeated_asks_a_human(
    store: StateStore, effect: Any, asks: bool
) -> None:
    teller = Teller(store)

    @tool(effect=effect)
    async def pay(amount: int, idempotency_key: str) -> str:
        return await teller.pay(amount, idempotency_key)

    tree = talk([calls(("pay", {"amount": 5})), "done"], tools=[pay], enforce_idempotency=True)
    await teller.is_resumed(tree, asks=asks)


@AFTER_A_CRASH
async def test_the_effect_of_an_entry_is_that_of_the_call(store: StateStore, effect: Any, asks: bool) -> None:
    """The tool is recorded although the step records no other tool."""
    teller = Teller(store)
    entry = CallableTool(teller.pay, effect=effect, enforce_idempotency=True)
    tree = talk([calls(("add", {"a": 1, "b": 1})), calls(("pay", {"amount": 5})), "done"], tools=[entry, add])
    await teller.is_resumed(tree, asks=asks)
    assert detail((await entries(store)).get("research/turn[1]/tool[0]")) == (
        {} if asks else {"tool": "pay", "outcome": "result", "effect": effect}
    )
    assert [each.path for each in await store.intents(RUN)] == ["research/turn[1]/tool[0]"]


async def test_the_action_in_doubt_of_an_entry_goes_before_that_of_the_step(store: StateStore) -> None:
    bank = Bank()
    bank.fails = [TimeoutError("no reply")]
    entry = CallableTool(bank.tool(), enforce_idempotency=True, in_doubt="fail")
    tree = talk([calls(("pay", {"amount": 5})), "done"], tools=[entry], enforce_idempotency=True)
    result = await start(tree, store, "go")
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.code == "FLJ441"


class Ledger(Bank):
    """A bank that can be queried whether it was paid."""

    def __init__(self, *, is_paid: bool) -> None:
        super().__init__()
        self.is_paid = is_paid
        self.looked: list[Any] = []

    def look(self, data: Any, idempotency_key: str) -> dict[str, Any]:
        self.looked.append((data, idempotency_key))
        return {"done": True, "result": "paid before"} if self.is_paid else {"done": False}

    def reconciled(self, *answers: Any, look: Any = None) -> Pipeline:
        script = [calls(("add", {"a": 1, "b": 1}), ("pay", {"amount": 5})), *answers]
        return talk(
            script,
            tools=[self.tool(), add],
            enforce_idempotency=True,
            in_doubt="reconcile",
            reconcile=look or CallableRef("bank:look", self.look),
        )


PAY = "research/turn[0]/tool[1]"


async def test_a_call_in_doubt_that_was_made_has_the_result_that_reconcile_knows(store: StateStore) -> None:
    bank = Ledger(is_paid=True)
    bank.fails = [TimeoutError("no reply")]
    assert (await start(bank.reconciled("done"), store, "go")).output == "done"
    (intent,) = [each for each in await store.intents(RUN) if each.path == PAY]
    assert bank.looked == [({"tool": "pay", "arguments": {"amount": 5}}, intent.key)]
    assert (bank.paid, intent.state) == ([intent.key], IntentState.DONE)
    entry = (await entries(store))[PAY]
    assert (value(entry), detail(entry)["resolved"]) == ("paid before", "reconcile")


async def test_a_call_in_doubt_that_was_not_made_is_made_once_more_under_its_key(store: StateStore) -> None:
    bank = Ledger(is_paid=False)
    bank.fails = [TimeoutError("no reply")]
    assert (await start(bank.reconciled("done"), store, "go")).output == "done"
    assert len(bank.looked) == 1
    assert len(bank.paid) == 2
    assert len(set(bank.paid)) == 1
    assert value((await entries(store))[PAY]) == "paid 5"


async def test_a_call_that_fails_in_doubt_again_fails_the_step_and_a_retry_makes_it(
    store: StateStore,
) -> None:
    bank = Ledger(is_paid=False)
    bank.fails = [TimeoutError("no reply"), TimeoutError("no reply")]
    failed = await start(bank.reconciled("done"), store, "go")
    assert failed.error is not None
    assert failed.error.path == PAY
    assert (await resume(bank.reconciled("done"), store, retry_failed=True)).output == "done"
    assert len(set(bank.paid)) == 1


@pytest.mark.parametrize("is_paid", [True, False])
async def test_after_a_crash_reconcile_settles_the_call(store: StateStore, is_paid: bool) -> None:
    keys: list[str] = []

    @tool(effect="unsafe")
    async def pay(amount: int, idempotency_key: str) -> str:
        keys.append(idempotency_key)
        if len(keys) == 1:
            stopping.allowed = 0  # the result is not recorded
        return f"paid {amount}"

    tree = talk(
        [calls(("pay", {"amount": 5})), "done"],
        tools=[pay],
        enforce_idempotency=True,
        in_doubt="reconcile",
        reconcile=CallableRef("bank:look", Ledger(is_paid=is_paid).look),
    )
    stopping = StoppingStore(store, 99)
    with pytest.raises(StateBackendUnavailable):
        await start(tree, stopping, "go")
    assert (await resume(tree, store)).output == "done"
    assert keys == [keys[0]] * (1 if is_paid else 2)


async def test_a_reconcile_that_fails_leaves_the_call_in_doubt(store: StateStore) -> None:
    bank = Ledger(is_paid=True)
    bank.fails = [TimeoutError("no reply")]

    def broken(data: Any) -> None:
        raise ConnectionError("the ledger is down")

    failed = await start(bank.reconciled("done", look=CallableRef("bank:broken", broken)), store, "go")
    assert failed.error is not None
    assert failed.error.code == "FLJ441"
    assert "the ledger is down" in failed.error.message
    assert (await resume(bank.reconciled("done"), store, retry_failed=True)).output == "done"
    assert len(bank.paid) == 1


async def test_a_call_that_may_be_repeated_is_not_reconciled(store: StateStore) -> None:
    looked: list[Any] = []

    @tool(effect="idempotent")
    def put(amount: int, idempotency_key: str) -> str:
        raise TimeoutError("no reply")

    tree = talk(
        [calls(("put", {"amount": 5})), "done"],
        tools=[put],
        enforce_idempotency=True,
        in_doubt="reconcile",
        reconcile=CallableRef("bank:look", looked.append),
    )
    assert (await start(tree, store, "go")).output == "done"
    assert looked == []


async def test_a_tool_that_needs_a_key_fails_a_step_without_enforcement(store: StateStore) -> None:
    def pay(amount: int, idempotency_key: str) -> str:
        raise AssertionError("not called")

    failed = await start(talk([calls(("pay", {"amount": 5})), "done"], tools=[pay]), store, "go")
    assert failed.error is not None
    assert failed.error.code == "FLJ300"
    assert "takes `idempotency_key`, which it gets only with `enforce_idempotency`" in failed.error.message


async def test_an_unsafe_tool_of_a_server_is_not_repeated_in_doubt(store: StateStore) -> None:
    """The tools of a server are known only when it has started, so the gate refuses them."""
    script = ScriptedAgent(
        [calls(("refund", {})), "done"], tools=[McpTools("shop")], servers={"shop": Shop()}
    )
    step = GranularStep("research", script, enforce_idempotency=True, in_doubt="retry_same_key")
    result = await start(pipeline(step), store, "go")
    assert result.error is not None
    assert (result.error.code, "its tool `refund` is `unsafe`" in result.error.message) == ("FLJ433", True)
    assert script.asked == []


class Shop:
    """A server whose tool is never called."""

    name, timeout_s = "shop", 5.0

    async def tools(self) -> dict[str, ListedTool]:
        return {"refund": ListedTool("Refund", {"type": "object"})}

    async def call(self, tool: str, arguments: Any, key: str | None) -> Any:
        raise AssertionError(tool)
