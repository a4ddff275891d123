"""`flujo resume RUN --set budget.…`: limits that a person has set for one run, as acts on it.

`budget.LIMIT` is a limit of the run, and `budget.RULE.LIMIT` one of a rule in flujo.toml as it counts this
run. The newest act decides. What the run has pinned stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Act, Verb
from flujo.domain.shared_budgets import LIMITS
from flujo.domain.usage import UsageLimits
from flujo.domain.wording import suggest
from flujo.exceptions import InputRejected, SettingsError, SharedBudgetExceeded, UsageLimitExceeded
from flujo.governance.events import read_error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.run import RunRecord
    from flujo.domain.shared_budgets import Share

_ROOT = "budget"
_OF_A_RUN = tuple(each.name for each in fields(UsageLimits) if each.name.endswith("_limit"))
_OUT_OF_BUDGET = (UsageLimitExceeded.code, SharedBudgetExceeded.code)
_FRACTIONS = ("total_cost_usd_limit", "wall_time_s_limit")


@dataclass(frozen=True, slots=True)
class Raised:
    """Limits that were set for one run."""

    own: Mapping[str, float] = field(default_factory=dict)
    """By name, those of the run."""
    rules: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By the name of their rule, those of budgets that several runs share."""

    def __bool__(self) -> bool:
        return bool(self.own or self.rules)

    def with_newer(self, other: Raised) -> Raised:
        """Return these limits with those of a later act."""
        rules = {
            name: {**self.rules.get(name, {}), **other.rules.get(name, {})}
            for name in (*self.rules, *other.rules)
        }
        return Raised({**self.own, **other.own}, rules)

    def limits(self, limits: UsageLimits) -> UsageLimits:
        """Return the limits of the run with these."""
        given: dict[str, Any] = dict(self.own)
        return replace(limits, **given) if given else limits

    def share(self, share: Share) -> Share:
        """Return a rule as it counts this run with these limits; it limits nothing else than before."""
        known = dict(share.limits.given())
        given: dict[str, Any] = {
            name: limit for name, limit in self.rules.get(share.rule, {}).items() if name in known
        }
        return replace(share, limits=replace(share.limits, **given)) if given else share


def parsed(texts: Sequence[str], rules: Collection[str]) -> Raised:
    """Return what the options `--set` say; `rules` are the names of the rules in flujo.toml.

    Raises:
        InputRejected: one of them is not `budget.LIMIT=AMOUNT` or `budget.RULE.LIMIT=AMOUNT`.
    """
    own: dict[str, float] = {}
    of_rules: dict[str, dict[str, float]] = defaultdict(dict)
    for text in texts:
        key, is_set, amount = text.partition("=")
        root, *names = key.split(".")
        if root != _ROOT or not is_set or len(names) not in (1, 2):
            raise InputRejected(
                f"--set {text!r} sets no budget",
                hint="write `budget.LIMIT=AMOUNT`, or `budget.RULE.LIMIT=AMOUNT` for a rule of flujo.toml",
            )
        if len(names) == 1:
            name = _limit(text, names[0], _OF_A_RUN)
            own[name] = _amount(text, name, amount)
            continue
        rule, name = names
        if rule not in rules:
            raise InputRejected(
                f"--set {text!r}: flujo.toml has no rule {rule!r}",
                hint=suggest(rule, rules, what="there are") or "write it as [[budgets.rule]]",
            )
        name = _limit(text, name, LIMITS)
        of_rules[rule][name] = _amount(text, name, amount)
    return Raised(own, dict(of_rules))


def set_act(raised: Raised, record: RunRecord, actor: Actor) -> Act:
    """Return the act of setting limits of a run."""
    return Act(
        verb=Verb.SET,
        actor=actor,
        run_id=record.run_id,
        object=_ROOT,
        before=record.error,
        after=canonical.encode({"own": raised.own, "rules": raised.rules}),
    )


def failed_at_a_limit(record: RunRecord) -> bool:
    """Return whether a run has failed because a budget had no room."""
    return record.error is not None and read_error(record.error).code in _OUT_OF_BUDGET


def of_acts(acts: Iterable[Act]) -> Raised:
    """Return the limits that the acts on a run have set."""
    found = Raised()
    for act in acts:
        if act.verb is Verb.SET and act.after is not None:
            found = found.with_newer(Raised(**canonical.decode(act.after)))
    return found


def _limit(text: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise InputRejected(
            f"--set {text!r}: there is no limit {name!r}", hint=suggest(name, known, what="there are")
        )
    return name


def _amount(text: str, name: str, amount: str) -> float:
    try:
        value: float = float(amount) if name in _FRACTIONS else int(amount)
        Raised({name: value}).limits(UsageLimits())
    except (ValueError, SettingsError):
        kind = "a number" if name in _FRACTIONS else "a whole number"
        raise InputRejected(
            f"--set {text!r}: {amount!r} is not {kind} above 0",
            hint="a limit is an amount above 0, for instance `budget.requests_limit=5`",
        ) from None
    return value
