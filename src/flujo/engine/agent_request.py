"""One request of a conversation as a leaf of the run: its attempts are those of a step that asks an agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.agents import Ask, Reply
from flujo.domain.usage import NOTHING, Usage

if TYPE_CHECKING:
    from flujo.domain.conversations import Session
    from flujo.domain.journal import Entry


@dataclass(slots=True)
class Request:
    """A conversation as the agent of one request: gets the new messages, and answers with the response."""

    session: Session
    may_call: bool
    used: Usage = NOTHING
    """The usage of the response."""
    wants_context: bool = False

    def recall(self, entry: Entry) -> None:
        """Take over what the recorded request left besides its response."""
        self.used = entry.usage

    async def ask(self, ask: Ask) -> Reply:
        """Send the messages."""
        response = await self.session.request(
            ask.data, may_call=self.may_call, meter=ask.meter, on_text=ask.on_text
        )
        self.used = response.usage
        return Reply(output=response.message, usage=response.usage, model=response.model)
