"""A program answers approvals of tool calls through a `TaskClient` and a runner."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Approval, CallableTool, Flujo, Pipeline, Step, TaskClient
from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import AmbiguousPause, InputRejected, ResumeConflict
from flujo.testing import ScriptedAgent, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from flujo.domain.models import PipelineResult
    from flujo.domain.ports import StateStore
    from flujo.domain.run import Pause

    Result = PipelineResult[Any, Any]

RUN = RunId("case")
TOOLS = [f"serve/turn[0]/tool[{number}]" for number in range(3)]


@dataclass
class Desk:
    """A paused run with calls that wait, and two ways to answer them."""

    runner: Flujo[Any, Any, Any]
    client: TaskClient
    paid: list[int]
    heard: list[Any] = field(default_factory=list)
    door: str = "client"

    async def questions(self) -> dict[str, Pause]:
        pauses = (await self.client.get_task("case")).pauses
        return {pause.pause_id: pause for pause in pauses if pause.is_open}

    async def answer(self, pause_id: str | None = None, *, by: str | None = None, **said: Any) -> Result:
        """Answer a question; the digest is that of the question unless `said` has another one."""
        questions = await self.questions()
        shown = questions.get(pause_id or next(iter(questions), ""))
        given = {"approved": True, **({} if shown is None else {"digest": shown.digest}), **said}
        if self.door == "client":
            return await self.client.resume_task("case", given, pause_id, by=by)
        return await self.runner.resume_async("case", given, pause_id=pause_id, by=by)


@pytest.fixture(params=["client", "runner"])
def opened(store: StateStore, request: pytest.FixtureRequest) -> Callable[..., Any]:
    @asynccontextmanager
    async def open_desk(*amounts: int, **rules: Any) -> AsyncIterator[Desk]:
        paid: list[int] = []
        heard: list[Any] = []

        def refund(amount: int) -> str:
            paid.append(amount)
            return f"refunded {amount}"

        def answer(ask: Any) -> Any:
            heard[:] = ask.data
            return (
                [ToolCall("refund", {"amount": each}) for each in amounts] if len(ask.data) == 1 else "done"
            )

        tool = CallableTool(refund, effect="idempotent", approve=Approval(**rules))
        agent = ScriptedAgent(answer, tools=[tool])
        async with Flujo(Pipeline([Step.granular("serve", agent)], name="desk"), store=store) as runner:
            paused = await runner.run_result_async("go", run_id="case")
            assert [pause.pause_id for pause in paused.pauses] == TOOLS[: len(amounts)]
            yield Desk(runner, TaskClient(store, runners=[runner]), paid, heard, request.param)

    return open_desk


def results(heard: list[Any]) -> list[str]:
    """Return what the model got for its calls."""
    return [part["content"] for part in heard[2]["parts"]]


async def refused(error: type[Exception], answering: Awaitable[Any], words: str) -> None:
    with pytest.raises(error, match=words):
        await answering


async def test_an_answer_with_another_digest_is_refused_and_the_call_waits(opened: Any) -> None:
    async with opened(120) as desk:
        await refused(ResumeConflict, desk.answer(digest="d" * 16), "was given for another call")
        assert list(await desk.questions()) == TOOLS[:1]
        assert (await desk.answer()).output == "done"
        assert desk.paid == [120]


async def test_arguments_are_changed_only_where_that_is_allowed_and_only_to_what_fits(opened: Any) -> None:
    async with opened(120) as desk:
        await refused(InputRejected, desk.answer(arguments={"amount": 1}), "arguments")
        assert desk.paid == []


async def test_changed_arguments_are_checked_and_recorded_with_their_author(opened: Any) -> None:
    async with opened(120, editable=True) as desk:
        await refused(InputRejected, desk.answer(arguments={"amount": "much"}), "amount")
        await refused(InputRejected, desk.answer(arguments={"amount": 1, "to": "me"}), "to")
        assert (await desk.answer(arguments={"amount": 20}, by="ana")).output == "done"
        assert desk.paid == [20]
        (act,) = (await desk.client.get_task("case")).acts
        assert act.actor.by == "ana"
        assert canonical.decode(act.before or b"") == {"arguments": {"amount": 120}}
        assert canonical.decode(act.after or b"")["arguments"] == {"amount": 20}


async def test_the_model_gets_the_reason_of_a_denial(opened: Any) -> None:
    async with opened(120) as desk:
        done = await desk.answer(approved=False, reason="not our mistake", by="ana")
        assert (done.output, desk.paid) == ("done", [])
        assert results(desk.heard) == ["the call was not made: a human denied it: not our mistake"]
        (call,) = [
            node for node in (await desk.client.get_task("case")).trace.walk() if node.path == TOOLS[0]
        ]
        assert call.detail["approval"] == {"approved": False, "by": "ana"}


async def test_a_second_answer_is_refused_before_and_after_the_run_has_ended(opened: Any) -> None:
    async with opened(120, 7) as desk:
        first = (await desk.questions())[TOOLS[0]].digest
        await desk.answer(TOOLS[0])
        again = desk.answer(TOOLS[0], approved=False, digest=first)
        await refused(ResumeConflict, again, "was answered before")
        assert (await desk.answer(TOOLS[1])).output == "done"
        again = desk.answer(TOOLS[0], approved=False, digest=first)
        await refused(ResumeConflict, again, "answered before|is completed")
        assert sorted(desk.paid) == [7, 120]


async def test_an_answer_after_the_deadline_was_applied_is_refused_and_the_call_is_denied(
    opened: Any, store: StateStore
) -> None:
    async with opened(120, deadline_s=1e-6, on_deadline="deny") as desk:
        (question,) = (await desk.questions()).values()
        await store.expire(RUN, question.pause_id)
        late = desk.answer(TOOLS[0], digest=question.digest)
        await refused(ResumeConflict, late, "deadline of the question at .* passed before this answer")
        done = await desk.runner.resume_async("case")
        assert (done.output, desk.paid) == ("done", [])
        assert results(desk.heard) == ["the call was not made: no human approved it in time"]


async def test_several_approvals_of_one_response_are_answered_one_by_one(opened: Any) -> None:
    async with opened(1, 2, 3) as desk:
        digests = {pause.digest for pause in (await desk.questions()).values()}
        assert len(digests) == 3
        await refused(AmbiguousPause, desk.answer(), "3 open approvals|3 open questions")
        other = (await desk.questions())[TOOLS[1]].digest
        await refused(ResumeConflict, desk.answer(TOOLS[0], digest=other), "was given for another call")
        assert (await desk.answer(TOOLS[1])).status is RunStatus.PAUSED
        assert desk.paid == [2]
        assert (await desk.answer(TOOLS[0], approved=False)).status is RunStatus.PAUSED
        assert (await desk.answer(TOOLS[2])).output == "done"
        assert desk.paid == [2, 3]
        assert [text.partition(":")[0] for text in results(desk.heard)] == [
            "the call was not made",
            "refunded 2",
            "refunded 3",
        ]


async def test_several_approvals_are_answered_together(opened: Any) -> None:
    async with opened(1, 2, 3) as desk:
        for pause_id, question in (await desk.questions()).items():
            said = {"approved": pause_id != TOOLS[1], "digest": question.digest}
            note = (await desk.client.resume_task("case", said, pause_id, detach=True)).note
            assert note
        assert desk.paid == []
        assert (await desk.runner.resume_async("case")).output == "done"
        assert sorted(desk.paid) == [1, 3]


async def test_answers_to_different_calls_at_once_make_each_call_once(opened: Any) -> None:
    async with opened(1, 2, 3) as desk:
        each = await asyncio.gather(*(desk.answer(tool) for tool in TOOLS), return_exceptions=True)
        assert not [got for got in each if isinstance(got, Exception) and not isinstance(got, ResumeConflict)]
        for pause_id in list(await desk.questions()):
            await desk.answer(pause_id)
        assert (await desk.client.get_task("case")).task.status in (RunStatus.COMPLETED, RunStatus.PAUSED)
        assert sorted(desk.paid) == [1, 2, 3]
