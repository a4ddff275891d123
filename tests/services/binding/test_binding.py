"""Binding: everything that a tree names is found before anything runs."""

from __future__ import annotations

import pytest

from flujo.domain.steps import (
    BaseStep,
    CallableRef,
    DynamicParallelRouterStep,
    Expr,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
    Transition,
)
from flujo.exceptions import CallableError
from flujo.services.binding.binding import PipelineBinding
from flujo.services.workspace import agent_settings
from flujo.settings import load
from support import pipeline

NOWHERE = CallableRef("nowhere:thing")


@pytest.mark.parametrize(
    "step",
    [
        MapStep(name="s", over=NOWHERE, body=pipeline()),
        MapStep(name="s", over=Expr("input"), body=pipeline(), merge=NOWHERE),
        ParallelStep(name="s", branches={"a": pipeline()}, merge=NOWHERE),
        DynamicParallelRouterStep(name="s", router=NOWHERE, branches={"a": pipeline()}),
        StateMachineStep(
            name="s",
            initial="a",
            states={"a": State(pipeline(), (Transition("b", NOWHERE),)), "b": State(pipeline())},
            final=("b",),
        ),
        ParallelStep(name="p", branches={"a": pipeline(MapStep(name="s", over=NOWHERE, body=pipeline()))}),
    ],
    ids=["over", "merge of a map", "merge", "router", "guard", "inside a branch"],
)
def test_a_callable_that_cannot_be_had_is_found_wherever_the_tree_names_it(step: BaseStep) -> None:
    with pytest.raises(CallableError, match="nowhere:thing"):
        PipelineBinding(allow_callables=(), agent_settings=agent_settings(load())).bind(pipeline(step))
