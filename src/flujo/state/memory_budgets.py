"""Budgets of several runs in memory: the counters, and what each hold has added to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flujo.domain.shared_budgets import Counted
from flujo.state.shared_budgets import Before, Change, Counter, Key, change, exceeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.ledger import Hold
    from flujo.domain.paths import StepPath
    from flujo.exceptions import SharedBudgetExceeded


@dataclass(slots=True)
class MemoryBudgets:
    """The counters of rules, as a database has them in `limits`."""

    _counters: dict[Key, Counter] = field(default_factory=dict)
    _before: dict[tuple[RunId, StepPath, int], Before] = field(default_factory=dict)

    def settle(self, run_id: RunId, holds: Sequence[Hold], now: float) -> None:
        """Count the holds of attempts that have ended."""
        for hold in holds:
            if hold.is_counted:
                self._apply(run_id, self._change(run_id, hold, now))

    def reserve(self, run_id: RunId, hold: Hold, now: float) -> SharedBudgetExceeded | None:
        """Count a hold if all its limits have room; return the error of the first that has none."""
        change = self._change(run_id, hold, now)
        refusal = exceeded(change, self._counters)
        if refusal is None:
            self._apply(run_id, change)
        return refusal

    def counted(self) -> list[Counted]:
        """Return every counter."""
        return [
            Counted(name=name, scope=scope, window=window, used=there.used, held=there.held)
            for (name, scope, window), there in sorted(self._counters.items())
        ]

    def _change(self, run_id: RunId, hold: Hold, now: float) -> Change:
        found = change(hold, self._before.get((run_id, hold.path, hold.number)), now)
        for key in found.keys:
            self._counters.setdefault(key, Counter())
        return found

    def _apply(self, run_id: RunId, change: Change) -> None:
        change.apply(self._counters)
        hold = change.hold
        self._before[run_id, hold.path, hold.number] = Before(hold.state, change.added)
