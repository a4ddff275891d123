"""One request of a conversation as a leaf of the run: its attempts are those of a step that asks an agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.agents import Ask, Reply

if TYPE_CHECKING:
    from flujo.domain.agents import Meter, Reservation
    from flujo.domain.conversations import Session
    from flujo.domain.usage import Usage


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
