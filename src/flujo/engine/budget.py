"""The budget of a run or of a part of it: room is reserved before the first await, so none is overspent."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flujo.domain import paths
from flujo.domain.commands import command
from flujo.domain.ledger import Hold, HoldState, Ledger
from flujo.domain.paths import ROOT, StepPath, step_of
from flujo.domain.usage import NOTHING, Usage, UsageLimits, amount, format_amount
from flujo.exceptions import SharedBudgetExceeded, UsageLimitExceeded

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from flujo.domain.journal import ErrorInfo
    from flujo.domain.shared_budgets import Share

_TOP = 3
"""The number of steps with the largest usage that an error lists."""


class Budget:
    """The limits and the usage of a run or of a part of it.

    Budgets are nested: that of an imported blueprint is inside that of its run. Reservations, charges and
    releases count in every enclosing budget, and a reservation needs room in all of them.

    Args:
        limits: the limits of this part.
        now: returns monotonic seconds.
        ledger: the usage of this part in earlier executions of the run.
        path: the part: the step at this path and the steps inside it.
        around: the enclosing budget.
        read: returns the ledger of the run as it is now; it tells which background tasks have ended.
        shares: the budgets of several runs that the run counts in; only for the run itself.
        raised: limits of the run that a person has set for it, instead of those of its own body.
    """

    def __init__(
        self,
        limits: UsageLimits,
        *,
        now: Callable[[], float],
        ledger: Ledger | None = None,
        path: StepPath = ROOT,
        around: Budget | None = None,
        read: Callable[[], Awaitable[Ledger]] | None = None,
        shares: Sequence[Share] = (),
        raised: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.limits = limits
        self._shares = tuple(shares)
        self._raised = raised
        self.path = path
        self.spent = NOTHING
        self.clock: asyncio.Timeout | None = None
        """The timeout that ends this part at its limit of work time."""
        self.held = NOTHING
        """The reservations of requests in progress, and of requests that may or may not have been made."""
        self._now = now
        self._ledger = ledger or Ledger()
        self._around = around
        self._where: dict[StepPath, Usage] = {}
        self._parts: dict[StepPath, Budget] = {}
        self._numbers: dict[StepPath, int] = {}
        self._lent: dict[StepPath, Usage] = {}
        """What is held for background tasks that have not ended, by the paths of their launches."""
        self._read = read
        self._breach: UsageLimitExceeded | None = None
        self._worked_s, self._began = self._ledger.worked_s, now()
        for spending in self._ledger.spendings:
            self._note(step_of(spending.path), spending.usage)
            self._numbers[step_of(spending.path)] = self._numbers.get(step_of(spending.path), 0) + 1
        for hold in self._ledger.holds:
            self.held += hold.usage
            self._numbers[hold.path] = max(hold.number, self._numbers.get(hold.path, 0) + 1)
        for task in self._ledger.tasks:
            self._lend(task.path, task.usage)
        self._settle(self._ledger)

    @property
    def breach(self) -> UsageLimitExceeded | None:
        """The limit that was hit, here or in an enclosing budget; no step under it continues."""
        return next((budget._breach for budget in self._chain() if budget._breach), None)

    @property
    def unconfirmed(self) -> Usage:
        """The reservations without those for background tasks."""
        return self.held.beyond(sum(self._lent.values(), NOTHING))

    @property
    def shares(self) -> tuple[Share, ...]:
        """The budgets of several runs that the run counts in."""
        return list(self._chain())[-1]._shares

    @property
    def counts(self) -> bool:
        """Whether requests are reserved, which a limit on time alone does not need."""
        return any(limits.count for limits in self._all_limits())

    @property
    def bounds_answers(self) -> bool:
        """Whether every request must limit the length of its answer."""
        return any(limits.bound_answers for limits in self._all_limits())

    @property
    def refuses_unpriced(self) -> bool:
        """Whether requests of unknown price are refused."""
        return any(limits.refuses_unpriced for limits in self._all_limits())

    @property
    def limits_tool_calls(self) -> bool:
        """Whether tool calls are counted before they happen."""
        return any(budget.limits.tool_calls_limit is not None for budget in self._chain())

    @property
    def left_s(self) -> float | None:
        """The remaining seconds of work for this part; None without its own limit."""
        limit = self.limits.wall_time_s_limit
        return None if limit is None else limit - self._worked_s - (self._now() - self._began)

    def inside(self, path: StepPath, limits: UsageLimits) -> Budget:
        """Return the budget of the part at `path`, the same one for all its attempts."""
        if path == ROOT:
            given: dict[str, Any] = {name: self._raised.get(name, most) for name, most in limits.given()}
            limits = replace(limits, **given)
        if path not in self._parts:
            self._parts[path] = Budget(
                limits, now=self._now, ledger=self._ledger.below(path), path=path, around=self
            )
        return self._parts[path]

    def reserve(self, path: StepPath, worst: Usage) -> None:
        """Reserve room for the largest possible usage of a request of the step at `path`.

        Raises:
            UsageLimitExceeded: a limit has no room; nothing is reserved.
        """
        if (full := self._full_for(worst)) is not None:
            budget, passed = full
            raise budget._exceeded(passed, worst, path)
        for budget in self._chain():
            budget.held += worst

    def has_room(self, worst: Usage) -> bool:
        """Return whether each limit has room for a usage."""
        return self._full_for(worst) is None

    def lend(self, path: StepPath, most: Usage) -> None:
        """Reserve room for what the background task of a launch may use, until the task has ended.

        Raises:
            UsageLimitExceeded: a limit has no room; nothing is reserved.
        """
        self.reserve(path, most)
        self.release(most)
        for budget in self._chain():
            budget._lend(path, most)

    def take_back(self, path: StepPath) -> None:
        """Release the room of a launch that did not happen."""
        for budget in self._chain():
            budget.held = budget.held.beyond(budget._lent.pop(path, NOTHING))

    async def count_ended_tasks(self, worst: Usage) -> None:
        """When a request has no room, count what the tasks that have ended meanwhile have really used."""
        outermost = list(self._chain())[-1]
        if not outermost._lent or outermost._read is None or self._full_for(worst) is None:
            return
        now = await outermost._read()
        for budget in outermost._with_parts():
            budget._settle(now)

    def refuse(self, path: StepPath, error: SharedBudgetExceeded) -> None:
        """Note that a budget of several runs has no room: no step of the run continues."""
        error.step = path
        outermost = list(self._chain())[-1]
        outermost._breach = outermost._breach or error

    def begin_ending(self) -> None:
        """Let steps at the end of the run begin, also after a limit was hit; it still refuses requests."""
        self._breach = None

    def release(self, held: Usage) -> None:
        """Release a reservation."""
        for budget in self._chain():
            budget.held = budget.held.beyond(held)

    def charge(self, path: StepPath, used: Usage) -> None:
        """Count the usage of the step at `path`."""
        if used:
            for budget in self._chain():
                budget._note(path, used)

    def hold_number(self, path: StepPath) -> int:
        """Return a number for a new hold of a step that none of its holds has had.

        Each ended attempt has an entry with its usage, and each other one an open hold.
        """
        outermost = list(self._chain())[-1]
        outermost._numbers[path] = outermost._numbers.get(path, 0) + 1
        return outermost._numbers[path]

    @property
    def is_out_of_time(self) -> bool:
        """Whether this part, or an enclosing one, has reached its limit of work time."""
        return any(budget.clock is not None and budget.clock.expired() for budget in self._chain())

    def out_of_time(self, step: StepPath) -> UsageLimitExceeded:
        """Return the error of a step that this part's or an enclosing part's time limit has ended."""
        over = (budget for budget in self._chain() if budget.clock is not None and budget.clock.expired())
        return next(over, self)._over(step)

    def remember(self, path: StepPath, error: ErrorInfo) -> None:
        """Restore a limit that was hit in an earlier execution, in the budget of the part at `path`."""
        owner = next((budget for budget in self._chain() if budget.path == path), self)
        kind = SharedBudgetExceeded if error.code == SharedBudgetExceeded.code else UsageLimitExceeded
        owner._breach = kind(error.message, hint=error.hint, step=error.path, budget=path)

    def _over(self, step: StepPath) -> UsageLimitExceeded:
        limit = self.limits.wall_time_s_limit
        return self._hit(
            f"{self._whose} allows {limit:g} s of work, which are used up",
            "wall_time_s_limit",
            step=step,
            allowed=limit,
        )

    def _hit(self, message: str, limit: str, *, step: StepPath, **facts: Any) -> UsageLimitExceeded:
        error = UsageLimitExceeded(
            message, hint=_hint(limit), limit=limit, step=step, budget=self.path, **facts
        )
        self._breach = self._breach or error
        return error

    def _chain(self) -> Iterator[Budget]:
        budget: Budget | None = self
        while budget is not None:
            yield budget
            budget = budget._around

    def _all_limits(self) -> Iterator[UsageLimits]:
        yield from (budget.limits for budget in self._chain())
        yield from (share.limits for share in self.shares)

    def _with_parts(self) -> Iterator[Budget]:
        yield self
        for part in self._parts.values():
            yield from part._with_parts()

    def _full_for(self, worst: Usage) -> tuple[Budget, str] | None:
        """Return the first budget without room for a usage, and the name of its limit."""
        for budget in self._chain():
            passed = budget.limits.passed_by(budget.spent + budget.held, worst)
            if passed is not None:
                return budget, passed
        return None

    def _lend(self, path: StepPath, most: Usage) -> None:
        self._lent[path] = most
        self.held += most

    def _settle(self, now: Ledger) -> None:
        """Count the usage of ended tasks instead of what was lent to them."""
        for task in now.tasks:
            if task.state is HoldState.SPENT and task.path in self._lent:
                self.held = self.held.beyond(self._lent.pop(task.path))
                self._note(step_of(task.path), task.usage)
        self._ledger = replace(self._ledger, tasks=now.below(self.path).tasks)

    def _note(self, path: StepPath, used: Usage) -> None:
        self.spent += used
        self._where[path] = self._where.get(path, NOTHING) + used

    @property
    def _whose(self) -> str:
        return f"the budget of `{paths.shown(self.path)}`" if self.path else "the run's budget"

    def _exceeded(self, name: str, worst: Usage, path: StepPath) -> UsageLimitExceeded:
        """Return the error, with the limit, its usage, and the steps with the largest usage."""
        allowed = dict(self.limits.given())[name]
        where = self._spent_where(name)

        def shown(used: Usage) -> str:
            return format_amount(name, amount(name, used))

        held = f" and up to {shown(self.held)} held" if amount(name, self.held) else ""
        most = ", ".join(f"`{paths.shown(path)}` {shown(used)}" for path, used in where)
        return self._hit(
            f"{self._whose} allows {format_amount(name, allowed)} (`{name}`): {shown(self.spent)} used"
            f"{held}, and the next request may need {shown(worst)}{f'; used by {most}' if most else ''}",
            name,
            step=path,
            allowed=allowed,
            spent=self.spent,
            held=self.held,
            needed=worst,
            where=where,
        )

    def _spent_where(self, name: str) -> tuple[tuple[StepPath, Usage], ...]:
        """Return the steps with the largest usage toward a limit, and their usage."""
        counted = [(path, used) for path, used in self._where.items() if amount(name, used)]
        counted.sort(key=lambda each: (-amount(name, each[1]), each[0]))
        return tuple(counted[:_TOP])


def _hint(name: str) -> str:
    return (
        f"raise `{name}` where it is set (`budget:`, [budgets], `UsageLimits`) and continue with "
        "`flujo resume --retry-failed`; if the blueprint was changed, add `--accept-changes`. For this run "
        f"alone: `{command('flujo', 'resume', 'RUN', '--set', f'budget.{name}=AMOUNT')}`"
    )


def unconfirmed(ledger: Ledger) -> list[Hold]:
    """Return the open holds of an interrupted execution, as unconfirmed."""
    return [
        replace(hold, state=HoldState.UNCONFIRMED) for hold in ledger.holds if hold.state is HoldState.HELD
    ]
