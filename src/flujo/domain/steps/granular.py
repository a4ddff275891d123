"""`granular`: an agent whose turns are journaled one at a time."""

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
    """An agent that is journaled turn by turn. A runner refuses it: it is not available yet."""

    kind: ClassVar[str] = "granular"

    agent: AgentSpec = takes(values.instance(AgentSpec))
    """Who answers, turn by turn."""
    _: KW_ONLY
    input: Takes[Valued, Value] = takes(values.value, default=None)
    """The prompt, instead of the output of the step before."""
    max_turns: int = takes(values.count, default=20)
    """How many turns there are at most."""
    on_limit: OnLimit = "fail"
    """Whether the step fails when there were so many."""
    enforce_idempotency: bool = False
    """Whether a tool call is issued at most once."""
    in_doubt: InDoubt = "pause"
    """What happens when it is unknown whether a call arrived."""
    history: Literal["full", "last"] = "full"
    """What the model sees of its turns so far."""

    def summary(self) -> str:
        """Return who is asked."""
        return f"asks {self.agent}"
