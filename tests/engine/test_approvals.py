"""A human approves a tool call before it is made; the call is bound to the arguments that the human saw."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from engine.talking import RUN, add, calls, detail, entries, talk, value
from flujo.domain import canonical
from flujo.domain.acts import Actor, Via
from flujo.domain.approvals import Approval
from flujo.domain.events import Event, StepStarted
from flujo.domain.paths import StepPath
from flujo.domain.run import IntentState, PauseKind, RunStatus
from flujo.domain.tools import CallableTool
from flujo.domain.usage import UsageLimits
from flujo.exceptions import (
    AgentChanged,
    InputRejected,
    PausedException,
    ResumeConflict,
    StateBackendUnavailable,
)
from flujo.services.runs.answers import record_answer
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from support import StoppingStore, answer, resume, start

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.run import Pause

ANA = Actor("ana", Via.API)
TOOL = "research/turn[0]/tool[0]"


class Desk:
    """A tool that refunds money, and what it has refunded."""

    def __init__(self) -> None:
        self.paid: list[tuple[int, str]] = []
        self.breaks: StoppingStore | None = None
        """A store that becomes unavailable during a refund."""

    def refund(self, amount: int, idempotency_key: str) -> str:
        """Refund an amount."""
        self.paid.append((amount, idempotency_key))
        if self.breaks is not None:
            self.breaks.allowed = 0
        return f"refunded {amount}"

    def pipeline(
        self, *amounts: int, rules: Approval | None = None, is_free: bool = False, **keys: Any
    ) -> Pipeline:
        approval = None if is_free else rules or Approval()
        entry = CallableTool(self.refund, effect="idempotent", approve=approval, enforce_idempotency=is_free)
        script = [calls(*(("refund", {"amount": each}) for each in amounts)), "done"]
        return talk(script, tools=[entry, add], **keys)


async def approve(store: StateStore, pause_id: str = TOOL, **answer: Any) -> None:
    record = await store.find(RUN)
    (question,) = [each for each in await store.pauses(RUN) if each.pause_id == pause_id]
    given = {"approved": True, "digest": question.digest, **answer}
    await record_answer(store, record, pause_id, given, ANA)


async def only_question(store: StateStore) -> Pause:
    (question,) = await store.pauses(RUN)
    return question


async def test_a_call_waits_for_an_approval_with_its_exact_arguments(store: StateStore) -> None:
    desk = Desk()
    tree = desk.pipeline(120, rules=Approval(message="Refund {{ args.amount }} USD?"))
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    question = await only_question(store)
    assert (question.pause_id, question.kind) == (TOOL, PauseKind.APPROVAL)
    assert question.message == (
        "step 'research' wants to call `refund` (effect: idempotent).\n"
        "Refund 120 USD?\n"
        'arguments: {"amount":120}\n'
        f"digest:    {question.digest}"
    )
    assert desk.paid == []
    assert await store.intents(RUN) == [], "a call that waits is not announced"
    await approve(store)
    assert (await resume(tree, store)).output == "done"
    (intent,) = await store.intents(RUN)
    assert intent.state is IntentState.DONE
    assert desk.paid == [(120, intent.key)]
    assert detail((await entries(store))[TOOL]) == {
        "tool": "refund",
        "outcome": "result",
        "effect": "idempotent",
        "approval": {"approved": True, "by": "ana"},
    }


async def test_a_watcher_sees_the_name_of_the_call_that_waits(store: StateStore) -> None:
    seen: list[Event] = []

    async def watch(event: Event) -> None:
        seen.append(event)

    async with Flujo[Any, Any, Any](Desk().pipeline(120), store=store, hooks=[watch]) as runner:
        await runner.run_result_async("go", run_id=RUN)
    begun = [(each.path, each.tool) for each in seen if isinstance(each, StepStarted)]
    assert (TOOL, "refund") in begun


async def test_a_denial_goes_to_the_model_with_its_reason(store: StateStore) -> None:
    desk = Desk()
    tree = desk.pipeline(120)
    await start(tree, store, "go")
    await approve(store, approved=False, reason="not our mistake")
    assert (await resume(tree, store)).output == "done"
    assert desk.paid == []
    entry = (await entries(store))[TOOL]
    assert value(entry) == "the call was not made: a human denied it: not our mistake"
    assert detail(entry)["outcome"] == "denied"
    assert await store.intents(RUN) == []
    assert entry.usage.tool_calls == 0
    sent = canonical.decode((await entries(store))["research/turn[1]"].input or b"")
    assert sent[0]["parts"][0]["content"] == value(entry)


async def test_changed_arguments_are_the_input_and_the_key_of_the_call(store: StateStore) -> None:
    desk = Desk()
    tree = desk.pipeline(120, rules=Approval(editable=True))
    await start(tree, store, "go")
    await approve(store, arguments={"amount": 20})
    assert (await resume(tree, store)).output == "done"
    entry = (await entries(store))[TOOL]
    (intent,) = await store.intents(RUN)
    assert desk.paid == [(20, intent.key)]
    assert canonical.decode(entry.input or b"") == canonical.decode(intent.input) == {"amount": 20}
    assert detail(entry)["approval"] == {"approved": True, "by": "ana", "changed": True}
    (act,) = await store.acts(RUN)
    assert act.actor == ANA
    assert canonical.decode(act.before or b"") == {"arguments": {"amount": 120}}
    assert canonical.decode(act.after or b"")["arguments"] == {"amount": 20}


@pytest.mark.parametrize(
    ("rules", "answer", "words"),
    [
        (Approval(), {"arguments": {"amount": 1}}, "arguments"),
        (Approval(editable=True), {"arguments": {"amount": "much"}}, "amount"),
        (Approval(editable=True), {"arguments": {}}, "amount"),
        (Approval(editable=True), {"approved": False, "arguments": {"amount": 1}}, "has no arguments"),
        (Approval(), {"approved": "perhaps"}, "approved"),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused(
    store: StateStore, rules: Approval, answer: Any, words: str
) -> None:
    await start(Desk().pipeline(120, rules=rules), store, "go")
    with pytest.raises(InputRejected, match=words):
        await approve(store, **answer)
    assert (await only_question(store)).is_open


async def test_an_answer_for_another_call_or_without_a_digest_is_refused(store: StateStore) -> None:
    await start(Desk().pipeline(120), store, "go")
    with pytest.raises(ResumeConflict, match="was given for another call"):
        await approve(store, digest="d" * 16)
    with pytest.raises(InputRejected, match="digest"):
        await record_answer(store, await store.find(RUN), TOOL, {"approved": True}, ANA)
    assert (await only_question(store)).is_open


async def test_another_answer_to_the_same_call_is_refused(store: StateStore) -> None:
    await start(Desk().pipeline(120), store, "go")
    await approve(store)
    await approve(store)  # the same one again
    with pytest.raises(ResumeConflict, match="was answered before"):
        await approve(store, approved=False)


async def test_only_the_calls_of_the_condition_wait(store: StateStore) -> None:
    desk = Desk()
    tree = desk.pipeline(5, 500, rules=Approval(when="args.amount > 100"))
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    assert (await only_question(store)).pause_id == "research/turn[0]/tool[1]"
    assert [amount for amount, _ in desk.paid] == [5]
    await approve(store, "research/turn[0]/tool[1]")
    assert (await resume(tree, store)).output == "done"
    assert [amount for amount, _ in desk.paid] == [5, 500]
    assert len(await store.intents(RUN)) == 2, "each call of such a tool is announced"


async def test_several_approvals_of_one_response_are_open_at_once_and_answered_one_by_one(
    store: StateStore,
) -> None:
    desk = Desk()
    tree = desk.pipeline(1, 2, 3)
    await start(tree, store, "go")
    assert [each.is_open for each in await store.pauses(RUN)] == [True] * 3
    assert len({each.digest for each in await store.pauses(RUN)}) == 3
    await approve(store, "research/turn[0]/tool[1]")
    assert (await resume(tree, store)).status is RunStatus.PAUSED
    assert [amount for amount, _ in desk.paid] == [2]
    await approve(store, "research/turn[0]/tool[0]", approved=False)
    await approve(store, "research/turn[0]/tool[2]")
    assert (await resume(tree, store)).output == "done"
    assert [amount for amount, _ in desk.paid] == [2, 3]


async def test_many_processes_that_answer_at_once_make_the_call_once(store: StateStore) -> None:
    desk = Desk()
    tree = desk.pipeline(120)
    await start(tree, store, "go")

    async def answer_and_resume(approved: bool) -> Any:
        await approve(store, approved=approved)
        return await resume(tree, store)

    each = [answer_and_resume(approved=number % 4 != 3) for number in range(8)]
    got = await asyncio.gather(*each, return_exceptions=True)
    assert sum(getattr(one, "output", None) == "done" for one in got) == 1
    refused = [one for one in got if isinstance(one, BaseException)]
    assert all(isinstance(one, ResumeConflict) for one in refused), refused
    assert len(desk.paid) == 1


@pytest.mark.parametrize("writes", range(1, 12))
async def test_a_crash_around_an_approval_makes_no_second_call_and_no_call_without_it(
    store: StateStore, writes: int
) -> None:
    desk = Desk()
    tree = desk.pipeline(120)

    async def until_paused_or_done() -> Any:
        while True:
            try:
                return await resume(tree, store)
            except ResumeConflict:
                return await store.find(RUN)

    try:
        result: Any = await start(tree, StoppingStore(store, writes), "go")
    except StateBackendUnavailable:
        result = await until_paused_or_done()
    assert result.status is RunStatus.PAUSED
    assert desk.paid == []
    await approve(store)
    try:
        result = await resume(tree, StoppingStore(store, writes))
    except StateBackendUnavailable:
        result = await until_paused_or_done()
    assert result.status is RunStatus.COMPLETED
    assert len({key for _, key in desk.paid}) == 1, "a repeated call of an idempotent tool keeps its key"


async def test_at_the_deadline_the_call_is_denied(store: StateStore) -> None:
    desk = Desk()
    tree = desk.pipeline(120, rules=Approval(deadline_s=1e-9, on_deadline="deny"))
    await start(tree, store, "go")
    await store.expire(RUN, StepPath(TOOL))
    assert (await resume(tree, store)).output == "done"
    entry = (await entries(store))[TOOL]
    assert value(entry) == "the call was not made: no human approved it in time"
    assert detail(entry)["outcome"] == "denied"
    assert detail(entry)["approval"] == {"approved": False, "deadline": "passed"}
    assert desk.paid == []


async def test_a_deadline_from_the_arguments_of_the_call_is_recorded_with_the_question() -> None:
    rules = Approval(deadline_s={"value": "{{ args.amount * 2 }}", "max": 300})
    store = MemoryStateStore()
    result = await start(Desk().pipeline(120, rules=rules), store, "go")
    assert [pause.deadline_s for pause in result.pauses] == [240]
    again = await resume(Desk().pipeline(120, rules=rules), store)
    assert [pause.deadline_at for pause in again.pauses] == [pause.deadline_at for pause in result.pauses]


async def test_a_deadline_of_an_approval_above_its_maximum_fails_the_step() -> None:
    desk = Desk()
    tree = desk.pipeline(120, rules=Approval(deadline_s={"value": "args.amount", "max": 60}))
    error = (await start(tree, MemoryStateStore(), "go")).error
    assert error is not None
    assert error.code == "FLJ404"
    assert error.message == (
        "`deadline_s` of the approval of `refund`, `args.amount`, is 120, not a number of seconds above 0, "
        "up to 1m"
    )
    assert desk.paid == []


async def test_at_the_deadline_the_step_fails_and_a_retry_asks_again(store: StateStore) -> None:
    desk = Desk()
    tree = desk.pipeline(120, rules=Approval(deadline_s=1e-9))
    await start(tree, store, "go")
    first = await only_question(store)
    await store.expire(RUN, StepPath(TOOL))
    result = await resume(tree, store)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.code == "FLJ440"
    assert (await resume(tree, store, retry_failed=True)).status is RunStatus.PAUSED
    again = await only_question(store)
    assert again.is_open
    assert again.digest != first.digest, "an answer to the first question does not approve the second one"
    with pytest.raises(ResumeConflict):
        await approve(store, digest=first.digest)
    await approve(store)
    assert (await resume(tree, store)).output == "done"
    assert len(desk.paid) == 1


async def test_an_approved_call_without_a_result_asks_how_it_ended(store: StateStore) -> None:
    sent: list[str] = []

    def pay(amount: int, idempotency_key: str) -> str:
        sent.append(idempotency_key)
        raise TimeoutError("no reply")

    tree = talk([calls(("pay", {"amount": 5})), "done"], tools=[CallableTool(pay, approve=True)])
    await start(tree, store, "go")
    await approve(store)
    assert (await resume(tree, store)).status is RunStatus.PAUSED
    doubt = (await store.pauses(RUN))[-1]
    assert (doubt.pause_id, doubt.kind) == (f"{TOOL}!doubt[0]", PauseKind.DOUBT)
    await answer(store, doubt.pause_id, {"resolution": "done", "result": "paid"})
    assert (await resume(tree, store)).output == "done"
    assert len(sent) == 1


async def test_a_tool_that_changed_while_its_approval_was_open_opens_a_new_question(
    store: StateStore,
) -> None:
    desk = Desk()
    await start(desk.pipeline(120), store, "go")
    first = await only_question(store)

    def refund(amount: int, idempotency_key: str, currency: str = "EUR") -> str:
        return desk.refund(amount, idempotency_key)

    entry = CallableTool(refund, effect="idempotent", approve=True)
    changed = talk([calls(("refund", {"amount": 120})), "done"], tools=[entry, add])
    assert (await resume(changed, store, accept_changes=True)).status is RunStatus.PAUSED
    assert (await only_question(store)).digest != first.digest
    assert desk.paid == []


@pytest.mark.parametrize("is_noticed", [True, False])
@pytest.mark.parametrize("is_approved", [True, False])
async def test_a_question_counts_although_its_tool_needs_no_approval_any_more(
    store: StateStore, is_approved: bool, is_noticed: bool
) -> None:
    desk = Desk()
    await start(desk.pipeline(120), store, "go")
    free = desk.pipeline(120, is_free=True)
    if is_noticed:
        noticed = await resume(free, store)
        assert noticed.error is not None
        assert noticed.error.code == AgentChanged.code
    waiting = await resume(free, store, accept_changes=True, retry_failed=is_noticed)
    assert (waiting.status, desk.paid) == (RunStatus.PAUSED, [])
    await approve(store, approved=is_approved)
    assert (await resume(free, store, accept_changes=True)).output == "done"
    assert [amount for amount, _ in desk.paid] == [120] * is_approved


async def test_a_call_that_was_sent_needs_no_approval_that_its_tool_requires_since(store: StateStore) -> None:
    desk = Desk()
    free = desk.pipeline(120, is_free=True)
    desk.breaks = StoppingStore(store, 100)
    with pytest.raises(StateBackendUnavailable):
        await start(free, desk.breaks, "go")
    desk.breaks = None
    assert (await resume(desk.pipeline(120), store, accept_changes=True)).output == "done"
    assert (len(desk.paid), len(set(desk.paid))) == (2, 1), "the same call, under its key"
    assert await store.pauses(RUN) == []


async def test_a_call_without_room_in_the_budget_asks_no_human(store: StateStore) -> None:
    desk = Desk()
    extra = [calls(("add", {"a": 1, "b": 1})), calls(("refund", {"amount": 120})), "done"]
    tools: list[Any] = [CallableTool(desk.refund, effect="idempotent", approve=True), add]
    tree = replace(talk(extra, tools=tools), budget=UsageLimits(tool_calls_limit=1))
    result = await start(tree, store, "go")
    assert result.status is RunStatus.FAILED
    assert await store.pauses(RUN) == []


async def test_a_waiting_approval_counts_no_tool_call(store: StateStore) -> None:
    tree = replace(Desk().pipeline(120), budget=UsageLimits(tool_calls_limit=1))
    await start(tree, store, "go")
    await approve(store)
    assert (await resume(tree, store)).output == "done"


async def test_an_approved_tool_cannot_ask_a_second_question(store: StateStore) -> None:
    def refund(amount: int) -> str:
        raise PausedException(f"{amount}?")

    tree = talk([calls(("refund", {"amount": 5})), "done"], tools=[CallableTool(refund, approve=True)])
    await start(tree, store, "go")
    await approve(store)
    assert (await resume(tree, store)).output == "done"
    entry = (await entries(store))[TOOL]
    assert detail(entry)["outcome"] == "error"
    assert "a tool with `approve` cannot do that" in value(entry)


async def test_an_approval_counts_after_its_step_was_renamed(store: StateStore) -> None:
    desk = Desk()
    tree = desk.pipeline(120)
    assert (await start(tree, store, "go")).status is RunStatus.PAUSED
    await approve(store)
    (conversation,) = tree.steps
    renamed = replace(tree, steps=(replace(conversation, name="help"),), migrations={"research": "help"})
    assert (await resume(renamed, store)).output == "done"
    (intent,) = await store.intents(RUN)
    assert (intent.path, desk.paid) == (TOOL, [(120, intent.key)])
