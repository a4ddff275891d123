"""The gate of tools: every call that a model requests goes through `ToolGate.call`.

A call of a function is a leaf of the run: its attempt, its announcement (`enforce_idempotency`), its doubt
and its entry are those of a step that calls a callable. Only its failures differ: what a tool raises goes
back to the model as text, unless the call is in doubt. A tool that consists of steps is a part of the run:
see `composed_calls`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from flujo.domain import canonical, merge
from flujo.domain.agents import Ask, Reply
from flujo.domain.approvals import Approval
from flujo.domain.conversations import (
    BackToModel,
    ToolCall,
    ToolResult,
    refusal,
    require_transaction,
    runs_in_turn,
)
from flujo.domain.events import StepStarted
from flujo.domain.outcomes import Paused, Success
from flujo.domain.pipeline import StepConfig
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import PauseKind
from flujo.domain.steps.step import ToolCallStep
from flujo.domain.tool_policy import BY_THE_LIST, TOOL_POLICY
from flujo.domain.tree_checks.tools import built_and_repeated, repeated_tool
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.values import CallableRef
from flujo.engine import idempotent_calls
from flujo.engine.approvals import ApprovalGate, Decision
from flujo.engine.attempts import perform
from flujo.engine.budget_questions import BudgetAsked
from flujo.engine.call_layers import LeafCall
from flujo.engine.composed_calls import composed_call, has_begun
from flujo.engine.error_info import described, foreign_text
from flujo.engine.failed_calls import Verdict, verdict
from flujo.engine.idempotent_calls import REPEATABLE
from flujo.engine.stubs import stub_of_tool
from flujo.exceptions import (
    AgentError,
    ArgumentsRejected,
    BudgetError,
    CodeDiffers,
    ControlSignal,
    ExecutorUnavailable,
    JournalConflict,
    LockMismatch,
    NotJournalable,
    PausedException,
    ResourcesUnavailable,
    SecretInValue,
    StateError,
    TransactionRefused,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from flujo.domain.conversations import Tool, ToolOutcome
    from flujo.domain.journal import Entry
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.personal_data import Pii
    from flujo.domain.ports import Agent, Binding
    from flujo.domain.steps import BaseStep
    from flujo.domain.steps.step import SummaryStep, TurnStep
    from flujo.domain.tools import InDoubt
    from flujo.domain.transactions import Transaction
    from flujo.engine.attempt import Attempt
    from flujo.engine.composed_calls import RunInside
    from flujo.engine.frame import Frame
    from flujo.engine.journal import Journal
    from flujo.engine.stubs import StubOfTool

_ENDS_THE_STEP = (
    *(ControlSignal, StateError, JournalConflict, BudgetError),
    *(SecretInValue, LockMismatch, TransactionRefused),
    *(ExecutorUnavailable, ResourcesUnavailable, CodeDiffers),
)
"""What a tool raises that is not for the model."""
_ONE = Usage(tool_calls=1)
_AT_ONCE = RetryPolicy(backoff="none")


class Sole:
    """The part of a binding that a `LeafCall` needs, for one agent that is not in the tree."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def placed(self, _: BaseStep) -> None:
        """Return None: the agent is called in this process."""

    def agent(self, _: Any) -> Agent:
        """Return the agent."""
        return self._agent


def leaf_of(step: TurnStep | SummaryStep | ToolCallStep, agent: Agent) -> LeafCall:
    """Return the call of an agent that is not in the tree."""
    return LeafCall(step, cast("Binding", Sole(agent)))


class ToolGate:
    """Calls the tools of one conversation on behalf of its step."""

    def __init__(
        self,
        name: str,
        tools: Mapping[str, Tool],
        *,
        is_enforced: bool,
        in_doubt: InDoubt,
        reconcile: CallableRef | None,
        config: StepConfig,
        composed: Mapping[str, BaseStep],
        run_inside: RunInside,
        pii: Pii | None = None,
    ) -> None:
        """Open the gate.

        Args:
            name: the name of the step.
            tools: the tools that the model may call, by name.
            is_enforced: whether each call is recorded before it is made.
            in_doubt: the action when the result of such a call is unknown.
            reconcile: for `in_doubt: reconcile`.
            config: the step's settings.
            composed: the steps of the tools that consist of steps.
            run_inside: runs such a step.
            pii: the step's declaration, which holds for the results.
        """
        self._name = name
        self._tools = tools
        self._composed = composed
        self._run_inside = run_inside
        self._pii: Pii | None = pii
        self._is_enforced = is_enforced
        self._in_doubt: InDoubt = in_doubt
        self._reconcile = reconcile
        self._config = StepConfig(durability=config.durability)

    def require_rules(self, journal: Journal) -> None:
        """Refuse tools whose rules cannot be kept, before a model is called.

        Raises:
            PipelineError: the calls in doubt of an unsafe tool would be repeated.
            TransactionRefused: the database cannot have the transactions of a tool.
        """
        called = {name: tool for name, tool in self._tools.items() if name not in self._composed}
        for name in built_and_repeated(called, is_enforced=self._is_enforced, in_doubt=self._in_doubt):
            raise repeated_tool(f"step {self._name!r}", name)
        for tool in called.values():
            require_transaction(self._name, tool, journal.transactional)

    def takes_turns(self, calls: tuple[ToolCall, ...]) -> bool:
        """Return whether the calls of one response run one after another."""
        return runs_in_turn(calls, self._tools)

    async def call(self, call: ToolCall, frame: Frame, path: StepPath) -> ToolResult | StepOutcome:
        """Return what the model gets for a call, from the journal if it is recorded.

        Anything else than a `ToolResult` stops the step: the call is in doubt, it asks a human, or the
        budget is used up. The order is: is the tool known and allowed, do the arguments fit, budget,
        approval, announcement, call, entry.

        Args:
            call: the call.
            frame: a frame whose `previous` is the arguments of the call.
            path: the path of its entry.
        """
        known = self._recorded(frame, path)
        if known is not None:
            return known
        refusal = self._refusal(call, frame)
        tool = None if refusal else self._tools[call.name]
        if tool is not None and self._is_stubbed(tool, frame):
            stub = await stub_of_tool(self._name, call, tool, frame, path)
            if stub is not None:
                return await self._stubbed(call, stub, frame, path)
        delivery = _Delivery(call, tool, refusal)
        if refusal and self._is_denied(call):
            delivery.detail["refused_by"] = BY_THE_LIST
        if tool is not None and (rules := _rules(call, tool, frame, path)) is not None:
            _require_room(frame, path)
            decided = await ApprovalGate(self._name, tool, rules, call, frame, path).decision()
            if not isinstance(decided, Decision):
                await frame.tell(StepStarted(path, ToolCallStep.kind, 1, call.name))  # shows what waits
                return decided
            delivery.decide(decided)
            frame = frame.inside(frame.path, previous=decided.arguments)
            tool = None if decided.denial else tool
        elif tool is None and (recorded := frame.run.recorded) is not None:
            before = recorded.decided(path)  # its server is not known here, so it has no rules
            frame = frame if before is None else frame.inside(frame.path, previous=before[0])
        if tool is not None and (inside := self._composed.get(call.name)) is not None:
            waits, detail = self._config.durability != "exit", delivery.detail
            return await composed_call(
                call, inside, frame, path, self._run_inside, detail=detail, waits=waits
            )
        leaf = leaf_of(self._leaf_step(call, tool), delivery)
        leaf.describe(delivery.detail)
        budget, *others = leaf.layers
        transaction = (delivery.open,) if tool is not None and tool.effect == "transactional" else ()
        leaf.layers = (budget, delivery.begin, *others, *transaction)
        outcome = await perform(leaf, frame, path)
        return ToolResult(outcome.output, delivery.way) if isinstance(outcome, Success) else outcome

    def _recorded(self, frame: Frame, path: StepPath) -> ToolResult | None:
        entry = frame.run.journal.result(path, ToolCallStep.kind)
        if entry is None:
            return None
        if entry.patch is not None:
            frame.scope.tree = merge.apply(frame.scope.tree, canonical.decode(entry.patch))
        detail = canonical.decode(entry.detail) if entry.detail else {}
        return ToolResult(canonical.decode(entry.output or b"null"), detail.get("outcome", "result"))

    def _is_stubbed(self, tool: Tool, frame: Frame) -> bool:
        """Return whether a call is replaced: in a fork, if it has an effect of its own."""
        return frame.run.journal.is_stubbed and tool.effect != "read" and tool.name not in self._composed

    async def _stubbed(
        self, call: ToolCall, stub: StubOfTool | Paused, frame: Frame, path: StepPath
    ) -> ToolResult | StepOutcome:
        """Record the substitute for a call, and return its result; or return the question."""
        if isinstance(stub, Paused):
            await frame.tell(StepStarted(path, ToolCallStep.kind, 1, call.name))  # shows what waits
            return stub
        leaf = leaf_of(self._leaf_step(call, None), stub)
        leaf.describe(stub.detail)
        leaf.take_input(stub.begin)
        outcome = await perform(leaf, frame, path)
        return ToolResult(outcome.output, stub.outcome) if isinstance(outcome, Success) else outcome

    def _refusal(self, call: ToolCall, frame: Frame) -> str:
        """Return why a call cannot be made; empty when it can."""
        tool = self._tools.get(call.name)
        has_key = tool is not None and (tool.effect == "transactional" or self._is_enforced_for(call, tool))
        key = "" if has_key else None
        try:
            return refusal(call, self._tools, Ask(resources=frame.run.resources, idempotency_key=key))
        except ArgumentsRejected as error:
            if error.parameter != "idempotency_key":
                raise
            raise AgentError(
                f"step {self._name!r}: its tool `{self._tools[call.name].target}` takes `idempotency_key`, "
                "which it gets only with `enforce_idempotency`",
                hint="add `enforce_idempotency: true`, or give the parameter a default",
            ) from None

    def _is_denied(self, call: ToolCall) -> bool:
        """Return whether the project does not allow a tool."""
        tool = self._tools.get(call.name)
        return tool is not None and not TOOL_POLICY.get().allows(tool.name, tool.target)

    def _is_enforced_for(self, call: ToolCall, tool: Tool | None) -> bool:
        """Return whether a call is recorded before it is made; that of a transaction comes with its entry."""
        if tool is None or tool.effect == "transactional":
            return False
        return self._is_enforced or tool.enforce_idempotency or bool(call.written)

    def _leaf_step(self, call: ToolCall, tool: Tool | None) -> ToolCallStep:
        # A step declares `in_doubt` for all its tools, and some of them may be called again without harm.
        is_repeatable = tool is not None and tool.effect in REPEATABLE
        declared = None if tool is None else tool.in_doubt
        in_doubt: InDoubt = "retry_same_key" if is_repeatable else declared or self._in_doubt
        # A call that failed, and that `reconcile` says was not made, is made once more.
        config = replace(self._config, max_retries=1, retry=_AT_ONCE) if in_doubt == "reconcile" else None
        return ToolCallStep(
            self._name,
            CallableRef(call.name if tool is None else tool.target),
            effect="unsafe" if tool is None else tool.effect,
            enforce_idempotency=self._is_enforced_for(call, tool),
            in_doubt=in_doubt,
            reconcile=self._reconcile,
            config=config or self._config,
            pii=self._pii,
        )


class _Delivery:
    """A tool as the agent of one call: what it raises becomes text for the model."""

    def __init__(self, call: ToolCall, tool: Tool | None, refusal: str) -> None:
        self.wants_context = tool is not None and tool.wants_context
        self.way: ToolOutcome = "result"
        self.detail: dict[str, Any] = {"tool": call.name, "outcome": self.way}
        if call.repairs:
            self.detail["repairs"] = list(call.repairs)
        self._tool = tool
        self._refusal = refusal
        self._not_made: ToolOutcome = "refused"
        self._attempt: Attempt | None = None

    def begin(self, _: LeafCall, attempt: Attempt) -> Awaitable[None] | None:
        """Count the call in the budget before it is announced: a layer of the call."""
        self._attempt = attempt
        if attempt.meter is None or self._tool is None:
            return None
        return attempt.meter.call_tools(1)

    async def open(self, _: LeafCall, attempt: Attempt) -> None:
        """Open the transaction that the tool writes in: the last layer of the call."""
        journal, tool = attempt.frame.run.journal, self._tool
        store = journal.transactional
        if store is None or tool is None:
            raise AssertionError  # refused when the step began
        await idempotent_calls.identify(attempt)
        if store.lends_writer:
            await journal.halt(attempt)
        try:
            attempt.transaction = await journal.begin(store, tool.timeout_s)
        except BaseException:
            journal.go_on(attempt)
            raise

    def decide(self, decided: Decision) -> None:
        """Take over what a human decided about the call."""
        self.detail |= decided.detail
        if decided.denial:
            self._tool, self._refusal, self._not_made = None, decided.denial, "denied"

    def recall(self, entry: Entry) -> None:
        """Take over what the recorded call left besides its result."""
        detail = canonical.decode(entry.detail) if entry.detail else {}
        self.way = detail.get("outcome", self.way)

    async def ask(self, ask: Ask) -> Reply:
        """Call the tool, and return the content for the model."""
        tool = self._tool
        if tool is None:
            return self._told(self._not_made, f"the call was not made: {self._refusal}", NOTHING)
        self.detail["effect"] = tool.effect
        transaction = None if self._attempt is None else self._attempt.transaction
        timeout_s = tool.timeout_s if transaction is None else transaction.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._called(tool, replace(ask, data=None, arguments=ask.data), transaction)
        except PausedException as signal:
            if tool.approve is None or isinstance(signal, BudgetAsked):
                signal.usage = _ONE  # type: ignore[attr-defined]  # exceptions take attributes
                raise
            text = f"the tool asked a human ({signal.message}), and a tool with `approve` cannot do that"
            return self._told("error", foreign_text(text), _ONE)
        except _ENDS_THE_STEP:
            raise
        except BackToModel as words:
            return self._told("retry", foreign_text(str(words)), _ONE)
        except NotJournalable as error:
            made = "the call was made" if transaction is None else "nothing was written"
            return self._told("error", f"{made}, and its result cannot be recorded: {error.message}", _ONE)
        except Exception as error:
            if self._is_doubtful(tool, error):
                raise
            self._note_place(error)
            return self._told("error", _words(timeout_s, error), _ONE)
        if transaction is not None and self._attempt is not None:
            await self._attempt.frame.run.journal.halt(self._attempt)
        return replace(reply, usage=reply.usage + _ONE)

    async def _called(self, tool: Tool, ask: Ask, transaction: Transaction | None) -> Reply:
        """Return the result of the tool as JSON data, once the database accepts what it wrote."""
        reply = await tool.ask(ask if transaction is None else replace(ask, transaction=transaction))
        content = canonical.normalise(reply.output, what=f"result of tool `{tool.name}`")
        if transaction is not None:
            await transaction.check()
        return Reply(output=content, usage=reply.usage)

    def _is_doubtful(self, tool: Tool, error: Exception) -> bool:
        """Return whether the failed call, or an earlier sending of it, may have taken effect."""
        attempt = self._attempt
        if attempt is None or attempt.intent is None or tool.effect in REPEATABLE:
            return False
        if attempt.transaction is not None:
            return False  # what the call has written is rolled back
        return attempt.repeats_doubt or verdict(error) is Verdict.IN_DOUBT

    def _note_place(self, error: Exception) -> None:
        """Keep where the code of the tool raised an error, and the traceback: the model gets the text."""
        if self._attempt is None:
            return
        failure = self._attempt.frame.run.journal.error_info(error, self._attempt.path)
        if failure.frame is not None:
            self.detail |= {"frame": failure.frame.to_json(), "traceback": failure.traceback}

    def _told(self, way: ToolOutcome, text: str, used: Usage) -> Reply:
        """Return a text for the model; the writes of the call to context and database are dropped."""
        self.way = self.detail["outcome"] = way
        if self._attempt is not None:
            self._attempt.context = None
            self._attempt.roll_back()
        return Reply(output=text, usage=used)


def _rules(call: ToolCall, tool: Tool, frame: Frame, path: StepPath) -> Approval | None:
    """Return the approval of a call: that of its tool, or one that its repaired arguments need.

    A question that was opened counts although the tool needs no approval any more.
    """
    if tool.approve is not None:
        return tool.approve
    asked = frame.run.journal.pause(path)
    is_asked = asked is not None and asked.kind is PauseKind.APPROVAL
    return Approval() if call.written or is_asked else None


def _require_room(frame: Frame, path: StepPath) -> None:
    """Refuse a call without room in the budget before a human sees it; the attempt counts it.

    Raises:
        UsageLimitExceeded: a limit has no room.
    """
    if frame.budget is not None and frame.budget.counts and not has_begun(frame, path):
        frame.budget.reserve(path, _ONE)
        frame.budget.release(_ONE)


def _words(timeout_s: float | None, error: Exception) -> str:
    if isinstance(error, TimeoutError) and timeout_s is not None and not str(error):
        return f"the call took longer than {timeout_s:g} s"
    return described(error)
