"""Calls with an external effect: issued once per key, and in doubt when their end is not recorded."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from itertools import count, cycle, product
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from durability.payments import (
    ACTS,
    CLIENTS,
    REFUSES,
    UNKNOWN_HOST,
    Service,
    closed_url,
    pay,
    payment_service,
)
from flujo import NotSent
from flujo.domain import canonical
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import IntentState, RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import ArgumentsRejected, CallInDoubt, InputRejected, StateBackendUnavailable
from flujo.state.store import SqlStateStore
from support import (
    ImportStep,
    MapStep,
    ParallelStep,
    Step,
    StepConfig,
    StoppingStore,
    Text,
    answer,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from durability.conftest import Evidence
    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")
IS_WHOLE = os.environ.get("FLUJO_CRASH_EVERY") == "1"
"""Whether every client meets every behaviour on every database, as in `make soak`."""
STATUSES = [act for act in ACTS if act.isdigit()]
SAMPLE = [
    *(("sqlite", *pair) for pair in product(CLIENTS, ACTS) if pair[1] not in STATUSES),
    *(("sqlite", *pair) for pair in zip(CLIENTS, cycle(STATUSES), strict=False)),
    *(("postgres", *pair) for pair in zip(CLIENTS, ACTS, strict=False)),
]
WITHOUT_RECEIPT = [*product(["sqlite", "postgres"], CLIENTS, ACTS)] if IS_WHOLE else SAMPLE
"""The database, the client, and what the service does; the client decides what is in doubt, not the database."""


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


def message_of_doubt(result: PipelineResult[Any, Any]) -> str:
    """Return the message of the doubt that failed a run."""
    assert result.error is not None, result
    assert result.error.code == CallInDoubt.code
    return result.error.message


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
            assert message_of_doubt(result)
            assert len(bank.received) == 1
            anew = await resume(bank.tree(), store, retry_failed=True)
            assert (anew.output, len(bank.received), len(set(bank.received))) == (
                "paid: receipt 0 of 5",
                2,
                1,
            )


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
        for outcome, result in (("done", {"result": [1]}), ("perhaps", {}), ("retry", {"result": "ok"})):
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
        assert message_of_doubt(result)
        assert len(bank.received) == 1
        if result.status is RunStatus.FAILED:
            break
    assert await state_of(store) == [(IntentState.IN_DOUBT, 1)]


@pytest.mark.parametrize(
    ("effect", "keys"), [("unsafe", 2), ("idempotent", 1), ("transactional", 1), ("read", 1)]
)
async def test_a_retry_after_a_refusal_keeps_the_key_when_the_effect_allows_it(
    store: StateStore, effect: str, keys: int
) -> None:
    def refuse_once(number: int) -> None:
        if number == 1:
            raise refusal(402)

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


# Real clients --------------------------------------------------------------------------------------------


@pytest.fixture
async def sql_store(store_uri: str) -> AsyncIterator[StateStore]:
    """A store in a database, of each kind."""
    made = SqlStateStore(store_uri)
    yield made
    await made.aclose()


@pytest.fixture
def service() -> Iterator[Service]:
    """A payment service that misbehaves on command."""
    with payment_service() as made:
        yield made


def refusal(status: int) -> Exception:
    """Return the error of a client whose request was answered with a status."""
    request = httpx.Request("POST", "http://bank.test")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status, request=request))


@dataclass
class Customer:
    """A pipeline that pays with a real client, and the addresses that it tries in order."""

    client: str
    service: Service
    urls: list[str] = field(default_factory=list)

    async def pay(self, amount: int, idempotency_key: str) -> Any:
        """Pay at the next address; after the last one, at the service."""
        return await pay(self.client, self.urls.pop(0) if self.urls else self.service.url, idempotency_key)

    async def look(self, data: Any, idempotency_key: str) -> dict[str, Any]:
        """Look the payment up in the books of the service."""
        return {"done": idempotency_key in self.service.paid, "result": "booked"}

    def tree(self, *, retries: int = 1, fallback: bool = False, **more: Any) -> Pipeline:
        """Return a pipeline that pays, and a fallback that would pay in another way."""
        look = CallableRef("bank:look", self.look) if more.get("in_doubt") == "reconcile" else None
        other = Step(name="other", call=CallableRef("bank:other", lambda data: "paid in another way"))
        return pipeline(
            Step(
                name="charge",
                call=CallableRef("bank:pay", self.pay),
                arguments={"amount": 5},
                enforce_idempotency=True,
                reconcile=look,
                fallback=other if fallback else None,
                config=StepConfig(max_retries=retries, retry=RetryPolicy(backoff="none")),
                **more,
            )
        )


def keys(service: Service) -> int:
    """Return how many keys the service has seen."""
    return len(set(service.received))


def is_paid_once(result: PipelineResult[Any, Any], service: Service) -> bool:
    """Return whether the run completed with one payment under one key."""
    return (result.status, keys(service), len(service.paid)) == (RunStatus.COMPLETED, 1, 1)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(("store_uri", "client", "behaviour"), WITHOUT_RECEIPT, indirect=["store_uri"])
async def test_a_payment_without_a_receipt_asks_and_is_repeated_under_its_key(
    sql_store: StateStore, client: str, behaviour: str, service: Service, evidence: Evidence
) -> None:
    tree = Customer(client, service).tree(retries=2, fallback=True)
    service.behaviours = [behaviour]
    result = await start(tree, sql_store, run_id=RUN)
    assert (result.status, len(service.received)) == (RunStatus.PAUSED, 1)
    assert [pause.pause_id for pause in result.pauses] == ["charge!doubt[0]"]
    await answer(sql_store, "charge!doubt[0]", {"resolution": "retry"})
    result = await resume(tree, sql_store)
    assert (result.status, len(service.received), keys(service)) == (RunStatus.COMPLETED, 2, 1)
    assert set(service.paid.values()) == {1}
    evidence.add(faults=1)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("behaviour", REFUSES)
async def test_a_refused_payment_is_a_new_call_when_it_is_retried(
    sql_store: StateStore, behaviour: str, service: Service, evidence: Evidence
) -> None:
    service.behaviours = [behaviour, behaviour]
    result = await start(Customer("requests", service).tree(retries=2), sql_store, run_id=RUN)
    assert (result.status, keys(service), len(service.paid)) == (RunStatus.COMPLETED, 3, 1)
    evidence.add(faults=2)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_payment_that_was_not_sent_is_retried_under_its_key(
    sql_store: StateStore, client: str, service: Service, evidence: Evidence
) -> None:
    tree = Customer(client, service, [closed_url(), UNKNOWN_HOST]).tree(retries=2)
    result = await start(tree, sql_store, run_id=RUN)
    assert (result.status, len(service.paid)) == (RunStatus.COMPLETED, 1)
    (call,) = await sql_store.intents(RUN)
    assert (call.key, call.sends) == (service.received[0], 3)
    evidence.add(faults=2)


async def test_a_payment_that_a_callable_declares_as_not_sent_is_retried_under_its_key(
    store: StateStore,
) -> None:
    def unplugged(number: int) -> None:
        if number == 1:
            raise NotSent("the cable is not plugged in")

    bank = Bank(before=unplugged)
    result = await start(bank.tree(config=StepConfig(max_retries=1)), store, run_id=RUN)
    assert (result.status, len(set(bank.received)), len(bank.done)) == (RunStatus.COMPLETED, 1, 1)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("then", ["401", "429", "refused"])
async def test_a_harmless_failure_of_a_repeated_payment_leaves_the_first_one_in_doubt(
    sql_store: StateStore, then: str, service: Service, evidence: Evidence
) -> None:
    customer = Customer("requests", service)
    tree = customer.tree(retries=2, fallback=True)
    service.behaviours = ["drop"]
    await start(tree, sql_store, run_id=RUN)
    await answer(sql_store, "charge!doubt[0]", {"resolution": "retry"})
    if then == "refused":
        customer.urls = [closed_url()]
    else:
        service.behaviours = [then]
    result = await resume(tree, sql_store)
    assert [pause.pause_id for pause in result.pauses] == ["charge!doubt[1]"]
    await answer(sql_store, "charge!doubt[1]", {"resolution": "retry"})
    result = await resume(tree, sql_store)
    assert is_paid_once(result, service), result
    evidence.add(faults=2)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("then", ["drop", "401"])
async def test_retry_same_key_keeps_the_key_until_the_payment_is_confirmed(
    sql_store: StateStore, then: str, service: Service, evidence: Evidence
) -> None:
    tree = Customer("httpx", service).tree(retries=2, fallback=True, in_doubt="retry_same_key")
    service.behaviours = ["reset", then, "503", "cut"]
    result = await start(tree, sql_store, run_id=RUN)
    assert message_of_doubt(result), "the fallback does not run while the payment is in doubt"
    assert len(service.received) == 3
    result = await resume(tree, sql_store, retry_failed=True)
    assert (result.status, len(service.received)) == (RunStatus.COMPLETED, 5)
    assert (keys(service), set(service.paid.values())) == (1, {1})
    evidence.add(faults=4)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(("effect", "retries"), [("unsafe", 0), ("unsafe", 2), ("transactional", 1)])
async def test_in_doubt_fail_is_not_replaced_by_a_retry_or_a_fallback(
    sql_store: StateStore, effect: str, retries: int, service: Service, evidence: Evidence
) -> None:
    tree = Customer("aiohttp", service).tree(retries=retries, fallback=True, in_doubt="fail", effect=effect)
    service.behaviours = ["drop"]
    result = await start(tree, sql_store, run_id=RUN)
    assert "ServerDisconnectedError" in message_of_doubt(result)
    assert len(service.received) == 1
    result = await resume(tree, sql_store, retry_failed=True)
    assert is_paid_once(result, service), result
    evidence.add(faults=1)


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("behaviour", ["drop", "503"])
async def test_reconcile_decides_about_a_payment_without_a_receipt(
    sql_store: StateStore, behaviour: str, service: Service, evidence: Evidence
) -> None:
    tree = Customer("urllib3", service).tree(retries=0, in_doubt="reconcile")
    service.behaviours = [behaviour]
    result = await start(tree, sql_store, run_id=RUN)
    assert (result.output, len(service.received)) == ("booked", 1)
    evidence.add(faults=1)


async def test_a_payment_that_reconcile_does_not_find_is_retried_under_its_key(
    store: StateStore, service: Service
) -> None:
    customer = Customer("requests", service)
    service.behaviours = ["drop"]

    async def forget(data: Any, idempotency_key: str) -> dict[str, Any]:
        service.paid.clear()
        return {"done": False}

    customer.look = forget  # type: ignore[method-assign]
    result = await start(customer.tree(retries=1, in_doubt="reconcile"), store, run_id=RUN)
    assert (result.status, len(service.received), keys(service)) == (RunStatus.COMPLETED, 2, 1)


async def test_a_reconcile_that_fails_leaves_the_payment_in_doubt(
    store: StateStore, service: Service
) -> None:
    customer, looked = Customer("requests", service), []

    async def look(data: Any, idempotency_key: str) -> dict[str, Any]:
        looked.append(idempotency_key)
        if len(looked) == 1:
            raise RuntimeError("the books are closed")
        return {"done": idempotency_key in service.paid, "result": "booked"}

    customer.look = look  # type: ignore[method-assign]
    tree = customer.tree(retries=2, fallback=True, in_doubt="reconcile")
    service.behaviours = ["drop"]
    result = await start(tree, store, run_id=RUN)
    assert "the books are closed" in message_of_doubt(result)
    assert len(service.received) == 1
    result = await resume(tree, store, retry_failed=True)
    assert (result.output, len(service.received)) == ("booked", 1)


async def test_a_payment_whose_receipt_is_unusable_is_in_doubt(store: StateStore) -> None:
    bank = Bank()
    tree = bank.tree(output_schema={"type": "integer"}, config=StepConfig(max_retries=2))
    result = await start(tree, store, run_id=RUN)
    assert (result.status, len(bank.received)) == (RunStatus.PAUSED, 1)


async def test_arguments_that_do_not_fit_are_a_failure_without_a_doubt(store: StateStore) -> None:
    paid: list[str] = []

    def charge(amount: int, idempotency_key: str) -> None:
        paid.append(idempotency_key)

    step = Step(
        name="charge",
        call=CallableRef("bank:charge", charge),
        arguments={"amount": "five"},
        enforce_idempotency=True,
    )
    result = await start(pipeline(step), store, run_id=RUN)
    assert result.error is not None
    assert (result.error.code, paid, await store.intents(RUN)) == (ArgumentsRejected.code, [], [])


async def test_a_type_error_inside_the_call_is_a_doubt(store: StateStore) -> None:
    def charge(amount: int) -> None:
        raise TypeError("charge() missing 1 required positional argument")

    step = Step(
        name="charge",
        call=CallableRef("bank:charge", charge),
        arguments={"amount": 5},
        enforce_idempotency=True,
    )
    assert (await start(pipeline(step), store, run_id=RUN)).status is RunStatus.PAUSED


async def test_arguments_that_stop_fitting_leave_an_earlier_payment_in_doubt(store: StateStore) -> None:
    def lose_the_reply(_: int) -> None:
        raise TimeoutError

    bank = Bank(after=lose_the_reply)
    await start(bank.tree(), store, run_id=RUN)
    await answer(store, "charge!doubt[0]", {"resolution": "retry"})

    def changed(amount: int, idempotency_key: str, currency: str) -> None:
        raise AssertionError("not called")

    charge, bank.charge = bank.charge, changed  # type: ignore[method-assign, assignment]
    result = await resume(bank.tree(), store)
    assert message_of_doubt(result)
    bank.charge, bank.after = charge, lambda _: None  # type: ignore[method-assign]
    result = await resume(bank.tree(), store, retry_failed=True)
    assert (result.status, len(bank.received), len(set(bank.received))) == (RunStatus.COMPLETED, 2, 1)


async def test_the_timeout_of_a_step_leaves_its_call_in_doubt(store: StateStore) -> None:
    received: list[str] = []

    async def charge(amount: int, idempotency_key: str) -> None:
        received.append(idempotency_key)
        await asyncio.sleep(60)

    step = Step(
        name="charge",
        call=CallableRef("bank:charge", charge),
        arguments={"amount": 5},
        enforce_idempotency=True,
        config=StepConfig(timeout_s=1, max_retries=2),
    )
    result = await start(pipeline(step), store, run_id=RUN)
    assert (result.status, len(received)) == (RunStatus.PAUSED, 1)


@pytest.mark.guarantee("G3")
async def test_a_doubt_that_was_given_up_is_repeated_only_by_a_retry(store: StateStore) -> None:
    bank = Bank()
    await cut_off(bank, store, in_doubt="fail")
    tree = bank.tree(in_doubt="fail")
    stopping: Any = StoppingStore(store, 1)  # the process dies before the end of the run is committed
    with pytest.raises(StateBackendUnavailable):
        await resume(tree, stopping)
    assert len(await store.entries(RUN)) == 1
    result = await resume(tree, store)
    assert message_of_doubt(result)
    failed = [entry.attempt for entry in await store.entries(RUN) if entry.kind is EntryKind.WORK]
    assert (failed, len(bank.received)) == ([1], 1)
    result = await resume(tree, store, retry_failed=True)
    assert (result.output, len(set(bank.received))) == ("paid: receipt 0 of 5", 1)


@pytest.mark.guarantee("G3")
async def test_a_retry_that_was_interrupted_asks_although_an_earlier_attempt_ended(store: StateStore) -> None:
    stopping: Any = StoppingStore(store, 10)
    bank = Bank()

    def refuse_then_die(number: int) -> None:
        if number == 1:
            raise refusal(402)
        stopping.allowed = 0
        raise StateBackendUnavailable("gone")

    bank.before = refuse_then_die
    tree = bank.tree(config=StepConfig(max_retries=2, retry=RetryPolicy(backoff="none")))
    with pytest.raises(StateBackendUnavailable):
        await start(tree, stopping, run_id=RUN)
    result = await resume(tree, store)
    assert (result.status, len(bank.received)) == (RunStatus.PAUSED, 2)


@pytest.mark.parametrize("how", ["import", "map", "parallel"])
async def test_a_composite_that_skips_failures_does_not_skip_a_doubt(
    store: StateStore, how: str, service: Service
) -> None:
    service.behaviours = ["drop"]
    body = Customer("requests", service).tree(retries=1, in_doubt="fail")
    composites = {
        "import": ImportStep(name="c", blueprint="b.yaml", pipeline=body, on_failure="skip"),
        "map": MapStep(name="c", over="[1]", body=body, on_error="skip"),
        "parallel": ParallelStep(name="c", branches={"one": body}, on_branch_failure="skip"),
    }
    result = await start(pipeline(composites[how]), store, run_id=RUN)
    assert message_of_doubt(result)
    assert len(service.received) == 1
