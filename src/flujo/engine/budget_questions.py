"""A pause at a budget of several runs (`on_exhausted: pause`).

    ask!budget[0]    pause: ends with the window of the rule, or answer = {"again": true}

The attempt has no result. After the pause the step makes another one, which reserves again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.paths import budget
from flujo.domain.run import Pause, PauseKind
from flujo.exceptions import ControlSignal, PausedException

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.engine.journal import Journal
    from flujo.exceptions import SharedBudgetExceeded

_ANSWER = {
    "type": "object",
    "properties": {"again": {"const": True}},
    "required": ["again"],
    "additionalProperties": False,
}


class NoFurtherTurn(ControlSignal):
    """A turn has no room beside a last request (`on_exhausted: finish`): the conversation ends with that."""


class BudgetAsked(PausedException):
    """A step waits until a budget of several runs has room."""

    def __init__(self, pause: Pause) -> None:
        super().__init__(pause.message)
        self.pause = pause


def asked(error: SharedBudgetExceeded, path: StepPath, journal: Journal) -> BudgetAsked:
    """Return the pause of the step at `path`: the one that is open, or a new one."""
    number, there = _newest(path, journal)
    if there is not None and there.is_open:
        return BudgetAsked(there)
    ends = "" if error.window_ends_at is None else " The run continues by itself when the next one begins."
    return BudgetAsked(
        Pause(
            pause_id=budget(path, number),
            kind=PauseKind.BUDGET,
            message=f"{error.message}.{ends}\nAnswer with again: true to try it now.",
            answer_schema=canonical.encode(_ANSWER),
            deadline_at=error.window_ends_at,
        )
    )


def void_open(path: StepPath, journal: Journal) -> None:
    """Void the open pause of the step at `path`, whose request has room now."""
    _, there = _newest(path, journal)
    if there is not None and there.is_open:
        journal.void([there])


def _newest(path: StepPath, journal: Journal) -> tuple[int, Pause | None]:
    """Return the newest pause of the step, and the number of the next one."""
    number, newest = 0, None
    while (found := journal.pause(budget(path, number))) is not None:
        number, newest = number + 1, found
    return number, newest
