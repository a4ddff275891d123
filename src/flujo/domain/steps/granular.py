"""`granular`: an agent whose turns are recorded in the journal one at a time."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar, Literal

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, In, InDoubt, OnLimit, Out
from flujo.domain.values import Value, Valued


@node
class GranularStep(BaseStep[In, Out]):
    """An agent whose turns are recorded one at a time. Not available yet: runners refuse it."""

    kind: ClassVar[str] = "granular"

    agent: AgentSpec = takes(values.instance(AgentSpec))
    """The agent."""
    _: KW_ONLY
    input: Takes[Valued, Value] = takes(values.value, default=None)
    """The prompt, instead of the output of the step before."""
    max_turns: int = takes(values.count, default=20)
    """The maximum number of turns."""
    on_limit: OnLimit = "fail"
    """Whether the step fails at that limit."""
    enforce_idempotency: bool = False
    """Whether a tool call is sent at most once."""
    in_doubt: InDoubt = "pause"
    """The action when it is unknown whether a call took effect."""
    history: Literal["full", "last"] = "full"
    """The part of the previous turns that the model sees."""

    def summary(self) -> str:
        """Return the agent."""
        return f"asks {self.agent}"
