"""Walks a blueprint without executing it, and adds up what its agents may ask."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.agents.conversation import MOST_REQUESTS
from flujo.agents.list_prices import longest_answer
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.paths import ROOT, StepPath, branch, child
from flujo.domain.pipeline import FALLBACK, ends_early
from flujo.domain.values import Expr
from flujo.services.forecast.parts import UNKNOWN, AgentForecast, Amounts, Part, in_order, one_of
from flujo.services.forecast.prompts import UNKNOWN_TOKENS, Known, bytes_of_tokens, tokens_of
from flujo.services.forecast.spans import ONE, Span, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flujo.domain.pipeline import BaseStep, Conversation, Pipeline
    from flujo.domain.usage import UsageLimits
    from flujo.domain.values import CallableRef

    Price = Callable[[str, tuple[int, int]], int | None]
    """Returns the cost of a request to a model with these tokens; None if its price is unknown."""

_TOKENS_OF_A_TOOL = Span(20, 400)
"""What the description of a tool may add to a request."""
_TOKENS_OF_A_CALL = 5
"""The least tokens of a call in an answer: its name, and its arguments as an object."""


@dataclass(slots=True)
class Walk:
    """Adds up the requests of a blueprint.

    Args:
        price: returns the cost of a request.
        known: what is known before the run.
        is_agent: returns whether a callable is an agent in Python, and not a function.
        most_calls: how many calls of tools the budgets around allow; None: any number.
    """

    price: Price
    is_agent: Callable[[CallableRef], bool] = lambda _ref: False
    known: Known = field(default_factory=Known)
    most_calls: int | None = None

    def body(self, pipeline: Pipeline, path: StepPath = ROOT) -> Part:
        """Return the forecast of the steps of a body, one after another."""
        parts: list[Part] = []
        is_reached = True
        with self._limited(pipeline.budget):
            for step in pipeline.steps:
                part = self._step(step, child(path, step.name))
                parts.append(part if is_reached else part.or_nothing())
                is_reached = is_reached and not ends_early(step)
                self.known.after(step.name, *_output(step))
            for name, inner in pipeline.endings().items():
                parts.append(self.body(inner, branch(path, name)).or_nothing())
        return in_order(parts).within(pipeline.budget)

    def _step(self, step: BaseStep, path: StepPath) -> Part:
        attempts = Span(1, 1 + step.config.max_retries)
        conversations = list(step.conversations())
        asked = in_order(self._conversation(each, path) for each in conversations)
        part = (asked + self._inside(step, path)).times(attempts)
        for name, body in step.bodies().items():
            with self._limited(step.config.budget):
                if name == FALLBACK:
                    part += self._nested(body, child(path, FALLBACK)).or_nothing()
                elif step.is_tool(name):
                    calls = total(_calls(each) for each in conversations).times(attempts)
                    part += self._nested(body, path).times(calls.within(self.most_calls))
        if step.when is not None or step.policy is not None:
            part = part.or_nothing()
        return part.within(step.config.budget)

    def _inside(self, step: BaseStep, path: StepPath) -> Part:
        """Return the forecast of the bodies, except a fallback and tools."""
        extent, is_apart = step.extent, step.imported is not None
        bodies = [
            self._nested(body, branch(path, name) if step.names_bodies else path, is_apart=is_apart)
            for name, body in step.bodies().items()
            if name != FALLBACK and not step.is_tool(name)
        ]
        part = one_of(bodies) if extent.way == "one" else in_order(bodies)
        if extent.way == "some":
            part = part.or_nothing()
        counted = self.known.count_of(extent.over.source) if isinstance(extent.over, Expr) else None
        return part.times(Span(extent.least, extent.most) if counted is None else counted)

    @contextmanager
    def _limited(self, budget: UsageLimits | None) -> Iterator[None]:
        """Bound the calls of tools by a budget too."""
        around = self.most_calls
        limits = (around, None if budget is None else budget.tool_calls_limit)
        self.most_calls = min((each for each in limits if each is not None), default=None)
        try:
            yield
        finally:
            self.most_calls = around

    def _nested(self, pipeline: Pipeline, path: StepPath, *, is_apart: bool = False) -> Part:
        """Return the forecast of a body, whose steps see more names than are known.

        Args:
            pipeline: the body.
            path: its path.
            is_apart: whether it has an input of its own.
        """
        outer = self.known
        self.known = Known(input_schema=pipeline.input_schema) if is_apart else outer.inside()
        try:
            return self.body(pipeline, path)
        finally:
            self.known = outer

    def _conversation(self, talk: Conversation, path: StepPath) -> Part:
        where = child(path, talk.name) if talk.name else path
        specs = talk.who.one_of.values() if isinstance(talk.who, OneOf) else (talk.who,)
        return one_of(self._asked(who, talk, where) for who in specs).times(Span(talk.least, talk.most))

    def _asked(self, who: AgentSpec | CallableRef, talk: Conversation, path: StepPath) -> Part:
        """Return the requests of one conversation; of an agent in Python, nothing is known."""
        if not isinstance(who, AgentSpec):
            if not self.is_agent(who):
                return Part()
            return Part((AgentForecast(path, who.target, "", UNKNOWN, is_priced=False),), UNKNOWN)
        requests = Span(1, _most_requests(who, talk.turns))
        first, is_assumed = self._first_request(who, talk)
        answer = longest_answer(who.model, who.model_settings)
        per_request = _with_history(first, answer, requests, talk.history)
        cost = self._cost(who.model, first, per_request, answer)
        amounts = Amounts(
            requests,
            Span(first.least, _product(requests.most, per_request)),
            Span(1, _product(requests.most, answer)),
            Span(cost[0], _product(requests.most, cost[1])),
        )
        is_priced = self.price(who.model, (1, 1)) is not None
        return Part((AgentForecast(path, who.name, who.model, amounts, is_priced, is_assumed),), amounts)

    def _first_request(self, who: AgentSpec, talk: Conversation) -> tuple[Span, bool]:
        """Return the tokens of the first request, and whether a part of them is assumed."""
        schema = who.output_schema if talk.schema is None else talk.schema
        found, is_assumed = tokens_of((talk.input, who.instructions), (schema,), self.known)
        if talk.input is None:  # it gets the output of the step before
            size = self.known.previous
            if size is None or size.most is None:
                return found + Span(0, UNKNOWN_TOKENS) + self._tools(who), True
            found += Span(0, size.most)
        return found + self._tools(who), is_assumed

    def _tools(self, who: AgentSpec) -> Span:
        return _TOKENS_OF_A_TOOL.times(Span(len(who.tools), len(who.tools)))

    def _cost(
        self, model: str, first: Span, per_request: int | None, answer: int | None
    ) -> tuple[int, int | None]:
        least = self.price(model, (first.least, 1))
        if least is None:
            return 0, None
        if self.price(model, (10**6, 10**6)) == 0:
            return 0, 0
        if per_request is None or answer is None:
            return least, None
        return least, self.price(model, (per_request, answer))


def _most_requests(who: AgentSpec, turns: int | None) -> int:
    """Return how many requests an attempt makes at most."""
    if turns is not None:
        return turns
    corrections = 1 if who.retries is None else who.retries
    may_correct = who.output_schema is not None or who.output_type is not None
    return MOST_REQUESTS if who.tools else 1 + (corrections if may_correct else 0)


def _with_history(first: Span, answer: int | None, requests: Span, history: int | None) -> int | None:
    """Return the most tokens of one request, averaged over an attempt whose conversation grows.

    Each request has the messages before it: an answer, and the results of its tools.
    """
    if first.most is None or requests.most is None:
        return None
    if requests.most == ONE.most:
        return first.most
    if answer is None:
        return None
    if history is not None:
        return int(first.most + min(history, (requests.most - 1) * (answer + UNKNOWN_TOKENS)))
    return first.most + (requests.most - 1) * (answer + UNKNOWN_TOKENS) // 2


def _product(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one * other


def _calls(talk: Conversation) -> Span:
    """Return how many calls of one tool a conversation in turns has.

    A turn may have as many calls as fit in its answer, and one if the settings of the model say so.
    """
    most: int | None = 0
    for who in talk.who.one_of.values() if isinstance(talk.who, OneOf) else (talk.who,):
        settings = who.model_settings if isinstance(who, AgentSpec) else {}
        answer = longest_answer(who.model, settings) if isinstance(who, AgentSpec) else None
        if settings.get("parallel_tool_calls") is False:
            in_turn: int | None = 1
        else:
            in_turn = None if answer is None else max(1, answer // _TOKENS_OF_A_CALL)
        most = None if most is None or in_turn is None else max(most, in_turn)
    return Span(0, _product(most, talk.turns)).times(Span(talk.least, talk.most))


def _output(step: BaseStep) -> tuple[Span | None, Any]:
    """Return how long the output of a step is, and its schema; None for what is not known."""
    who, processors = getattr(step, "agent", None), getattr(step, "processors", None)
    is_changed = FALLBACK in step.bodies() or (processors is not None and processors.output)
    if not isinstance(who, AgentSpec) or is_changed:
        return None, None
    own = getattr(step, "output_schema", None)
    schema = who.output_schema if own is None else own
    return bytes_of_tokens(longest_answer(who.model, who.model_settings)), schema
