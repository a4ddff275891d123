"""`granular`: an agent works in turns; each response and each tool result is an entry of the journal.

    research                  decision: the agent (model, instructions, tools, schemas)
    research/turn[0]          work: input = the new messages, output = the response
    research/turn[0]/tool[0]  work: input = the arguments, output = what the model gets
    research/turn[0]/tool[1]/…  the steps of a blueprint as a tool, or the turns of an agent as a tool
    research/turn[1]          …
    research/summary[0]       work: a summary of older turns (`history: {keep: summary}`)
    research!limit[0]         answer: a human's, at the limit of turns (`on_limit: pause`), or a budget's
    research                  done: the answer

Each entry is committed before anything that depends on it. A resumed run reads the turns once, and continues
after the last recorded response; no recorded request or call is made again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.conversations import (
    ConversingAgent,
    FinalAnswer,
    Message,
    Session,
    ToolCall,
    ToolCalls,
    ToolResult,
)
from flujo.domain.events import StepEnded, StepStarted
from flujo.domain.journal import EntryKind
from flujo.domain.outcomes import Failure, Paused, Success
from flujo.domain.paths import StepPath, child, tool, turn
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import GranularStep
from flujo.domain.steps.step import SummaryStep, ToolCallStep, TurnStep
from flujo.domain.steps.tools import PROMPT
from flujo.domain.usage import NOTHING
from flujo.domain.values import CallableRef
from flujo.engine import threads
from flujo.engine.agent_identity import require_same_agent
from flujo.engine.agent_request import Request
from flujo.engine.attachments import attached
from flujo.engine.attempts import perform
from flujo.engine.budget_questions import NoFurtherTurn
from flujo.engine.composite_attempts import finish
from flujo.engine.conversation_history import ConversationHistory, Turn
from flujo.engine.fallback import or_its_fallback
from flujo.engine.fanout import Branch, fan_out, stopped_by
from flujo.engine.journal import STOPS_THE_WALK
from flujo.engine.judgement import judged
from flujo.engine.scopes import run_apart
from flujo.engine.tool_calls import ToolGate, leaf_of
from flujo.engine.turn_limit import Progress, TurnLimit
from flujo.exceptions import AgentError, FlujoError, OutputRejected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.ports import Binding
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame, RunBody, Work

_NO_STEPS = Pipeline(())


def work(step: GranularStep, _: Binding, run_body: RunBody) -> Work:
    """Return the execution of the step, and of its fallback if the step fails."""
    converse = partial(_converse, step, run_body)
    return converse if step.fallback is None else partial(or_its_fallback, step, converse, run_body)


async def _converse(step: GranularStep, run_body: RunBody, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the answer of the agent, and record the end of the step: its output and its net patch."""
    before = frame.scope.tree
    await frame.tell(StepStarted(path, step.kind))
    try:
        outcome = await (await _Conversation.opened(step, frame, path, run_body)).outcome()
    except STOPS_THE_WALK:
        raise
    except FlujoError as error:  # a failure of the step, which its fallback may take over
        return Failure(frame.run.journal.error_info(error, path), error)
    if not isinstance(outcome, Success):
        return outcome
    return await finish(step, frame, path, outcome, before, joins=step.joins)


async def _inside_tool(run_body: RunBody, step: BaseStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Run the step of a tool at the path of the call; `frame.previous` is the arguments."""
    if isinstance(step, GranularStep):
        inner = frame.inside(path, previous=frame.previous[PROMPT])
        return await (await _Conversation.opened(step, inner, path, run_body)).outcome()
    if step.imported is None:
        raise TypeError(f"a tool cannot be a step of kind {step.kind!r}")
    return await run_apart(
        step.imported.pipeline, frame.previous, frame, path, run_body, what=f"input of tool {step.name!r}"
    )


class _Conversation:
    """The turns of one step: those that are recorded, and those that follow."""

    def __init__(
        self,
        step: GranularStep,
        frame: Frame,
        path: StepPath,
        agent: ConversingAgent,
        session: Session,
        run_body: RunBody,
    ) -> None:
        self._step = step
        self._frame = frame
        self._path = path
        self._corrections = agent.corrections
        self._session = session
        self._gate = ToolGate(
            step.name,
            session.tools,
            is_enforced=step.enforce_idempotency,
            in_doubt=step.in_doubt,
            reconcile=step.reconcile,
            config=step.config,
            composed=step.composed,
            run_inside=partial(_inside_tool, run_body),
            pii=step.pii,
        )
        self._gate.require_rules(frame.run.journal)
        self._turn_step = _leaf(TurnStep, step)
        self._history: ConversationHistory | None = None
        self._limit = TurnLimit(step.name, step.max_turns, step.on_limit, frame, path)
        self._turns = 0
        self._calls = 0
        self._usage = NOTHING
        self._rejected = 0
        """How many answers were rejected since the step failed last."""
        self._response: Message | None = None

    @classmethod
    async def opened(
        cls, step: GranularStep, frame: Frame, path: StepPath, run_body: RunBody
    ) -> _Conversation:
        """Return the conversation at `path`, with its recorded turns.

        Raises:
            AgentError: the agent cannot work in turns.
            AgentChanged: the agent is not the one that the conversation began with.
        """
        agent = frame.run.binding.agent(cast("AgentSpec | CallableRef", step.agent))
        if not isinstance(agent, ConversingAgent):
            raise AgentError(
                f"step {step.name!r}: `{step.agent}` answers once, and cannot work in turns",
                hint="give a `granular` step an agent with a model, or a `ScriptedAgent`",
            )
        sent = await attached(step, frame, path)
        ask = Ask(
            instructions=_instructions(step, frame),
            output_schema=step.output_schema,
            files=sent.files,
            contents=sent.contents or frame.run.journal.contents,
            history=await threads.heard(step, frame),
            **frame.personal_data(step.pii),
        )
        await require_same_agent({**agent.traits(ask), **threads.seen(step, frame)}, step, frame, path)
        await frame.run.journal.load_level(child(path, "turn"))
        turns = list(_recorded_turns(frame, path))
        history = [message for entry in turns for message in _messages(entry)]
        found = cls(step, frame, path, agent, agent.converse(ask, history), run_body)
        if step.history is not None:
            summary = _leaf(SummaryStep, step)
            found._history = ConversationHistory(step.history, summary, agent, ask, frame, path, found._told)
        await found._continue_after(turns)
        await found._limit.load(found._turns)
        return found

    async def outcome(self) -> StepOutcome:
        """Return the answer, after as many turns as it takes, or what stops the step.

        Raises:
            TurnLimitReached: there is no answer after `max_turns` turns.
            OutputRejected: no answer fits after the agent's corrections.
        """
        while True:
            reason: str | None = None
            try:
                news = await self._news()
            except OutputRejected as rejected:
                news, reason = self._again(rejected), rejected.reason or rejected.message
            if not isinstance(news, dict):
                return news
            outcome = await self._request(news, reason)
            if not isinstance(outcome, Success):
                return outcome
            self._response = outcome.output

    async def _news(self) -> Message | StepOutcome:
        """Return the next message to the model, or the outcome of the step."""
        if self._response is None:
            return self._session.prompt(self._given())
        reading = self._session.read(self._response)
        if isinstance(reading, FinalAnswer):
            return await self._answered(reading)
        allowed = self._limit.next_after(self._progress())
        return allowed if isinstance(allowed, Paused) else await self._results(reading)

    # A turn ----------------------------------------------------------------------------------------------

    async def _request(self, news: Message, reason: str | None) -> StepOutcome:
        """Return the next response: the next turn, or the last request of all."""
        allowed = self._limit.next_after(self._progress())
        if isinstance(allowed, Paused):
            return allowed
        is_last = allowed == "last"
        path = turn(self._path, self._turns)
        sent = [news, self._session.last(self._turns)] if is_last else [news]
        left_out = 0 if self._history is None else await self._history.shorten(self._session, sent)
        if not isinstance(left_out, int):
            return left_out
        request = Request(self._session, may_call=not is_last)
        leaf = leaf_of(self._turn_step, request)
        if reason is not None:
            leaf.describe({**leaf.detail, "again": reason})
        if left_out:
            leaf.describe({**leaf.detail, "left_out": left_out})
        try:
            outcome = await self._told(path, leaf.step.kind, perform(leaf, self._inside(path, sent), path))
        except NoFurtherTurn:
            await self._limit.finish(self._turns)
            return await self._request(news, reason)
        if isinstance(outcome, Success):
            self._turns += 1
            if self._history is not None:
                self._history.add(Turn(sent, outcome.output, request.used))
        return outcome

    def _progress(self) -> Progress:
        return Progress(self._turns, self._calls, self._usage)

    async def _answered(self, answer: FinalAnswer) -> Success:
        """Return the outcome for an answer that passes the schema and the validators."""
        step = self._step
        value = answer.value
        if step.output_schema is not None or step.validators:
            path = turn(self._path, self._turns - 1)
            whole = replace(self._turn_step, output_schema=step.output_schema, validators=step.validators)
            value = await judged(whole, self._frame, path, value)
        facts: dict[str, Any] = {
            "turns": self._turns,
            "tool_calls": self._calls,
            "stopped": "limit" if self._limit.is_over(self._turns) else "answer",
        }
        return Success(value, facts=facts | ({"repairs": list(answer.repairs)} if answer.repairs else {}))

    def _again(self, rejected: OutputRejected) -> Message:
        """Return the message that rejects an answer.

        Raises:
            OutputRejected: the model has corrected its answer as often as it may.
        """
        continues = self._frame.run.journal.continues(turn(self._path, self._turns))
        if self._rejected >= self._corrections and not continues:
            raise rejected
        self._rejected += 1
        return self._session.again(rejected.reason or rejected.message)

    # Tools -----------------------------------------------------------------------------------------------

    async def _results(self, reading: ToolCalls) -> Message | StepOutcome:
        """Return the message with all results of a response, or what stops the step."""
        above = turn(self._path, self._turns - 1)
        await self._frame.run.journal.load_level(child(above, "tool"))
        places = {tool(above, number): call for number, call in enumerate(reading.calls)}
        results: dict[StepPath, ToolResult] = {}

        async def one(body: Pipeline, frame: Frame) -> StepOutcome:  # noqa: ARG001 - a `RunBody`
            got = await self._call(places[frame.path], frame)
            if not isinstance(got, ToolResult):
                return got
            results[frame.path] = got
            return Success(None)

        stopped = await self._all(places, one)
        if stopped is not None:
            return stopped
        self._calls += len(places)
        return self._session.results([(call, results[path]) for path, call in places.items()])

    async def _all(self, places: Mapping[StepPath, ToolCall], one: RunBody) -> StepOutcome | None:
        """Make the calls of one response; return what stops the step, if anything does.

        A call that has begun always comes to its end, so its result is never lost.
        """
        if self._gate.takes_turns(tuple(places.values())):
            for path, call in places.items():
                self._frame.require_going()
                outcome = await one(_NO_STEPS, self._inside(path, call.arguments))
                if not isinstance(outcome, Success):
                    return outcome
            return None

        async def branches() -> AsyncGenerator[Branch, None]:
            for path, call in places.items():
                yield Branch(call.name, path, _NO_STEPS, call.arguments)

        results = await fan_out(
            self._frame,
            self._step.kind,
            branches(),
            one,
            limit=self._step.max_tool_concurrency,
            stop_at_failure=True,
            one_entry=False,
        )
        return stopped_by(self._frame, results, failures_stop=True)

    async def _call(self, call: ToolCall, inner: Frame) -> ToolResult | StepOutcome:
        path: StepPath = inner.path
        got: ToolResult | StepOutcome | None = None

        async def made() -> StepOutcome:
            nonlocal got
            try:
                got = await self._gate.call(call, inner, path)
            except STOPS_THE_WALK:
                raise
            except FlujoError as error:
                return Failure(inner.run.journal.error_info(error, path), error)
            return Success(got.content) if isinstance(got, ToolResult) else got

        outcome = await self._told(path, ToolCallStep.kind, made())
        return got if isinstance(got, ToolResult) else outcome

    # Around ----------------------------------------------------------------------------------------------

    def _given(self) -> Any:
        step, frame = self._step, self._frame
        given = frame.previous if step.input is None else frame.render(step.input)
        return canonical.normalise(given, what=f"input of step {step.name!r}")

    def _inside(self, path: StepPath, given: Any) -> Frame:
        return self._frame.inside(path, previous=given)

    async def _told(self, path: StepPath, kind: str, work: Awaitable[StepOutcome]) -> StepOutcome:
        """Return the outcome of a turn, a summary or a tool call, and tell the watchers."""
        run = self._frame.run
        started, known = run.clock.monotonic(), run.journal.result(path, kind) is not None
        outcome = await work
        usage = run.journal.take_usage(path)
        if kind != ToolCallStep.kind:
            self._usage += usage
        ended = StepEnded(
            path,
            kind,
            outcome,
            seconds=run.clock.monotonic() - started,
            usage=usage,
            recorded=known,
        )
        run.ended.append(ended)
        await self._frame.tell(ended)
        return outcome

    async def _continue_after(self, turns: Sequence[Entry]) -> None:
        """Take over what the recorded turns left: their counts, and the writes of tools to the context."""
        for number in range(len(turns) + 1):
            for entry in self._frame.run.journal.attempts(turn(self._path, number), EntryKind.WORK):
                self._usage += entry.usage
        if self._history is not None:
            for entry in turns:
                *sent, response = _messages(entry)
                self._history.add(Turn(sent, response, entry.usage))
            await self._history.load()
            self._usage += self._history.usage
        takes_context = any(each.wants_context for each in self._session.tools.values())
        for number, entry in enumerate(turns):
            response = canonical.decode(entry.output or b"null")
            self._turns, self._response = number + 1, response
            detail = canonical.decode(entry.detail) if entry.detail else {}
            self._rejected += "again" in detail and entry.seq > self._frame.since
            if number == len(turns) - 1:
                break  # its calls may be unfinished
            try:
                reading = self._session.read(response)
            except OutputRejected:
                continue
            if isinstance(reading, ToolCalls):
                self._calls += len(reading.calls)
                if takes_context:
                    await self._apply_patches(turn(self._path, number), len(reading.calls))

    async def _apply_patches(self, above: StepPath, calls: int) -> None:
        await self._frame.run.journal.load_level(child(above, "tool"))
        for number in range(calls):
            self._frame.recorded(tool(above, number), ToolCallStep.kind)


L = TypeVar("L", TurnStep, SummaryStep)


def _leaf(kind: type[L], step: GranularStep) -> L:
    """Return a leaf of a conversation that makes a request.

    `timeout_s` and retries are those of each request; the conversation has the instructions already.
    """
    who: Any = step.agent
    who = replace(who, instructions=None) if isinstance(who, AgentSpec) else who
    return kind(
        step.name,
        call=who if isinstance(who, CallableRef) else None,
        agent=who if isinstance(who, AgentSpec) else None,
        config=step.config,
        pii=step.pii,
    )


def _instructions(step: GranularStep, frame: Frame) -> str | None:
    said = step.agent.instructions if isinstance(step.agent, AgentSpec) else None
    return None if said is None else frame.render(said)


def _recorded_turns(frame: Frame, path: StepPath) -> Iterator[Entry]:
    number = 0
    while (entry := frame.run.journal.result(turn(path, number), TurnStep.kind)) is not None:
        yield entry
        number += 1


def _messages(entry: Entry) -> list[Message]:
    return [*canonical.decode(entry.input or b"[]"), canonical.decode(entry.output or b"null")]
