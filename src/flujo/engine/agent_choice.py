"""The choice of a step's agent: a decision, recorded and compared on resume like every other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.paths import branch
from flujo.domain.wording import suggest
from flujo.engine.decisions import decide
from flujo.exceptions import AgentNotListed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.agents import OneOf
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.engine.frame import Frame, Work

CHOICE = "agent"
"""The name of the decision's path below the step: `say:agent`."""


async def chosen(
    among: OneOf, works: Mapping[str, Work], name: str, frame: Frame, path: StepPath
) -> StepOutcome:
    """Execute a step with the agent that its expression chooses.

    Args:
        among: the agents, and the expression.
        works: the execution of the step with each agent.
        name: the name of the step.
        frame: the scope of the step.
        path: its path.

    Raises:
        AgentNotListed: the value is not the name of a listed agent; it is not recorded.
        JournalConflict: the recorded choice is another one.
    """

    def check(value: Any) -> None:
        if not isinstance(value, str) or value not in works:
            raise AgentNotListed(
                f"`agent.by` of step {name!r} is {value!r}, which is not one of its agents",
                hint=suggest(str(value), works, what="its agents"),
                answer=value,
                listed=tuple(works),
            )

    here = branch(path, CHOICE)
    await frame.run.journal.load_at([here])
    return await works[await decide(among.by, frame, here, check=check)](frame, path)
