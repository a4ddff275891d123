"""What each step does, in a few words: drawings, listings and stories say it with the same ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flujo.domain.agents import AgentSpec
from flujo.domain.steps import (
    CacheStep,
    ConditionalStep,
    DynamicParallelRouterStep,
    Expr,
    GranularStep,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    StateMachineStep,
    Step,
    Text,
    TreeSearchStep,
)

if TYPE_CHECKING:
    from flujo.domain.steps import BaseStep, CallableRef, Logic, Value


def logic(value: Logic) -> str:
    """Return an expression's source, or the callable's name."""
    return value.source if isinstance(value, Expr) else value.target


def text(value: Value) -> str:
    """Return a value as its author wrote it, in one line."""
    return " ".join((value.source if isinstance(value, Text) else json.dumps(_plain(value))).split())


def answerer(who: AgentSpec | CallableRef | None) -> str:
    """Return who answers: the agent and its model, or the callable."""
    if isinstance(who, AgentSpec):
        return f"{who.name} ({who.model})"
    return who.target if who is not None else "nobody"


def gist(step: BaseStep) -> str:
    """Return what a step does, without its name."""
    match step:
        case Step(agent=AgentSpec() as agent) | GranularStep(agent=agent):
            return f"asks {answerer(agent)}"
        case Step(call=call):
            return f"calls {answerer(call)}"
        case HumanInTheLoopStep(message=message):
            return f"asks a human: {text(message)}"
        case ImportStep(blueprint=blueprint):
            return f"runs {blueprint}"
        case CacheStep():
            return "from the cache when it was asked the same before"
        case TreeSearchStep(propose=propose, evaluate=evaluate):
            return f"searches what {answerer(propose)} proposes, judged by {answerer(evaluate)}"
        case _:
            return _way(step)


def _way(step: BaseStep) -> str:
    """Return which way a composite goes, and how often."""
    match step:
        case ConditionalStep(form=form, condition=condition):
            return f"{'if' if form == 'if' else 'by'} {logic(condition)}"
        case LoopStep(until=until, max_iterations=most):
            return f"until {logic(until)}, at most {most} times"
        case StateMachineStep(initial=initial, final=final):
            return f"from {initial} to {' or '.join(final)}"
        case MapStep(over=over, max_concurrency=most):
            return f"for each of {logic(over)}, {most} at a time"
        case DynamicParallelRouterStep(router=router):
            return f"the branches that {answerer(router)} picks"
        case ParallelStep():
            return "all branches at once"
        case _:
            return step.kind


def _plain(value: Value) -> Any:
    match value:
        case Text(source=source):
            return source
        case tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case _:
            return value
