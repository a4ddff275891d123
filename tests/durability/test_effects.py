"""Calls with an external effect: issued once per key, and in doubt when their end is not recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.run import IntentState, RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import CallInDoubt, InputRejected, StateBackendUnavailable
from support import Step, StepConfig, StoppingStore, Text, answer, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")


@dataclass
class Bank:
    """An external service: its requests with their keys, and its effects."""

    received: list[str] = field(default_factory=list)
    done: dict[str, Any] = field(default_factory=dict)
    before: Callable[[int], None] = lambda _: None
    """Called with the number of the call before it takes effect."""
    after: Callable[[int], None] = lambda _: None

    async def charge(self, amount: int, idempotency_key: str) -> str:
        """Charge once per key."""
        self.received.append(idempotency_key)
        self.before(len(self.received))
        receipt: str = self.done.setdefault(idempotency_key, f"receipt {len(self.done)} of {amount}")
        self.after(len(self.received))
        return receipt

    async def look(self, data: Any, idempotency_key: str) -> dict[str, Any]:
        """Return the result of an earlier charge."""
        assert data == {"amount": 5}
        done = idempotency_key in self.done
        return {"done": done, "result": self.done.get(idempotency_key)}

    def tree(self, **more: Any) -> Pipeline:
        """Return a pipeline that charges 5 and returns the result."""
        look = CallableRef("bank:look", self.look) if more.get("in_doubt") == "reconcile" else None
        charge = Step(
            name="charge",
            call=CallableRef("bank:charge", self.charge),
            arguments={"amount": 5},
            enforce_idempotency=True,
            reconcile=look,
            **more,
        )
        say = CallableRef("bank:say", lambda data: f"paid: {data}")
        return pipeline(charge, Step(name="say", call=say), output=Text("{{ steps.say.output }}"))


async def cut_off(bank: Bank, store: StateStore, **more: Any) -> None:
    """Start a run whose process dies inside the call."""
    stopping: Any = StoppingStore(store, 10)

    def stop(number: int) -> None:
        stopping.allowed = 0  # the process is dead: it writes nothing more
        raise StateBackendUnavailable("gone")

    bank.after = stop
    with pytest.raises(StateBackendUnavailable):
        await start(bank.tree(**more), stopping, run_id=RUN)
    bank.after = lambda _: None
    assert len(bank.received) == 1


async def state_of(store: StateStore) -> list[tuple[IntentState, int]]:
    """Return the state of each announced call, and how often the step has called."""
    return [(call.state, call.sends) for call in await store.intents(RUN)]


async def test_a_call_is_announced_before_it_is_made_and_settled_with_its_entry(store: StateStore) -> None:
    seen: list[Any] = []

    async def charge(amount: int, idempotency_key: str) -> str:
        (call,) = await store.intents(RUN)
        seen.append((call.key == idempotency_key, call.state, call.tool, call.input))
        return "receipt"

    step = Step(
        name="charge",
        call=CallableRef("bank:charge", charge),
        arguments={"amount": 5},
        enforce_idempotency=True,
    )
    result = await start(pipeline(step), store, run_id=RUN)
    assert result.output == "receipt"
    assert seen == [(True, IntentState.SENT, "bank:charge", b'{"amount":5}')]
    (call,) = await store.intents(RUN)
    assert (call.state, call.result) == (IntentState.DONE, b'"receipt"')


async def test_an_interrupted_call_asks_a_human_and_is_not_repeated(store: StateStore) -> None:
    bank = Bank()
    await cut_off(bank, store)
    paused = await resume(bank.tree(), store)
    assert paused.status is RunStatus.PAUSED
    (asked,) = paused.pauses
    assert asked.pause_id == "charge!doubt[0]"
    assert '{"amount":5}' in asked.message
    assert bank.received[0] in asked.message
    assert await state_of(store) == [(IntentState.IN_DOUBT, 1)]
    again = await resume(bank.tree(), store)
    assert (again.status, len(bank.received)) == (RunStatus.PAUSED, 1)


@pytest.mark.parametrize("how", ["done", "retry", "fail"])
async def test_a_human_reports_the_outcome_of_an_interrupted_call(store: StateStore, how: str) -> None:
    bank = Bank()
    await cut_off(bank, store)
    await resume(bank.tree(), store)
    said = {"resolution": how} | ({"result": "by hand"} if how == "done" else {})
    await answer(store, "charge!doubt[0]", said)
    result = await resume(bank.tree(), store)
    match how:
        case "done":
            assert (result.output, len(bank.received)) == ("paid: by hand", 1)
        case "retry":
            assert (result.output, len(bank.received), len(set(bank.received))) == (
                "paid: receipt 0 of 5",
                2,
                1,
            )
            assert await state_of(store) == [(IntentState.DONE, 2)]
        case _:
            assert result.error is not None
            assert (result.error.code, len(bank.received)) == (CallInDoubt.code, 1)
            anew = await resume(bank.tree(), store, retry_failed=True)
            assert (anew.output, len(set(bank.received))) == ("paid: receipt 1 of 5", 2)


async def test_a_call_interrupted_twice_asks_twice(store: StateStore) -> None:
    bank = Bank()
    await cut_off(bank, store)
    await resume(bank.tree(), store)
    await answer(store, "charge!doubt[0]", {"resolution": "retry"})
    stopping: Any = StoppingStore(store, 1)
    with pytest.raises(StateBackendUnavailable):
        await resume(bank.tree(), stopping)
    assert len(bank.received) == 2
    paused = await resume(bank.tree(), store)
    assert [pause.pause_id for pause in paused.pauses] == ["charge!doubt[1]"]
    await answer(store, "charge!doubt[1]", {"resolution": "done", "result": 1})
    assert (await resume(bank.tree(), store)).output == "paid: 1"
    assert len(bank.received) == 2


async def test_a_result_from_a_human_has_to_fit_the_schema(store: StateStore) -> None:
    from flujo.services.runs.runner import Flujo

    bank = Bank()
    schema = {"type": "string"}
    await cut_off(bank, store, output_schema=schema)
    async with Flujo[Any, Any, Any](bank.tree(output_schema=schema), store=store) as runner:
        await runner.resume_async(RUN)
        for outcome, result in (("done", {"result": 1}), ("perhaps", {}), ("retry", {"result": "ok"})):
            with pytest.raises(InputRejected):
                await runner.resolve_async(RUN, outcome, **result)
        done = await runner.resolve_async(RUN, "done", result="ok")
    assert done.output == "paid: ok"


@pytest.mark.parametrize("was_made", [True, False])
async def test_reconcile_queries_the_external_service(store: StateStore, was_made: bool) -> None:
    bank = Bank()
    await cut_off(bank, store, in_doubt="reconcile")
    if not was_made:
        bank.done.clear()
    result = await resume(bank.tree(in_doubt="reconcile"), store)
    assert result.output == "paid: receipt 0 of 5"
    assert (len(bank.received), len(set(bank.received))) == (1 if was_made else 2, 1)


async def test_retry_same_key_calls_again_under_the_same_key(store: StateStore) -> None:
    bank = Bank()
    await cut_off(bank, store, in_doubt="retry_same_key")
    result = await resume(bank.tree(in_doubt="retry_same_key"), store)
    assert (result.output, len(bank.received), len(bank.done)) == ("paid: receipt 0 of 5", 2, 1)


async def test_in_doubt_fail_fails_the_run_with_the_reason(store: StateStore) -> None:
    bank = Bank()
    await cut_off(bank, store, in_doubt="fail")
    for _ in range(2):
        result = await resume(bank.tree(in_doubt="fail"), store)
        assert result.error is not None
        assert (result.error.code, len(bank.received)) == (CallInDoubt.code, 1)
        if result.status is RunStatus.FAILED:
            break
    assert await state_of(store) == [(IntentState.IN_DOUBT, 1)]


@pytest.mark.parametrize(
    ("effect", "keys"), [("unsafe", 2), ("idempotent", 1), ("transactional", 1), ("read", 1)]
)
async def test_a_retry_keeps_the_key_when_the_effect_allows_it(
    store: StateStore, effect: str, keys: int
) -> None:
    def refuse_once(number: int) -> None:
        if number == 1:
            raise RuntimeError("refused")

    bank = Bank(before=refuse_once)
    tree = bank.tree(effect=effect, config=StepConfig(max_retries=1))
    result = await start(tree, store, run_id=RUN)
    assert result.status is RunStatus.COMPLETED
    assert (len(bank.received), len(set(bank.received))) == (2, keys)
    assert [state for state, _ in await state_of(store)][-1] is IntentState.DONE


@pytest.mark.parametrize("effect", ["unsafe", "transactional", "idempotent"])
async def test_a_lost_connection_leaves_an_unsafe_call_in_doubt(store: StateStore, effect: str) -> None:
    def broken(number: int) -> None:
        if number == 1:
            raise ConnectionResetError("the connection was lost before the reply")

    bank = Bank(after=broken)
    tree = bank.tree(effect=effect, config=StepConfig(max_retries=1))
    result = await start(tree, store, run_id=RUN)
    if effect == "idempotent":
        assert (result.status, len(bank.received), len(bank.done)) == (RunStatus.COMPLETED, 2, 1)
        return
    assert (result.status, len(bank.received)) == (RunStatus.PAUSED, 1)
    await answer(store, "charge!doubt[0]", {"resolution": "done", "result": "seen"})
    assert (await resume(tree, store)).output == "paid: seen"


@pytest.mark.guarantee("G3")
async def test_after_a_stop_at_any_write_no_key_is_used_twice_without_a_human(store: StateStore) -> None:
    for writes in count():
        bank, run_id = Bank(), f"run-{writes}"
        stopping: Any = StoppingStore(store, writes)
        try:
            await start(bank.tree(), stopping, run_id=run_id)
            break
        except StateBackendUnavailable:
            result = await resume(bank.tree(), store, run_id=run_id)
        if result.status is RunStatus.PAUSED:
            assert len(bank.received) == 1
            said = {"resolution": "done", "result": bank.done[bank.received[0]]}
            await answer(store, "charge!doubt[0]", said, run_id=run_id)
            result = await resume(bank.tree(), store, run_id=run_id)
        assert result.output == "paid: receipt 0 of 5"
        assert len(bank.received) == 1
    entries = await store.entries(RunId(run_id))
    assert [entry.path for entry in entries if entry.kind is EntryKind.WORK] == ["charge", "say"]
    assert canonical.decode(entries[0].output or b"") == "receipt 0 of 5"
