"""The forecast of a part of a blueprint: requests, tokens and cost of each of its agents, and their sums."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flujo.services.forecast.spans import NOTHING, Span, any_of, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flujo.domain.paths import StepPath
    from flujo.domain.usage import UsageLimits


@dataclass(frozen=True, slots=True)
class Amounts:
    """Requests to models, their tokens, and their cost in millionths of a dollar."""

    requests: Span = NOTHING
    input_tokens: Span = NOTHING
    output_tokens: Span = NOTHING
    cost: Span = NOTHING

    def _each(self) -> tuple[Span, ...]:
        return (self.requests, self.input_tokens, self.output_tokens, self.cost)

    def __add__(self, other: Amounts) -> Amounts:
        pairs = zip(self._each(), other._each(), strict=True)
        return Amounts(*(one + another for one, another in pairs))

    def times(self, count: Span) -> Amounts:
        """Return the sum of `count` such amounts."""
        return Amounts(*(each.times(count) for each in self._each()))

    def or_nothing(self) -> Amounts:
        """Return these amounts, or nothing."""
        return Amounts(*(each.or_nothing() for each in self._each()))

    def within(self, limits: UsageLimits | None) -> Amounts:
        """Return what a budget leaves of it: a request beyond the budget is not made."""
        if limits is None:
            return self
        most, tokens = limits.most, limits.total_tokens_limit
        return Amounts(
            self.requests.within(limits.requests_limit),
            self.input_tokens.within(tokens),
            self.output_tokens.within(tokens),
            self.cost.within(None if limits.total_cost_usd_limit is None else most.cost_micro_usd),
        )


UNKNOWN = Amounts(*(Span(0, None),) * 4)
"""Of an agent in Python, which may make any requests."""


@dataclass(frozen=True, slots=True)
class AgentForecast:
    """What one agent asks at one path, in all executions of the step."""

    path: StepPath
    agent: str
    """Its name, or the reference of an agent in Python."""
    model: str
    """Empty for an agent in Python."""
    amounts: Amounts
    is_priced: bool = True
    """Whether the price of the model is known; not of an agent in Python."""
    is_assumed: bool = False
    """Whether a prompt has values of unknown length."""


@dataclass(frozen=True, slots=True)
class Part:
    """The agents of a part of a blueprint, and their sum."""

    agents: tuple[AgentForecast, ...] = ()
    amounts: Amounts = field(default_factory=Amounts)

    def __add__(self, other: Part) -> Part:
        return Part((*self.agents, *other.agents), self.amounts + other.amounts)

    def times(self, count: Span) -> Part:
        """Return `count` executions of it."""
        return self._scaled(lambda each: each.times(count))

    def or_nothing(self) -> Part:
        """Return it where it may be left out."""
        return self._scaled(Amounts.or_nothing)

    def within(self, limits: UsageLimits | None) -> Part:
        """Return it under a budget, which limits the sum; the agents keep their own numbers."""
        return replace(self, amounts=self.amounts.within(limits))

    def _scaled(self, scale: Callable[[Amounts], Amounts]) -> Part:
        agents = tuple(replace(each, amounts=scale(each.amounts)) for each in self.agents)
        return Part(agents, scale(self.amounts))


def in_order(parts: Iterable[Part]) -> Part:
    """Return parts that are all executed."""
    found = list(parts)
    sums = [each.amounts for each in found]
    return Part(
        tuple(agent for each in found for agent in each.agents),
        Amounts(
            total(each.requests for each in sums),
            total(each.input_tokens for each in sums),
            total(each.output_tokens for each in sums),
            total(each.cost for each in sums),
        ),
    )


def one_of(parts: Iterable[Part]) -> Part:
    """Return parts of which one is executed; without parts, nothing."""
    found = list(parts)
    if len(found) < 2:
        return in_order(found)
    sums = [each.amounts for each in found]
    return Part(
        tuple(agent for each in found for agent in each.or_nothing().agents),
        Amounts(
            any_of(each.requests for each in sums),
            any_of(each.input_tokens for each in sums),
            any_of(each.output_tokens for each in sums),
            any_of(each.cost for each in sums),
        ),
    )
