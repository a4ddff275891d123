"""The limit of turns of a conversation: at it, the step fails, finishes, or asks a human.

    research!limit[0]   answer: output = {"turns": n} | {"finish": true} | {"fail": true}

A budget of several runs without room for a further turn (`on_exhausted: finish`) records `finish` too.

Each answer is an entry, with the number of turns at that limit. A resumed run reads the
entries, so that it allows the same turns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind
from flujo.domain.outcomes import Paused
from flujo.domain.paths import limit as question_id
from flujo.domain.paths import turn
from flujo.domain.run import Pause, PauseKind
from flujo.domain.wording import dollars, plural
from flujo.exceptions import TurnLimitReached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.paths import StepPath
    from flujo.domain.steps.granular import AtLimit
    from flujo.domain.usage import Usage
    from flujo.engine.frame import Frame

Request = Literal["turn", "last"]
"""What may follow: a turn with tools, or the last request, in which no tool may be called."""

_ANSWER = {
    "type": "object",
    "properties": {
        "turns": {"type": "integer", "minimum": 1},
        "finish": {"const": True},
        "fail": {"const": True},
    },
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a conversation has come."""

    turns: int
    calls: int
    """The tool calls that were made."""
    usage: Usage
    """The usage of its requests, failed ones included."""


@dataclass(slots=True)
class TurnLimit:
    """The limit of turns of the step at `path`, and the answers of humans at it."""

    name: str
    """The step's name."""
    max_turns: int
    at_limit: AtLimit
    frame: Frame
    path: StepPath
    _answers: list[Entry] = field(default_factory=list)

    async def load(self, turns: int) -> None:
        """Read the recorded answers, and record a new one; `turns` is the number of recorded turns."""
        journal = self.frame.run.journal
        await journal.load_level(self.path)
        while known := journal.attempts(self._question_id(), EntryKind.ANSWER):
            self._answers.append(known[-1])
        if self.at_limit != "pause":
            return
        asked = journal.pause(self._question_id())
        if asked is None:
            return
        if asked.answer is not None:
            self._answers.append(await journal.record(self._answer(asked, turns)))
        elif asked.is_open and self._allowed(turns) > turns:
            journal.void([asked])  # `max_turns` was raised meanwhile
            await journal.flush()  # a commit opens questions before it closes others

    def next_after(self, done: Progress) -> Request | Paused:
        """Return what may follow, or the question to a human.

        Raises:
            TurnLimitReached: no further request is allowed.
        """
        turns = done.turns
        journal = self.frame.run.journal
        if self._budget_at(turns) is None and turns < self._allowed(turns):
            return "turn"
        if turns == self._last_at(turns):
            return "last"
        if journal.continues(turn(self.path, turns)):
            return "turn"  # `max_turns` was higher
        is_asked = journal.pause(self._question_id()) is not None
        if self.at_limit == "pause" and (is_asked or not self._is_decided(turns)):
            return self._ask(done)
        raise TurnLimitReached(
            f"step {self.name!r} used its {plural(turns - self.is_over(turns), 'turn')}"
            + (" and a last request without tools" if self.is_over(turns) else "")
            + ", and the agent gave no answer",
            limit=self._allowed(turns),
        )

    async def finish(self, turns: int) -> None:
        """Record that a budget has no room for a turn after these, so that the last request follows."""
        now = self.frame.run.clock.now()
        entry = Entry(
            path=self._question_id(),
            kind=EntryKind.ANSWER,
            fingerprint=str(PauseKind.BUDGET),
            output=canonical.encode({"finish": True}),
            detail=canonical.encode({"turns": turns}),
            started_at=now,
            ended_at=now,
        )
        self._answers.append(await self.frame.run.journal.record(entry))

    def is_over(self, turns: int) -> bool:
        """Return whether the last of these turns was the last request."""
        last = self._last_at(turns)
        return last is not None and turns > last

    # Answers ---------------------------------------------------------------------------------------------

    def _until(self, turns: int) -> list[Entry]:
        """Return the answers that were given after at most this many turns; a replay knows later ones too."""
        return [entry for entry in self._answers if _turns_at(entry) <= turns]

    def _allowed(self, turns: int) -> int:
        """Return the number of turns with tools that are allowed so far."""
        more = [_turns_at(entry) + _said(entry).get("turns", 0) for entry in self._until(turns)]
        return max(self.max_turns, *more) if more else self.max_turns

    def _last_at(self, turns: int) -> int | None:
        """Return the number of turns after which the last request is made; None when there is none."""
        if (ended := self._budget_at(turns)) is not None:
            return ended
        if self.at_limit == "finish":
            return self.max_turns
        newest = next(reversed(self._until(turns)), None)
        return _turns_at(newest) if newest is not None and "finish" in _said(newest) else None

    def _budget_at(self, turns: int) -> int | None:
        """Return after how many turns a budget had no room; a retry of the failed step may have some."""
        newest = next(reversed(self._until(turns)), None)
        if newest is None or newest.fingerprint != PauseKind.BUDGET or newest.seq <= self.frame.since:
            return None
        return _turns_at(newest)

    def _is_decided(self, turns: int) -> bool:
        """Return whether the newest answer ends the step; a retry of the failed step asks again."""
        newest = next(reversed(self._until(turns)), None)
        return newest is not None and "turns" not in _said(newest) and newest.seq > self.frame.since

    def _answer(self, asked: Pause, turns: int) -> Entry:
        clock = self.frame.run.clock
        return Entry(
            path=asked.pause_id,
            kind=EntryKind.ANSWER,
            fingerprint=str(PauseKind.LIMIT),
            input=canonical.encode(asked.message),
            output=asked.answer,
            detail=canonical.encode({"turns": turns}),
            started_at=asked.asked_at or clock.now(),
            ended_at=clock.now(),
        )

    # The question ----------------------------------------------------------------------------------------

    def _question_id(self) -> StepPath:
        return question_id(self.path, len(self._answers))

    def _ask(self, done: Progress) -> Paused:
        asked = self.frame.run.journal.pause(self._question_id())
        if asked is None or not asked.is_open:
            asked = self.frame.run.journal.ask(
                Pause(
                    pause_id=self._question_id(),
                    kind=PauseKind.LIMIT,
                    message=_message(self.name, done),
                    answer_schema=canonical.encode(_ANSWER),
                )
            )
        return Paused((asked,))


def _said(entry: Entry) -> Any:
    return canonical.decode(entry.output or b"{}")


def _turns_at(entry: Entry) -> int:
    return int(canonical.decode(entry.detail or b'{"turns":0}')["turns"])


def _message(name: str, done: Progress) -> str:
    so_far = [plural(done.turns, "turn"), plural(done.calls, "tool call"), *_spent(done.usage)]
    return (
        f"step {name!r} reached its limit of turns, and the agent gave no answer.\n"
        f"so far: {', '.join(so_far)}\n"
        "Answer with one of: turns (how many more), finish: true (a last request without tools), or "
        "fail: true."
    )


def _spent(used: Usage) -> Iterator[str]:
    if used.total_tokens:
        yield plural(used.total_tokens, "token")
    if used.unpriced_requests:
        yield "cost unknown"
    elif used.cost_micro_usd:
        yield dollars(used.cost_usd or 0)
