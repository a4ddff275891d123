"""One request of a conversation as a leaf of the run: its attempts are those of a step that asks an agent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from flujo.domain.agents import AgentSpec, Ask, Reply
from flujo.domain.arguments import node
from flujo.domain.steps import Step

if TYPE_CHECKING:
    from flujo.domain.agents import Meter, Reservation
    from flujo.domain.conversations import Session
    from flujo.domain.steps import GranularStep
    from flujo.domain.usage import Usage


@node
class TurnStep(Step):
    """The turns of a step: `timeout_s` and the retries of its `config` are those of each request."""

    kind: ClassVar[str] = "turn"

    @classmethod
    def of(cls, step: GranularStep) -> TurnStep:
        """Return the turns of `step`; the conversation has the instructions already."""
        who: Any = step.agent
        if isinstance(who, AgentSpec):
            return cls(step.name, agent=replace(who, instructions=None), config=step.config)
        return cls(step.name, who, config=step.config)


@dataclass(slots=True)
class Request:
    """A conversation as the agent of one request: gets the new messages, and answers with the response."""

    session: Session
    may_call: bool
    wants_context: bool = False

    async def ask(self, ask: Ask) -> Reply:
        """Send the messages."""
        meter = None if ask.meter is None else _RequestsOnly(ask.meter)
        response = await self.session.request(
            ask.data, may_call=self.may_call, meter=meter, on_text=ask.on_text
        )
        return Reply(output=response.message, usage=response.usage, model=response.model)


@dataclass(slots=True)
class _RequestsOnly:
    """A meter that leaves tool calls to the gate of tools."""

    meter: Meter

    @property
    def bounds_answers(self) -> bool:
        return self.meter.bounds_answers

    @property
    def refuses_unpriced(self) -> bool:
        return self.meter.refuses_unpriced

    async def reserve(self, worst: Usage) -> Reservation:
        return await self.meter.reserve(worst)

    async def call_tools(self, count: int) -> None:  # noqa: ARG002 - the gate of tools counts them
        return None
