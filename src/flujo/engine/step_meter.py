"""One attempt's access to the budget: reserves requests before they are made, with durable holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from flujo.domain.ledger import Hold, HoldState
from flujo.domain.usage import NOTHING, Usage
from flujo.engine.budget_questions import NoFurtherTurn, asked, void_open
from flujo.exceptions import SharedBudgetExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.paths import StepPath
    from flujo.engine.budget import Budget
    from flujo.engine.journal import Journal


async def _reserves_nothing(hold: Hold) -> None:
    """Of an attempt whose run has no budgets in common with others."""


async def _reserve_shared(budget: Budget, path: StepPath, journal: Journal, hold: Hold) -> None:
    """Commit a hold that counts in budgets of several runs; without room, do what the rule says."""
    try:
        await journal.reserve(hold)
    except SharedBudgetExceeded as error:
        share = next(each for each in budget.shares if each.rule == error.rule)
        if share.on_exhausted == "pause":
            raise asked(error, path, journal) from error
        if share.on_exhausted == "finish" and hold.spare:
            raise NoFurtherTurn from error
        budget.refuse(path, error)
        raise
    void_open(path, journal)


@dataclass(slots=True)
class StepMeter:
    """The port `Meter` for one attempt.

    `keep` writes the attempt's hold with the next commit; `announce` makes that commit, under a valid lease.
    `reserve_shared` commits a hold that counts in budgets of several runs, if they have room.
    """

    budget: Budget
    path: StepPath
    keep: Callable[[Hold], None]
    announce: Callable[[], Awaitable[None]]
    reserve_shared: Callable[[Hold], Awaitable[None]] = _reserves_nothing
    is_turn: bool = False
    """Whether a last request may follow this one, for which room must be left."""
    used: Usage = NOTHING
    """The known usage of the attempt's requests."""
    _open: Usage = NOTHING
    _lost: Usage = NOTHING
    _number: int = 0

    @classmethod
    def of(
        cls, budget: Budget | None, path: StepPath, journal: Journal, *, is_turn: bool = False
    ) -> StepMeter | None:
        """Return the meter of an attempt of the step at `path`; None when no limit counts requests."""
        if budget is None or not budget.counts:
            return None
        reserving = partial(_reserve_shared, budget, path, journal)
        return cls(budget, path, journal.hold, journal.announce, reserving, is_turn)

    @property
    def bounds_answers(self) -> bool:
        """Whether every request must limit the length of its answer."""
        return self.budget.bounds_answers

    @property
    def refuses_unpriced(self) -> bool:
        """Whether requests of unknown price are refused."""
        return self.budget.refuses_unpriced

    async def reserve(self, worst: Usage) -> Reserved:
        """Reserve room for a request; the hold is durable when this returns.

        Raises:
            UsageLimitExceeded: a limit has no room.
            BudgetAsked: a budget of several runs has none, and its rule pauses the step.
            NoFurtherTurn: such a budget has room for a last request, and for no turn before it.
            Fenced: another process executes this run now.
        """
        await self.budget.count_ended_tasks(worst)
        self.budget.reserve(self.path, worst)
        self._open += worst
        reserved = Reserved(self, worst)
        try:
            await self._hold(worst if self.is_turn else NOTHING)
        except BaseException:
            reserved.settle(NOTHING)  # the request will not be sent
            raise
        return reserved

    async def call_tools(self, count: int) -> None:
        """Count tool calls; the count is durable when tool calls are limited."""
        called = Usage(tool_calls=count)
        await self.budget.count_ended_tasks(called)
        self.budget.reserve(self.path, called)
        self.budget.release(called)
        self._use(called)
        if self.budget.limits_tool_calls:
            await self._hold()

    def release(self, worst: Usage, used: Usage, *, lost: Usage = NOTHING) -> None:
        """End a request that was reserved at `worst`: charge its known usage, and hold the unknown rest."""
        self._open = self._open.beyond(worst)
        self._lost += lost
        self.budget.release(worst.beyond(lost))
        self._use(used)

    def close(self, total: Usage) -> None:
        """End the attempt with a usage of `total`; its hold is settled in the same commit as its entry.

        Unknown usage stays held. Usage that bypassed the meter is charged now.
        """
        self.budget.charge(self.path, total.beyond(self.used))
        self._lost, self._open = self._lost + self._open, NOTHING
        if self._number or (total and self.budget.shares):
            state = HoldState.UNCONFIRMED if self._lost else HoldState.SETTLED
            self.keep(replace(self._held_as(state, self._lost), used=total))

    async def _hold(self, spare: Usage = NOTHING) -> None:
        hold = self._held_as(HoldState.HELD, self.used + self._lost + self._open)
        if hold.shares:
            await self.reserve_shared(replace(hold, spare=spare))
            return
        self.keep(hold)
        await self.announce()

    def _held_as(self, state: HoldState, usage: Usage) -> Hold:
        self._number = self._number or self.budget.hold_number(self.path)
        return Hold(path=self.path, number=self._number, state=state, usage=usage, shares=self.budget.shares)

    def _use(self, used: Usage) -> None:
        self.used += used
        self.budget.charge(self.path, used)


@dataclass(slots=True)
class Reserved:
    """The port `Reservation` for one request. It ends once."""

    meter: StepMeter
    worst: Usage
    _is_over: bool = False

    def settle(self, used: Usage) -> None:
        """Release the reservation, and count the actual usage."""
        if not self._is_over:
            self._is_over = True
            self.meter.release(self.worst, used)

    def lose(self, known: Usage) -> None:
        """Count the known usage, and keep room for the unknown rest."""
        if not self._is_over:
            self._is_over = True
            self.meter.release(self.worst, known, lost=self.worst.beyond(known))
