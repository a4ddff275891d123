"""`step`: one agent is asked, or one callable is called."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask, answered_by
from flujo.domain.journal import child
from flujo.domain.outcomes import Chunk, Failure, Success
from flujo.domain.steps import FALLBACK
from flujo.engine import context_isolation, idempotent_calls
from flujo.engine.attempts import perform
from flujo.engine.processors import OutputGate, processed_input
from flujo.engine.processors import wants_context as wants_context_before
from flujo.engine.recording import encoded, finish
from flujo.exceptions import CallInDoubt, UsageLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.journal import StepPath
    from flujo.domain.models import PipelineContext
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.steps import CallableRef, Step
    from flujo.engine.frame import Frame, RunBody
    from flujo.engine.recording import Draft


NOT_TAKEN_OVER = frozenset({CallInDoubt.__name__, UsageLimitExceeded.__name__})
"""Errors after which no fallback runs: nobody knows that the step failed, or nobody wants to pay for more."""


def run(step: Step, frame: Frame, path: StepPath, run_body: RunBody) -> Awaitable[StepOutcome]:
    """Return how the step came out, or else its fallback; once that has a result, it is the step's."""
    if step.fallback is None:
        return _alone(step, frame, path)
    return _or_its_fallback(step, frame, path, run_body)


async def _or_its_fallback(step: Step, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Ask the step, then its fallback: a body of the step, recorded and gone on with like any other."""
    await frame.run.journal.load_level(path)
    if frame.run.journal.result(child(path, FALLBACK), step.kind) is None:
        outcome = await _alone(step, frame, path)
        if not isinstance(outcome, Failure) or outcome.error.type in NOT_TAKEN_OVER:
            return outcome
    before = frame.scope.tree
    outcome = await run_body(step.bodies()[FALLBACK], frame.inside(path, previous=frame.previous))
    if not isinstance(outcome, Success):
        return outcome
    return await finish(step, frame, path, Success(outcome.output, facts={"fell_back": True}), before)


async def _alone(step: Step, frame: Frame, path: StepPath) -> StepOutcome:
    """Return how the step came out, after all its attempts."""
    who = step.agent or step.call
    if who is None:
        raise ValueError(f"step {step.name!r} has neither `agent` nor `call`")
    if not (step.enforce_idempotency and step.call is not None):
        return await perform(step, frame, path, partial(_work, step, frame, path, who))
    if (outcome := await idempotent_calls.left_in_doubt(step, frame, path)) is not None:
        return outcome
    work = partial(_work, step, frame, path, who, enforced=True)
    return await perform(
        step, frame, path, work, broken_off=partial(idempotent_calls.broken_off, step, frame)
    )


async def _work(
    step: Step,
    frame: Frame,
    path: StepPath,
    who: AgentSpec | CallableRef,
    draft: Draft,
    *,
    enforced: bool = False,
) -> None:
    """Fill a draft with what the step's agent answers; `enforced` announces the call before it is made."""
    agent = frame.run.binding.agent(who)
    wants_context = agent.wants_context or wants_context_before(step, frame)
    context = context_isolation.view(frame) if wants_context else None
    gate = OutputGate(step, frame, draft, context) if OutputGate.is_needed(step) else None
    ask = await _ask(step, frame, path, draft, context, gate)
    if enforced:
        ask = replace(ask, idempotency_key=await idempotent_calls.announce(step, frame, path, draft))
    reply = await agent.ask(ask)
    draft.usage += reply.usage
    draft.detail = _detail(who, reply.model, reply.repairs)
    if gate is None:
        draft.output = reply.output
        after = context_isolation.after(frame, context)
    else:
        draft.output = reply.output if gate.is_passed else await gate(reply.output)
        after = gate.tree
    draft.patch = context_isolation.changes(frame, after, what=f"step {step.name!r}")


async def _ask(
    step: Step,
    frame: Frame,
    path: StepPath,
    draft: Draft,
    context: PipelineContext | None,
    gate: OutputGate | None,
) -> Ask:
    """Return what the agent is asked; the recorded input and the values handed out are the same bytes."""
    arguments = None if step.arguments is None else {k: frame.render(v) for k, v in step.arguments.items()}
    data = frame.previous if step.input is None else frame.render(step.input)
    given = arguments if arguments is not None else data
    draft.input = encoded(given, what := f"input of step {step.name!r}")
    if step.processors.input:
        given = await processed_input(step, frame, draft, canonical.decode(draft.input), context)
        draft.input = encoded(given, what)
    mine = canonical.decode(draft.input)
    spec = step.agent
    return Ask(
        data=mine if arguments is None else None,
        arguments=None if arguments is None else mine,
        instructions=frame.render(spec.instructions) if spec and spec.instructions else None,
        # What processors make of the answer has to fit the schema, not the answer itself.
        output_schema=None if step.processors.output else step.output_schema,
        context=context,
        resources=frame.run.resources,
        check=gate,
        on_text=_listener(frame, path, draft),
        meter=draft.meter,
    )


def _listener(frame: Frame, path: StepPath, draft: Draft) -> Callable[[str], Awaitable[None]] | None:
    """Return where the agent's text goes while it is written; None when nobody watches the run."""
    if frame.run.sink is None:
        return None

    async def tell(text: str) -> None:
        clocks = () if draft.limit is None else (draft.limit,)
        await frame.tell(Chunk(path, draft.attempt, text), *clocks)

    return tell


def _detail(who: AgentSpec | CallableRef, model: str | None, repairs: tuple[str, ...]) -> dict[str, Any]:
    name = {"agent": who.name} if isinstance(who, AgentSpec) else {"call": who.target}
    return name | answered_by(who, model) | ({"repairs": list(repairs)} if repairs else {})
