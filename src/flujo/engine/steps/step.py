"""`step`: one agent is asked, or one callable is called."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask
from flujo.domain.outcomes import Chunk
from flujo.engine import effects, isolation
from flujo.engine.attempts import perform, standing_still

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.journal import StepPath
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.ports import Agent
    from flujo.domain.steps import CallableRef, Step
    from flujo.engine.frame import Frame
    from flujo.engine.settling import Draft


async def run(step: Step, frame: Frame, path: StepPath) -> StepOutcome:
    """Return how the step came out, after all its attempts."""
    who = step.agent or step.call
    if who is None:
        raise ValueError(f"step {step.name!r} has neither `agent` nor `call`")
    agent = frame.run.binding.agent(who)
    enforced = step.enforce_idempotency and step.call is not None
    if enforced and (outcome := await effects.left_in_doubt(step, frame, path)) is not None:
        return outcome

    async def work(draft: Draft) -> None:
        ask = _ask(step, frame, agent, draft, on_text=_listener(frame, path, draft))
        if enforced:
            ask = replace(ask, idempotency_key=await effects.announce(step, frame, path, draft))
        reply = await agent.ask(ask)
        draft.usage = reply.usage
        draft.detail = _detail(who, reply.model, reply.repairs)
        draft.patch = isolation.changes(frame, ask.context, what=f"step {step.name!r}")
        draft.output = reply.output
        if step.output_schema is not None:
            draft.output = canonical.normalise(reply.output, what=f"output of step {step.name!r}")
            frame.run.binding.schema(step.output_schema).check(
                draft.output, what=f"output of step {step.name!r}"
            )

    broken_off = partial(effects.broken_off, step, frame) if enforced else None
    return await perform(step, frame, path, work, broken_off=broken_off)


def _ask(
    step: Step, frame: Frame, agent: Agent, draft: Draft, *, on_text: Callable[[str], Awaitable[None]] | None
) -> Ask:
    """Return what the agent is asked; the recorded input and the values handed out are the same bytes."""
    arguments = None if step.arguments is None else {k: frame.render(v) for k, v in step.arguments.items()}
    data = frame.previous if step.input is None else frame.render(step.input)
    given = arguments if arguments is not None else data
    draft.input = canonical.encode(given, what=f"input of step {step.name!r}")
    mine = canonical.decode(draft.input)
    spec = step.agent
    return Ask(
        data=mine if arguments is None else None,
        arguments=None if arguments is None else mine,
        instructions=frame.render(spec.instructions) if spec and spec.instructions else None,
        output_schema=step.output_schema,
        context=isolation.view(frame) if agent.wants_context else None,
        resources=frame.run.resources,
        on_text=on_text,
    )


def _listener(frame: Frame, path: StepPath, draft: Draft) -> Callable[[str], Awaitable[None]] | None:
    """Return where the agent's text goes while it is written; None when nobody watches the run."""
    if frame.run.sink is None:
        return None

    async def tell(text: str) -> None:
        with standing_still(draft.limit):
            await frame.run.emit(Chunk(path, draft.attempt, text))

    return tell


def _detail(who: AgentSpec | CallableRef, model: str | None, repairs: tuple[str, ...]) -> dict[str, Any]:
    name = {"agent": who.name} if isinstance(who, AgentSpec) else {"call": who.target}
    return name | ({"model": model} if model else {}) | ({"repairs": list(repairs)} if repairs else {})
