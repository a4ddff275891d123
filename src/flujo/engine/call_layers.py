"""The call of a leaf step: the layers around it that the step needs, and the request to its agent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, OneOf, answered_by, new_ask
from flujo.domain.current_step import CURRENT_STEP, CurrentStep
from flujo.domain.events import Chunk
from flujo.domain.journal import TRANSCRIPT
from flujo.domain.ports import CheckedAgent
from flujo.domain.remote_work import MOST_RECORDED, RAN
from flujo.domain.tool_policy import TOOL_POLICY
from flujo.domain.tools import callable_tools
from flujo.domain.usage import NOTHING
from flujo.domain.values import CallableRef
from flujo.engine import idempotent_calls, processors, threads
from flujo.engine.agent_request import Request
from flujo.engine.attachments import attached
from flujo.engine.attempt import Leaf
from flujo.engine.foreign_code import Observed, call_code
from flujo.engine.step_meter import StepMeter
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from flujo.domain.agents import Ask, Reply
    from flujo.domain.executor import Placed
    from flujo.domain.ports import Binding
    from flujo.domain.steps import Step
    from flujo.engine.attempt import Attempt
    from flujo.engine.frame import Frame


class Layer(NamedTuple):
    """A layer around a call, needed by some steps only."""

    is_needed: Callable[[Step, Binding], bool]
    prepare: Callable[[LeafCall, Attempt], Awaitable[None] | None]


class LeafCall(Leaf):
    """The agent or callable of a leaf step with the layers that the step needs, found out once."""

    __slots__ = (
        "agent",
        "arguments",
        "asks_agent",
        "detail",
        "encoded_detail",
        "has_effect",
        "input",
        "input_name",
        "instructions",
        "is_enforced",
        "layers",
        "may_leave",
        "output_schema",
        "placed",
        "who",
    )
    step: Step

    def __init__(self, step: Step, binding: Binding) -> None:
        who = step.agent or step.call
        if who is None or isinstance(who, OneOf):
            raise ValueError(f"step {step.name!r} has no single `agent` or `call`")
        super().__init__(step)
        self.who = who
        self.agent = binding.agent(who)
        self.placed = binding.placed(step)
        self.may_leave = _may_leave(step, self.placed)
        """Whether the entry may say where a unit was executed."""
        self.asks_agent = step.asks_agent
        self.arguments = step.arguments
        self.input = step.input
        self.input_name = f"input of step {step.name!r}"
        self.instructions = who.instructions or None if isinstance(who, AgentSpec) else None
        # The result of the processors must match the schema, not the answer itself.
        self.output_schema = None if step.processors.output else step.output_schema
        self.has_effect = step.has_effect
        """Whether another result may replace the call in a fork."""
        self.is_enforced = _is_enforced(step, binding)
        """Whether each call is announced in the journal before it is made."""
        self.layers = tuple(layer.prepare for layer in LAYERS if layer.is_needed(step, binding))
        self.detail = {"agent": who.name} if isinstance(who, AgentSpec) else {"call": who.target}
        """The detail of each attempt's entry."""
        self.encoded_detail: bytes | None = canonical.encode(self.detail)
        """The detail as JSON, while it is that of every call of the step."""

    def take_input(self, *layers: Callable[[LeafCall, Attempt], Awaitable[None] | None]) -> None:
        """Prepare only the input and these layers: nothing is announced, and no answer is checked."""
        self.layers = (*(each for each in self.layers if each in _OF_INPUT), *layers)

    def describe(self, detail: dict[str, Any]) -> None:
        """Set the detail of this one call; it may be filled in until the call has its answer."""
        self.detail, self.encoded_detail = detail, None


def _budget(call: LeafCall, attempt: Attempt) -> None:
    """Reserve the requests of the attempt before they are made."""
    if attempt.frame.budget is not None:
        is_turn = isinstance(call.agent, Request) and call.agent.may_call
        journal = attempt.frame.run.journal
        attempt.meter = StepMeter.of(attempt.frame.budget, attempt.path, journal, is_turn=is_turn)


def _takes_context(step: Step, binding: Binding) -> bool:
    called = [step.agent or step.call, *step.processors.input]
    return any(
        isinstance(who, AgentSpec | CallableRef) and binding.agent(who).wants_context for who in called
    )


def _context(_: LeafCall, attempt: Attempt) -> None:
    """Give the attempt a view of the context, whose changes are kept only when the attempt succeeds."""
    attempt.context = attempt.frame.scope.view()


def _input(call: LeafCall, attempt: Attempt) -> None:
    attempt.input = given(call, attempt.frame)


def given(call: LeafCall, frame: Frame) -> bytes:
    """Return `with:` or `input:`, filled in, and encoded for the journal."""
    value: Any
    if call.arguments is not None:
        value = {name: frame.render(each) for name, each in call.arguments.items()}
    else:
        value = frame.previous if call.input is None else frame.render(call.input)
    return frame.encoded(value, call.input_name)


async def _files(call: LeafCall, attempt: Attempt) -> None:
    """Read the files for the model, or take those that an earlier attempt has read."""
    attempt.files = await attached(call.step, attempt.frame, attempt.path)


def _process_input(_: LeafCall, attempt: Attempt) -> Awaitable[None] | None:
    """Convert the input by the processors of the step."""
    return processors.process_input(attempt)


def _judges_answers(step: Step, _: Binding) -> bool:
    return bool(step.output_schema is not None or step.validators or step.processors.output)


def _is_enforced(step: Step, _: Binding) -> bool:
    return step.enforce_idempotency and step.call is not None


def _check_arguments(call: LeafCall, attempt: Attempt) -> None:
    """Refuse arguments that the callable does not take before the call is announced and can be in doubt."""
    if isinstance(call.agent, CheckedAgent):
        call.agent.check_arguments(replace(_question(call, attempt), idempotency_key=""))


def _must_be_allowed(step: Step, _: Binding) -> bool:
    """Return whether the policy lists callables. All runs that share a plan have one policy."""
    is_call = step.call is not None and step.kind == "step"  # turns and tool calls pass the gate of tools
    return is_call and TOOL_POLICY.get().calls


def _require_allowed(call: LeafCall, _: Attempt) -> None:
    """Refuse a callable that the project does not allow."""
    if call.step.call is not None:
        TOOL_POLICY.get().require_call(call.step.call.target)


LAYERS: Sequence[Layer] = (
    Layer(_must_be_allowed, _require_allowed),
    Layer(lambda _, __: True, _budget),
    Layer(_takes_context, _context),
    Layer(lambda _, __: True, _input),
    Layer(lambda step, _: step.sends is not None, _files),
    Layer(lambda step, _: step.joins is not None, lambda _, attempt: threads.hear(attempt)),
    Layer(lambda step, _: bool(step.processors.input), _process_input),
    # Every answer passes the output processors, the output schema and the validators.
    Layer(_judges_answers, lambda _, attempt: processors.set_output_gate(attempt)),
    Layer(_is_enforced, _check_arguments),
    Layer(_is_enforced, lambda _, attempt: idempotent_calls.announce(attempt)),
)
"""The layers around the call of a step, in the order of preparation; the call follows.

The attempt's timeout covers all of them. `save:` and the entry follow the answer: see `attempts.settle`.
"""


_OF_INPUT = (_budget, _context, _input, _process_input)
"""The layers that prepare the input of a callable."""


async def answer(call: LeafCall, attempt: Attempt) -> None:
    """Prepare the layers that the step needs, call its agent or callable, and keep the answer."""
    frame, clocks = attempt.frame, attempt.clocks
    for prepare in call.layers:
        prepared = prepare(call, attempt)
        if prepared is not None:
            await prepared
    frame.require_going(clocks)
    CURRENT_STEP.set(step := CurrentStep(frame.run.id, attempt.path, attempt.number))
    frame.run.called = step
    asked = call_code(call.agent.ask(_question(call, attempt)), frame, attempt.path, clocks)
    is_observed = frame.run.observer is not None or call.may_leave
    reply = await (_observed(asked, attempt, step) if is_observed else asked)
    if reply.usage is not NOTHING:
        attempt.usage += reply.usage
    if clocks and any(clock.expired() for clock in clocks):
        raise asyncio.CancelledError  # the answer came too late
    if attempt.detail is None:
        attempt.detail, attempt.usual_detail = call.detail, call.encoded_detail
    else:
        attempt.note(call.detail)
    if reply.model is not None or reply.repairs or reply.transcript is not None:
        attempt.note(_facts(call, reply))
    attempt.output = reply.output
    if attempt.check is not None:
        if not attempt.is_passed:
            attempt.output = await attempt.check(reply.output)
        attempt.patch = frame.scope.changes(attempt.tree, what=f"step {call.step.name!r}")
    elif attempt.context is not None:
        after = frame.scope.tree_of(attempt.context)
        attempt.patch = frame.scope.changes(after, what=f"step {call.step.name!r}")


async def _observed(asked: Awaitable[Reply], attempt: Attempt, step: CurrentStep) -> Reply:
    """Return the reply, and note where the units of the attempt were executed, for its entry."""
    observed = Observed(attempt.frame.run.observer, step)
    try:
        with observed:
            return await asked
    finally:
        if observed.ran:
            attempt.note({RAN: [work.to_json() for work in observed.ran[:MOST_RECORDED]]})


def _may_leave(step: Step, placed: Placed | None) -> bool:
    """Return whether the call of the step, or a tool of its agent, may be executed in another process."""
    if step.kind == "tool":
        return True
    tools = callable_tools(step.agent.tools) if isinstance(step.agent, AgentSpec) else ()
    return placed is not None or any(tool.executor is not None for tool in tools)


def _facts(call: LeafCall, reply: Reply) -> dict[str, Any]:
    """Return what the entry of an answer says about it: the model, the repairs, the transcript."""
    facts: dict[str, Any] = answered_by(call.who, reply.model)
    if reply.repairs:
        facts["repairs"] = list(reply.repairs)
    if reply.transcript is not None:
        facts[TRANSCRIPT] = GATE.entering(reply.transcript, call.masking)
    return facts


def _question(call: LeafCall, attempt: Attempt) -> Ask:
    """Return the request to the agent; its values are decoded from the recorded input."""
    frame = attempt.frame
    given = frame.decoded(attempt.input or b"null")
    question: Ask = new_ask(
        data=given if call.arguments is None else None,
        arguments=None if call.arguments is None else given,
        instructions=None if call.instructions is None else frame.render(call.instructions),
        output_schema=call.output_schema,
        context=attempt.context,
        resources=frame.run.resources,
        idempotency_key=None if attempt.intent is None else attempt.intent.key,
        check=attempt.check,
        on_text=None if frame.run.sink is None and frame.run.feed is None else partial(_tell, attempt),
        meter=attempt.meter,
        require_lease=frame.run.journal.require_lease,
        history=attempt.history,
        **(frame.personal_data(call.masking) if call.asks_agent else {}),
    )
    if call.placed is not None:
        return replace(question, placed=call.placed, step=CURRENT_STEP.get())
    if attempt.files is None:
        return question
    return replace(question, files=attempt.files.files, contents=attempt.files.contents)


async def _tell(attempt: Attempt, text: str) -> None:
    """Forward the text of the agent, while the attempt's timeout is suspended."""
    await attempt.frame.tell(Chunk(attempt.path, attempt.number, text), *attempt.clocks)
