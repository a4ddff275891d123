"""A whole conversation within one attempt: requests, tool calls and corrections, until an answer fits.

A `granular` step has the same `Session`, and the engine records each turn of it. Here nothing is recorded
before the end, so a retry begins the conversation again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from flujo.agents.messages import clean
from flujo.agents.outgoing import Door
from flujo.domain import canonical
from flujo.domain.agents import Ask, Reply
from flujo.domain.conversations import (
    BackToModel,
    ToolCalls,
    ToolResult,
    not_repaired,
    refusal,
    runs_in_turn,
)
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import AgentError, NotJournalable, OutputRejected, OutputTruncated, TurnLimitReached
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from flujo.domain.conversations import Message, Response, Session, ToolCall

MOST_REQUESTS = 50
"""The maximum number of requests of one attempt."""


class Conversation:
    """One conversation, from the prompt to an answer that fits.

    Args:
        session: the conversation, at its beginning.
        ask: the request of the step.
        agent: the agent's name.
        corrections: how often the model may correct its answer, and a call of each tool.
    """

    def __init__(self, session: Session, ask: Ask, *, agent: str, corrections: int) -> None:
        self._session = session
        self._ask = ask
        self._agent = agent
        self._corrections = corrections
        self._left = corrections
        self._messages: list[Message] = []
        """All messages, those that a cut answer left out of the conversation too."""
        self._unsent: list[Message] = []
        self._useless: Counter[str] = Counter()
        """In how many responses in a row the calls of each tool had no result."""
        self._spent: Usage = NOTHING
        self._model: str | None = None
        self._repairs: tuple[str, ...] = ()

    async def reply(self) -> Reply:
        """Return the first answer that fits.

        Every exception has `usage` and `transcript`: the usage of the conversation until then, and its text.

        Raises:
            OutputRejected: no answer fits after all corrections, or a tool is called wrongly again and again.
            OutputTruncated: the last answer was cut off.
            TurnLimitReached: there is no answer after `MOST_REQUESTS` requests.
        """
        try:
            output = await self._answer()
        except BaseException as error:
            # A failed attempt is paid for too, whether Flujo, the provider, a tool or a timeout ended it.
            error.usage = self._spent  # type: ignore[attr-defined]  # exceptions take attributes
            error.transcript = self._transcript  # type: ignore[attr-defined]  # exceptions take attributes
            raise
        return Reply(
            output=output,
            usage=self._spent,
            model=self._model,
            repairs=self._repairs,
            transcript=self._transcript,
        )

    @property
    def _transcript(self) -> dict[str, Any]:
        said, messages = self._ask.instructions, self._messages
        door = Door.of(self._ask)
        if door.is_tokenised:  # a transcript shows what the model has seen
            said, messages = None if said is None else door.text(said), door.messages(messages)
        return {"instructions": said, "tools": list(self._session.tools), "messages": messages}

    async def _answer(self) -> Any:
        self._require_turns()
        self._say(self._session.prompt(self._ask.data))
        for _ in range(MOST_REQUESTS):
            try:
                response = await self._request()
            except OutputTruncated as cut:
                self._correct(cut)
                continue
            try:
                reading = self._session.read(response.message)
                if not isinstance(reading, ToolCalls):
                    check = self._ask.check
                    value = reading.value if check is None else await check(reading.value)
                    self._repairs += reading.repairs
                    return value
            except OutputRejected as rejected:
                self._correct(rejected)
                continue
            for call in reading.calls:
                self._repairs += tuple(f"{each} in the arguments of `{call.name}`" for each in call.repairs)
            self._say(await self._results(reading.calls))
        raise TurnLimitReached(
            f"agent {self._agent!r} made {MOST_REQUESTS} requests in one attempt, and gave no answer",
            hint="write `kind: granular` with `max_turns`, which records each turn",
            limit=MOST_REQUESTS,
        )

    def _say(self, message: Message) -> None:
        self._messages.append(message)
        self._unsent.append(message)

    async def _require_lease(self) -> None:
        """Refuse to continue in a run that another process has taken over, while this one was frozen."""
        if self._ask.require_lease is not None:
            await self._ask.require_lease()

    async def _request(self) -> Response:
        ask = self._ask
        await self._require_lease()
        try:
            response = await self._session.request(
                self._unsent, may_call=True, meter=ask.meter, on_text=ask.on_text
            )
        except BaseException as error:
            self._spent += getattr(error, "usage", NOTHING)
            self._messages += getattr(error, "transcript", {}).get("messages", ())
            raise
        self._messages.append(response.message)
        self._unsent = []
        self._spent += response.usage
        self._model = response.model or self._model
        return response

    def _correct(self, rejected: OutputRejected) -> None:
        """Reject an answer, with the reason.

        Raises:
            OutputRejected: the model has corrected its answer as often as it may.
        """
        if not self._left:
            facts = {**rejected.facts, "agent": self._agent, "retryable": True}
            message = f"agent {self._agent!r}: {rejected.message}"
            raise type(rejected)(message, hint=rejected.hint, **facts) from rejected
        self._left -= 1
        reason = rejected.reason or rejected.message
        self._repairs += (f"asked again because {reason}",)
        self._say(self._session.again(reason))

    # Tools -----------------------------------------------------------------------------------------------

    async def _results(self, calls: Sequence[ToolCall]) -> Message:
        """Return the message with the results of all tool calls of a response."""
        tools, filled_in = self._session.tools, Ask(resources=self._ask.resources)
        # One attempt cannot wait for a human, so a repair that needs an approval is refused.
        refusals = [
            not_repaired(call.name) if call.written else refusal(call, tools, filled_in) for call in calls
        ]
        await self._require_lease()
        await self._count(refusals.count(""))
        each = list(zip(calls, refusals, strict=True))
        if runs_in_turn(calls, tools):
            made = [await self._call(call, why) for call, why in each]
        else:
            made = await _together([self._call(call, why) for call, why in each])
        results = list(zip(calls, made, strict=True))
        self._refuse_repetition(results)
        return self._session.results(results)

    def _require_turns(self) -> None:
        """Refuse a tool whose calls must be recorded: one attempt records none of them.

        Raises:
            AgentError: names the tool.
        """
        for name, tool in self._session.tools.items():
            if tool.enforce_idempotency or tool.effect == "transactional":
                key = "enforce_idempotency" if tool.approve is None else "approve"
                key = key if tool.enforce_idempotency else "effect: transactional"
                raise AgentError(
                    f"agent {self._agent!r}: tool `{name}` has `{key}`, and this kind of step does not "
                    "record tool calls",
                    hint="write `kind: granular`, which records each tool call",
                )

    async def _count(self, calls: int) -> None:
        """Count the tool calls of a response in the budget before the first one is made."""
        if not calls:
            return
        if self._ask.meter is not None:
            await self._ask.meter.call_tools(calls)
        self._spent += Usage(tool_calls=calls)

    async def _call(self, call: ToolCall, why_not: str) -> ToolResult:
        """Return what the model gets for a call; any other exception of the tool ends the attempt."""
        if why_not:
            return ToolResult(f"the call was not made: {why_not}", "refused")
        tool = self._session.tools[call.name]
        ask = Ask(arguments=call.arguments, context=self._ask.context, resources=self._ask.resources)
        limit = asyncio.timeout(tool.timeout_s)
        try:
            async with limit:
                reply = await tool.ask(ask)
        except BackToModel as words:
            return ToolResult(clean(GATE.text(str(words))), "retry")
        except TimeoutError as error:
            if not limit.expired():
                raise
            text = f"the call took longer than {tool.timeout_s:g} s"
            if tool.wants_context:  # a thread that is left behind may still write to it
                raise TimeoutError(f"tool `{tool.name}`: {text}") from error
            return ToolResult(text, "error")
        try:
            return ToolResult(canonical.normalise(reply.output, what=f"result of tool `{tool.name}`"))
        except NotJournalable as error:
            text = f"the call was made, and its result cannot be recorded: {error.message}"
            return ToolResult(text, "error")

    def _refuse_repetition(self, results: Sequence[tuple[ToolCall, ToolResult]]) -> None:
        """Raise when a tool has been called in too many responses in a row without a result."""
        usable = {call.name for call, result in results if result.outcome == "result"}
        for name, result in {call.name: result for call, result in results}.items():
            self._useless[name] = 0 if name in usable else self._useless[name] + 1
            if self._useless[name] > self._corrections:
                raise OutputRejected(
                    f"agent {self._agent!r}: its calls of tool `{name}` cannot be used: {result.content}",
                    hint="make the docstring and annotations of the tool more precise, or use a larger model",
                    agent=self._agent,
                    retryable=True,
                )


async def _together(work: Sequence[Coroutine[Any, Any, ToolResult]]) -> list[ToolResult]:
    """Await all calls at the same time; the first error cancels the others, and is raised."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failed:
        error = failed.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise error
