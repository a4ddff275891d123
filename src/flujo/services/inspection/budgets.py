"""What the runs of each rule of `[[budgets.rule]]` have used in the window of now, and where that leads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.shared_budgets import Counted, counter
from flujo.domain.usage import MICRO_USD
from flujo.domain.wording import suggest
from flujo.exceptions import DatabaseMissing, InputRejected
from flujo.services.checks.budget_rules import require_blueprints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.shared_budgets import BudgetRule
    from flujo.services.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """One limit of a rule, for one scope, in the window of now. Amounts are dollars, tokens or requests."""

    rule: str
    scope: str
    """A JSON object; empty when the rule has one amount for all its runs."""
    limit: str
    """The name of the limit: `total_cost_usd_limit`, `total_tokens_limit` or `requests_limit`."""
    allowed: float
    used: float
    held: float
    """For requests in progress, and for those of processes that died before they were resumed."""
    left: float
    """What is neither used nor held."""
    forecast: float | None
    """The usage at the end of the window if it continues as in the window so far; None without a window."""
    window_starts_at: int | None
    """Seconds since the epoch; None without a window."""
    window_ends_at: int | None


async def budget_states(workspace: Workspace, rule: str | None = None) -> list[BudgetState]:
    """Return the state of every rule, or of one; a scope is listed once a run of it was counted.

    Raises:
        InputRejected: there is no such rule.
        SettingsError: a rule names a blueprint that does not exist.
    """
    rules = workspace.project.settings.budgets.rules
    names = [each.name for each in rules]
    if rule is not None and rule not in names:
        raise InputRejected(
            f"flujo.toml has no rule {rule!r}",
            hint=suggest(rule, names, what="there are") or "write it as [[budgets.rule]]",
        )
    require_blueprints(workspace.project)
    counted, now = await _counted(workspace) if rules else ((), 0.0)
    return [state for each in rules if rule in (None, each.name) for state in _states(each, counted, now)]


async def _counted(workspace: Workspace) -> tuple[Sequence[Counted], float]:
    """Return the counters, and the time of the database: its clock begins the windows."""
    try:
        store = await workspace.store()
        return await store.budget_counters(), await store.now()
    except DatabaseMissing:
        if workspace.project.is_outside:
            raise
        return (), workspace.clock.now()  # the first run creates it


def _states(rule: BudgetRule, counted: Sequence[Counted], now: float) -> list[BudgetState]:
    start = rule.window.start(now)
    states = []
    for limit, most in rule.limits.given():
        name = counter(rule.name, limit)
        found = [each for each in counted if each.name == name and each.window == start]
        unused = [] if rule.per else [Counted(name=name, scope="{}", window=start, used=0, held=0)]
        for each in found or unused:
            states.append(_state(rule, limit, most, each, now))
    return states


def _state(rule: BudgetRule, limit: str, most: float, counted: Counted, now: float) -> BudgetState:
    unit = MICRO_USD if limit == "total_cost_usd_limit" else 1
    used, held = counted.used / unit, counted.held / unit
    end = rule.window.end(counted.window)
    forecast = None
    if end is not None:
        passed = max(now - counted.window, 1.0)
        forecast = round(used / passed * (end - counted.window), 6)
    return BudgetState(
        rule=rule.name,
        scope="" if counted.scope == "{}" else counted.scope,
        limit=limit,
        allowed=most,
        used=used,
        held=held,
        left=max(0.0, round(most - used - held, 6)),
        forecast=forecast,
        window_starts_at=None if end is None else counted.window,
        window_ends_at=end,
    )
