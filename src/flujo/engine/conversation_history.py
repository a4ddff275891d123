"""The part of a conversation that its model gets, within `history.max_tokens`.

    research/summary[0]  work: output = the text that replaces the older turns (`keep: summary`)

A model always gets the task and the newest turn. The older turns are left out from the oldest on, each
response together with the results of its tool calls. The choice follows from the journal alone, so that a
resumed run sends the same messages. The journal keeps every turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from flujo.domain import canonical
from flujo.domain.conversations import FinalAnswer, estimated_tokens
from flujo.domain.journal import EntryKind
from flujo.domain.outcomes import Success
from flujo.domain.paths import child, summary
from flujo.domain.steps.step import SummaryStep
from flujo.domain.usage import NOTHING, Usage
from flujo.engine.agent_request import Request
from flujo.engine.attempts import perform
from flujo.engine.tool_calls import leaf_of
from flujo.exceptions import HistoryLimitTooSmall, OutputRejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from flujo.domain.agents import Ask, Reply
    from flujo.domain.conversations import ConversingAgent, Message, Session
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.steps.granular import History
    from flujo.engine.frame import Frame

_TEXT = {"type": "string"}


class Told(Protocol):
    """Returns the outcome of a leaf, and tells the watchers."""

    def __call__(self, path: StepPath, kind: str, work: Awaitable[StepOutcome]) -> Awaitable[StepOutcome]:
        """Await `work`, which executes the leaf of a kind at `path`."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: the messages to the model, and its response."""

    sent: Sequence[Message]
    response: Message
    usage: Usage
    """The usage of the request that was answered."""

    @property
    def sent_tokens(self) -> int:
        """The tokens of the messages to the model, estimated."""
        return _size(self.sent)

    @property
    def response_tokens(self) -> int:
        """The tokens of the response, as its provider counted them; estimated if it did not."""
        is_known = self.usage.requests == 1 and self.usage.output_tokens > 0
        return self.usage.output_tokens if is_known else estimated_tokens(self.response)


@dataclass(slots=True)
class ConversationHistory:
    """The turns of the conversation at `path`, and which of them the model gets."""

    limit: History
    step: SummaryStep
    """The step as a leaf that requests a summary."""
    agent: ConversingAgent
    ask: Ask
    frame: Frame
    path: StepPath
    told: Told
    usage: Usage = NOTHING
    """The usage of the summaries that earlier executions requested."""
    _turns: list[Turn] = field(default_factory=list)
    _tokens: list[tuple[int, int]] = field(default_factory=list)
    """For each turn, the tokens of its messages and of its response."""
    _first: int = 0
    """The oldest turn whose response the model gets; those before it are left out."""
    _summaries: list[str] = field(default_factory=list)
    _sent: tuple[int, int] = (0, 0)
    """What the session begins with: `_first`, and the number of summaries."""

    def add(self, turn: Turn) -> None:
        """Take over a turn that has ended."""
        self._turns.append(turn)
        self._tokens.append((turn.sent_tokens, turn.response_tokens))

    async def load(self) -> None:
        """Read the recorded summaries."""
        if self.limit.keep != "summary":
            return
        journal = self.frame.run.journal
        await journal.load_level(child(self.path, "summary"))
        while attempts := journal.attempts(self._summary_path(), EntryKind.WORK):
            self.usage = sum((entry.usage for entry in attempts), self.usage)
            entry = journal.result(self._summary_path(), SummaryStep.kind)
            if entry is None:
                return
            self._summaries.append(canonical.decode(entry.output or b'""'))
            self._first = canonical.decode(entry.detail or b"{}")["replaces"]

    async def shorten(self, session: Session, sent: Sequence[Message]) -> StepOutcome | int:
        """Have the session send what fits beside the new messages.

        Returns:
            How many of the oldest turns are left out; any other outcome than success of the request for a
            summary.

        Raises:
            HistoryLimitTooSmall: the task and the newest turn do not fit.
        """
        newest = _size(sent)
        sizes = self._sizes(newest)
        self._require_room(sizes, newest)
        if self.limit.keep == "last":
            room = self.limit.max_tokens - self._head_tokens(session)
            self._first = self._first_within(sizes, room) if sizes else 0
        else:
            stopped = await self._summarise_beyond(session, sizes)
            if stopped is not None:
                return stopped
        if self._sent != (now := (self._first, len(self._summaries))):
            self._sent = now
            session.continue_from(self._messages(session, self._first, len(self._turns)))
        return self._first

    # Sizes -----------------------------------------------------------------------------------------------

    def _sizes(self, newest: int) -> list[int]:
        """Return for each turn the tokens of its response and of the messages after it."""
        if not self._tokens:
            return []
        after = [*(sent for sent, _ in self._tokens[1:]), newest]
        return [response + later for (_, response), later in zip(self._tokens, after, strict=True)]

    def _first_within(self, sizes: Sequence[int], room: int) -> int:
        """Return the oldest turn that fits into `room` with all newer ones; the newest one in any case."""
        first = len(sizes) - 1
        used = sizes[first]
        while first > self._first and used + sizes[first - 1] <= room:
            first -= 1
            used += sizes[first]
        return first

    def _head_tokens(self, session: Session) -> int:
        return _size(self._head(session))

    def _require_room(self, sizes: Sequence[int], newest: int) -> None:
        """Raise when nothing that may be left out would make room."""
        size = self._tokens[0][0] + sizes[-1] if sizes else newest
        if size > self.limit.max_tokens:
            raise self._too_small(size, "its task and its newest turn have" if sizes else "its task has")

    def _too_small(self, size: int, what: str) -> HistoryLimitTooSmall:
        limit = self.limit.max_tokens
        return HistoryLimitTooSmall(
            f"step {self.step.name!r}: {what} about {size:,} tokens, and `history.max_tokens` is {limit:,}",
            limit=limit,
            size=size,
        )

    # Messages --------------------------------------------------------------------------------------------

    def _head(self, session: Session) -> list[Message]:
        """Return the task, with the newest summary."""
        if not self._turns:
            return []
        task, *others = self._turns[0].sent
        if self._summaries:
            task = session.recap(task, self._summaries[-1])
        return [task, *others]

    def _messages(self, session: Session, first: int, last: int) -> list[Message]:
        """Return the task, and the turns from `first` to before `last`: responses and what follows each."""
        messages = self._head(session)
        for number in range(first, last):
            messages.append(self._turns[number].response)
            if number + 1 < len(self._turns):
                messages += self._turns[number + 1].sent
        return messages

    # Summaries -------------------------------------------------------------------------------------------

    async def _summarise_beyond(self, session: Session, sizes: Sequence[int]) -> StepOutcome | None:
        """Request summaries until the rest fits; return what stops the step.

        A summary leaves the newest turns that fill half of the limit, and at least the newest one.
        """
        limit = self.limit.max_tokens
        while (size := self._head_tokens(session) + sum(sizes[self._first :])) > limit:
            keep = self._first_within(sizes, limit // 2)
            if keep == self._first:
                keep = len(sizes) - 1
            if keep == self._first:
                raise self._too_small(size, "its task, the summary and its newest turn have")
            outcome = await self._summarise(session, keep)
            if not isinstance(outcome, Success):
                return outcome
            self._summaries.append(outcome.output)
            self._first = keep
        return None

    async def _summarise(self, session: Session, keep: int) -> StepOutcome:
        """Return the summary of the turns before `keep`; `_first` is the oldest that no summary has."""
        older = self._messages(session, self._first, keep)
        inner = self.agent.converse(replace(self.ask, output_schema=_TEXT, history=()), older)
        leaf = leaf_of(self.step, _SummaryRequest(inner, may_call=False))
        leaf.describe({**leaf.detail, "turns": len(self._turns), "replaces": keep})
        path = self._summary_path()
        work = perform(leaf, self.frame.inside(path, previous=[inner.summarise()]), path)
        return await self.told(path, SummaryStep.kind, work)

    def _summary_path(self) -> StepPath:
        return summary(self.path, len(self._summaries))


class _SummaryRequest(Request):
    """A conversation as the agent of one request for a summary, which is the text of the response."""

    async def ask(self, ask: Ask) -> Reply:
        """Send the messages.

        Raises:
            OutputRejected: the response has no text.
        """
        reply = await Request.ask(self, ask)
        try:
            return replace(reply, output=self._text(reply.output))
        except OutputRejected as error:
            error.usage = reply.usage  # type: ignore[attr-defined]  # exceptions take attributes
            raise

    def _text(self, response: Message) -> str:
        reading = self.session.read(response)
        if isinstance(reading, FinalAnswer) and isinstance(reading.value, str):
            return reading.value
        raise OutputRejected("the model wrote no summary of its conversation", retryable=True)


def _size(messages: Sequence[Message]) -> int:
    return sum(map(estimated_tokens, messages))
