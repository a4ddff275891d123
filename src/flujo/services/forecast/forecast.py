"""`flujo plan`: what a run will probably cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.agents.list_prices import expected_cost
from flujo.blueprint.sources.signatures import is_agent
from flujo.blueprint.sources.source_files import FileSource
from flujo.domain.usage import MICRO_USD
from flujo.services.forecast.history import History, history_of
from flujo.services.forecast.prompts import UNKNOWN_TOKENS, Known
from flujo.services.forecast.walk import Walk

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.store import StateStore
    from flujo.services.forecast.parts import AgentForecast, Amounts
    from flujo.services.forecast.spans import Span
    from flujo.services.project.project import Project

NOT_GIVEN: Any = object()
"""Instead of an input."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run of a blueprint may spend, from its text, and what recorded runs have spent."""

    blueprint: str
    agents: tuple[AgentForecast, ...]
    amounts: Amounts
    """The sum, within the budgets of the blueprint and of the project."""
    history: History | None

    @property
    def unpriced(self) -> list[StepPath]:
        """The paths of agents whose model has no known price, and of those in Python."""
        return [each.path for each in self.agents if not each.is_priced]

    @property
    def unbounded(self) -> list[StepPath]:
        """The paths of agents for which nothing limits the tokens, though their price is known."""
        return [each.path for each in self.agents if each.is_priced and each.amounts.cost.most is None]

    @property
    def most_usd(self) -> float | None:
        """What a run costs at most: the upper end of recorded runs when they are enough, or else the bound.

        None when nothing bounds it.
        """
        if self.history is not None and self.history.is_enough and self.history.cost_usd is not None:
            return self.history.cost_usd.high
        most = self.amounts.cost.most
        return None if most is None else most / MICRO_USD

    def to_json(self) -> dict[str, Any]:
        """Return the forecast for programs."""
        return {
            "blueprint": self.blueprint,
            "agents": [_agent_data(each) for each in self.agents],
            "total": _amounts_data(self.amounts),
            "unbounded": self.unbounded,
            "unknown_price": self.unpriced,
            "history": None if self.history is None else _history_data(self.history),
            "most_usd": self.most_usd,
            "assumed_tokens_of_unknown_values": UNKNOWN_TOKENS,
        }


async def forecast(
    pipeline: Pipeline, project: Project, *, given: Any = NOT_GIVEN, store: StateStore | None = None
) -> Forecast:
    """Return the forecast of a run. Nothing is executed, and no request is made.

    Args:
        pipeline: the blueprint.
        project: has prices, providers and limits, and the files that show which callables are agents.
        given: the input of the run, or `NOT_GIVEN`.
        store: where earlier runs are recorded, or None.

    Raises:
        StateError: the database cannot be read.
    """
    settings, files = project.settings, FileSource(project.root)
    prices, providers = settings.own_prices, settings.named_providers

    def price(model: str, tokens: tuple[int, int]) -> int | None:
        return expected_cost(model, tokens, prices=prices, providers=providers)

    known = Known(input_schema=pipeline.input_schema)
    if given is not NOT_GIVEN:
        known.input = given
    limits = settings.budgets.limits
    walk = Walk(price, lambda ref: is_agent(ref.target, files), known, limits.tool_calls_limit)
    part = walk.body(pipeline).within(limits)
    history = None if store is None else await history_of(store, pipeline.name)
    return Forecast(pipeline.name, part.agents, part.amounts, history)


def _agent_data(each: AgentForecast) -> dict[str, Any]:
    return {
        "path": each.path,
        "agent": each.agent,
        "model": each.model or None,
        **_amounts_data(each.amounts),
        "price_known": each.is_priced,
        "assumed": each.is_assumed,
    }


def _amounts_data(amounts: Amounts) -> dict[str, Any]:
    return {
        "requests": _span_data(amounts.requests),
        "input_tokens": _span_data(amounts.input_tokens),
        "output_tokens": _span_data(amounts.output_tokens),
        "cost_usd": _span_data(amounts.cost, per=MICRO_USD),
    }


def _span_data(span: Span, per: int = 1) -> list[float | None]:
    ends = (span.least, span.most)
    return [None if each is None else each / per if per > 1 else each for each in ends]


def _history_data(history: History) -> dict[str, Any]:
    figures = {"cost_usd": history.cost_usd, "tokens": history.tokens, "requests": history.requests}
    return {
        "runs": history.runs,
        **{
            name: None
            if each is None
            else {"median": each.median, "p90": each.p90, "interval": [each.low, each.high]}
            for name, each in figures.items()
        },
        "median_tokens_by_step": dict(history.tokens_by_step),
    }
