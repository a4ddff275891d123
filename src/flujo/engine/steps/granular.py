"""`granular`: an agent works in turns; each response and each tool result is an entry of the journal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.domain.outcomes import Success
from flujo.engine.composite_attempts import finish
from flujo.engine.conversation import Conversation
from flujo.engine.fallback import or_its_fallback

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import GranularStep
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: GranularStep, _: Binding, run_body: RunBody) -> Work:
    """Return the execution of the step, and of its fallback if the step fails."""
    converse = partial(_converse, step)
    return converse if step.fallback is None else partial(or_its_fallback, step, converse, run_body)


async def _converse(step: GranularStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the answer of the agent, and record the end of the step: its output and its net patch."""
    before = frame.scope.tree
    outcome = await (await Conversation.opened(step, frame, path)).outcome()
    return await finish(step, frame, path, outcome, before) if isinstance(outcome, Success) else outcome
